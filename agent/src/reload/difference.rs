//! Compares two texts of the configuration, beside modules and their settings.

use toml::{Table, Value};

/// Returns the names of what differs, such as `output.central.http.url`. Both texts were read before.
pub(super) fn others(old: &str, new: &str) -> Vec<String> {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let mut names = Vec::new();
    compare(&mut Vec::new(), &table(old), &table(new), &mut names);
    names
}

fn compare(path: &mut Vec<String>, old: &Table, new: &Table, names: &mut Vec<String>) {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        path.push(key.clone());
        match (old.get(key), new.get(key)) {
            (old, new) if old == new || is_modules(path, old, new) => {}
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(path, old, new, names),
            _ => names.push(format!("`{}`", path.join("."))),
        }
        path.pop();
    }
}

/// Returns whether the path leads to the same number of modules in both.
fn is_modules(path: &[String], old: Option<&Value>, new: Option<&Value>) -> bool {
    let [first, _, step] = path else { return false };
    let Some(old) = old else { return false };
    let Some(new) = new else { return false };
    let is_module = |value: &Value| value.get("module").is_some();
    match (first.as_str(), step.as_str()) {
        ("pipeline", "aggregate") => is_module(old) && is_module(new),
        ("pipeline", "transform") => {
            let length = |value: &Value| value.as_array().map(Vec::len);
            length(old).is_some() && length(old) == length(new)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
[agent]
id = "a"
[pipeline.p]
input = "i"
transform = [{ module = "a.wasm", settings = { scale = 1 } }, { module = "b.wasm" }]
aggregate = { module = "c.wasm" }
[pipeline.q]
aggregate = { compute = ["count"] }
[output.o]
http = { url = "https://x" }
"#;

    #[track_caller]
    fn check(from: &str, to: &str, expected: &[&str]) {
        assert!(OLD.contains(from), "{from}");
        assert_eq!(others(OLD, &OLD.replacen(from, to, 1)), expected, "{from} to {to}");
    }

    #[test]
    fn modules_and_their_settings_may_differ_and_nothing_else() {
        check("scale = 1", "scale = 1 ", &[]);
        check("scale = 1", "scale = 2", &[]);
        check("\"b.wasm\"", "\"d.wasm\", deadline = \"1s\", capabilities = [\"wasi\"]", &[]);
        check("\"c.wasm\"", "\"d.wasm\", settings = { x = 1 }", &[]);
        check(", { module = \"b.wasm\" }", "", &["`pipeline.p.transform`"]);
        check(
            "{ module = \"c.wasm\" }",
            "{ compute = [\"count\"] }",
            &["`pipeline.p.aggregate.compute`", "`pipeline.p.aggregate.module`"],
        );
        check("[\"count\"]", "[\"count\", { sum = \"x\" }]", &["`pipeline.q.aggregate.compute`"]);
        check("input = \"i\"", "input = \"j\"\nkey = \"k\"", &["`pipeline.p.input`", "`pipeline.p.key`"]);
        check("[pipeline.q]", "[pipeline.r]", &["`pipeline.q`", "`pipeline.r`"]);
        check("https://x", "https://y", &["`output.o.http.url`"]);
        check("id = \"a\"", "id = \"a\"\nwatch = \"1s\"", &["`agent.watch`"]);
    }
}
