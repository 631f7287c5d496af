//! A broker that dies: the session is resumed, nothing is lost, nothing counts twice.

use std::time::Duration;

use headwater_tests::agent::Agent;
use headwater_tests::broker::Mosquitto;
use headwater_tests::collector::Collector;
use headwater_tests::ledger::balances;
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::{eventually, freeze, thaw};
use headwater_tests::publisher::Publisher;

const SOON: Duration = Duration::from_secs(60);

/// More than may be in flight at once.
const BACKLOG: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_gone_in_between_loses_and_doubles_nothing_with_mqtt_3() {
    survives("3.1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_gone_in_between_loses_and_doubles_nothing_with_mqtt_5() {
    survives("5").await;
}

/// How the broker goes, always in the middle of its deliveries.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is asked to.
    Stop,
    /// `kill -9`, after it saved what it knew. What it had delivered and not saved it would deliver
    /// again as new, and nobody could tell: that is its own queue, which no agent can promise for.
    Kill,
}

async fn survives(version: &str) {
    let (mut broker, collector) = (Mosquitto::start_unsaved().await, Collector::start().await);
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], version)
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector.url(), "");
    let mut agent = Agent::start(plan.toml()).await;
    let (mut load, mut duplicates) = (Load::new(10), 0);
    for end in [End::Stop, End::Kill, End::Stop, End::Kill] {
        // What the broker has confirmed waits in its session while the agent is away.
        assert_eq!(agent.stop().await.code(), Some(0));
        publish(&broker, &mut load, BACKLOG).await;
        agent.spawn();
        agent_receives(&agent).await;
        go(&mut broker, agent.id().expect("it runs"), end).await;
        broker.restart().await;
        agent.ready().await;
        let metrics = balances(&agent, "each", "central", load.published(), SOON).await;
        assert_eq!(metrics.of("input_sessions_lost", "plant"), 0, "{end:?}: the session was kept");
        duplicates += metrics.of("input_duplicate_messages", "plant");
    }
    let results = collector.results_of(load.readings().len()).await;
    let ids = plant::ids(&results, "each");
    assert_eq!(ids, (0..load.published()).collect::<Vec<_>>(), "each reading once");
    assert!(duplicates > 0, "nothing was delivered twice: this test sees nothing");
}

async fn go(broker: &mut Mosquitto, agent: u32, end: End) {
    match end {
        End::Stop => broker.stop().await,
        End::Kill => {
            freeze(agent).await.expect("the agent runs");
            broker.saved().await;
            broker.kill9();
            thaw(agent).expect("the agent runs");
        }
    }
}

/// A publisher of its own each time: with one that reconnects to a killed broker, a reading
/// published twice would be the publisher's doing.
async fn publish(broker: &Mosquitto, load: &mut Load, count: u64) {
    let publisher = Publisher::connect("plant", broker.port());
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

async fn agent_receives(agent: &Agent) {
    eventually("the agent to receive", SOON, async || {
        let metrics = agent.metrics().await.ok()?;
        (metrics.of("input_received_messages", "plant") > 0).then_some(())
    })
    .await;
}
