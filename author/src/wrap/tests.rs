//! A compiler's core module becomes a module that runs in the agent's host.

use super::*;
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::module::CallMetrics;
use headwater_agent::module::{ModuleHost, ModuleLimits};

/// [`WorldKind::Transform`], by hand.
fn asks() -> Vec<u8> {
    wat::parse_file(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wrap/asks.wat")).unwrap()
}

#[track_caller]
fn wrapped(
    name: &str,
    config: &str,
) -> Result<headwater_agent::module::TransformModule, headwater_agent::module::ModuleError> {
    let folder = tempfile::tempdir().unwrap();
    let core = folder.path().join("core.wasm");
    let output = folder.path().join(name);
    fs::write(&core, asks()).unwrap();
    run(&WrapOptions { core, world: WorldKind::Transform, output: output.clone() }).unwrap();
    ModuleHost::new(None).unwrap().transform(
        &output,
        config,
        &ModuleLimits::default(),
        &CallMetrics::default(),
    )
}

#[test]
fn what_asks_wasi_runs_with_nothing_behind_it() {
    let mut module = wrapped("asks.wasm", "{}").unwrap();
    let event = Event { topic: String::new(), key: String::new(), time: Timestamp(0), payload: Vec::new() };
    let (first, rejected) = module.process(std::slice::from_ref(&event));
    assert_eq!(rejected, []);
    let [answer] = first.as_slice() else { panic!("{first:?}") };
    assert_eq!(answer.time, Timestamp(946_684_800_000_000_000), "the clock stands");
    assert_eq!(answer.payload[..4], 11_u32.to_le_bytes(), "all is taken");
    assert_ne!(answer.payload[4..8], answer.payload[8..12], "random bytes differ within a call");
    assert_eq!(module.process(&[event]), (first, Vec::new()), "and are the same at each");
}

#[test]
fn what_exits_is_named() {
    let error = wrapped("asks.wasm", r#"{"exit":1}"#).unwrap_err().to_string();
    assert!(error.contains("proc_exit"), "{error}");
}

#[track_caller]
fn refused(core: &[u8], world: WorldKind) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core.wasm");
    fs::write(&path, core).unwrap();
    let error = run(&WrapOptions { core: path, world, output: folder.path().join("out.wasm") }).unwrap_err();
    assert!(!folder.path().join("out.wasm").exists());
    format!("{error:#}")
}

#[test]
fn says_what_cannot_be_wrapped() {
    let found = refused(&asks(), WorldKind::Aggregate);
    assert!(found.contains("core.wasm for the world `aggregate`"), "{found}");
    assert!(found.contains("wit/headwater.wit") && found.contains("`update`"), "{found}");
    let found =
        refused(&wat::parse_str("(module (import \"env\" \"read\" (func)))").unwrap(), WorldKind::Transform);
    assert!(found.contains("env"), "{found}");
    let found = refused(headwater_bundle::CELSIUS, WorldKind::Transform);
    assert!(found.contains("a component, which is wrapped already"), "{found}");
    assert!(refused(b"", WorldKind::Transform).contains("an empty file"));
}

#[test]
fn what_has_its_metadata_already_is_wrapped_as_well() {
    let component = component(headwater_bundle::CORE_MODULE, WorldKind::Transform).unwrap();
    assert_eq!(component[4..8], [13, 0, 1, 0]);
}
