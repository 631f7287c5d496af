//! Reads a JSON payload in one pass that checks all of it and keeps the few scalars that are wanted.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON value that can be a key or a time.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonScalar {
    /// A string.
    Text(String),
    /// A whole number that is not below 0.
    Integer(u64),
    /// Another number.
    Float(f64),
    /// The digits of a number that was asked for exactly.
    Decimal(String),
    /// `true` or `false`.
    Bool(bool),
}

impl fmt::Display for JsonScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Decimal(text) => text.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(boolean) => boolean.fmt(f),
        }
    }
}

/// The wanted paths of a payload, as a tree along which the pass descends.
#[derive(Debug, Default)]
pub struct WantedFields {
    paths: Vec<Vec<String>>,
    root: PathNode,
    /// Refuses JSON that readers read differently: a name twice in an object, and an integer that is no
    /// exact double. A wanted integer is read to its last digit, so it may be larger.
    strict: bool,
}

/// The greatest integer that every reader reads exactly.
pub const INTEGER_MAX: u64 = 1 << 53;
/// The number of names in an object up to which a list is faster than a set.
const LISTED_MAX: usize = 16;

/// A node in the tree of wanted paths.
#[derive(Debug, Default)]
pub struct PathNode {
    slot: Option<usize>,
    /// True if a number here is kept by its digits.
    exact: bool,
    children: Vec<(String, PathNode)>,
}

impl PathNode {
    /// Sends the value at a path to this slot.
    pub fn put(&mut self, path: &[String], slot: usize) {
        self.at(path).slot = Some(slot);
    }

    /// Returns the node at a path, and makes it if it is not there.
    fn at(&mut self, path: &[String]) -> &mut Self {
        let mut node = self;
        for name in path {
            let index = node.children.iter().position(|(child, _)| child == name).unwrap_or_else(|| {
                node.children.push((name.clone(), Self::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        node
    }

    /// Returns the slot for the value at this node.
    pub fn slot(&self) -> Option<usize> {
        self.slot
    }

    /// Returns true if a value at or below this node is wanted.
    pub fn is_wanted(&self) -> bool {
        self.slot.is_some() || !self.children.is_empty()
    }
}

/// The node for all values off the wanted paths, which are checked and dropped.
static NOWHERE: PathNode = PathNode { slot: None, exact: false, children: Vec::new() };

impl WantedFields {
    /// Returns an empty tree for the payloads of devices, which are checked strictly.
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Asks for a path, and returns its index in the result of [`WantedFields::pick`].
    pub fn want(&mut self, path: &[String]) -> usize {
        if let Some(slot) = self.slot(path) {
            return slot;
        }
        let slot = self.paths.len();
        self.paths.push(path.to_vec());
        self.root.put(path, slot);
        slot
    }

    /// Asks for a path at which a number is kept as it was written.
    pub fn want_exactly(&mut self, path: &[String]) -> usize {
        self.root.at(path).exact = true;
        self.want(path)
    }

    /// Returns the index of a path that was asked for.
    #[must_use]
    pub fn slot(&self, path: &[String]) -> Option<usize> {
        self.paths.iter().position(|wanted| wanted == path)
    }

    /// Reads a payload. The result has an entry for each wanted path, `None` if the value is missing or no scalar.
    ///
    /// # Errors
    /// When it is no JSON that every reader accepts.
    pub fn pick(&self, payload: &[u8]) -> Result<Vec<Option<JsonScalar>>, serde_json::Error> {
        let mut found = vec![None; self.paths.len()];
        let mut huge = false;
        let mut reader = serde_json::Deserializer::from_slice(payload);
        let visitor =
            ValueVisitor { node: &self.root, found: &mut found, strict: self.strict, huge: &mut huge };
        visitor.deserialize(&mut reader)?;
        reader.end()?;
        if huge && self.strict && has_long_integer(payload) {
            return Err(too_great());
        }
        Ok(found)
    }
}

/// Checks that a text is JSON that every reader accepts: UTF-8, finite numbers, at most 127 levels deep.
///
/// # Errors
/// When it is not.
pub fn check_json(text: &[u8]) -> Result<(), serde_json::Error> {
    WantedFields::default().pick(text).map(drop)
}

fn too_great<E: serde::de::Error>() -> E {
    E::custom("an integer beyond 2^53, which readers would round: send it as text, or smaller")
}

/// Returns true if the text, known to be JSON, has an integer of twenty digits or more outside of
/// strings. The reader makes a float of it, as it does of 1e20.
fn has_long_integer(text: &[u8]) -> bool {
    let mut digits = 0;
    let mut plain = true;
    let mut quoted = false;
    let mut escaped = false;
    for byte in text.iter().chain(b" ") {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' | b'e' | b'E' | b'+' => plain = false,
            _ if digits >= 20 && plain => return true,
            _ => (digits, plain, quoted) = (0, true, *byte == b'"'),
        }
    }
    false
}

/// A visitor of every value. (`IgnoredAny` would skip the checks of UTF-8, numbers and depth.)
struct ValueVisitor<'a> {
    node: &'a PathNode,
    found: &'a mut [Option<JsonScalar>],
    strict: bool,
    /// Set once a float was seen that may have been written as an integer.
    huge: &'a mut bool,
}

impl ValueVisitor<'_> {
    fn keep<E: serde::de::Error>(self, scalar: impl FnOnce() -> JsonScalar) -> Result<(), E> {
        let Some(slot) = self.node.slot else { return Ok(()) };
        if self.found[slot].is_some() {
            return Err(E::custom("a field that makes the key or the time stands there twice"));
        }
        self.found[slot] = Some(scalar());
        Ok(())
    }

    /// Keeps the value of a node that is wanted exactly.
    fn exactly(self, raw: &str) -> Result<(), serde_json::Error> {
        let bytes = raw.as_bytes();
        if let Ok(integer) = raw.parse::<u64>() {
            return self.keep(|| JsonScalar::Integer(integer));
        }
        if !matches!(bytes.first(), Some(b'-' | b'0'..=b'9')) {
            return serde_json::Deserializer::from_str(raw).deserialize_any(self);
        }
        // The payload is passed on as it is, so the limits of all numbers hold here too.
        let size: f64 = serde_json::from_str(raw)?;
        *self.huge |= size.abs() >= 9e18;
        self.keep(|| JsonScalar::Decimal(raw.to_owned()))
    }

    fn check_integer<E: serde::de::Error>(&self, size: u64) -> Result<(), E> {
        let rounded = self.strict && self.node.slot.is_none() && size > INTEGER_MAX;
        if rounded { Err(too_great()) } else { Ok(()) }
    }

    fn at<'b>(&'b mut self, node: &'b PathNode) -> ValueVisitor<'b> {
        ValueVisitor { node, found: &mut *self.found, strict: self.strict, huge: &mut *self.huge }
    }
}

impl<'de> DeserializeSeed<'de> for ValueVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.node.exact {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        self.exactly(raw).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.keep(|| JsonScalar::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.check_integer(value)?;
        self.keep(|| JsonScalar::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a negative number is no time; as a key it is text up to 2^53"
    )]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.check_integer(value.unsigned_abs())?;
        self.keep(|| JsonScalar::Float(value as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        *self.huge |= value.abs() >= 9e18;
        self.keep(|| JsonScalar::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.keep(|| JsonScalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.at(&NOWHERE))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let node = self.node;
        let mut names = ObjectNames::default();
        while let Some((child, name)) = entries.next_key_seed(ChildLookup(node))? {
            if self.strict && !names.insert(name) {
                return Err(serde::de::Error::custom("a name stands twice in one object"));
            }
            entries.next_value_seed(self.at(child))?;
        }
        Ok(())
    }
}

/// The names of one object.
#[derive(Default)]
struct ObjectNames<'de> {
    listed: Vec<Cow<'de, str>>,
    set: HashSet<Cow<'de, str>>,
}

impl<'de> ObjectNames<'de> {
    /// Adds a name, and returns true if it is new.
    fn insert(&mut self, name: Cow<'de, str>) -> bool {
        if self.listed.len() < LISTED_MAX {
            let new = !self.listed.contains(&name);
            self.listed.push(name);
            return new;
        }
        !self.listed.contains(&name) && self.set.insert(name)
    }
}

/// A seed that reads a field name and finds the child node for it. It copies the name only if it is escaped.
pub struct ChildLookup<'a>(pub &'a PathNode);

impl<'a> ChildLookup<'a> {
    fn named(&self, name: &str) -> &'a PathNode {
        self.0.children.iter().find(|(child, _)| child == name).map_or(&NOWHERE, |(_, node)| node)
    }
}

impl<'de, 'a> DeserializeSeed<'de> for ChildLookup<'a> {
    type Value = (&'a PathNode, Cow<'de, str>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, 'a> Visitor<'de> for ChildLookup<'a> {
    type Value = (&'a PathNode, Cow<'de, str>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok((self.named(name), Cow::Borrowed(name)))
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.named(name), Cow::Owned(name.to_owned())))
    }
}
