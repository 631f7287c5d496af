//! The modules that come with the agent, through the whole agent, on payloads that are not JSON.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::ConfigBuilder;
use headwater_tests::publisher::TestPublisher;
use serde_json::json;

const SOON: Duration = Duration::from_secs(90);

/// `{"t": n}` in CBOR with `n` a half-precision 20.0 or a small integer, and two payloads that are not CBOR.
const PAYLOADS: [&[u8]; 4] = [b"\xa1\x61t\xf9\x4d\x00", b"\xa1\x61t\x16", b"\xff\x00", b"{\"t\":1}"];

#[tokio::test(flavor = "multi_thread")]
async fn readings_in_cbor_count_and_what_is_none_keeps_its_bytes() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let cbor = "format = \"bytes\"\nkey = \"{topic[0]}\"\ncommit_every = \"100ms\"\n\
                transform = [{ module = \"modules/cbor.wasm\" }]\n";
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant"], "3.1.1")
        .output("central", &destination.url(), "")
        .pipeline("each", "plant", "central", cbor);
    let mut agent = TestAgent::prepare(plan.toml());
    let (_, module) =
        headwater_bundle::SHIPPED.iter().find(|(name, _)| *name == "cbor").expect("it is shipped");
    std::fs::write(agent.home().join("modules/cbor.wasm"), module).expect("a writable folder");
    agent.resume().await;
    let publisher = TestPublisher::connect("device", broker.port());
    for payload in PAYLOADS {
        publisher.publish("plant", payload).await;
    }
    publisher.confirmed().await;
    let count = PAYLOADS.len() as u64;
    check_balance(&agent, "each", "central", count, SOON).await;
    let lines = destination.accepted_lines();
    let values: Vec<_> =
        lines.iter().filter(|line| line["pipeline"] == "each").map(|line| &line["value"]).collect();
    assert_eq!(values, [&json!({ "t": 20.0 }), &json!({ "t": 22 })]);
    let letters = agent.dead_letters().await;
    let own: Vec<_> = letters.iter().filter(|letter| letter["pipeline"] == "each").collect();
    assert_eq!(own.len(), 2, "{letters:?}");
    assert!(own.iter().all(|letter| letter["stage"] == "transform[0]"), "{letters:?}");
}
