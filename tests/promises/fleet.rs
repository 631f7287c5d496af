//! Many agents that lost the same collector and come back at once.

use std::sync::Arc;
use std::time::Duration;

use headwater_agent::flow::Timestamp;
use headwater_agent::metrics::{self, Metrics};
use headwater_agent::output::{Compression, Config, HttpOutput};
use headwater_agent::roster::Roster;
use headwater_agent::store::{self, Commit, Outgoing, Store};
use headwater_tests::collector::TestCollector;
use headwater_tests::process::eventually;
use headwater_wire::{EventResult, JsonText, Record};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(120);
const AGENTS: usize = 30;
const RESULTS: usize = 300;
/// The most bodies that the collector receives at once, far fewer than there are agents.
const BODIES_MAX: usize = 1;

/// The sending side of an agent: its store, and its sender as it runs in an agent.
struct FleetMember {
    metrics: metrics::Output,
    _home: tempfile::TempDir,
}

impl FleetMember {
    fn start(name: &str, url: &str, tasks: &mut JoinSet<()>, stop: watch::Receiver<bool>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let metrics = Metrics::new();
        let store =
            Store::open(&store::Config::new(home.path().join("store")), &metrics.store()).expect("a store");
        let line = |id: usize| {
            let time = Timestamp(1_767_225_600_000_000 + id as u64);
            let value = json!({ "id": id, "image": "x".repeat(8_000) }).to_string();
            let value = JsonText::checked(value.as_bytes()).expect("it is JSON");
            let event = EventResult {
                agent: name.into(),
                pipeline: "p".into(),
                key: "k".into(),
                time,
                module: None,
                value,
            };
            Record::Event(event).to_line()
        };
        let results = (0..RESULTS).map(line).collect();
        let commit = Commit {
            pipeline: "p",
            position: 1,
            results: Outgoing::new("central", results),
            ..Commit::default()
        };
        store.commit(&commit).expect("room on the disk");
        let mut config = Config::new(url.parse().expect("an address"));
        // Large bodies make several of them overlap.
        config.results_max = 100;
        config.compression = Compression::None;
        config.backoff_max = Duration::from_millis(500);
        let metrics = metrics.output("central");
        let output =
            HttpOutput::build("central", name, config, store, metrics.clone()).expect("a valid output");
        let roster = Roster::new(Arc::default()).reader();
        tasks.spawn(async move { output.run(roster, stop).await.expect("it stops when it is asked to") });
        Self { metrics, _home: home }
    }
}

/// Checks that the collector answers 503 with Retry-After, the agents spread, and every result arrives once.
#[tokio::test(flavor = "multi_thread")]
async fn all_arrives_when_many_agents_are_back_at_once() {
    let mut collector = TestCollector::start_small(BODIES_MAX).await;
    collector.kill9();
    let mut tasks = JoinSet::new();
    let stop = watch::Sender::new(false);
    let start = |n| FleetMember::start(&format!("gw-{n}"), &collector.url(), &mut tasks, stop.subscribe());
    let members: Vec<_> = (0..AGENTS).map(start).collect();
    eventually("all to have lost it", SOON, async || {
        members.iter().all(|member| member.metrics.failed_attempts.get() >= 2).then_some(())
    })
    .await;
    let failed = || members.iter().map(|member| member.metrics.failed_attempts.get()).sum::<u64>();
    collector.restart().await;
    let before = failed();
    let delivered = || members.iter().map(|member| member.metrics.delivered_results.get()).sum::<u64>();
    eventually("all to arrive", SOON, async || (delivered() == (AGENTS * RESULTS) as u64).then_some(()))
        .await;
    let shed = failed() - before;
    eprintln!("{AGENTS} agents, {BODIES_MAX} bodies at once: {shed} attempts were shed");
    assert!(shed > 0, "nothing was shed, so nothing was shown");

    let mut ids: Vec<_> = collector
        .results()
        .await
        .iter()
        .map(|line| {
            (
                line["agent"].as_str().expect("an agent").to_owned(),
                line["value"]["id"].as_u64().expect("an id"),
            )
        })
        .collect();
    ids.sort_unstable();
    let mut all: Vec<_> =
        (0..AGENTS).flat_map(|n| (0..RESULTS as u64).map(move |id| (format!("gw-{n}"), id))).collect();
    all.sort_unstable();
    assert!(ids == all, "{} results stored of {}", ids.len(), all.len());
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no output panics");
    }
}
