//! One pass over a JSON payload: checks all of it, keeps the few scalars that are wanted.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value that can be a key or a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Integer(u64),
    Float(f64),
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(boolean) => boolean.fmt(f),
        }
    }
}

/// The wanted paths, as a tree along which the pass descends.
#[derive(Debug, Default)]
pub(super) struct Fields {
    paths: Vec<Vec<String>>,
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

/// What is not on a wanted path: checked and dropped.
static NOWHERE: Node = Node { slot: None, children: Vec::new() };

impl Fields {
    /// Asks for a path; returns its place in what [`Fields::pick`] returns.
    pub(super) fn want(&mut self, path: &[String]) -> usize {
        if let Some(slot) = self.slot(path) {
            return slot;
        }
        let slot = self.paths.len();
        self.paths.push(path.to_vec());
        let mut node = &mut self.root;
        for name in path {
            let index = node.children.iter().position(|(child, _)| child == name).unwrap_or_else(|| {
                node.children.push((name.clone(), Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        node.slot = Some(slot);
        slot
    }

    pub(super) fn slot(&self, path: &[String]) -> Option<usize> {
        self.paths.iter().position(|wanted| wanted == path)
    }

    /// Reads the payload; one entry a wanted path, `None` where it is missing or no scalar.
    pub(super) fn pick(&self, payload: &[u8]) -> Result<Vec<Option<Scalar>>, serde_json::Error> {
        let mut found = vec![None; self.paths.len()];
        let mut reader = serde_json::Deserializer::from_slice(payload);
        Pick { node: &self.root, found: &mut found }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(found)
    }
}

/// Whether it is JSON that every reader takes: UTF-8, finite numbers, at most 127 levels deep.
///
/// # Errors
/// Where it is not.
pub fn check_json(text: &[u8]) -> Result<(), serde_json::Error> {
    Fields::default().pick(text).map(drop)
}

/// Visits every value (not `IgnoredAny`, which skips UTF-8, number and depth checks).
struct Pick<'a> {
    node: &'a Node,
    found: &'a mut [Option<Scalar>],
}

impl Pick<'_> {
    fn keep<E: serde::de::Error>(self, scalar: impl FnOnce() -> Scalar) -> Result<(), E> {
        let Some(slot) = self.node.slot else { return Ok(()) };
        if self.found[slot].is_some() {
            return Err(E::custom("a field that makes the key or the time stands there twice"));
        }
        self.found[slot] = Some(scalar());
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.keep(|| Scalar::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.keep(|| Scalar::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a negative number is no time; as a key it is text up to 2^53"
    )]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.keep(|| Scalar::Float(value as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.keep(|| Scalar::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.keep(|| Scalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Pick { node: &NOWHERE, found: &mut *self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(child) = entries.next_key_seed(Child(self.node))? {
            entries.next_value_seed(Pick { node: child, found: &mut *self.found })?;
        }
        Ok(())
    }
}

/// Finds the child of a name without copying the name.
struct Child<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Child<'a> {
    type Value = &'a Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'a Node, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Child<'a> {
    type Value = &'a Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<&'a Node, E> {
        Ok(self.0.children.iter().find(|(child, _)| child == name).map_or(&NOWHERE, |(_, node)| node))
    }
}
