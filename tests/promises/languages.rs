//! The examples in every language, through the whole agent: each gives what the one in Rust gives.
//!
//! The modules are those that `.ci/languages` has built.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::ConfigBuilder;
use headwater_tests::process::eventually;
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const READINGS: u64 = 400;
const BAD: [u64; 3] = [7, 200, 333];

/// Time for a start that compiles all modules, which takes minutes in a debug build.
const START: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(120);

/// Results by key and start of the window.
type Results = BTreeMap<(String, String), Value>;

#[tokio::test(flavor = "multi_thread")]
async fn every_language_gives_what_rust_gives() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &["plant"], "3.1.1");
    let names = names();
    for name in &names {
        plan = plan.pipeline(name, "plant", "central", &body(name));
    }
    let mut agent = TestAgent::prepare(plan.output("central", &destination.url(), "").toml());
    agent.spawn();
    eventually("the modules to be compiled", START, async || agent.get("/ready").await.ok()).await;
    agent.ready().await;

    let publisher = TestPublisher::connect("plant", broker.port());
    for id in 0..=READINGS {
        // The last reading closes all windows of those before.
        let time = 1_767_225_600_000 + if id == READINGS { 3_600_000 } else { id * 10 };
        let value = if BAD.contains(&id) { json!("warm") } else { json!(60.0 + (id % 89) as f64 / 7.0) };
        let reading = json!({ "ts": time, "device": format!("größe-{}", id % 3), "temperature": value });
        publisher.publish("plant", reading.to_string()).await;
    }
    publisher.confirmed().await;
    for name in &names {
        let metrics = check_balance(&agent, name, "central", READINGS + 1, SOON).await;
        assert_eq!(metrics.of("pipeline_rejected_messages", name), BAD.len() as u64, "{name}");
    }
    let lines = destination.accepted_lines();
    let expected = results(&lines, "rust");
    let count: u64 = expected.values().filter_map(|value| value["temperature"]["count"].as_u64()).sum();
    assert_eq!(count, READINGS - BAD.len() as u64);
    for name in &names {
        let found = results(&lines, name);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (place, expected) in &expected {
            check(&format!("{name} at {place:?}"), &found[place]["temperature"], &expected["temperature"]);
        }
    }
}

/// Returns the names of the languages that have a template.
fn names() -> Vec<String> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../transforms/languages"));
    let entries = fs::read_dir(folder).expect("the templates are there");
    entries.map(|entry| entry.expect("a folder").file_name().to_string_lossy().into_owned()).collect()
}

fn body(language: &str) -> String {
    let module = |kind: &str| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let file = PathBuf::from(format!("{root}/target/languages/{language}-{kind}/mine.wasm"));
        file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}: run .ci/languages", file.display()))
    };
    format!(
        "key = \"{{field.device}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n\
         transform = [{{ module = {:?}, settings = {{ field = \"temperature\" }} }}]\n\
         window = {{ tumbling = \"1s\", lateness = \"0s\", idle = \"12h\" }}\n\
         aggregate = {{ module = {:?}, settings = {{ fields = [\"temperature\"] }} }}",
        module("transform"),
        module("aggregate"),
    )
}

fn results(lines: &[Value], pipeline: &str) -> Results {
    let own = lines.iter().filter(|line| line["pipeline"] == pipeline);
    let place = |line: &Value| (line["key"].to_string(), line["window"]["start"].to_string());
    own.map(|line| (place(line), line["value"].clone())).collect()
}

#[track_caller]
fn check(place: &str, found: &Value, expected: &Value) {
    for name in ["count", "mean", "min", "max", "stddev"] {
        let found = found[name].as_f64();
        let expected = expected[name].as_f64();
        let near = found.zip(expected).is_some_and(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1.0));
        assert!(near, "{place}: {name} is {found:?} and should be {expected:?}");
    }
}
