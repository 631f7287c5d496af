//! Fragments of a configuration, completed to a whole one, and the files that configurations name.

use std::fs;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use toml::{Table, Value};

/// The configuration that a fragment is put into.
const BASE: &str = r#"
[agent]
id = "gateway-1"
state = "state"

[input.sensors]
mqtt = { url = "mqtt://127.0.0.1:1883", topics = ["sensors/+"] }

[pipeline.temperature]
input = "sensors"
output = "central"

[output.central]
http = { url = "https://collect.example.com/v1/batches" }
"#;
/// The lines that only the frame `windowed` has.
const WINDOW: &str = r#"
window = { tumbling = "1m" }
aggregate = { compute = ["count"] }
"#;

/// A folder with the files that the configurations of the documents name.
#[derive(Debug)]
pub(super) struct CheckFolder(TempDir);

impl CheckFolder {
    /// Makes the folder, with certificates and a file in the place of a module.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names = vec!["gateway.example.com".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
        let key = signing_key.serialize_pem();
        let files =
            [("ca.pem", cert.pem()), ("us.pem", cert.pem()), ("us.key", key), ("scale.wasm", String::new())];
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("a writable folder");
        }
        Self(folder)
    }

    /// Checks a whole configuration whose modules are not looked into.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let file = self.0.path().join("headwater.toml");
        headwater_agent::config::parse(&file, text).map(|_| ()).map_err(|faults| faults.to_string())
    }
}

/// Puts a fragment into the frame of that name.
pub(super) fn complete(frame: &str, fragment: &str) -> Result<String, String> {
    let mut base: Table = BASE.parse().expect("the base is TOML");
    let fragment: Table = fragment.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if fragment.is_empty() {
        return Err("the fragment is empty".to_owned());
    }
    if frame == "windowed" {
        let window: Table = WINDOW.parse().expect("the window is TOML");
        merge(table(&mut base, &["pipeline", "temperature"]), window);
    }
    let place: &[&str] = match frame {
        "file" => &[],
        "agent" => &["agent"],
        "input" => &["input", "sensors"],
        "pipeline" | "windowed" => &["pipeline", "temperature"],
        "output" => &["output", "central"],
        _ => return Err(format!("there is no frame `{frame}`")),
    };
    merge(table(&mut base, place), fragment);
    Ok(base.to_string())
}

fn table<'t>(base: &'t mut Table, place: &[&str]) -> &'t mut Table {
    place.iter().fold(base, |table, name| match table.get_mut(*name) {
        Some(Value::Table(inner)) => inner,
        _ => panic!("the base has no table {place:?}"),
    })
}

/// Replaces what both have; tables of the first level below a whole file are merged.
fn merge(base: &mut Table, fragment: Table) {
    for (name, value) in fragment {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(inner)), Value::Table(more)) if ["agent", "modules"].contains(&&*name) => {
                inner.extend(more);
            }
            (_, value) => drop(base.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_put_where_it_belongs() {
        let whole = complete("windowed", "when_full = \"coarsen\"").unwrap();
        let table: Table = whole.parse().unwrap();
        let pipeline = &table["pipeline"]["temperature"];
        assert_eq!(pipeline["when_full"].as_str(), Some("coarsen"));
        assert_eq!(pipeline["window"]["tumbling"].as_str(), Some("1m"));
        assert!(complete("nowhere", "a = 1").is_err());
        assert!(complete("agent", "").is_err());
        assert!(complete("agent", "a = ").is_err());
    }
}
