//! The modules of this repository pass; for each check there is a module that does not, and that it finds.

use super::*;
use headwater_agent::flow::Timestamp;
use headwater_agent::module::ModuleHost;

fn samples() -> Vec<Event> {
    let payloads = [&br#"{"t":1}"#[..], br#"{"t":1,"bad":true}"#, br#"{"t":2}"#, br#"{"bad":true}"#];
    let event = |payload: &[u8]| Event {
        topic: "a".to_owned(),
        key: "b".to_owned(),
        time: Timestamp(1_767_225_600_000_000),
        payload: payload.to_vec(),
    };
    payloads.map(event).to_vec()
}

#[track_caller]
fn run(file: &Path, config: &str, reference: bool) -> Vec<Check> {
    let host = ModuleHost::new(None).unwrap();
    let mut subject = ModuleSubject::open_in(host, file, Some(config)).unwrap();
    all(&mut subject, samples(), reference).unwrap()
}

#[track_caller]
fn passes(path: &str, config: &str, reference: bool) {
    let faults: Vec<_> =
        run(Path::new(path), config, reference).into_iter().filter(|(_, result)| result.is_err()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Asserts that each of these checks fails.
#[track_caller]
fn fails(checks: &[Check], expected: &[&str]) {
    for name in expected {
        let Some((_, result)) = checks.iter().find(|(known, _)| known == name) else {
            panic!("no check {name:?}")
        };
        assert!(result.is_err(), "{name:?} holds");
    }
}

#[track_caller]
fn fails_one(path: &str, what: &str, expected: &str) {
    let config = format!("{{\"do\":\"{what}\"}}");
    fails(&run(Path::new(path), &config, false), &[expected]);
}

#[test]
fn the_reference_modules_conform() {
    passes(headwater_bundle::CELSIUS_PATH, "{}", true);
    passes(headwater_bundle::STATS_PATH, "{}", true);
}

#[test]
fn modules_that_do_something_else_conform() {
    passes(headwater_bundle::HOSTILE_PATH, "{}", false);
    passes(headwater_bundle::CELSIUS_PATH, r#"{"field":"t"}"#, false);
    passes(headwater_bundle::STATS_PATH, r#"{"fields":["t"]}"#, false);
}

#[test]
fn every_check_of_transforms_finds_its_fault() {
    let check = |what, expected| fails_one(headwater_bundle::HOSTILE_PATH, what, expected);
    check("invent", "an empty batch gives nothing");
    check("panic-bytes", "takes any bytes");
    check("panic-texts", "takes texts of any script");
    check("panic", "takes the samples");
    check("leak", "takes 10,000 events");
    check("reject-other", "names its rejections rightly");
    check("reject-twice", "names its rejections rightly");
    check("count-calls", "gives the same again");
    check("mark-first", "gives the same on a fresh instance");
    check("count-inputs", "gives the same however it is batched");
    let folder = tempfile::tempdir().unwrap();
    let asks = asks(folder.path());
    fails(&run(&asks, "{}", false), &["answers settings that are wrong"]);
}

#[test]
fn every_check_of_aggregates_finds_its_fault() {
    let check = |what, expected| fails_one(headwater_bundle::HOSTILE_AGGREGATE_PATH, what, expected);
    check("invent", "no groups give nothing");
    check("panic-bytes", "takes any bytes");
    check("panic-texts", "takes texts of any script");
    check("update-panic", "takes the samples");
    check("leak", "takes 10,000 samples");
    check("update-groups", "takes 10,000 groups");
    check("update-reject-other", "names its rejections rightly");
    check("count-calls", "gives the same again");
    check("mark-first", "gives the same on a fresh instance");
    check("count-updates", "gives the same however it is batched");
    check("hide", "keeps nothing but its state");
    check("merge-count", "an empty state is neutral");
    check("merge-left", "merging is associative, and as updating in one go");
    check("panic-state", "stands states that it has not made");
    check("", "answers settings that are wrong");
}

#[test]
fn every_check_of_celsius_finds_its_fault() {
    // It gives everything as it came.
    let passing = run(Path::new(headwater_bundle::HOSTILE_PATH), "{}", true);
    fails(
        &passing,
        &[
            "celsius: from fahrenheit, which is the default",
            "celsius: from kelvin",
            "celsius: names of any script",
            "celsius: passes each event once, as `repeat` = 1 says",
            "celsius: drops events, as `repeat` = 0 says",
            "celsius: splits each event into three, as `repeat` = 3 says",
            "celsius: rejects what is no JSON object",
            "celsius: rejects a field that is no number",
            "celsius: rejects a missing field",
            "celsius: rejects one event among others",
            "celsius: refuses bad settings",
        ],
    );
    // It gives one event that is no JSON for whatever comes.
    let folder = tempfile::tempdir().unwrap();
    let host = ModuleHost::new(None).unwrap();
    let subject = ModuleSubject::open_in(host, &asks(folder.path()), Some("{}")).unwrap();
    fails(
        &celsius::checks(subject.transform().unwrap()),
        &[
            "celsius: from celsius",
            "celsius: keeps the other members",
            "celsius: keeps topic, key, time and order",
            "celsius: takes 100 levels",
        ],
    );
}

#[test]
fn every_check_of_stats_finds_its_fault() {
    let checks = run(Path::new(headwater_bundle::HOSTILE_AGGREGATE_PATH), "{}", true);
    fails(
        &checks,
        &[
            "stats: count, mean, min, max and stddev",
            "stats: the same when merged",
            "stats: each field by itself",
            "stats: an empty state has no members",
            "stats: rejects a sample without a number",
            "stats: refuses bad settings",
        ],
    );
}

/// Makes a transform that exits at settings of more than two bytes.
fn asks(folder: &Path) -> std::path::PathBuf {
    let core = wat::parse_file(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wrap/asks.wat")).unwrap();
    let module = folder.join("asks.wasm");
    std::fs::write(&module, crate::wrap::component(&core, WorldKind::Transform).unwrap()).unwrap();
    module
}
