//! Several outputs: a faulty destination affects only its own results.

use std::time::{Duration, Instant};

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::{FakeDestination, ScriptedAnswer};
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::publisher::TestPublisher;

use crate::upstream::{check_all_arrived, publish};

const SOON: Duration = Duration::from_secs(60);
const OUTPUTS: [&str; 4] = ["well", "stalls", "fails", "gone"];

/// Returns the median time of fifteen readings from the broker to the destination.
async fn latency(publisher: &TestPublisher, load: &mut PlantLoad, to: &FakeDestination) -> Duration {
    let mut all = Vec::new();
    for _ in 0..15 {
        publish(publisher, load, 10).await;
        let begun = Instant::now();
        eventually("the readings at their destination", SOON, async || {
            (to.accepted_lines().len() as u64 >= load.published()).then_some(())
        })
        .await;
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all[all.len() / 2]
}

/// Checks a destination that never answers, one that answers 500 to everything, and one that does not listen:
/// the results of the fourth come as fast as before. Once the three have recovered, theirs are all there,
/// once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_fails_does_not_touch_the_others() {
    let broker = RumqttdBroker::start().await;
    let mut destinations = Vec::new();
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for name in OUTPUTS {
        let destination = FakeDestination::start([]).await;
        let more = ", timeout = \"1s\", backoff_max = \"1s\"";
        plan =
            plan.pipeline(name, "plant", name, &plant::forwarded(KEY)).output(name, &destination.url(), more);
        destinations.push(destination);
    }
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);

    let before = latency(&publisher, &mut load, &destinations[0]).await;
    for name in OUTPUTS {
        check_balance(&agent, name, name, load.published(), SOON).await;
    }
    destinations[1].add_answers(vec![ScriptedAnswer::Silence(Duration::from_secs(600)); 1_000]);
    destinations[2].add_answers([ScriptedAnswer::RefuseWith(500, String::new())]);
    destinations[3].stop_listening().await;
    let beside = latency(&publisher, &mut load, &destinations[0]).await;
    eprintln!("median latency {before:?} with all well, {beside:?} beside three that are not");
    assert!(beside < before * 2 + Duration::from_millis(200), "{before:?} became {beside:?}");

    check_balance(&agent, "well", "well", load.published(), SOON).await;
    check_all_arrived(&destinations[0], &load, 0);
    for name in &OUTPUTS[1..] {
        agent.wait_for_metric("pipeline_results", name, load.published(), SOON).await;
        agent.wait_for_metric("output_failed_attempts", name, 2, SOON).await;
        let metrics = agent.metrics().await.unwrap();
        assert!(metrics.of("output_pending_results", name) >= 150, "{name} holds what it cannot deliver");
    }
    assert_eq!(agent.metrics().await.unwrap().of("output_failed_attempts", "well"), 0);

    destinations[1].accept_all();
    destinations[2].accept_all();
    destinations[3].listen_again().await;
    for (name, destination) in OUTPUTS.iter().zip(&destinations) {
        check_balance(&agent, name, name, load.published(), SOON).await;
        check_all_arrived(destination, &load, 0);
    }
}
