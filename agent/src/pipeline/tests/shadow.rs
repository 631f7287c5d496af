//! Whatever a version does otherwise than the one that it runs beside is counted, and nothing else.

use super::*;
use crate::flow::Event;
use crate::module::{Closed, Group, ModuleCapability, TransformModule};
use crate::pipeline::aggregate::Aggregate;
use crate::pipeline::mailbox::{DIFFERENCES_MAX, Offer};
use crate::pipeline::shadow::{Shadow, Watched};
use crate::window::Aggregate as _;
use headwater_bundle::{HOSTILE_AGGREGATE_PATH, HOSTILE_PATH, HOSTILE_STATEFUL_PATH};
use std::path::Path;

const BAD: &str = r#"{"bad":true}"#;

fn transform(path: &str, settings: &str) -> TransformModule {
    let limits = ModuleLimits { granted: [ModuleCapability::State].into(), ..ModuleLimits::default() };
    let host = ModuleHost::new(None).unwrap();
    host.transform(Path::new(path), settings, &limits, &module::CallMetrics::default()).unwrap()
}

fn hostile(what: &str) -> TransformModule {
    transform(HOSTILE_PATH, &format!(r#"{{"do":"{what}"}}"#))
}

fn aggregate(settings: &str) -> Aggregate {
    let (host, path) = (ModuleHost::new(None).unwrap(), Path::new(HOSTILE_AGGREGATE_PATH));
    let limits = ModuleLimits::default();
    Aggregate::Module(host.aggregate(path, settings, &limits, &module::CallMetrics::default()).unwrap())
}

fn beside(transforms: Vec<TransformModule>, aggregate: Option<Aggregate>) -> Shadow {
    let (modules, version) = (Modules { transforms, aggregate }, Version::default());
    Shadow::new(Box::new(Offer { modules, version, config: Plant::new().config }), Instant::now())
}

fn event(payload: &str) -> Event {
    Event { key: "k".to_owned(), payload: payload.into(), ..Event::default() }
}

fn compared(running: &str, other: &str, payloads: &[&str]) -> Shadow {
    let events: Vec<_> = payloads.iter().map(|payload| event(payload)).collect();
    let mut shadow = beside(vec![hostile(other)], None);
    let (passed, rejected) = hostile(running).process(&events);
    shadow.compare(0, &events, &passed, &rejected);
    assert_eq!(shadow.events, events.len() as u64);
    shadow
}

/// How many differences, what is said of the last one, and whether it tripped.
#[track_caller]
fn check(shadow: &Shadow, differences: u64, words: &str, trips: bool) {
    assert_eq!((shadow.differences, shadow.tripped.is_some()), (differences, trips), "{:?}", shadow.first);
    let last = shadow.first.last().map_or("", |last| last);
    assert!(last.contains(words), "{last}");
}

#[test]
fn events_that_come_out_otherwise_or_are_refused_otherwise_are_counted() {
    let check = |running: &str, other: &str, differences: u64, words: &str, trips: bool| {
        check(&compared(running, other, &["1", BAD, "2"]), differences, words, trips);
    };
    check("", "", 0, "", false);
    check(
        "",
        "count-inputs",
        1,
        "transform[0]: now \"k\" at 1970-01-01T00:00:00Z {\"bad\":true}, then",
        false,
    );
    check("reject", "error", 0, "", false);
    check("reject", "panic", 0, "", true);
    // Two events are at other places, and one is refused.
    check("reject", "", 3, "now refused: hostile reading, then taken", false);
    check("", "panic", 3, "now taken, then refused: ", true);
}

#[test]
fn what_is_shown_of_differences_is_bounded_and_their_number_is_not() {
    let long = format!(r#"{{"bad":true,"long":"{}"}}"#, "x".repeat(10_000));
    let shadow = compared("", "count-inputs", &[long.as_str(); 20]);
    assert_eq!((shadow.differences, shadow.first.len()), (20, DIFFERENCES_MAX));
    assert!(shadow.first.iter().all(|it| it.len() < 1000), "{:?}", shadow.first);
}

#[test]
fn nothing_is_remembered_for_a_version_that_is_only_compared() {
    let mut shadow = beside(vec![transform(HOSTILE_STATEFUL_PATH, "{}")], None);
    let events = [event(r#"[["set","a","1"]]"#)];
    shadow.compare(0, &events, &events, &[]);
    assert_eq!(shadow.offer.modules.transforms[0].drain(), []);
}

#[test]
fn samples_states_and_results_that_are_otherwise_are_counted() {
    let check = |other: &str, differences: u64, words: &str, trips: bool| {
        let (start, end) = (Timestamp(0), Timestamp(1_000_000));
        let samples = ["1", BAD, "2"].map(|payload| (start, payload.into())).to_vec();
        let group = Group { key: "bad".to_owned(), start, end, state: Vec::new(), samples };
        let mut shadow = beside(Vec::new(), Some(aggregate(other)));
        let mut running = aggregate("{}");
        let mut watched = Watched { running: &mut running, shadow: Some(&mut shadow) };
        let state = watched.update(&[group]).remove(0).state;
        let closed = Closed { key: "bad".to_owned(), start, end, state, count: 3, late: 0, revision: 0 };
        assert_eq!(watched.finish(&[closed]), [Ok(b"3".to_vec())], "that of the one that runs");
        assert_eq!(shadow.events, 3);
        check(&shadow, differences, words, trips);
    };
    check("{}", 0, "", false);
    check(r#"{"do":"count-updates"}"#, 1, "now one state, then another", false);
    check(r#"{"do":"update-reject"}"#, 1, "now taken, then refused: hostile sample", false);
    check(r#"{"do":"update-panic"}"#, 1, "now taken, then refused: ", true);
    check(r#"{"do":"finish-text"}"#, 1, "then refused: the module's result is not JSON", false);
    check(r#"{"do":"finish-panic"}"#, 1, "then refused: ", true);
    check(r#"{"version":2}"#, 0, "", false);
    check(
        r#"{"version":2,"refuse":true}"#,
        1,
        "now a state of version 0, then refused: hostile state",
        false,
    );
}
