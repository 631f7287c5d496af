//! The modules that come with the agent, as the reference shows them.

use super::*;
use crate::ModuleCapability;
use headwater_bundle::SHIPPED;

const REFERENCE: &str = include_str!("../../../../docs/src/reference/modules.md");

/// Reads from the module's row of the reference whether it remembers, and its settings as JSON.
fn row(name: &str) -> (bool, String) {
    let row = REFERENCE.lines().find(|line| line.starts_with(&format!("| `{name}` ")));
    let row = row.unwrap_or_else(|| panic!("the reference has no row of {name}"));
    let settings = row.rsplit('`').nth(1).unwrap();
    let table: toml::Table = toml::from_str(&format!("settings = {settings}")).unwrap();
    (row.contains("(state)"), serde_json::to_string(&table["settings"]).unwrap())
}

fn load(name: &str, capabilities: &[ModuleCapability]) -> Result<TransformModule, crate::ModuleError> {
    let (_, bytes) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.wasm");
    std::fs::write(&path, bytes).unwrap();
    let granted = capabilities.iter().copied().collect();
    let limits = ModuleLimits { granted, state_names_max: 100, ..ModuleLimits::default() };
    ModuleHost::new(None).unwrap().transform(&path, &row(name).1, &limits, &CallMetrics::default())
}

#[test]
fn each_is_loaded_with_the_settings_of_the_reference_and_what_it_says_that_it_needs() {
    for (name, _) in SHIPPED.iter().filter(|(name, _)| *name != "stats") {
        let remembers = row(name).0;
        let granted = if remembers { &[ModuleCapability::State][..] } else { &[] };
        load(name, granted).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!remembers || load(name, &[]).is_err(), "{name} needs no state");
    }
    let settings = row("stats").1;
    aggregate(headwater_bundle::STATS_PATH, &settings);
}

#[track_caller]
fn check(name: &str, payloads: &[&[u8]], expected: &[&str]) {
    let granted = if row(name).0 { &[ModuleCapability::State][..] } else { &[] };
    let mut module = load(name, granted).unwrap();
    let events: Vec<_> =
        payloads.iter().map(|payload| Event { payload: payload.to_vec(), ..event("") }).collect();
    let (out, rejected) = module.process(&events);
    let out: Vec<_> = out.into_iter().map(|event| String::from_utf8(event.payload).unwrap()).collect();
    assert_eq!(
        (out, rejected.len()),
        (expected.iter().map(|&text| text.to_owned()).collect(), 1),
        "{name}: {rejected:?}"
    );
}

#[test]
fn each_does_its_work_in_the_sandbox_and_refuses_what_it_cannot_use() {
    let first = r#"{"temperature":1,"score":0.0,"anomalous":false}"#;
    check("anomaly", &[br#"{"temperature":1}"#, b"{}"], &[first]);
    check("cbor", &[b"\xa1\x61t\xf9\x4d\x00", b"\xff"], &[r#"{"t":20.0}"#]);
    let one = r#"{"temperature":1}"#;
    let two = r#"{"temperature":2}"#;
    let payloads: [&[u8]; 4] = [one.as_bytes(), br#"{"temperature":1.5}"#, two.as_bytes(), b"{}"];
    check("deadband", &payloads, &[one, two]);
    check("dedup", &[br#"{"id":1}"#, br#"{"id":1}"#, br#"{"id":null}"#], &[r#"{"id":1}"#]);
    check("enrich", &[br#"{"sensor":"s1"}"#, br#"{"sensor":"s2"}"#], &[r#"{"sensor":"s1","site":"north"}"#]);
    let hot = r#"{"temperature":31}"#;
    check("filter", &[hot.as_bytes(), b"{\"temperature\":30}", b"{}"], &[hot]);
    check("select", &[br#"{"env":{"temp":215}}"#, br#"{"x":1}"#], &[r#"{"env.temp":21.5}"#]);
    check("senml", &[br#"[{"n":"a","v":1}]"#, b"[]"], &[r#"{"name":"a","value":1.0}"#]);
    check("sparkplug", &[b""], &[]);
}
