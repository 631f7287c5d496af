use super::*;
use headwater_bundle::{CELSIUS_PATH, HOSTILE_PATH};

/// Good, good, bad, good, good; the bad one alone comes back, with this in its reason.
#[track_caller]
fn check(what: &str, reason: &str) {
    let mut hostile = transform(HOSTILE_PATH, &format!(r#"{{"do":"{what}"}}"#));
    let mut events: Vec<_> = (0..5).map(|n| event(&format!(r#"{{"n":{n}}}"#))).collect();
    events[2].payload = br#"{"bad":true}"#.to_vec();
    // The second time on an instance that has served before.
    for _ in 0..2 {
        let (out, rejected) = in_time(|| hostile.process(&events));
        assert_eq!(out, [&events[..2], &events[3..]].concat(), "{what}");
        assert_eq!(rejected.len(), 1, "{what}: {rejected:?}");
        assert_eq!(rejected[0].index, 2, "{what}");
        assert!(rejected[0].reason.contains(reason), "{what}: {}", rejected[0].reason);
    }
}

#[test]
fn a_trap_costs_the_culprit_alone_and_says_what_it_was() {
    check("panic", "tests/hostile/src/lib.rs");
    check("panic", "hostile panic");
    check("unreachable", "executed (in ");
    check("panic", ", by ");
    check("unreachable", "wasm `unreachable` instruction executed");
    check("stack", "call stack exhausted");
    check("frames", "out of bounds memory access");
}

#[test]
fn a_loop_ends_at_its_deadline() {
    check("loop", "deadline of 200ms passed");
    check("log-loop", "deadline of 200ms passed");
}

#[test]
fn a_memory_bomb_ends_at_its_limit() {
    check("memory", "memory limit of 67108864 bytes reached");
}

#[test]
fn a_giant_output_is_not_copied() {
    check("output", "output limit of 8388608 bytes reached");
    check("many", "output limit of 8388608 bytes reached");
}

#[test]
fn an_error_for_the_batch_is_narrowed_down() {
    check("error", "hostile batch");
}

#[test]
fn a_rejection_reaches_the_right_event() {
    check("reject", "hostile reading");
    check("reject-other", "the module rejected input 1000000 of 1");
    check("reject-twice", "the module rejected input 0 twice");
}

#[test]
fn rejections_count_through_many_calls() {
    let mut hostile = transform(HOSTILE_PATH, r#"{"do":"panic"}"#);
    let mut events = vec![event("{}"); 1000];
    for bad in [0, 255, 256, 999] {
        events[bad].payload = br#"{"bad":true}"#.to_vec();
    }
    let (out, rejected) = in_time(|| hostile.process(&events));
    assert_eq!(out.len(), 996);
    let indexes: Vec<_> = rejected.iter().map(|one| one.index).collect();
    assert_eq!(indexes, [0, 255, 256, 999]);
}

#[test]
fn a_fault_of_an_old_instance_costs_nothing() {
    let mut hostile = transform(HOSTILE_PATH, r#"{"do":"panic-later"}"#);
    let events = [event(r#"{"bad":true}"#), event("{}")];
    for _ in 0..3 {
        let (out, rejected) = hostile.process(&events);
        assert_eq!((out.as_slice(), rejected.len()), (events.as_slice(), 0));
    }
}

#[test]
fn log_lines_over_the_bound_are_counted_and_dropped() {
    let metrics = CallMetrics::default();
    let host = ModuleHost::new(None).unwrap();
    let config = r#"{"do":"log"}"#;
    let mut hostile =
        host.transform(Path::new(HOSTILE_PATH), config, &ModuleLimits::default(), &metrics).unwrap();
    let (_, rejected) = hostile.process(&[event(r#"{"bad":true}"#)]);
    assert_eq!(rejected, []);
    let dropped = metrics.module_log_dropped_lines.get();
    assert!((9_900..=9_991).contains(&dropped), "of 10,001 lines {dropped} were dropped");
}

#[test]
fn a_deadline_holds_when_the_host_is_gone() {
    let host = ModuleHost::new(None).unwrap();
    let config = r#"{"do":"loop"}"#;
    let mut hostile =
        host.transform(Path::new(HOSTILE_PATH), config, &limits(), &CallMetrics::default()).unwrap();
    drop(host);
    let (_, rejected) = in_time(|| hostile.process(&[event(r#"{"bad":true}"#)]));
    assert!(rejected[0].reason.starts_with("deadline of 200ms passed"), "{}", rejected[0].reason);
}

#[test]
fn celsius_converts_the_field_and_leaves_the_rest_alone() {
    #[track_caller]
    fn check(config: &str, payload: &str, expected: Result<&str, &str>) {
        let (out, rejected) = transform(CELSIUS_PATH, config).process(&[event(payload)]);
        let found = match (&*out, &*rejected) {
            ([event], []) => Ok(str::from_utf8(&event.payload).unwrap()),
            ([], [rejection]) => Err(&*rejection.reason),
            both => panic!("{both:?}"),
        };
        assert_eq!(found, expected);
    }
    let t = r#"{"field":"t"}"#;
    check(t, r#"{ "t": 212, "x": [1.0] }"#, Ok(r#"{ "t": 100.0, "x": [1.0] }"#));
    check(t, r#"{"x":"t","t":-40}"#, Ok(r#"{"x":"t","t":-40.0}"#));
    check(t, r#"{"x":1}"#, Err("field `t` is missing"));
    check(t, r#"{"t":"hot"}"#, Err(r#"field `t` is not a number: "hot""#));
    check(r#"{"field":"t","from":"kelvin"}"#, r#"{"t":273.15}"#, Ok(r#"{"t":0.0}"#));
    check(r#"{"field":"t","from":"celsius"}"#, r#"{"t":21.5}"#, Ok(r#"{"t":21.5}"#));
}
