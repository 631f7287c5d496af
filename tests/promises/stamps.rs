//! Event time from a field, the topic, a user property of MQTT 5 and arrival, side by side over a real
//! broker.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::wait_until_drained;
use headwater_tests::plant::ConfigBuilder;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// The names of the pipelines and where each reads the event time.
const PLACES: [(&str, &str); 4] = [
    ("field", "{ field = \"ts\", unit = \"s\" }"),
    ("topic", "{ topic = 2, unit = \"ms\" }"),
    ("property", "{ property = \"ts\", unit = \"rfc3339\" }"),
    ("arrival", "\"arrival\""),
];

#[tokio::test(flavor = "multi_thread")]
async fn event_time_comes_from_where_the_configuration_says() {
    let broker = MosquittoBroker::start_unsaved().await;
    let destination = FakeDestination::start([]).await;
    let plan = ConfigBuilder::default().input("plant", broker.port(), &["plant/#"], "5");
    let plan = PLACES.iter().fold(plan, |plan, (name, time)| {
        plan.pipeline(
            name,
            "plant",
            "central",
            &format!("key = \"k\"\ntime = {time}\ncommit_every = \"100ms\""),
        )
    });
    let plan = plan.output("central", &destination.url(), "");
    let mut agent = TestAgent::start(plan.toml()).await;
    let before = jiff::Timestamp::now();
    for (number, property) in [Some("2026-01-03T00:00:00.000001Z"), None].into_iter().enumerate() {
        let payload = json!({ "id": number, "ts": 1_767_225_600.123_456 });
        publish(broker.port(), "plant/a/1767312000789", &payload, property).await;
    }
    for (name, _) in PLACES {
        agent.wait_for_metric("pipeline_read_messages", name, 2, SOON).await;
    }
    wait_until_drained(&agent, "central", SOON).await;
    let lines = destination.accepted_lines();
    let times = |pipeline: &str| -> Vec<jiff::Timestamp> {
        let of = lines.iter().filter(|line| line["pipeline"] == pipeline);
        of.map(|line| line["time"].as_str().expect("a time").parse().expect("RFC 3339")).collect()
    };
    let expected = |text: &str| text.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert_eq!(times("field"), [expected("2026-01-01T00:00:00.123456Z"); 2]);
    assert_eq!(times("topic"), [expected("2026-01-02T00:00:00.789Z"); 2]);
    assert_eq!(times("property"), [expected("2026-01-03T00:00:00.000001Z")]);
    let arrivals = times("arrival");
    assert!(
        arrivals.len() == 2 && arrivals.iter().all(|time| *time >= before && *time <= jiff::Timestamp::now())
    );

    // The message without the property is a dead letter, and stays one when it is replayed; that of the other
    // pipeline is kept.
    let letters = agent.dead_letters().await;
    let refused: Vec<_> = letters.iter().map(|letter| (&letter["pipeline"], &letter["reason"])).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].1.as_str().is_some_and(|reason| reason.contains("user property `ts` is missing")));
}

/// Publishes a message at QoS 1 and waits for its confirmation.
async fn publish(port: u16, topic: &str, payload: &Value, property: Option<&str>) {
    let mut options = MqttOptions::new("device", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 10);
    let user_properties = property.map(|value| ("ts".to_owned(), value.to_owned())).into_iter().collect();
    let properties = PublishProperties { user_properties, ..PublishProperties::default() };
    let publishing =
        client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload.to_string(), properties);
    publishing.await.expect("the queue has room");
    let confirmed = async {
        loop {
            let event = events.poll().await.expect("the broker takes it");
            if let rumqttc::v5::Event::Incoming(rumqttc::v5::Incoming::PubAck(_)) = event {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, confirmed).await.expect("the broker confirms");
}
