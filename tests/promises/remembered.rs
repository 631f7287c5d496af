//! The state of a transform is in step with its results, whatever happens in between.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{ConfigBuilder, TOPICS};
use headwater_tests::publisher::TestPublisher;

const KILLS: usize = 15;
const DEVICES: u64 = 7;
/// The number of readings between two kills.
const READINGS: u64 = 400;

/// Checks that the result of each reading is the number of readings that its device has sent so far.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_kept_by_a_transform_has_no_gap_and_no_double_after_kills_and_switches() {
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    // Each deadline makes another version of the module.
    let plan = |deadline: usize| {
        let step = format!(
            r#"{{ module = "modules/hostile_stateful.wasm", capabilities = ["state"], state_names_max = 7, deadline = "{deadline}ms" }}"#
        );
        let body = format!("key = \"{{topic[2]}}\"\ntransform = [{step}]\ncommit_every = \"50ms\"");
        ConfigBuilder::default()
            .input("plant", broker.port(), &[TOPICS], "3.1.1")
            .pipeline("counts", "plant", "central", &body)
            .output("central", &collector.url(), ", timeout = \"2s\"")
            .toml()
            .to_owned()
    };
    let mut agent = TestAgent::start(&plan(1_000)).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut expected = BTreeMap::new();
    let mut published = 0;
    let mut moments = fastrand::Rng::new();
    for kill in 0..KILLS {
        if kill % 3 == 2 {
            agent.ready().await;
        }
        for reading in 0..READINGS {
            // In the midst of them another version takes over and goes on from the same state.
            if kill % 3 == 2 && reading % 100 == 50 {
                agent.configure(&plan(1_002 + kill + usize::from(reading % 200 == 50)));
                agent.reload();
            }
            let device = format!("d{}", moments.u64(..DEVICES));
            publisher
                .publish(&format!("plant/1/{device}/telemetry"), format!(r#"[["add","{device}"]]"#))
                .await;
            *expected.entry(device).or_insert(0_u64) += 1;
            published += 1;
        }
        tokio::time::sleep(Duration::from_millis(moments.u64(..300))).await;
        // Some come after a stop, which commits, the others in the middle of anything; the last one is not
        // stopped at all.
        if kill == KILLS - 1 {
            break;
        }
        if kill % 5 == 4 {
            assert_eq!(agent.stop().await.code(), Some(0), "{}", agent.log_text());
        } else {
            agent.kill9();
        }
        agent.spawn();
    }
    agent.wait_for_metric("pipeline_swaps", "counts", 1, Duration::from_secs(60)).await;
    let metrics = check_balance(&agent, "counts", "central", published, Duration::from_secs(60)).await;
    assert_eq!(metrics.of("pipeline_remembered_names", "counts"), DEVICES);
    let mut counted = BTreeMap::<String, Vec<u64>>::new();
    for result in collector.wait_for_results(usize::try_from(published).expect("it is small")).await {
        let count = result["value"][0].as_str().and_then(|count| count.parse().ok());
        let device = result["key"].as_str().expect("a key").to_owned();
        counted.entry(device).or_default().push(count.expect("a number"));
    }
    for (device, count) in expected {
        let mut found = counted.remove(&device).unwrap_or_default();
        found.sort_unstable();
        assert_eq!(found, (1..=count).collect::<Vec<_>>(), "{device}");
    }
}
