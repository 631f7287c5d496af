//! Stopping and starting: open windows are kept, work goes on where it stood, and a start that fails says
//! why, with its exit code.

use std::time::{Duration, Instant};

use headwater_agent::roster::PIPELINES_MAX;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::wait_until_drained;
use headwater_tests::oracle::{self, TumblingWindows, compute};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::publisher::TestPublisher;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_outlive_a_stop() {
    let broker = RumqttdBroker::start().await;
    let collector = TestCollector::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &plant::windowed(KEY, "10s", "1s", "0s"))
        .output("central", &collector.url(), "");
    let mut agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);
    let mut before = 0;
    for part in 0..3 {
        // Each run ends in the middle of a window.
        for _ in 0..1_333 {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        // This broker gives redeliveries new packet identifiers, so nothing may be in flight at the stop.
        let arrived = load.published() - before;
        agent.wait_for_metric("input_acknowledged_messages", "plant", arrived, SOON).await;
        before = load.published();
        if part < 2 {
            let status = agent.stop().await;
            assert_eq!(status.code(), Some(0), "a stop that was asked for is a success");
            agent.resume().await;
        }
    }
    let (topic, payload) = load.closing_reading();
    publisher.publish(&topic, payload).await;

    let expected = compute(load.readings(), TumblingWindows { size: 10_000, lateness: 1_000, revise: 0 });
    let all = expected.windows.len();
    let waited = collector.wait_for_results(all).await.len();
    wait_until_drained(&agent, "central", SOON).await;
    let results = collector.results().await;
    assert_eq!(results.len(), waited, "nothing came after the last window");
    assert_eq!(results.len(), all, "no window was closed by a stop");
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// As many as an agent may have: each has a thread, and none of them takes another stage's.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_pipelines_as_are_allowed_leave_every_other_stage_at_work() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for number in 0..PIPELINES_MAX {
        plan = plan.pipeline(&format!("each-{number}"), "plant", "central", &plant::forwarded(KEY));
    }
    let plan = plan.output("central", &destination.url(), "");
    let mut agent = TestAgent::prepare(plan.toml());
    agent.spawn();
    agent.ready_within(Duration::from_secs(120)).await;
    let (status, said) = agent.get("/live").await.expect("it answers");
    assert_eq!(status, 200, "{said}");
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(1);
    let (topic, payload) = load.reading();
    publisher.publish(&topic, payload).await;
    let results = PIPELINES_MAX as u64;
    agent.wait_for_metric("output_delivered_results", "central", results, Duration::from_secs(120)).await;
    let begun = Instant::now();
    assert_eq!(agent.stop().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "within its grace, but after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_pipelines_than_are_allowed_are_refused_with_the_bound() {
    let mut plan = ConfigBuilder::default().input("plant", 9, &[TOPICS], "3.1.1");
    for number in 0..=PIPELINES_MAX {
        plan = plan.pipeline(&format!("each-{number}"), "plant", "central", &plant::forwarded(KEY));
    }
    let agent = TestAgent::prepare(plan.output("central", "http://127.0.0.1:9/v1/batches", "").toml());
    for command in ["run", "check"] {
        let output = agent.run_command(&[command]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("1025 sections `[pipeline.NAME]`, and an agent runs at most 1024"), "{said}");
    }
    assert!(!agent.state().exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_in_use_is_refused_with_78() {
    let broker = RumqttdBroker::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", "http://127.0.0.1:9/v1/batches", "");
    let mut agent = TestAgent::start(plan.toml()).await;
    let output = agent.run_command(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains(agent.state().to_str().unwrap()), "the folder is named: {text}");
    let (status, _) = agent.get("/live").await.expect("the first one is not disturbed");
    assert_eq!(status, 200);
    assert_eq!(agent.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_is_none_is_refused_with_78() {
    let plan = ConfigBuilder::default()
        .input("plant", 9, &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", "http://127.0.0.1:9/v1/batches", "");
    let agent = TestAgent::prepare(plan.toml());
    std::fs::write(agent.state(), "a file").unwrap();
    let output = agent.run_command(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains(agent.state().to_str().unwrap()), "the path is named: {text}");
    assert_eq!(std::fs::read_to_string(agent.state()).unwrap(), "a file", "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_configuration_is_listed() {
    let agent = TestAgent::prepare(
        r#"[input.plant]
mqtt = { url = "http://127.0.0.1:1883", topics = ["plant/#/telemetry"], qos = 7 }
[pipeline.temperature]
input = "plont"
key = "{topic[1"
output = "central"
windw = { tumbling = "1m" }
window = { tumbling = "soon" }
aggregate = { module = "modules/missing.wasm" }
[output.central]
http = { url = "http://collect.example.com/v1/batches" }
"#,
    );
    for command in ["run", "check"] {
        let output = agent.run_command(&[command]);
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{command}: {text}");
        for fault in
            ["http://127.0.0.1:1883", "plant/#/telemetry", "qos", "plont", "{topic[1", "windw", "soon"]
        {
            assert!(text.contains(fault), "{command} does not name {fault}:\n{text}");
        }
        for line in ["agent.toml:", "allow_plaintext"] {
            assert!(text.contains(line), "{command} does not say {line}:\n{text}");
        }
    }
    assert!(!agent.state().exists(), "a faulty configuration makes no state");
}
