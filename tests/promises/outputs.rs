//! Several outputs: what one destination does is felt by its own results alone.

use std::time::{Duration, Instant};

use headwater_tests::agent::Agent;
use headwater_tests::backend::{Answer, Backend};
use headwater_tests::broker::Broker;
use headwater_tests::ledger::balances;
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::publisher::Publisher;

use crate::upstream::{check_all_arrived, publish};

const SOON: Duration = Duration::from_secs(60);
const OUTPUTS: [&str; 4] = ["well", "stalls", "fails", "gone"];

/// How long some readings take from the broker to the destination: the median of fifteen.
async fn latency(publisher: &Publisher, load: &mut Load, to: &Backend) -> Duration {
    let mut all = Vec::new();
    for _ in 0..15 {
        publish(publisher, load, 10).await;
        let begun = Instant::now();
        eventually("the readings at their destination", SOON, async || {
            (to.accepted().len() as u64 >= load.published()).then_some(())
        })
        .await;
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all[all.len() / 2]
}

/// One never answers, one answers 500 to everything, one does not listen: the fourth's results come
/// as fast as before, and when the three are well again theirs are all there, once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_fails_does_not_touch_the_others() {
    let broker = Broker::start().await;
    let mut backends = Vec::new();
    let mut plan = Plan::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for name in OUTPUTS {
        let backend = Backend::start([]).await;
        let more = ", timeout = \"1s\", backoff_max = \"1s\"";
        plan = plan.pipeline(name, "plant", name, &plant::forwarded(KEY)).output(name, &backend.url(), more);
        backends.push(backend);
    }
    let agent = Agent::start(plan.toml()).await;
    let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(5));

    let before = latency(&publisher, &mut load, &backends[0]).await;
    for name in OUTPUTS {
        balances(&agent, name, name, load.published(), SOON).await;
    }
    backends[1].then(vec![Answer::Silence(Duration::from_secs(600)); 1_000]);
    backends[2].then([Answer::RefuseWith(500, String::new())]);
    backends[3].gone().await;
    let beside = latency(&publisher, &mut load, &backends[0]).await;
    eprintln!("median latency {before:?} with all well, {beside:?} beside three that are not");
    assert!(beside < before * 2 + Duration::from_millis(200), "{before:?} became {beside:?}");

    balances(&agent, "well", "well", load.published(), SOON).await;
    check_all_arrived(&backends[0], &load, 0);
    for name in &OUTPUTS[1..] {
        agent.reaches("pipeline_results", name, load.published(), SOON).await;
        agent.reaches("output_failed_attempts", name, 2, SOON).await;
        let metrics = agent.metrics().await.unwrap();
        assert!(metrics.of("output_pending_results", name) >= 150, "{name} holds what it cannot deliver");
    }
    assert_eq!(agent.metrics().await.unwrap().of("output_failed_attempts", "well"), 0);

    backends[1].well();
    backends[2].well();
    backends[3].back().await;
    for (name, backend) in OUTPUTS.iter().zip(&backends) {
        balances(&agent, name, name, load.published(), SOON).await;
        check_all_arrived(backend, &load, 0);
    }
}
