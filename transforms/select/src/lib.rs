//! Fields of a JSON object: flattened, kept or dropped, scaled, renamed, in this order. What is not scaled
//! stays as it was written, byte for byte.
//!
//! Settings, all optional:
//!
//! ```toml
//! flatten = "."                                   # fields of objects inside: {"a":{"b":1}} has the field `a.b`
//! keep = ["id", "env.temp", "env.rh"]             # or drop = [...]: names as they are after flattening
//! scale = { "env.temp" = { factor = 0.1, offset = -40 } }   # number * factor + offset
//! rename = { "env.temp" = "celsius" }
//! ```
//!
//! `{"id":7,"env":{"temp":655,"rh":40},"raw":[1]}` becomes `{"id":7,"celsius":25.5,"env.rh":40}`.
//!
//! A field that is missing is left out, and so are objects without fields where they are flattened. Refused is what
//! has none of the fields to keep, something else than a number to scale, or two fields of the same name in the end.

use headwater_module::{Event, JsonObject, ObjectWriter, Transform, export_transform};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Objects within objects that are taken apart.
const DEPTH_MAX: usize = 128;

/// Settings: see the crate's documentation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldSelection {
    flatten: Option<String>,
    keep: Option<BTreeSet<String>>,
    #[serde(default)]
    drop: BTreeSet<String>,
    #[serde(default)]
    scale: BTreeMap<String, FieldScale>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldScale {
    #[serde(default = "one")]
    factor: f64,
    #[serde(default)]
    offset: f64,
}

fn one() -> f64 {
    1.0
}

impl Transform for FieldSelection {
    fn prepare(&mut self) -> Result<(), String> {
        if self.keep.is_some() && !self.drop.is_empty() {
            return Err("`keep` and `drop` exclude each other: name what stays, or what goes".to_owned());
        }
        if self.keep.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err("`keep` is empty: name at least one field".to_owned());
        }
        let mut names = BTreeSet::new();
        match self.rename.values().find(|name| !names.insert(*name)) {
            Some(twice) => Err(format!("`rename` gives two fields the name `{twice}`")),
            None => Ok(()),
        }
    }

    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let mut fields = Vec::new();
        self.collect(&event.object()?, "", 0, &mut fields)?;
        let mut names = BTreeSet::new();
        let mut object = ObjectWriter::new();
        for (name, value) in &fields {
            let new = self.rename.get(name).unwrap_or(name);
            if !names.insert(new) {
                return Err(format!("two fields would have the name `{new}`"));
            }
            object.raw(new, &self.scaled(name, value)?);
        }
        if let Some(keep) = &self.keep
            && fields.is_empty()
        {
            return Err(format!("none of the fields {keep:?} is there"));
        }
        let payload = object.finish();
        drop(fields);
        event.payload = payload;
        Ok(Some(event))
    }
}
export_transform!(FieldSelection);

impl FieldSelection {
    fn collect<'a>(
        &self,
        object: &JsonObject<'a>,
        above: &str,
        depth: usize,
        fields: &mut Vec<(String, &'a str)>,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("objects are nested more than {DEPTH_MAX} deep"));
        }
        for (name, value) in object.members() {
            let name = format!("{above}{name}");
            match &self.flatten {
                Some(separator) if value.starts_with('{') => {
                    let inner = JsonObject::parse(value.as_bytes())?;
                    self.collect(&inner, &format!("{name}{separator}"), depth + 1, fields)?;
                }
                _ if self.takes(&name) => fields.push((name, value)),
                _ => {}
            }
        }
        Ok(())
    }

    fn takes(&self, name: &str) -> bool {
        self.keep.as_ref().map_or_else(|| !self.drop.contains(name), |keep| keep.contains(name))
    }

    fn scaled<'a>(&self, name: &str, value: &'a str) -> Result<Cow<'a, str>, String> {
        let Some(FieldScale { factor, offset }) = self.scale.get(name) else {
            return Ok(Cow::Borrowed(value));
        };
        let number = value.parse().ok().filter(|number: &f64| number.is_finite());
        let number = number.ok_or_else(|| format!("field `{name}` is not a number: {value:.40}"))?;
        let scaled = number * factor + offset;
        if !scaled.is_finite() {
            return Err(format!("field `{name}` would become {scaled}"));
        }
        Ok(Cow::Owned(format!("{scaled:?}")))
    }
}

#[cfg(test)]
mod tests;
