//! A module finds nothing behind WASI, and the same nothing each time.

use super::*;
use crate::{ModuleCapability, ModuleError};
use headwater_bundle::HOSTILE_WASI_PATH;

fn granted() -> ModuleLimits {
    ModuleLimits { granted: [ModuleCapability::Wasi].into(), ..limits() }
}

/// Returns the answer to one event when the module asks for this: the payload, or the reason of the refusal.
fn ask(what: &str) -> Result<String, String> {
    let host = ModuleHost::new(None).unwrap();
    let metrics = CallMetrics::default();
    let config = format!(r#"{{"do":"{what}"}}"#);
    let mut hostile = host.transform(Path::new(HOSTILE_WASI_PATH), &config, &granted(), &metrics).unwrap();
    let bad = event(r#"{"bad":true}"#);
    let (mut out, rejected) = in_time(|| hostile.process(std::slice::from_ref(&bad)));
    // The next one finds a module that works.
    let (after, none) = hostile.process(&[event("{}")]);
    assert_eq!((after.len(), none.len()), (1, 0), "{what}");
    match rejected.into_iter().next() {
        Some(one) => Err(one.reason),
        None => Ok(String::from_utf8(out.remove(0).payload).unwrap()),
    }
}

#[track_caller]
fn check(what: &str, expected: Result<&str, &str>) {
    let found = ask(what);
    match (&found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{what}"),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{what}: {found}"),
        _ => panic!("{what}: {found:?}, not {expected:?}"),
    }
}

#[test]
fn wasi_is_refused_by_name_unless_granted() {
    let host = ModuleHost::new(None).unwrap();
    let path = Path::new(HOSTILE_WASI_PATH);
    let error = host.transform(path, "{}", &limits(), &CallMetrics::default()).unwrap_err();
    assert!(matches!(error, ModuleError::ForbiddenImport { .. }));
    let found = error.to_string();
    let remedy = r#"grant `capabilities = ["wasi"]`"#;
    assert!(found.contains("imports `wasi:") && found.contains(remedy), "{found}");
}

#[test]
fn there_are_no_files_and_no_network() {
    check("read-file", Err("No such file or directory"));
    check("write-file", Err("No such file or directory"));
    check("list-files", Err("No such file or directory"));
    check("connect", Err("ermission denied"));
}

#[test]
fn the_environment_is_empty_and_the_world_stands_still() {
    check("environment", Ok("[] []"));
    check("read-stdin", Ok(""));
    let clocks = ask("clocks").unwrap();
    let [since, elapsed] = clocks.split(' ').collect::<Vec<_>>()[..] else { panic!("{clocks}") };
    for time in [since, elapsed] {
        assert!(time.ends_with("µs") && time.len() < 8, "a few looks at a clock: {clocks}");
    }
    let random = ask("random").unwrap();
    assert!(random.len() > 100);
    assert_eq!(ask("random").unwrap(), random, "random, and the same each time");
}

#[test]
fn what_would_wait_or_end_the_process_is_a_trap_of_this_module() {
    check("sleep", Err("the module waits (wasi:io/poll"));
    check("exit", Err("the module ended itself (wasi:cli/exit"));
    check("loop", Err("deadline"));
}

#[test]
fn what_it_prints_is_bounded_like_its_log() {
    check("print", Ok("printed"));
    let host = ModuleHost::new(None).unwrap();
    let metrics = CallMetrics::default();
    let path = Path::new(HOSTILE_WASI_PATH);
    // The test is not about the deadline, which a busy machine could pass.
    let limits = ModuleLimits { deadline: Duration::from_secs(10), ..granted() };
    let mut hostile = host.transform(path, r#"{"do":"print-flood"}"#, &limits, &metrics).unwrap();
    in_time(|| hostile.process(&[event(r#"{"bad":true}"#)]));
    assert!(metrics.module_log_dropped_lines.get() > 9000);
}

#[test]
fn the_last_words_of_a_panic_are_in_the_reason() {
    check("panic", Err("hostile panic"));
}
