//! The fields of a reading, in one pass over its payload.
//!
//! The payload has been checked when it was decoded; here it is only read. `null` is as good as
//! missing: a sensor that has nothing to say. A payload that is no object is its own field `value`,
//! as decoding with `format = "number"` makes of it.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::top::ITEM_BYTES_MAX;
use headwater_flow::json::{ChildLookup, INTEGER_MAX, PathNode};

/// The value of a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum FieldValue<'a> {
    /// There is no such field, or it is `null`.
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

/// The values that all functions of a field can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FieldDemand {
    Anything,
    /// Numbers, texts, booleans.
    Scalars,
    /// Scalars that are short enough to be kept.
    Short,
    Numbers,
}

/// Reads the wanted fields.
#[derive(Debug, Default)]
pub(super) struct FieldReader {
    root: PathNode,
    fields: Vec<WantedField>,
    /// The position of the field that a payload gives which is no object.
    alone: Option<usize>,
}

#[derive(Debug)]
struct WantedField {
    path: Vec<String>,
    takes: FieldDemand,
    /// The function that takes no more.
    function: &'static str,
}

impl FieldReader {
    /// Asks for a field; returns its position.
    pub(super) fn want(&mut self, path: &[String], takes: FieldDemand, function: &'static str) -> usize {
        if let Some(slot) = self.fields.iter().position(|field| field.path == path) {
            let field = &mut self.fields[slot];
            if takes > field.takes {
                field.takes = takes;
                field.function = function;
            }
            return slot;
        }
        let slot = self.fields.len();
        self.fields.push(WantedField { path: path.to_vec(), takes, function });
        self.root.put(path, slot);
        if path == ["value"] {
            self.alone = Some(slot);
        }
        slot
    }

    /// Reads the value of each field.
    ///
    /// # Errors
    /// The reason for which the reading is refused.
    pub(super) fn read<'a>(&self, payload: &'a [u8], values: &mut Vec<FieldValue<'a>>) -> Result<(), String> {
        if self.fields.is_empty() {
            return Ok(());
        }
        values.clear();
        values.resize(self.fields.len(), FieldValue::Missing);
        let mut json = serde_json::Deserializer::from_slice(payload);
        let pick = FieldVisitor { node: &self.root, alone: self.alone, values: values.as_mut_slice() };
        pick.deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| format!("failed to read the payload as JSON: {error}"))?;
        let mut missing = true;
        for (value, field) in values.iter().zip(&self.fields) {
            missing &= *value == FieldValue::Missing;
            field.check(value)?;
        }
        if missing { Err(self.lacks_all()) } else { Ok(()) }
    }

    fn lacks_all(&self) -> String {
        let names: Vec<_> = self.fields.iter().map(|field| format!("`{}`", field.path.join("."))).collect();
        format!("the reading has none of the fields that are aggregated: {}", names.join(", "))
    }
}

impl WantedField {
    fn check(&self, value: &FieldValue<'_>) -> Result<(), String> {
        let takes = match value {
            FieldValue::Missing | FieldValue::Number(_) => return Ok(()),
            FieldValue::Text(text) if text.len() > ITEM_BYTES_MAX => FieldDemand::Scalars,
            FieldValue::Beyond(_) | FieldValue::Text(_) | FieldValue::Bool(_) => FieldDemand::Short,
            FieldValue::List | FieldValue::Object => FieldDemand::Anything,
        };
        if takes >= self.takes {
            return Ok(());
        }
        let name = self.path.join(".");
        let is = match value {
            FieldValue::Beyond(whole) if self.takes == FieldDemand::Numbers => {
                return Err(format!("field `{name}` is {whole}, beyond 2^53, where numbers are rounded"));
            }
            FieldValue::Text(_) => "text",
            FieldValue::Bool(_) => "a boolean",
            FieldValue::List => "a list",
            _ => "an object",
        };
        let wants = match self.takes {
            FieldDemand::Numbers => "numbers".to_owned(),
            FieldDemand::Short => format!("numbers, booleans and texts of up to {ITEM_BYTES_MAX} bytes"),
            _ => "numbers, booleans and texts".to_owned(),
        };
        Err(format!("field `{name}` is {is}, and `{}` takes {wants}", self.function))
    }
}

impl FieldValue<'_> {
    /// Writes a scalar as JSON, the same for the same value however it was written.
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

struct FieldVisitor<'v, 'a> {
    node: &'v PathNode,
    /// The position for a value to which no path leads.
    alone: Option<usize>,
    values: &'v mut [FieldValue<'a>],
}

impl<'a> FieldVisitor<'_, 'a> {
    fn keep<E: serde::de::Error>(self, value: FieldValue<'a>) -> Result<(), E> {
        let Some(slot) = self.node.slot().or(self.alone) else { return Ok(()) };
        if self.values[slot] != FieldValue::Missing {
            return Err(E::custom("a field that is aggregated stands there twice"));
        }
        self.values[slot] = value;
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for FieldVisitor<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for FieldVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.keep(FieldValue::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "what would lose some is told apart")]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let beyond = value > INTEGER_MAX;
        self.keep(if beyond { FieldValue::Beyond(value.into()) } else { FieldValue::Number(value as f64) })
    }

    #[expect(clippy::cast_precision_loss, reason = "what would lose some is told apart")]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let beyond = value.unsigned_abs() > INTEGER_MAX;
        self.keep(if beyond { FieldValue::Beyond(value.into()) } else { FieldValue::Number(value as f64) })
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        // Adding 0 makes 0 of -0.
        self.keep(FieldValue::Number(value + 0.0))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'a str) -> Result<(), E> {
        self.keep(FieldValue::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.keep(FieldValue::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.keep(FieldValue::List)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some((child, _)) = entries.next_key_seed(ChildLookup(self.node))? {
            if child.is_wanted() {
                entries.next_value_seed(FieldVisitor {
                    node: child,
                    alone: None,
                    values: &mut *self.values,
                })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        FieldVisitor { alone: None, ..self }.keep(FieldValue::Object)
    }
}
