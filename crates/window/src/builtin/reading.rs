//! The fields of a reading, in one pass over its payload.
//!
//! The payload has been checked when it was decoded; here it is only read. `null` is as good as
//! missing: a sensor that has nothing to say. A payload that is no object is its own field `value`,
//! as decoding with `format = "number"` makes of it.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::top::ITEM_BYTES_MAX;
use headwater_flow::json::{ChildLookup, INTEGER_MAX, PathNode};

/// What a field holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value<'a> {
    /// Or `null`.
    #[default]
    Missing,
    /// Never -0, NaN or infinite.
    Number(f64),
    /// A whole number beyond 2^53, which a double may round.
    Beyond(i128),
    Text(Cow<'a, str>),
    Bool(bool),
    List,
    Object,
}

/// What all functions of a field together can take of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Takes {
    Anything,
    /// Numbers, texts, booleans.
    Scalars,
    /// Of these only what is short enough to be kept.
    Short,
    Numbers,
}

/// Reads the wanted fields.
#[derive(Debug, Default)]
pub(super) struct Reader {
    root: PathNode,
    fields: Vec<Field>,
    /// Where a payload that is no object goes.
    alone: Option<usize>,
}

#[derive(Debug)]
struct Field {
    path: Vec<String>,
    takes: Takes,
    /// Which function takes no more.
    function: &'static str,
}

impl Reader {
    /// Asks for a field; returns its place.
    pub(super) fn want(&mut self, path: &[String], takes: Takes, function: &'static str) -> usize {
        if let Some(slot) = self.fields.iter().position(|field| field.path == path) {
            let field = &mut self.fields[slot];
            if takes > field.takes {
                (field.takes, field.function) = (takes, function);
            }
            return slot;
        }
        let slot = self.fields.len();
        self.fields.push(Field { path: path.to_vec(), takes, function });
        self.root.put(path, slot);
        if path == ["value"] {
            self.alone = Some(slot);
        }
        slot
    }

    /// Fills in one value a field.
    ///
    /// # Errors
    /// Why the reading is refused.
    pub(super) fn read<'a>(&self, payload: &'a [u8], values: &mut Vec<Value<'a>>) -> Result<(), String> {
        if self.fields.is_empty() {
            return Ok(());
        }
        values.clear();
        values.resize(self.fields.len(), Value::Missing);
        let mut json = serde_json::Deserializer::from_slice(payload);
        let pick = Pick { node: &self.root, alone: self.alone, values: values.as_mut_slice() };
        pick.deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| format!("failed to read the payload as JSON: {error}"))?;
        let mut missing = true;
        for (value, field) in values.iter().zip(&self.fields) {
            missing &= *value == Value::Missing;
            field.check(value)?;
        }
        if missing { Err(self.lacks_all()) } else { Ok(()) }
    }

    fn lacks_all(&self) -> String {
        let names: Vec<_> = self.fields.iter().map(|field| format!("`{}`", field.path.join("."))).collect();
        format!("the reading has none of the fields that are aggregated: {}", names.join(", "))
    }
}

impl Field {
    fn check(&self, value: &Value<'_>) -> Result<(), String> {
        let takes = match value {
            Value::Missing | Value::Number(_) => return Ok(()),
            Value::Text(text) if text.len() > ITEM_BYTES_MAX => Takes::Scalars,
            Value::Beyond(_) | Value::Text(_) | Value::Bool(_) => Takes::Short,
            Value::List | Value::Object => Takes::Anything,
        };
        if takes >= self.takes {
            return Ok(());
        }
        let name = self.path.join(".");
        let is = match value {
            Value::Beyond(whole) if self.takes == Takes::Numbers => {
                return Err(format!("field `{name}` is {whole}, beyond 2^53, where numbers are rounded"));
            }
            Value::Text(_) => "text",
            Value::Bool(_) => "a boolean",
            Value::List => "a list",
            _ => "an object",
        };
        let wants = match self.takes {
            Takes::Numbers => "numbers".to_owned(),
            Takes::Short => format!("numbers, booleans and texts of up to {ITEM_BYTES_MAX} bytes"),
            _ => "numbers, booleans and texts".to_owned(),
        };
        Err(format!("field `{name}` is {is}, and `{}` takes {wants}", self.function))
    }
}

impl Value<'_> {
    /// A scalar as JSON, the same for the same value however it was written.
    pub(super) fn json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Missing | Self::List | Self::Object => {}
            Self::Number(number) => super::json::number(out, *number),
            Self::Beyond(whole) => out.extend(whole.to_string().bytes()),
            Self::Text(text) => super::json::text(out, text),
            Self::Bool(true) => out.extend(b"true"),
            Self::Bool(false) => out.extend(b"false"),
        }
    }
}

struct Pick<'v, 'a> {
    node: &'v PathNode,
    /// The place of what stands here though no path leads to it.
    alone: Option<usize>,
    values: &'v mut [Value<'a>],
}

impl<'a> Pick<'_, 'a> {
    fn keep<E: serde::de::Error>(self, value: Value<'a>) -> Result<(), E> {
        let Some(slot) = self.node.slot().or(self.alone) else { return Ok(()) };
        if self.values[slot] != Value::Missing {
            return Err(E::custom("a field that is aggregated stands there twice"));
        }
        self.values[slot] = value;
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Pick<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Pick<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.keep(Value::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "what would lose some is told apart")]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let beyond = value > INTEGER_MAX;
        self.keep(if beyond { Value::Beyond(value.into()) } else { Value::Number(value as f64) })
    }

    #[expect(clippy::cast_precision_loss, reason = "what would lose some is told apart")]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let beyond = value.unsigned_abs() > INTEGER_MAX;
        self.keep(if beyond { Value::Beyond(value.into()) } else { Value::Number(value as f64) })
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        // Adding 0 makes 0 of -0.
        self.keep(Value::Number(value + 0.0))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'a str) -> Result<(), E> {
        self.keep(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.keep(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.keep(Value::List)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some((child, _)) = entries.next_key_seed(ChildLookup(self.node))? {
            if child.is_wanted() {
                entries.next_value_seed(Pick { node: child, alone: None, values: &mut *self.values })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Pick { alone: None, ..self }.keep(Value::Object)
    }
}
