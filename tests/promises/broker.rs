//! A broker that dies: the session is resumed, nothing is lost, nothing counts twice.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::{eventually, freeze, thaw};
use headwater_tests::publisher::TestPublisher;

const SOON: Duration = Duration::from_secs(60);

/// A number of messages larger than may be in flight at once.
const BACKLOG: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_gone_in_between_loses_and_doubles_nothing_with_mqtt_3() {
    survives("3.1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_gone_in_between_loses_and_doubles_nothing_with_mqtt_5() {
    survives("5").await;
}

/// The end of the broker, always in the middle of its deliveries.
#[derive(Clone, Copy, Debug)]
enum BrokerEnd {
    /// A stop that was asked for.
    Stop,
    /// A kill after the broker saved its state. Messages that it had delivered but not saved it would deliver
    /// again as new, which nobody can tell: no agent can answer for the broker's own queue.
    Kill,
}

async fn survives(version: &str) {
    let mut broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], version)
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector.url(), "");
    let mut agent = TestAgent::start(plan.toml()).await;
    let mut load = PlantLoad::new(10);
    let mut duplicates = 0;
    for end in [BrokerEnd::Stop, BrokerEnd::Kill, BrokerEnd::Stop, BrokerEnd::Kill] {
        // Messages that the broker has confirmed wait in its session while the agent is away.
        assert_eq!(agent.stop().await.code(), Some(0));
        publish(&broker, &mut load, BACKLOG).await;
        agent.spawn();
        agent_receives(&agent).await;
        go(&mut broker, agent.id().expect("it runs"), end).await;
        broker.restart().await;
        agent.ready().await;
        let metrics = check_balance(&agent, "each", "central", load.published(), SOON).await;
        assert_eq!(metrics.of("input_sessions_lost", "plant"), 0, "{end:?}: the session was kept");
        duplicates += metrics.of("input_duplicate_messages", "plant");
    }
    let results = collector.wait_for_results(load.readings().len()).await;
    let ids = plant::ids(&results, "each");
    assert_eq!(ids, (0..load.published()).collect::<Vec<_>>(), "each reading once");
    assert!(duplicates > 0, "nothing was delivered twice: this test sees nothing");
}

async fn go(broker: &mut MosquittoBroker, agent: u32, end: BrokerEnd) {
    match end {
        BrokerEnd::Stop => broker.stop().await,
        BrokerEnd::Kill => {
            freeze(agent).await.expect("the agent runs");
            broker.wait_until_saved().await;
            broker.kill9();
            thaw(agent).expect("the agent runs");
        }
    }
}

/// Publishes with a new connection each time: a publisher that reconnects to a killed broker might itself
/// publish a reading twice.
async fn publish(broker: &MosquittoBroker, load: &mut PlantLoad, count: u64) {
    let publisher = TestPublisher::connect("plant", broker.port());
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

async fn agent_receives(agent: &TestAgent) {
    eventually("the agent to receive", SOON, async || {
        let metrics = agent.metrics().await.ok()?;
        (metrics.of("input_received_messages", "plant") > 0).then_some(())
    })
    .await;
}
