//! Built-in aggregates over the recorded series, through the whole agent: every value of every window equals
//! a plain computation over its readings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::oracle::PlantReading;
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::recorded::{SERIES, series};
use serde_json::{Value, json};

const SIZE: u64 = 6 * 3_600_000;
const ERROR: f64 = 0.01;

const COMPUTE: &str = r#"[
    "count", { count = "temperature" }, { sum = "temperature" }, { mean = "temperature" }, { min = "temperature" },
    { max = "temperature" }, { variance = "temperature" }, { stddev_sample = "temperature" },
    { first = "temperature" }, { last = "temperature" }, { delta = "temperature" }, { rate = "temperature" },
    { quantile = "temperature", at = [0.1, 0.5, 0.9] }, { distinct = "temperature" },
    { top = "temperature", k = 1, counters = 1000, as = "mode" },
    { histogram = "temperature", bounds = [20, 60, 90] }, { time_mean = "temperature", disorder = 256 },
    { mean = "nothing" },
]"#;

/// The start of each window, with its readings in the order of arrival.
type Windows = BTreeMap<u64, Vec<PlantReading>>;

#[tokio::test(flavor = "multi_thread")]
async fn built_ins_over_the_recorded_series_equal_a_naive_computation() {
    let broker = RumqttdBroker::start().await;
    let collector = TestCollector::start().await;
    let mut plan = ConfigBuilder::default().output("central", &collector.url(), "");
    for (index, name) in SERIES.iter().enumerate() {
        // With this lateness no reading is late: the clock of the machine jumps back by less than two hours.
        let body = format!(
            "key = \"{{topic[1]}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\n\
             window = {{ tumbling = \"6h\", lateness = \"2h\" }}\ncommit_every = \"100ms\"\n\
             aggregate = {{ compute = {} }}",
            COMPUTE.replace('\n', "")
        );
        let input = format!("device-{index}");
        let topic = format!("plant/{name}/telemetry");
        plan = plan.input(&input, broker.port(), &[&topic], "3.1.1");
        plan = plan.pipeline(&format!("built-in-{index}"), &input, "central", &body);
    }
    let mut agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("devices", broker.port());
    let mut all = Vec::new();
    for (index, name) in SERIES.iter().enumerate() {
        let readings = series(name);
        for (turn, reading) in readings.iter().enumerate() {
            let topic = format!("plant/{name}/telemetry");
            publisher.publish(&topic, plant::payload(turn as u64, reading.time, reading.value)).await;
        }
        all.push((format!("built-in-{index}"), readings));
    }
    publisher.confirmed().await;
    for (pipeline, readings) in &all {
        check_balance(&agent, pipeline, "central", readings.len() as u64, Duration::from_secs(120)).await;
    }
    assert!(agent.dead_letters().await.is_empty());
    let results = collector.results().await;
    let mut checked = 0;
    for (pipeline, readings) in &all {
        let expected = windows(readings);
        let found: Vec<_> = results.iter().filter(|line| line["pipeline"] == *pipeline).collect();
        assert_eq!(found.len(), expected.len(), "{pipeline}");
        for line in found {
            assert!(line["module"].as_str().is_some_and(|module| module.starts_with("builtin:")), "{line}");
            check(line, &expected);
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked}");
}

/// Returns the windows that the watermark has passed.
fn windows(readings: &[PlantReading]) -> Windows {
    let mut windows = Windows::new();
    for reading in readings {
        windows.entry(reading.time / SIZE * SIZE).or_default().push(reading.clone());
    }
    let newest = readings.iter().map(|reading| reading.time).max().unwrap_or_default();
    windows.retain(|start, _| start + SIZE + 2 * 3_600_000 <= newest);
    windows
}

fn check(line: &Value, expected: &Windows) {
    let start = line["window"]["start"].as_str().and_then(|start| start.parse::<jiff::Timestamp>().ok());
    let start = start.and_then(|start| u64::try_from(start.as_millisecond()).ok()).expect("a window's start");
    let readings = &expected[&start];
    let found = &line["value"];
    for (name, expected) in naive(readings, start + SIZE) {
        let found = &found[name];
        let same = match (found.as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs())),
            _ => *found == expected,
        };
        assert!(same, "{name} is {found} and should be {expected}: {line}");
    }
    let mut sorted: Vec<f64> = readings.iter().map(|reading| reading.value).collect();
    sorted.sort_by(f64::total_cmp);
    for (name, q) in [("p10", 0.1), ("p50", 0.5), ("p90", 0.9)] {
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let found = found["quantile_temperature"][name].as_f64().expect("a number");
        assert!((found - exact).abs() <= exact.abs() * ERROR * (1.0 + 1e-9), "{name} is {found} for {exact}");
    }
}

/// Computes a result from all readings at once.
fn naive(readings: &[PlantReading], end: u64) -> Vec<(&'static str, Value)> {
    let values: Vec<f64> = readings.iter().map(|reading| reading.value).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    // The sort is stable, so readings with the same time stay in the order of arrival.
    let mut ordered: Vec<&PlantReading> = readings.iter().collect();
    ordered.sort_by_key(|reading| reading.time);
    let first = ordered[0];
    let last = ordered[ordered.len() - 1];
    let spans = ordered.windows(2).map(|pair| (pair[0].value, pair[1].time - pair[0].time));
    let spans = spans.chain([(last.value, end - last.time)]);
    let area: f64 = spans.map(|(value, millis)| value * millis as f64).sum();
    let seconds = (last.time - first.time) as f64 / 1e3;
    let rate = if seconds > 0.0 { json!((last.value - first.value) / seconds) } else { Value::Null };
    let sample = if count > 1.0 { json!((squares / (count - 1.0)).sqrt()) } else { Value::Null };
    let below = |bound: f64| values.iter().filter(|value| **value <= bound).count();
    let counts =
        [below(20.0), below(60.0) - below(20.0), below(90.0) - below(60.0), values.len() - below(90.0)];
    let mut often: BTreeMap<String, u64> = BTreeMap::new();
    values.iter().for_each(|value| *often.entry(json!(value).to_string()).or_default() += 1);
    let most = often.values().max().copied().unwrap_or_default();
    let distinct: BTreeSet<u64> = values.iter().map(|value| value.to_bits()).collect();
    assert!(distinct.len() <= 256, "beyond it would be an estimate");
    vec![
        ("count", json!(values.len())),
        ("count_temperature", json!(values.len())),
        ("sum_temperature", json!(mean * count)),
        ("mean_temperature", json!(mean)),
        ("min_temperature", json!(values.iter().copied().fold(f64::INFINITY, f64::min))),
        ("max_temperature", json!(values.iter().copied().fold(f64::NEG_INFINITY, f64::max))),
        ("variance_temperature", json!(squares / count)),
        ("stddev_sample_temperature", sample),
        ("first_temperature", json!(first.value)),
        ("last_temperature", json!(last.value)),
        ("delta_temperature", json!(last.value - first.value)),
        ("rate_temperature", rate),
        ("distinct_temperature", json!(distinct.len())),
        ("histogram_temperature", json!({ "bounds": [20, 60, 90], "counts": counts })),
        ("time_mean_temperature", json!(area / (end - first.time) as f64)),
        ("mean_nothing", Value::Null),
        ("mode", mode(&often, most)),
    ]
}

/// Returns the most frequent value; of several, the one whose text sorts first.
fn mode(often: &BTreeMap<String, u64>, most: u64) -> Value {
    let whole = |text: &String| text.strip_suffix(".0").map_or(text.clone(), str::to_owned);
    let first = often.iter().filter(|(_, count)| **count == most).map(|(text, _)| whole(text)).min();
    let value: Value = serde_json::from_str(&first.unwrap_or_default()).unwrap_or_default();
    json!([{ "value": value, "count": most, "count_max": most }])
}
