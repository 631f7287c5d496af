//! A stage that has work and makes no progress is not live: `/live` names the stage and the cause.

use std::time::{Duration, Instant};

use headwater_agent::fail::VARIABLE;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::publisher::TestPublisher;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Returns the answer of `/live`.
async fn live_answer(agent: &TestAgent) -> Option<(u16, Value)> {
    let (status, body) = agent.get("/live").await.ok()?;
    Some((status, serde_json::from_str(&body).expect("it answers JSON")))
}

/// Stalls a stage at a point for twice as long as it may: `/live` names the stage and the cause meanwhile,
/// and recovers afterwards.
async fn check_stall(point: &str, stage: &str, cause: &str) {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &destination.url(), ", timeout = \"1s\"");
    let mut agent = TestAgent::prepare(&format!("stuck_after = \"5s\"\n\n{}", plan.toml()));
    agent.environment([(VARIABLE, format!("{point}=stall:14s@1x1"))]);
    agent.resume().await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(3);
    assert_eq!(live_answer(&agent).await.expect("it answers").0, 200);
    // The clock starts before the first of them, because the stage may stall while the others go out.
    let begun = Instant::now();
    for _ in 0..10 {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    let answer = eventually(&format!("/live to fail at {point}"), SOON, async || {
        live_answer(&agent).await.filter(|(status, _)| *status == 503)
    })
    .await;
    let waited = begun.elapsed();
    let stuck = &answer.1["stuck"];
    assert!(waited > Duration::from_secs(5), "{point}: not before its time, but after {waited:?}");
    assert_eq!(stuck[0]["stage"], stage, "{answer:?}");
    assert!(stuck[0]["cause"].as_str().expect("a cause").contains(cause), "{answer:?}");
    assert_eq!(stuck.as_array().map_or(0, Vec::len), 1, "{answer:?}");
    assert!(agent.log_text().contains("stage is stuck"));
    eventually(&format!("/live to be well after {point}"), SOON, async || {
        live_answer(&agent).await.filter(|(status, _)| *status == 200)
    })
    .await;
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    assert_eq!(plant::ids(&destination.accepted_lines(), "each"), (0..load.published()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_stands_still_fails_live_with_its_name_and_cause_until_it_goes_on() {
    tokio::join!(
        check_stall("input.durable", "input `plant`", "messages in flight, none became durable"),
        check_stall(
            "pipeline.step",
            "pipeline `each`",
            "behind the journal's end, its position did not move"
        ),
        check_stall("output.sending", "output `central`", "results pending, no attempt was made"),
    );
}
