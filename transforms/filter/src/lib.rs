//! Lets through what an expression is true of, and drops the rest.
//!
//! Settings:
//!
//! ```toml
//! where = 'payload.temperature > 30 and not (topic startsWith "plant/test/")'
//! ```
//!
//! With it `{"temperature":31}` goes through as it came, `{"temperature":29}` is dropped and counted, and
//! `{"pressure":1}` is refused: a missing field is `nil`, and `nil > 30` is neither true nor false. Where fields may
//! be missing, say what stands for them: `(payload.temperature ?? 0) > 30`.
//!
//! The language is [expr](https://expr-lang.org/docs/language-definition), without its times, regular
//! expressions and JSON functions. It knows `payload`, `topic`, `key`, and `time` in microseconds since 1970.

use expr::{Context, Environment, Program, Value};
use headwater_module::{Event, Transform, export_transform};
use serde::Deserialize;

/// Brackets within brackets that an expression may have: its reader goes down into each.
const DEPTH_MAX: usize = 64;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpressionFilter {
    r#where: String,
    #[serde(skip)]
    compiled: Option<(Program, Environment<'static>)>,
}

impl Transform for ExpressionFilter {
    fn prepare(&mut self) -> Result<(), String> {
        let depth = self.r#where.matches(['(', '[', '{', '!', '?']).count();
        if depth > DEPTH_MAX {
            return Err(format!(
                "`where` has {depth} brackets, marks and the like: at most {DEPTH_MAX} are taken"
            ));
        }
        let program = expr::compile(&self.r#where);
        let program =
            program.map_err(|error| format!("failed to read the expression in `where`: {error}"))?;
        self.compiled = Some((program, Environment::new()));
        Ok(())
    }

    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let (program, environment) = self.compiled.as_ref().ok_or("called before `prepare`")?;
        let payload = serde_json::from_slice(&event.payload);
        let payload = payload.map_err(|error| format!("failed to read the payload as JSON: {error}"))?;
        let mut context = Context::default();
        context.insert("payload", value(payload));
        context.insert("topic", event.topic.as_str());
        context.insert("key", event.key.as_str());
        context.insert("time", event.time as i64);
        match environment.run(program, &context) {
            Ok(Value::Bool(wanted)) => Ok(wanted.then_some(event)),
            Ok(other) => Err(format!("`where` is neither true nor false: {:.80}", other.to_string())),
            Err(error) => Err(format!("failed to evaluate `where`: {error:.200}")),
        }
    }
}
export_transform!(ExpressionFilter);

/// Returns the language's value of a JSON value; whole numbers beyond its range become doubles.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, float) => Value::Float(float.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        serde_json::Value::Object(members) => {
            Value::Map(members.into_iter().map(|(name, member)| (name, value(member))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_module::testing::TransformProbe;

    fn filter(expression: &str) -> Result<TransformProbe<ExpressionFilter>, String> {
        TransformProbe::new(&serde_json::json!({ "where": expression }).to_string())
    }

    #[track_caller]
    fn check(expression: &str, payload: &str, expected: Result<bool, &str>) {
        match (filter(expression).unwrap().payloads(payload), expected) {
            (Ok(found), Ok(true)) => assert_eq!(found, [payload]),
            (Ok(found), Ok(false)) => assert!(found.is_empty(), "{found:?}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{expression}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn lets_through_what_the_expression_is_true_of() {
        let warm = r#"payload.temperature > 30 and not (topic startsWith "plant/test/")"#;
        check(warm, r#"{"temperature":31}"#, Ok(true));
        check(warm, r#"{"temperature":30.0}"#, Ok(false));
        check(warm, r#"{"pressure":1}"#, Err("failed to evaluate `where`"));
        check("(payload.temperature ?? 0) > 30", r#"{"pressure":1}"#, Ok(false));
        check(r#"key == "k" && topic == "t" && time >= 1767225600000000"#, "1", Ok(true));
        check(r#"payload.a.b[1] in ["x", "y"]"#, r#"{"a":{"b":[0,"y"]}}"#, Ok(true));
        check(r#"any(payload.list, {# > 2})"#, r#"{"list":[1,2,3]}"#, Ok(true));
        check("payload.n == 1.8446744073709552e19", r#"{"n":18446744073709551615}"#, Ok(true));
    }

    #[test]
    fn refuses_what_is_neither_true_nor_false() {
        check("payload.a", r#"{"a":1}"#, Err("neither true nor false: 1"));
        check("payload.a > 1", r#"{"a":"text"}"#, Err("failed to evaluate"));
        check("true", "{", Err("failed to read the payload as JSON"));
        check("temperature > 1", r#"{"temperature":2}"#, Err("unknown variable: temperature"));
    }

    #[test]
    fn refuses_expressions_that_are_none_and_those_too_deep() {
        let fault = |expression: &str| filter(expression).unwrap_err();
        assert!(fault("payload.a >").contains("failed to read the expression in `where`"));
        assert!(fault("").contains("failed to read"));
        assert!(fault(&"(".repeat(100_000)).contains("at most 64"));
    }

    #[test]
    fn whatever_comes_it_answers() {
        let samples: [&[u8]; 2] = [br#"{"a":{"b":[1,2.5,"x",null]},"n":-9223372036854775808}"#, b"[true]"];
        for expression in [
            "payload.a.b[0] / payload.n > 0 or payload.n % (payload.a.b[0] ?? 0) == 1",
            "payload.n * payload.n - 1 == abs(payload.n)",
            "len(payload.a.b) > 1 and sum(filter(payload.a.b, {# != nil})) > 2",
            "payload[0] ? payload.a : payload.n ** payload.a.b[1] > 1",
        ] {
            let mut answers = [0; 2];
            let count = |_: &[u8], answer: Result<Vec<Event>, String>| {
                answers[usize::from(answer.is_ok())] += 1;
            };
            filter(expression).unwrap().provoke(&samples, 2000, count);
            assert_eq!(answers.iter().sum::<i32>(), 2000);
        }
    }
}
