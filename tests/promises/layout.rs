//! A state folder that an earlier program left opens with nothing lost and nothing doubled.

use std::process::{Command, Stdio};
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_ledger, wait_until_drained};

const SOON: Duration = Duration::from_secs(60);

/// The state folder of an agent of layout 3 that was killed with the collector away: 520 readings `{"n": …}` used
/// by both pipelines, the last 20 of them late for their windows, 9 windows closed and one open, three messages
/// that are no JSON, a batch that was begun, and 80 messages acknowledged and not yet read.
const LAYOUT_3: &[u8] = include_bytes!("../fixtures/layout-3.tar.zst");
/// The readings in it, each with another `n`.
const READINGS: u64 = 600;
/// The `n` of those that are late for their windows.
const LATE: std::ops::Range<u64> = 500..520;
/// The windows that the readings close.
const WINDOWS: usize = 11;

/// The configuration of that agent, but that its broker is gone.
fn config(collector: &str) -> String {
    format!(
        r#"
        [input.plant]
        mqtt = {{ url = "mqtt://127.0.0.1:9", topics = ["plant/+"] }}
        [pipeline.each]
        input = "plant"
        output = "central"
        [pipeline.win]
        input = "plant"
        time = {{ field = "ts", unit = "s" }}
        past = "36500d"
        window = {{ tumbling = "10s", lateness = "0s" }}
        aggregate = {{ compute = ["count", {{ sum = "n" }}] }}
        late = {{ output = "central" }}
        output = "central"
        [output.central]
        http = {{ url = "{collector}" }}
        "#
    )
}

fn unpack(agent: &TestAgent) {
    let mut tar = Command::new("tar")
        .args(["-x", "-C"])
        .arg(agent.home())
        .stdin(Stdio::piped())
        .spawn()
        .expect("tar is installed");
    let mut into = tar.stdin.take().expect("a pipe");
    zstd::stream::copy_decode(LAYOUT_3, &mut into).expect("a whole fixture");
    drop(into);
    assert!(tar.wait().expect("it ends").success());
}

/// Returns the numbers `n` in the values, in order.
fn numbers(results: &[serde_json::Value]) -> Vec<u64> {
    let mut numbers: Vec<u64> =
        results.iter().map(|result| result["value"]["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_layout_3_loses_and_doubles_nothing() {
    let collector = TestCollector::start().await;
    let mut agent = TestAgent::prepare(&config(&collector.url()));
    unpack(&agent);
    agent.spawn();
    let results = collector.wait_for_results(READINGS as usize + WINDOWS).await;
    wait_until_drained(&agent, "central", SOON).await;
    check_ledger(&agent).await;

    let of = |pipeline: &str| -> Vec<_> {
        results.iter().filter(|result| result["pipeline"] == pipeline).cloned().collect()
    };
    assert_eq!(numbers(&of("each")), (0..READINGS).collect::<Vec<_>>());
    assert_eq!(numbers(&collector.late().await), LATE.collect::<Vec<_>>());
    let windows = of("win");
    assert_eq!(windows.len(), WINDOWS);
    // Ten seconds hold fifty readings, but for those in which the late ones were published.
    let mut counts: Vec<u64> =
        windows.iter().map(|window| window["value"]["count"].as_u64().expect("a number")).collect();
    counts.sort_unstable();
    assert_eq!(counts, [30, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50]);
    let letters = agent.dead_letters().await;
    assert_eq!(letters.len(), 2 * 3, "three messages that each pipeline refused: {letters:?}");
    let layout = std::fs::read_to_string(agent.state().join("store/layout")).expect("a layout");
    assert!(layout.starts_with("headwater state 4 "), "{layout}");
}
