//! Hostile modules: each costs only the reading that it failed at, with the reason.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// The number of readings published, and those among them that make a module fail.
const READINGS: u64 = 60;
const BAD: [u64; 3] = [0, 17, 41];

/// The misdeeds of a hostile transform, each with a word of the reason that it must leave.
const TRANSFORMS: [(&str, &str); 9] = [
    ("panic", "hostile panic"),
    ("unreachable", "unreachable"),
    ("loop", "deadline"),
    ("memory", "memory"),
    // The stack lies at the beginning of the module's memory, so an overflow leaves that memory.
    ("stack", "trap"),
    ("error", "hostile batch"),
    ("reject", "hostile reading"),
    ("output", ""),
    ("many", ""),
];

/// The misdeeds of a hostile aggregate with samples, each with a word of the reason that it must leave.
const UPDATES: [(&str, &str); 4] = [
    ("update-panic", "hostile sample"),
    ("update-loop", "deadline"),
    ("update-error", "hostile batch"),
    ("update-reject", "hostile sample"),
];

/// The misdeeds of a hostile aggregate with the windows of a key, each with a word of the reason.
const FINISHES: [(&str, &str); 3] =
    [("finish-panic", "hostile window"), ("finish-error", "hostile windows"), ("finish-text", "JSON")];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_transforms_cost_their_culprits_alone() {
    let kinds: Vec<_> = TRANSFORMS.iter().map(|(kind, _)| *kind).collect();
    let (mut agent, destination) = run(&kinds, READINGS, |kind| {
        let limits = "deadline = \"200ms\", memory_bytes_max = \"16 MiB\", output_bytes_max = \"1 MiB\"";
        plant::forwarded("{field.device}")
            + &format!(
                "transform = [{{ module = \"modules/hostile.wasm\", settings = {{ do = {kind:?} }}, {limits} }}]"
            )
    })
    .await;
    for (kind, _) in TRANSFORMS {
        let metrics = check_balance(&agent, kind, "central", READINGS, SOON).await;
        assert_eq!(metrics.of("pipeline_rejected_messages", kind), BAD.len() as u64, "{kind}");
    }
    let lines = destination.accepted_lines();
    let letters = agent.dead_letters().await;
    let good: Vec<_> = (0..READINGS).filter(|id| !BAD.contains(id)).collect();
    for (kind, reason) in TRANSFORMS {
        assert_eq!(plant::ids(&lines, kind), good, "{kind}: the others arrive");
        check_letters(&letters, kind, "transform[0]", reason, BAD.len());
    }
    check_neighbour(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_aggregates_cost_their_culprits_alone() {
    let kinds: Vec<_> = UPDATES.iter().map(|(kind, _)| *kind).collect();
    let (mut agent, destination) = run(&kinds, READINGS + 1, |kind| aggregating(kind, "{topic[0]}")).await;
    for (kind, _) in UPDATES {
        let metrics = check_balance(&agent, kind, "central", READINGS + 1, SOON).await;
        assert_eq!(metrics.of("pipeline_rejected_events", kind), BAD.len() as u64, "{kind}");
    }
    let lines = destination.accepted_lines();
    let letters = agent.dead_letters().await;
    for (kind, reason) in UPDATES {
        assert_eq!(counted(&lines, kind), READINGS - BAD.len() as u64, "{kind}: the others count");
        check_letters(&letters, kind, "aggregate", reason, BAD.len());
    }
    check_neighbour(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_cannot_be_finished_cost_themselves_alone() {
    let kinds: Vec<_> = FINISHES.iter().map(|(kind, _)| *kind).collect();
    let (mut agent, destination) =
        run(&kinds, READINGS + 1, |kind| aggregating(kind, "{field.device}")).await;
    let lines = destination.accepted_lines();
    let letters = agent.dead_letters().await;
    let good = (0..READINGS).filter(|id| device(*id) != "bad-device").count() as u64;
    for (kind, reason) in FINISHES {
        assert_eq!(counted(&lines, kind), good, "{kind}: the other keys' windows arrive");
        let own: Vec<_> = letters.iter().filter(|letter| letter["pipeline"] == kind).collect();
        assert!(!own.is_empty(), "{kind}: no dead letter");
        check_letters(&letters, kind, "finish", reason, own.len());
    }
    check_neighbour(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    let (agent, destination) = run(&["log"], READINGS, |kind| {
        plant::forwarded("{field.device}")
            + &format!(
                "transform = [{{ module = \"modules/hostile.wasm\", settings = {{ do = {kind:?} }} }}]"
            )
    })
    .await;
    let metrics = agent.metrics().await.expect("the agent answers");
    assert!(metrics.of("pipeline_module_log_dropped_lines", "log") > 9_000);
    assert!(agent.log_text().len() < 1 << 20, "the log stayed small");
    // In this kind the readings that make it log have no result.
    assert_eq!(plant::ids(&destination.accepted_lines(), "log").len() as u64, READINGS - BAD.len() as u64);
}

#[test]
fn what_is_no_module_is_refused_before_anything_runs() {
    for (module, words) in [
        ("core", &["component"][..]),
        // These are aggregates in the place of a transform.
        ("stats", &["transform"][..]),
        ("missing", &["missing.wasm"][..]),
    ] {
        let body = plant::forwarded("k") + &format!("transform = [{{ module = \"modules/{module}.wasm\" }}]");
        let plan = ConfigBuilder::default()
            .input("plant", 9, &["plant"], "3.1.1")
            .pipeline("each", "plant", "central", &body)
            .output("central", "http://127.0.0.1:9/v1/batches", "");
        let agent = TestAgent::prepare(plan.toml());
        for command in ["check", "run"] {
            let output = agent.run_command(&[command]);
            let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{command} with {module}: {text}");
            for word in words {
                assert!(text.contains(word), "{command} with {module} does not say {word}: {text}");
            }
        }
    }
}

#[test]
fn settings_that_a_module_refuses_are_configuration_faults() {
    let hostile = |what: &str| {
        format!(
            "transform = [{{ module = \"modules/hostile.wasm\", deadline = \"200ms\", settings = {{ do = {what:?} }} }}]"
        )
    };
    for (what, word) in
        [("init-error", "hostile settings"), ("init-panic", "hostile start"), ("init-loop", "deadline")]
    {
        let plan = ConfigBuilder::default()
            .input("plant", 9, &["plant"], "3.1.1")
            .pipeline("each", "plant", "central", &(plant::forwarded("k") + &hostile(what)))
            .output("central", "http://127.0.0.1:9/v1/batches", "");
        let agent = TestAgent::prepare(plan.toml());
        let output = agent.run_command(&["check"]);
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{what}: {text}");
        assert!(text.contains(word), "{what}: {text}");
    }
}

/// Runs a pipeline for each kind, and a neighbour without modules, until all have read everything.
async fn run(kinds: &[&str], messages: u64, body: impl Fn(&str) -> String) -> (TestAgent, FakeDestination) {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let mut plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant"], "3.1.1")
        .output("central", &destination.url(), "")
        .pipeline("neighbour", "plant", "central", &plant::forwarded("k"));
    for kind in kinds {
        plan = plan.pipeline(kind, "plant", "central", &body(kind));
    }
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    for id in 0..messages {
        // The reading beyond the last closes all windows of those before.
        let time = if id < READINGS { 1_767_225_600_000 + id } else { 1_767_229_200_000 };
        let reading = json!({ "id": id, "ts": time, "device": device(id), "bad": BAD.contains(&id) });
        publisher.publish("plant", reading.to_string()).await;
    }
    publisher.confirmed().await;
    for kind in kinds.iter().chain(&["neighbour"]) {
        agent.wait_for_metric("pipeline_read_messages", kind, messages, SOON).await;
    }
    headwater_tests::ledger::wait_until_drained(&agent, "central", SOON).await;
    (agent, destination)
}

fn aggregating(kind: &str, key: &str) -> String {
    format!(
        "key = {key:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\n\
         window = {{ tumbling = \"1s\", lateness = \"0s\", idle = \"12h\" }}\ncommit_every = \"100ms\"\n\
         aggregate = {{ module = \"modules/hostile_aggregate.wasm\", deadline = \"200ms\", settings = {{ do = {kind:?} }} }}"
    )
}

fn device(id: u64) -> &'static str {
    ["good-device", "bad-device", "fair-device"][(id % 3) as usize]
}

fn counted(lines: &[Value], pipeline: &str) -> u64 {
    let own = lines.iter().filter(|line| line["pipeline"] == pipeline);
    own.map(|line| line["value"].as_u64().expect("the module counts")).sum()
}

fn check_neighbour(lines: &[Value]) {
    let ids = plant::ids(lines, "neighbour");
    assert!(ids.len() as u64 >= READINGS && ids.iter().zip(0..).all(|(id, at)| *id == at), "{ids:?}");
}

fn check_letters(letters: &[Value], pipeline: &str, stage: &str, reason: &str, count: usize) {
    let own: Vec<_> = letters.iter().filter(|letter| letter["pipeline"] == pipeline).collect();
    assert_eq!(own.len(), count, "{pipeline}: dead letters {own:#?}");
    for letter in own {
        assert_eq!(letter["stage"], stage, "{letter}");
        let text = letter["reason"].as_str().unwrap_or_default();
        assert!(!text.is_empty() && text.contains(reason), "{pipeline}: {reason:?} is not in {text:?}");
        let digest = letter["module"].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{letter}");
    }
}
