//! A stage that has work and does nothing of it is not alive, and `/live` says which and why.

use std::time::{Duration, Instant};

use headwater::fail::VARIABLE;
use headwater_tests::agent::Agent;
use headwater_tests::backend::Backend;
use headwater_tests::broker::Broker;
use headwater_tests::ledger::balances;
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::publisher::Publisher;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// What `/live` answers.
async fn live(agent: &Agent) -> Option<(u16, Value)> {
    let (status, body) = agent.get("/live").await.ok()?;
    Some((status, serde_json::from_str(&body).expect("it answers JSON")))
}

/// Stands still at a point for twice as long as it may: `/live` names the stage and the cause
/// meanwhile, and is well again afterwards.
async fn stands_still(point: &str, stage: &str, cause: &str) {
    let (broker, backend) = (Broker::start().await, Backend::start([]).await);
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &backend.url(), ", timeout = \"1s\"");
    let mut agent = Agent::at_home(&format!("stuck_after = \"5s\"\n\n{}", plan.toml()));
    agent.environment([(VARIABLE, format!("{point}=stall:14s@1x1"))]);
    agent.resume().await;
    let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(3));
    assert_eq!(live(&agent).await.expect("it answers").0, 200);
    // Before the first of them: the stage may stand still while the others go out.
    let begun = Instant::now();
    for _ in 0..10 {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    let said = eventually(&format!("/live to fail at {point}"), SOON, async || {
        live(&agent).await.filter(|(status, _)| *status == 503)
    })
    .await;
    let (waited, stuck) = (begun.elapsed(), &said.1["stuck"]);
    assert!(waited > Duration::from_secs(5), "{point}: not before its time, but after {waited:?}");
    assert_eq!(stuck[0]["stage"], stage, "{said:?}");
    assert!(stuck[0]["cause"].as_str().expect("a cause").contains(cause), "{said:?}");
    assert_eq!(stuck.as_array().map_or(0, Vec::len), 1, "{said:?}");
    assert!(agent.logged().contains("stage is stuck"));
    eventually(&format!("/live to be well after {point}"), SOON, async || {
        live(&agent).await.filter(|(status, _)| *status == 200)
    })
    .await;
    balances(&agent, "each", "central", load.published(), SOON).await;
    assert_eq!(plant::ids(&backend.accepted(), "each"), (0..load.published()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_stands_still_fails_live_with_its_name_and_cause_until_it_goes_on() {
    tokio::join!(
        stands_still("input.durable", "input `plant`", "messages in flight, none became durable"),
        stands_still(
            "pipeline.step",
            "pipeline `each`",
            "behind the journal's end, its position did not move"
        ),
        stands_still("output.sending", "output `central`", "results pending, no attempt was made"),
    );
}
