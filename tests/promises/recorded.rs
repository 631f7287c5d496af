//! The recorded series over a real broker: every window equals an independent computation, and exactly those
//! readings are late that the lateness says.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::oracle::{self, ExpectedResults, PlantReading, TumblingWindows, compute};
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::recorded::{SERIES, series};

const MINUTE: u64 = 60_000;

/// Name, then size, lateness and time for revisions, as configured and in milliseconds.
const CASES: [(&str, [&str; 3], TumblingWindows); 5] = [
    ("hourly", ["1h", "0s", "0s"], windows(60, 0, 0)),
    ("strict", ["10m", "0s", "0s"], windows(10, 0, 0)),
    // The watermark stands exactly at the end of a window when the clock jumps back.
    ("lenient", ["10m", "25m", "0s"], windows(10, 25, 0)),
    ("patient", ["10m", "2h", "0s"], windows(10, 120, 0)),
    ("revising", ["10m", "0s", "2h"], windows(10, 0, 120)),
];

/// Returns windows with lengths in minutes.
const fn windows(size: u64, lateness: u64, revise: u64) -> TumblingWindows {
    TumblingWindows { size: size * MINUTE, lateness: lateness * MINUTE, revise: revise * MINUTE }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_window_of_the_recorded_series_equals_a_naive_computation() {
    let readings: Vec<_> = SERIES.iter().map(|name| series(name)).collect();
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let mut agent = TestAgent::start(plan(broker.port(), &collector).toml()).await;
    let publisher = TestPublisher::connect("devices", broker.port());
    publish(&publisher, &readings).await;

    let mut pipelines = Vec::new();
    for (index, readings) in readings.iter().enumerate() {
        for (case, _, windows) in CASES {
            let pipeline = format!("{case}-{index}");
            let expected = compute(readings, windows);
            check_counts(&agent, &pipeline, &expected, readings.len() as u64).await;
            pipelines.push((pipeline, expected));
        }
    }
    let results = collector.results().await;
    let late_readings = collector.late().await;
    for (pipeline, expected) in &pipelines {
        let late = late_readings.iter().filter(|row| row["pipeline"] == *pipeline).count() as u64;
        assert_eq!(late, expected.late, "late readings of {pipeline} at the collector");
        let differences = oracle::differences(&expected.windows, &plant::windows(&results, pipeline));
        assert!(differences.is_empty(), "{pipeline}:\n{}", differences.join("\n"));
    }
    // Only the jump of the machine's clock by 55 minutes makes the cases differ. Without it this test would
    // prove nothing about lateness.
    let late: Vec<_> = pipelines[..CASES.len()].iter().map(|(_, expected)| expected.late).collect();
    assert!(late[1] > late[2] && late[2] > 0, "the machine's late readings: {late:?}");
    assert_eq!(late[3..], [0, 0], "the machine's late readings");
    assert!(agent.dead_letters().await.is_empty());
}

/// Returns one input and one pipeline a case for each series: their dates lie years apart, and a watermark
/// belongs to a pipeline.
fn plan(port: u16, collector: &TestCollector) -> ConfigBuilder {
    let mut plan = ConfigBuilder::default().output("central", &collector.url(), "");
    for (index, name) in SERIES.iter().enumerate() {
        let input = format!("device-{index}");
        let topic = format!("plant/{name}/telemetry");
        plan = plan.input(&input, port, &[&topic], if index % 2 == 0 { "3.1.1" } else { "5" });
        for (case, [size, lateness, revise], _) in CASES {
            let body = plant::windowed("{topic[1]}", size, lateness, revise);
            let body = format!("{body}late = {{ output = \"central\" }}\n");
            plan = plan.pipeline(&format!("{case}-{index}"), &input, "central", &body);
        }
    }
    plan
}

/// Publishes the series in turns, as devices do, each in its own order.
async fn publish(publisher: &TestPublisher, readings: &[Vec<PlantReading>]) {
    let longest = readings.iter().map(Vec::len).max().unwrap_or_default();
    for turn in 0..longest {
        for reading in readings.iter().filter_map(|series| series.get(turn)) {
            let topic = format!("plant/{}/telemetry", reading.key);
            publisher.publish(&topic, plant::payload(turn as u64, reading.time, reading.value)).await;
        }
    }
    publisher.confirmed().await;
}

async fn check_counts(agent: &TestAgent, pipeline: &str, expected: &ExpectedResults, published: u64) {
    let metrics = check_balance(agent, pipeline, "central", published, Duration::from_secs(120)).await;
    let of = |metric: &str| metrics.of(&format!("pipeline_{metric}"), pipeline);
    assert_eq!(of("late_events"), expected.late, "late readings of {pipeline}");
    assert_eq!(of("used_events"), expected.used() + expected.open, "used readings of {pipeline}");
    let status = agent.status().await.expect("the agent answers");
    assert_eq!(status["pipelines"][pipeline]["late_events"], expected.late, "/status of {pipeline}");
}
