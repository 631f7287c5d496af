//! Kills around a switch of modules, with a broker that keeps its sessions and the real collector.

use headwater_agent::module::ModuleDigest;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_a_switch_every_reading_counts_once() {
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    let text = |transform: &str| config(broker.port(), &collector.url(), transform, &counting("a"), "");
    let mut agent = TestAgent::start(&text(&hostile("a"))).await;
    let mut readings = 0;
    for (point, transform, running) in [
        ("pipeline.switching", FAHRENHEIT.to_owned(), headwater_bundle::CELSIUS),
        ("pipeline.switched", hostile("b"), headwater_bundle::HOSTILE),
        ("pipeline.going-back", hostile("panic"), headwater_bundle::HOSTILE),
        ("pipeline.gone-back", hostile("unreachable"), headwater_bundle::HOSTILE),
    ] {
        agent.kill9();
        agent.environment([(headwater_agent::fail::VARIABLE, format!("{point}=kill"))]);
        agent.resume().await;
        let stream = ReadingStream::start(broker.port(), readings);
        agent.wait_for_metric("pipeline_read_messages", "changed", readings + 20, SOON).await;
        agent.configure(&text(&transform));
        agent.reload();
        assert!(agent.wait_for_exit(SOON).await.is_some(), "{point} was reached");
        agent.environment([]);
        agent.resume().await;
        agent.wait_for_metric("pipeline_read_messages", "changed", readings + 40, SOON).await;
        readings = stream.end().await;
        agent.wait_for_metric("pipeline_read_messages", "changed", readings, SOON).await;
        let mut status = agent.status().await.expect("it answers");
        let found = status["modules"]["changed"]["running"][0].take();
        assert_eq!(found.as_str(), Some(&*ModuleDigest::of(running).to_string()), "{point}");
    }
    wait_until_drained(&agent, "central", SOON).await;
    check_ledger(&agent).await;
    let results = collector.results().await;
    for pipeline in ["changed", "neighbour"] {
        assert_eq!(plant::ids(&results, pipeline), (0..readings).collect::<Vec<_>>(), "{pipeline}");
    }
    assert_eq!(agent.dead_letters().await, Vec::<Value>::new());
}

/// Checks that windows begun under one version of the aggregate's state are migrated to the next or stay as
/// they were, never half of them.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_a_change_of_states_every_reading_is_in_its_window_once() {
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    let of = |version: u32| {
        let aggregate =
            format!("module = \"modules/hostile_aggregate.wasm\", settings = {{ version = {version} }}");
        config(broker.port(), &collector.url(), &hostile("a"), &aggregate, "")
    };
    let mut agent = TestAgent::start(&of(0)).await;
    let stream = ReadingStream::start(broker.port(), 0);
    let used = async |agent: &TestAgent, more: u64| {
        let before = agent.metrics().await.expect("it answers").of("pipeline_used_events", "counted");
        agent.wait_for_metric("pipeline_used_events", "counted", before + more, SOON).await;
    };
    used(&agent, 20).await;
    for (version, point) in [(1, "pipeline.switching"), (2, "pipeline.switched")] {
        agent.kill9();
        agent.environment([(headwater_agent::fail::VARIABLE, format!("{point}=kill"))]);
        agent.resume().await;
        used(&agent, 20).await;
        agent.configure(&of(version));
        agent.reload();
        assert!(agent.wait_for_exit(SOON).await.is_some(), "{point} was reached");
        agent.environment([]);
        // The agent starts with the current configuration, so the states are migrated now at the latest.
        agent.resume().await;
        used(&agent, 20).await;
    }
    let readings = stream.end().await;
    agent.wait_for_metric("pipeline_used_events", "counted", readings, SOON).await;
    wait_until_drained(&agent, "central", SOON).await;
    check_ledger(&agent).await;
    let results = collector.results().await;
    let counted = results.iter().filter(|line| line["pipeline"] == "counted");
    let sum: u64 = counted.map(|line| line["value"].as_u64().expect("a count")).sum();
    assert_eq!(sum, readings - 1, "all but the one that closes the windows");
    assert_eq!(agent.dead_letters().await, Vec::<Value>::new());
}
