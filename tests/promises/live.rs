//! `priority = "live"`: after an outage the newest results come first, the backlog beside them, and
//! each counts once; without it, order is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_tests::agent::Agent;
use headwater_tests::broker::Broker;
use headwater_tests::collector::{self, Collector};
use headwater_tests::ledger::balances;
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::{Mode, Proxy, Way};
use headwater_tests::publisher::Publisher;
use serde_json::Value;

use crate::upstream::publish;

const SOON: Duration = Duration::from_secs(60);

/// Ids as the collector stored them, in that order.
fn stored(results: &[Value], pipeline: &str) -> Vec<u64> {
    let of = results.iter().filter(|line| line["pipeline"] == pipeline);
    of.map(|line| line["value"]["id"].as_u64().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_results_overtake_the_backlog_of_an_outage_and_others_do_not() {
    let collector = Collector::start().await;
    let (broker, proxy) = (Broker::start().await, Proxy::start(collector.port()).await);
    let live = format!("{}priority = \"live\"\n", plant::forwarded(KEY));
    let more = ", timeout = \"2s\", backoff_max = \"1s\", results_max = 10";
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("live", "plant", "central", &live)
        .pipeline("ordered", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector::url(proxy.port()), more);
    let mut agent = Agent::start(plan.toml()).await;
    let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(5));

    proxy.set(Mode::Cut);
    publish(&publisher, &mut load, 4_000).await;
    for pipeline in ["live", "ordered"] {
        agent.reaches("pipeline_results", pipeline, load.published(), SOON).await;
    }
    agent.kill9();
    agent.resume().await;
    agent.reaches("output_pending_results", "central", 8_000, SOON).await;

    let backlog = load.published();
    // A slow link: the backlog takes about half a minute.
    proxy.set(Mode::Delay(Way::Down, Duration::from_millis(30)));
    agent.reaches("output_delivered_results", "central", 10, SOON).await;
    let returned = Instant::now();
    publish(&publisher, &mut load, 20).await;
    // While a backlog is there: asked for the newest page only, the collector answers at once.
    eventually("the new results at the collector", SOON, async || {
        let results = collector.results().await;
        let ids = stored(&results, "live");
        ids.iter().filter(|id| **id >= backlog).count().eq(&20).then_some(())
    })
    .await;
    let waited = returned.elapsed();
    let pending = agent.metrics().await.unwrap().of("output_pending_results", "central");
    eprintln!("live results arrived {waited:?} after the return, {pending} were still waiting");
    assert!(pending >= 1_000, "the backlog had drained before: only {pending} left");
    assert!(waited < Duration::from_secs(15), "{waited:?}");

    // In the middle of the drain, with the outbox cut in two.
    agent.kill9();
    agent.resume().await;
    agent.reaches("output_pending_results", "central", 1_000, SOON).await;
    proxy.set(Mode::Pass);
    for pipeline in ["live", "ordered"] {
        balances(&agent, pipeline, "central", load.published(), SOON * 2).await;
    }
    let results = collector.results().await;
    for pipeline in ["live", "ordered"] {
        assert_eq!(plant::ids(&results, pipeline), (0..load.published()).collect::<Vec<_>>(), "{pipeline}");
    }
    assert!(!stored(&results, "live").is_sorted(), "something overtook");
    let mut keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in results.iter().filter(|line| line["pipeline"] == "ordered") {
        keys.entry(line["key"].as_str().unwrap()).or_default().push(line["value"]["id"].as_u64().unwrap());
    }
    assert_eq!(keys.len(), 5);
    assert!(keys.values().all(|ids| ids.is_sorted()), "order is kept for each key");
}
