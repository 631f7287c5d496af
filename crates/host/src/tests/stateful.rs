//! A stateful transform remembers the changes of calls that succeed, and no others.

use super::*;
use crate::{ModuleCapability, ModuleError};
use headwater_bundle::HOSTILE_STATEFUL_PATH;

fn stateful(names_max: u64) -> TransformModule {
    // No test here is about the deadline, which a busy machine could pass.
    let deadline = Duration::from_secs(10);
    let granted = [ModuleCapability::State].into();
    let limits = ModuleLimits { deadline, granted, state_names_max: names_max, ..limits() };
    let path = Path::new(HOSTILE_STATEFUL_PATH);
    ModuleHost::new(None).unwrap().transform(path, "{}", &limits, &CallMetrics::default()).unwrap()
}

/// Returns the value that each event got, or the reason why it was refused.
fn run(transform: &mut TransformModule, events: &[&str]) -> Vec<Result<String, String>> {
    let events: Vec<_> = events.iter().map(|payload| event(payload)).collect();
    let (out, rejected) = in_time(|| transform.process(&events));
    let mut out = out.into_iter().map(|event| Ok(String::from_utf8(event.payload).unwrap()));
    let mut all = Vec::new();
    for index in 0..events.len() {
        let refused = rejected.iter().find(|one| one.index == index);
        all.push(refused.map_or_else(|| out.next().unwrap(), |one| Err(one.reason.clone())));
    }
    all
}

#[track_caller]
fn check(transform: &mut TransformModule, events: &[&str], expected: &[Result<&str, &str>]) {
    for (found, expected) in run(transform, events).iter().zip(expected) {
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn state_is_refused_by_name_unless_granted() {
    let host = ModuleHost::new(None).unwrap();
    let path = Path::new(HOSTILE_STATEFUL_PATH);
    let error = host.transform(path, "{}", &limits(), &CallMetrics::default()).unwrap_err();
    assert!(matches!(error, ModuleError::ForbiddenImport { .. }));
    let found = error.to_string();
    assert!(found.contains("imports `headwater:module/state@0.1.0`"), "{found}");
    assert!(found.contains(r#"grant `capabilities = ["state"]`"#), "{found}");
}

#[test]
fn what_was_set_is_there_for_the_next_event_and_the_next_call() {
    let mut transform = stateful(10);
    let events = [r#"[["set","a","1"]]"#, r#"[["get","a"],["get","b"]]"#];
    check(&mut transform, &events, &[Ok("[]"), Ok(r#"["1",null]"#)]);
    check(&mut transform, &[r#"[["get","a"],["remove","a"],["get","a"]]"#], &[Ok(r#"["1",null]"#)]);
    check(&mut transform, &[r#"[["get","a"]]"#], &[Ok("[null]")]);
    assert_eq!(transform.drain(), [("a".to_owned(), None)]);
}

#[test]
fn a_call_that_traps_has_changed_nothing_and_the_others_have() {
    let mut transform = stateful(10);
    let events = [r#"[["set","a","1"]]"#, r#"[["set","a","2"],["panic"]]"#, r#"[["get","a"]]"#];
    check(&mut transform, &events, &[Ok("[]"), Err("hostile"), Ok(r#"["1"]"#)]);
    assert_eq!((transform.names(), transform.drain().len()), (1, 1));
    check(&mut transform, &[r#"[["get","a"]]"#], &[Ok(r#"["1"]"#)]);
}

#[test]
fn an_event_that_the_module_refuses_has_changed_what_it_changed() {
    let events = [r#"[["set","a","1"],["reject"]]"#, r#"[["get","a"]]"#];
    check(&mut stateful(10), &events, &[Err("as told"), Ok(r#"["1"]"#)]);
}

#[test]
fn too_many_names_or_bytes_are_refused_with_the_remedy() {
    let mut transform = stateful(2);
    let set = |name: &str| format!(r#"[["set","{name}","1"]]"#);
    let a = set("a");
    let b = set("b");
    let c = set("c");
    let refused = "there are 2 names, and no more are kept: raise `state_names_max`";
    check(&mut transform, &[&a, &b, &c, &a], &[Ok("[]"), Ok("[]"), Err(refused), Ok("[]")]);
    let mut transform = stateful(1_000_000);
    check(&mut transform, &[r#"[["flood","x"]]"#], &[Err("the call's state has 83")]);
    let large = format!(r#"[["flood","{}"]]"#, "0123456789".repeat(7));
    check(&mut transform, &[&large], &[Err("the value has 70003 bytes, at most 65536")]);
}
