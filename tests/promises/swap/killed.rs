//! Killed around a switch of modules: the broker is one that knows what it gave, the collector the real one.

use headwater_tests::broker::Mosquitto;
use headwater_tests::collector::Collector;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_a_switch_every_reading_counts_once() {
    let (broker, collector) = (Mosquitto::start().await, Collector::start().await);
    let text = |transform: &str| config(broker.port(), &collector.url(), transform, &counting("a"), "");
    let mut agent = Agent::start(&text(&hostile("a"))).await;
    let mut readings = 0;
    for (point, transform, running) in [
        ("pipeline.switching", FAHRENHEIT.to_owned(), headwater_bundle::CELSIUS),
        ("pipeline.switched", hostile("b"), headwater_bundle::HOSTILE),
        ("pipeline.going-back", hostile("panic"), headwater_bundle::HOSTILE),
        ("pipeline.gone-back", hostile("unreachable"), headwater_bundle::HOSTILE),
    ] {
        agent.kill9();
        agent.environment([(headwater::fail::VARIABLE, format!("{point}=kill"))]);
        agent.resume().await;
        let stream = Stream::start(broker.port(), readings);
        agent.reaches("pipeline_read_messages", "changed", readings + 20, SOON).await;
        agent.configure(&text(&transform));
        agent.reload();
        assert!(agent.ends(SOON).await.is_some(), "{point} was reached");
        agent.environment([]);
        agent.resume().await;
        agent.reaches("pipeline_read_messages", "changed", readings + 40, SOON).await;
        readings = stream.end().await;
        agent.reaches("pipeline_read_messages", "changed", readings, SOON).await;
        let mut status = agent.status().await.expect("it answers");
        let found = status["modules"]["changed"]["running"][0].take();
        assert_eq!(found.as_str(), Some(&*digest(running)), "{point}");
    }
    drained(&agent, "central", SOON).await;
    holds(&agent).await;
    let results = collector.results().await;
    for pipeline in ["changed", "neighbour"] {
        assert_eq!(plant::ids(&results, pipeline), (0..readings).collect::<Vec<_>>(), "{pipeline}");
    }
    assert_eq!(agent.dead_letters().await, Vec::<Value>::new());
}

fn digest(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a writable file");
    headwater::module::digest(file.path()).expect("a readable file")
}
