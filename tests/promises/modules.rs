//! Hostile modules: each costs the reading that hurt it, with the reason, and nothing else.

use std::time::Duration;

use headwater_tests::agent::Agent;
use headwater_tests::backend::Backend;
use headwater_tests::broker::Broker;
use headwater_tests::ledger::balances;
use headwater_tests::plant::{self, Plan};
use headwater_tests::publisher::Publisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// Readings published, and which of them hurt.
const READINGS: u64 = 60;
const BAD: [u64; 3] = [0, 17, 41];

/// What a hostile transform does, and a word of the reason it must leave.
const TRANSFORMS: [(&str, &str); 9] = [
    ("panic", "hostile panic"),
    ("unreachable", "unreachable"),
    ("loop", "deadline"),
    ("memory", "memory"),
    // Its stack lies in its memory, before which there is nothing.
    ("stack", "trap"),
    ("error", "hostile batch"),
    ("reject", "hostile reading"),
    ("output", ""),
    ("many", ""),
];

/// What a hostile aggregate does with samples, and a word of the reason it must leave.
const UPDATES: [(&str, &str); 4] = [
    ("update-panic", "hostile sample"),
    ("update-loop", "deadline"),
    ("update-error", "hostile batch"),
    ("update-reject", "hostile sample"),
];

/// What a hostile aggregate does with the windows of a key, and a word of the reason.
const FINISHES: [(&str, &str); 3] =
    [("finish-panic", "hostile window"), ("finish-error", "hostile windows"), ("finish-text", "JSON")];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_transforms_cost_their_culprits_alone() {
    let kinds: Vec<_> = TRANSFORMS.iter().map(|(kind, _)| *kind).collect();
    let (mut agent, backend) = run(&kinds, READINGS, |kind| {
        let limits = "deadline = \"200ms\", memory_bytes_max = \"16 MiB\", output_bytes_max = \"1 MiB\"";
        plant::forwarded("{field.device}")
            + &format!(
                "transform = [{{ module = \"modules/hostile.wasm\", settings = {{ do = {kind:?} }}, {limits} }}]"
            )
    })
    .await;
    for (kind, _) in TRANSFORMS {
        let metrics = balances(&agent, kind, "central", READINGS, SOON).await;
        assert_eq!(metrics.of("pipeline_rejected_messages", kind), BAD.len() as u64, "{kind}");
    }
    let (lines, letters) = (backend.accepted(), agent.dead_letters().await);
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
    let (mut agent, backend) = run(&kinds, READINGS + 1, |kind| aggregating(kind, "{topic[0]}")).await;
    for (kind, _) in UPDATES {
        let metrics = balances(&agent, kind, "central", READINGS + 1, SOON).await;
        assert_eq!(metrics.of("pipeline_rejected_events", kind), BAD.len() as u64, "{kind}");
    }
    let (lines, letters) = (backend.accepted(), agent.dead_letters().await);
    for (kind, reason) in UPDATES {
        assert_eq!(counted(&lines, kind), READINGS - BAD.len() as u64, "{kind}: the others count");
        check_letters(&letters, kind, "aggregate", reason, BAD.len());
    }
    check_neighbour(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_cannot_be_finished_cost_themselves_alone() {
    let kinds: Vec<_> = FINISHES.iter().map(|(kind, _)| *kind).collect();
    let (mut agent, backend) = run(&kinds, READINGS + 1, |kind| aggregating(kind, "{field.device}")).await;
    let (lines, letters) = (backend.accepted(), agent.dead_letters().await);
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
    let (agent, backend) = run(&["log"], READINGS, |kind| {
        plant::forwarded("{field.device}")
            + &format!(
                "transform = [{{ module = \"modules/hostile.wasm\", settings = {{ do = {kind:?} }} }}]"
            )
    })
    .await;
    let metrics = agent.metrics().await.expect("the agent answers");
    assert!(metrics.of("pipeline_module_log_dropped_lines", "log") > 9_000);
    assert!(agent.logged().len() < 1 << 20, "the log stayed small");
    // This kind swallows the reading that makes it talk.
    assert_eq!(plant::ids(&backend.accepted(), "log").len() as u64, READINGS - BAD.len() as u64);
}

#[test]
fn what_is_no_module_is_refused_before_anything_runs() {
    for (module, words) in [
        ("core", &["component"][..]),
        // An aggregate where a transform belongs.
        ("stats", &["transform"][..]),
        ("missing", &["missing.wasm"][..]),
    ] {
        let body = plant::forwarded("k") + &format!("transform = [{{ module = \"modules/{module}.wasm\" }}]");
        let plan = Plan::default()
            .input("plant", 9, &["plant"], "3.1.1")
            .pipeline("each", "plant", "central", &body)
            .output("central", "http://127.0.0.1:9/v1/batches", "");
        let agent = Agent::at_home(plan.toml());
        for command in ["check", "run"] {
            let output = agent.run(&[command]);
            let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{command} with {module}: {said}");
            for word in words {
                assert!(said.contains(word), "{command} with {module} does not say {word}: {said}");
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
        let plan = Plan::default()
            .input("plant", 9, &["plant"], "3.1.1")
            .pipeline("each", "plant", "central", &(plant::forwarded("k") + &hostile(what)))
            .output("central", "http://127.0.0.1:9/v1/batches", "");
        let agent = Agent::at_home(plan.toml());
        let output = agent.run(&["check"]);
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains(word), "{what}: {said}");
    }
}

/// A pipeline a kind, and a neighbour without modules; all have read everything when it returns.
async fn run(kinds: &[&str], messages: u64, body: impl Fn(&str) -> String) -> (Agent, Backend) {
    let (broker, backend) = (Broker::start().await, Backend::start([]).await);
    let mut plan = Plan::default()
        .input("plant", broker.port(), &["plant"], "3.1.1")
        .output("central", &backend.url(), "")
        .pipeline("neighbour", "plant", "central", &plant::forwarded("k"));
    for kind in kinds {
        plan = plan.pipeline(kind, "plant", "central", &body(kind));
    }
    let agent = Agent::start(plan.toml()).await;
    let publisher = Publisher::connect("plant", broker.port());
    for id in 0..messages {
        // The one beyond closes all windows of those before.
        let time = if id < READINGS { 1_767_225_600_000 + id } else { 1_767_229_200_000 };
        let reading = json!({ "id": id, "ts": time, "device": device(id), "bad": BAD.contains(&id) });
        publisher.publish("plant", reading.to_string()).await;
    }
    publisher.confirmed().await;
    for kind in kinds.iter().chain(&["neighbour"]) {
        agent.reaches("pipeline_read_messages", kind, messages, SOON).await;
    }
    headwater_tests::ledger::drained(&agent, "central", SOON).await;
    (agent, backend)
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
        let said = letter["reason"].as_str().unwrap_or_default();
        assert!(!said.is_empty() && said.contains(reason), "{pipeline}: {reason:?} is not in {said:?}");
        let digest = letter["module"].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{letter}");
    }
}
