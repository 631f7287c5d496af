//! JSON payloads, written member by member.

use serde::Serialize;

/// A JSON object that is being written; what is copied from another one stays as it is, byte for byte.
#[derive(Debug)]
pub struct ObjectWriter(Vec<u8>);

impl Default for ObjectWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ObjectWriter {
    /// Begins an object without members.
    #[must_use]
    pub fn new() -> Self {
        Self(b"{".to_vec())
    }

    /// Adds a member whose value is JSON already. The name must not be there yet.
    pub fn raw(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    /// Adds a member. The name must not be there yet. A number that is not finite becomes `null`.
    ///
    /// # Errors
    /// A reason that says why JSON has no such value, as for a map whose keys are not text.
    pub fn value(&mut self, name: &str, value: &impl Serialize) -> Result<(), String> {
        self.name(name);
        let written = serde_json::to_writer(&mut self.0, value);
        written.map_err(|error| format!("failed to write `{name}`: {error}"))
    }

    /// Returns the payload: the object as UTF-8.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        // A text can always be written, and so can bytes to a vector.
        self.0.extend(serde_json::to_vec(name).unwrap_or_default());
        self.0.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_a_reader_reads() {
        let mut object = ObjectWriter::new();
        assert_eq!(ObjectWriter::new().finish(), b"{}");
        object.raw("a \"quoted\" \n name", "1.50");
        object.value("b", &[1.5, f64::NAN]).unwrap();
        let expected = r#"{"a \"quoted\" \n name":1.50,"b":[1.5,null]}"#;
        assert_eq!(String::from_utf8(object.finish()).unwrap(), expected);
    }
}
