//! `kill -9` at any moment: nothing acknowledged is lost, nothing counts twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::oracle::{self, TumblingWindows, compute};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::publisher::TestPublisher;

const KILLS: usize = 30;
const WINDOWS: TumblingWindows = TumblingWindows { size: 1_000, lateness: 10_000, revise: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_under_load_lose_and_double_nothing() {
    let seed = seed();
    let mut moments = fastrand::Rng::with_seed(seed);
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &plant::windowed(KEY, "1s", "10s", "0s"))
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector.url(), ", timeout = \"2s\"");
    let mut agent = TestAgent::start(plan.toml()).await;
    let load = PlantLoad::new(10);
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publish(TestPublisher::connect("plant", broker.port()), load, Arc::clone(&stop));

    for kill in 0..KILLS {
        let moment = Duration::from_millis(moments.u64(0..1_500));
        tokio::time::sleep(moment).await;
        agent.kill9();
        eprintln!("kill {kill} after {moment:?}, seed {seed}");
        agent.spawn();
    }
    stop.store(true, Ordering::Relaxed);
    let load = publishing.await.expect("the publisher does not fail");
    agent.ready().await;

    let expected = compute(load.readings(), WINDOWS);
    assert_eq!((expected.late, expected.open), (0, 1), "the load closes all windows but its last");
    let all = expected.windows.len() + load.readings().len();
    for pipeline in ["windows", "each"] {
        let metrics =
            check_balance(&agent, pipeline, "central", load.published(), Duration::from_secs(120)).await;
        assert_eq!(metrics.of("pipeline_used_events", pipeline), load.published(), "seed {seed}");
    }
    let results = collector.wait_for_results(all).await;
    assert_eq!(results.len(), all, "results at the collector, seed {seed}");
    let ids = plant::ids(&results, "each");
    assert_eq!(ids, (0..load.published()).collect::<Vec<_>>(), "each reading once, seed {seed}");
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
    assert!(agent.dead_letters().await.is_empty());
    assert!(!agent.log_text().contains("panicked"), "no thread panicked");
}

/// Publishes until `stop` is set, then a reading that closes the windows. Returns the load, all of it
/// confirmed by the broker.
#[expect(clippy::disallowed_methods, reason = "a test has no wiring of its own")]
fn publish(
    publisher: TestPublisher,
    mut load: PlantLoad,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<PlantLoad> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..5 {
                let (topic, payload) = load.reading();
                publisher.publish(&topic, payload).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (topic, payload) = load.closing_reading();
        publisher.publish(&topic, payload).await;
        publisher.confirmed().await;
        load
    })
}

/// Returns the seed in HEADWATER_SEED, to repeat a run, or else a new one.
fn seed() -> u64 {
    let given = std::env::var("HEADWATER_SEED").ok();
    given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("HEADWATER_SEED is a number"))
}
