//! The input against a scripted broker and a journal in memory.

mod broker;
mod certificates;
mod journal;
mod secured;

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use broker::{Broker, PATIENCE, Seen};
use journal::Memory;

struct Agent {
    stop: watch::Sender<bool>,
    run: JoinHandle<Result<(), Error>>,
    metrics: Input,
}

impl Agent {
    #[expect(clippy::disallowed_methods, reason = "a test does its own wiring")]
    fn start(broker: &Broker, journal: &Memory, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("127.0.0.1", "headwater-test", vec!["t/+".into()]);
        config.port = broker.port();
        config.reconnect_min = Duration::from_millis(20);
        config.reconnect_max = Duration::from_millis(400);
        change(&mut config);
        let metrics = Input::default();
        let (stop, shutdown) = watch::channel(false);
        let input = MqttInput::new("plant", config, journal.clone(), metrics.clone());
        Self { stop, run: tokio::task::spawn(input.run(shutdown)), metrics }
    }

    async fn ended(self) -> Result<(), Error> {
        timeout(PATIENCE, self.run).await.unwrap().unwrap()
    }

    /// Returns once its metrics say so.
    async fn until(&self, holds: impl Fn(&Input) -> bool) {
        let waiting = async {
            while !holds(&self.metrics) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap();
    }

    async fn stop(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.ended().await
    }
}

async fn both<F: Future<Output = ()>>(test: impl Fn(Version) -> F) {
    test(Version::V311).await;
    test(Version::V5).await;
}

#[tokio::test]
async fn acknowledges_only_what_is_durable() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        journal.hold(true);
        peer.publish(1, b"one").await;
        journal.blocked().await;
        peer.publish(2, b"two").await;
        peer.publish(0, b"zero").await;
        assert!(peer.is_owed().await, "nothing is durable");
        journal.hold(false);
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        assert_eq!(journal.payloads(), ["one", "two", "zero"]);
        assert_eq!(agent.metrics.acknowledged_messages.get(), 2);
        assert_eq!((agent.metrics.in_flight_messages.get(), agent.metrics.in_flight_bytes.get()), (0, 0));
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keeps_the_user_properties_that_are_asked_for_and_no_others() {
    let (broker, journal) = (Broker::bind(Version::V5).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| {
        (config.version, config.properties) = (Version::V5, vec!["ts".into()]);
    });
    let mut peer = broker.subscribed(false).await;
    let long = "5".repeat(PROPERTY_BYTES_MAX + 1);
    let sent: [&[(&str, &str)]; 4] =
        [&[("other", "x"), ("ts", "5"), ("ts", "6")], &[("ts", &long)], &[], &[("ts", "7")]];
    for (packet, properties) in (1..).zip(sent) {
        peer.publish_with(packet, b"on", properties).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(packet));
    }
    let kept: Vec<_> = journal.messages().into_iter().map(|message| message.properties).collect();
    let ts = |value: &str| vec![("ts".to_owned(), value.to_owned())];
    assert_eq!(kept, [ts("5"), Vec::new(), Vec::new(), ts("7")]);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn recognises_a_redelivery_after_a_restart() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.subscribed(false).await;
    peer.publish(7, b"seven").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(7));
    journal.sure().await;
    agent.run.abort();

    // The acknowledgement was lost on the way.
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.accept(true).await;
    peer.redeliver(7, b"seven").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(7));
    peer.redeliver(8, b"eight").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(8));
    assert_eq!(journal.payloads(), ["seven", "eight"]);
    assert_eq!(agent.metrics.duplicate_messages.get(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn qos_2_is_received_once_and_released() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let change = |config: &mut Config| (config.version, config.qos) = (version, 2);
        let agent = Agent::start(&broker, &journal, change);
        let mut peer = broker.granted(false, 2).await;
        journal.hold(true);
        peer.publish_as("t/1", 2, false, 1, b"on").await;
        journal.blocked().await;
        assert!(peer.is_owed().await, "nothing is durable");
        journal.hold(false);
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(1));
        peer.pubrel(1).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubComp(1));
        // The broker is done with 1 and uses it again; its first copy was lost with a connection.
        peer.publish_as("t/1", 2, true, 1, b"on").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(1));
        peer.publish_as("t/1", 2, false, 2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(2));
        journal.sure().await;
        agent.run.abort();

        // Killed before the broker saw the last PUBREC, and after it saw the one before.
        let agent = Agent::start(&broker, &journal, change);
        let mut peer = broker.accept(true).await;
        peer.pubrel(1).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubComp(1));
        peer.publish_as("t/1", 2, true, 2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(2));
        peer.pubrel(2).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubComp(2));
        // A PUBCOMP that was lost, of which nobody knows.
        peer.pubrel(9).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubComp(9));
        peer.publish_as("t/1", 2, true, 2, b"other").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(2));
        assert_eq!(journal.payloads(), ["on", "on", "two", "other"]);
        assert_eq!(agent.metrics.duplicate_messages.get(), 1);
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_s_messages_are_stored_and_not_acknowledged_on_the_next() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        journal.hold(true);
        peer.publish(1, b"one").await;
        journal.blocked().await;
        peer.publish(2, b"two").await;
        drop(peer);

        let mut peer = broker.accept(true).await;
        peer.publish(3, b"three").await;
        agent.until(|metrics| metrics.received_messages.get() >= 3).await;
        journal.hold(false);
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(3), "and not 1 or 2");
        peer.redeliver(1, b"one").await;
        peer.redeliver(2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        assert_eq!(journal.payloads(), ["one", "two", "three"]);
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_redelivery_is_acknowledged_no_sooner_than_its_first_copy_is_durable() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.subscribed(false).await;
    journal.hold(true);
    peer.publish(1, b"one").await;
    journal.blocked().await;
    drop(peer);
    let mut peer = broker.accept(true).await;
    peer.redeliver(1, b"one").await;
    assert!(peer.is_owed().await, "its first copy is not durable");
    journal.hold(false);
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
    assert_eq!(journal.payloads(), ["one"]);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_rest_flows() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| {
            config.version = version;
            config.packet_bytes_max = 1_000;
        });
        let mut peer = broker.subscribed(false).await;
        peer.publish(1, &[b'x'; 100_000]).await;
        peer.publish(2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        assert_eq!(journal.payloads(), ["two"]);
        assert_eq!((agent.metrics.refused_messages.get(), agent.metrics.connections.get()), (1, 1));
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_malformed_message_is_refused_and_the_rest_flows() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| (config.version, config.qos) = (version, 2));
        let mut peer = broker.granted(false, 2).await;
        peer.publish_garbled(1, 1).await;
        peer.publish_garbled(2, 2).await;
        peer.publish(3, b"three").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        assert_eq!(peer.next_but_pings().await, Seen::PubRec(2));
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(3));
        peer.pubrel(2).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubComp(2));
        // No identifier can be read: it is owed nothing.
        peer.publish_as("t/1", 1, false, 0, b"none").await;
        peer.publish(4, b"four").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(4));
        assert_eq!(journal.payloads(), ["three", "four"]);
        let metrics = &agent.metrics;
        assert_eq!((metrics.refused_messages.get(), metrics.received_messages.get()), (3, 5));
        assert_eq!(metrics.connections.get(), 1, "on the same connection");
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_topic_of_an_earlier_configuration_is_refused() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.subscribed(false).await;
    peer.publish_as("formerly/1", 1, false, 1, b"one").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
    assert_eq!((journal.payloads().len(), agent.metrics.refused_messages.get()), (0, 1));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn pings_go_on_while_the_journal_is_stuck() {
    let (broker, journal) = (Broker::bind(Version::V5).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| {
        config.version = Version::V5;
        config.keep_alive = Duration::from_secs(1);
    });
    let mut peer = broker.subscribed(false).await;
    journal.hold(true);
    peer.publish(1, b"one").await;
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(peer.next().await, Seen::Ping);
        assert!(begun.elapsed() < Duration::from_millis(1_400));
        peer.pong().await;
    }
    journal.hold(false);
    assert_eq!(peer.next().await, Seen::PubAck(1));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_frozen_broker_is_given_up_after_one_and_a_half_keep_alives() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| config.keep_alive = Duration::from_secs(1));
    let mut peer = broker.subscribed(false).await;
    let begun = Instant::now();
    while peer.next().await != Seen::Closed {}
    let silence = begun.elapsed().as_secs_f64();
    assert!((1.3..1.9).contains(&silence), "{silence}");
    broker.accept(true).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn refused_credentials_are_read_anew_and_tried_slowly() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "wrong-one\n").unwrap();
        let agent = Agent::start(&broker, &journal, |config| {
            config.version = version;
            config.username = Some("operator".into());
            config.password = Some(Secret::File(file.clone()));
        });
        let (mut peer, connect) = broker.accept_silently().await;
        assert!(connect.ends_with(b"\x00\x08operator\x00\x09wrong-one"), "{connect:?}");
        peer.connack(false, if version == Version::V5 { 0x87 } else { 5 }).await;
        std::fs::write(&file, "right").unwrap();
        assert!(broker.is_left_alone(Duration::from_millis(180)).await, "a slow retry");
        let (mut peer, connect) = broker.accept_silently().await;
        assert!(connect.ends_with(b"\x00\x08operator\x00\x05right"), "{connect:?}");
        peer.connack(false, 0).await;
        assert!(matches!(peer.next().await, Seen::Subscribe(..)));
        assert_eq!(agent.metrics.connections.get(), 1);
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_refused_subscription_is_asked_for_again_while_the_others_flow() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| config.topics.push("secret/#".into()));
    let mut peer = broker.accept(false).await;
    let Seen::Subscribe(packet, 2) = peer.next().await else { panic!("two topics") };
    peer.suback(packet, &[1, 0x80]).await;
    peer.publish(1, b"one").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
    assert_eq!(agent.metrics.connected.get(), 0);
    let Seen::Subscribe(packet, 1) = peer.next_but_pings().await else { panic!("the refused one") };
    peer.suback(packet, &[1]).await;
    peer.publish(2, b"two").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
    assert_eq!(agent.metrics.connected.get(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_session_is_counted_and_subscribed_again() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        assert_eq!(agent.metrics.sessions_lost.get(), 0, "the first is none lost");
        peer.publish(1, b"one").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        drop(peer);

        let mut peer = broker.accept(true).await;
        peer.publish(2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2), "and no SUBSCRIBE");
        drop(peer);

        let mut peer = broker.subscribed(false).await;
        assert_eq!(agent.metrics.sessions_lost.get(), 1);
        peer.redeliver(2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        assert_eq!(journal.payloads(), ["one", "two", "two"], "another session's identifiers");
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_was_not_granted_is_asked_for_on_the_next_connection() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.accept(false).await;
    assert!(matches!(peer.next().await, Seen::Subscribe(..)));
    drop(peer);
    broker.subscribed(true).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscription_is_made_once_a_session_and_follows_the_configuration() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        journal.sure().await;
        agent.run.abort();
        assert_eq!(peer.next_but_pings().await, Seen::Closed);

        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.accept(true).await;
        peer.publish(1, b"one").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1), "and no SUBSCRIBE");
        assert_eq!(agent.metrics.connected.get(), 1);
        journal.sure().await;
        agent.run.abort();

        let agent = Agent::start(&broker, &journal, |config| {
            (config.version, config.topics) = (version, vec!["u".into(), "t/1".into()]);
        });
        let mut peer = broker.accept(true).await;
        let Seen::Unsubscribe(packet) = peer.next().await else { panic!("t/+ is not wanted any more") };
        peer.unsuback(packet).await;
        let Seen::Subscribe(packet, 2) = peer.next_but_pings().await else { panic!("two new topics") };
        peer.suback(packet, &[1, 1]).await;
        peer.publish(2, b"two").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_begin_nobody_saw_is_subscribed_again() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    drop(broker.subscribed(false).await);
    journal.sure().await;
    // The broker lost the session; its answer, that it made another, was lost on the way.
    drop(broker.accept_silently().await);
    drop(broker.subscribed(true).await);
    drop(broker.accept_silently().await);
    agent.run.abort();
    let agent = Agent::start(&broker, &journal, |_| {});
    broker.subscribed(true).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_retained_message_counts_once_though_it_is_replayed() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        peer.replay(1, 1, b"").await;
        peer.publish(2, b"live").await;
        peer.replay(0, 0, b"live").await;
        peer.publish(3, b"live").await;
        for packet in 1..=3 {
            assert_eq!(peer.next_but_pings().await, Seen::PubAck(packet));
        }
        agent.run.abort();

        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        peer.replay(1, 1, b"live").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        peer.replay(1, 2, b"meanwhile").await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
        assert_eq!(journal.payloads(), ["", "live", "live", "meanwhile"]);
        assert_eq!(agent.metrics.duplicate_messages.get(), 1);
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn over_the_bound_qos_0_is_shed() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| config.in_flight_bytes_max = 1_000);
    let mut peer = broker.subscribed(false).await;
    journal.hold(true);
    peer.publish(1, b"one").await;
    journal.blocked().await;
    for _ in 0..10 {
        peer.publish(0, &[b'0'; 100]).await;
    }
    peer.publish(2, b"two").await;
    peer.publish_as("t/1", 2, false, 3, b"three").await;
    agent.until(|metrics| metrics.received_messages.get() >= 13).await;
    assert!(peer.is_owed().await, "what is not shed is not durable");
    journal.hold(false);
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(2));
    assert_eq!(peer.next_but_pings().await, Seen::PubRec(3));
    assert_eq!((agent.metrics.shed_messages.get(), journal.payloads().len()), (9, 4));
    assert_eq!(agent.metrics.overloads.get(), 0);
    agent.stop().await.unwrap();
}

/// A journal that takes a tenth of what comes: some 40 KB each 50 ms, against 400.
#[tokio::test]
async fn ten_times_the_load_sheds_qos_0_and_holds_back_the_rest() {
    const BOUND: usize = 80_000;
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        journal.slow(Duration::from_millis(50));
        let agent = Agent::start(&broker, &journal, |config| {
            (config.version, config.in_flight_bytes_max) = (version, BOUND);
            config.keep_alive = Duration::from_secs(1);
        });
        let mut peer = broker.subscribed(false).await;
        let begun = Instant::now();
        let (mut sent, mut acknowledged, mut zeros, mut pings, mut highest) = (0u16, 0u16, 0, 0, 0);
        while begun.elapsed() < Duration::from_secs(3) {
            // As a broker does: no more than its window without an acknowledgement.
            while sent - acknowledged < 20 {
                sent += 1;
                peer.publish_as("t/1", 1 + (sent % 2) as u8, false, sent, &[b'x'; 1_000]).await;
            }
            for _ in 0..100 {
                zeros += 1;
                peer.publish(0, &[b'0'; 1_000]).await;
            }
            highest = highest.max(agent.metrics.in_flight_bytes.get());
            while let Ok(seen) = timeout(Duration::from_millis(5), peer.next()).await {
                match seen {
                    Seen::Ping => {
                        pings += 1;
                        peer.pong().await;
                    }
                    Seen::PubAck(packet) | Seen::PubRec(packet) => {
                        acknowledged += 1;
                        assert_eq!(packet, acknowledged);
                    }
                    seen => panic!("{seen:?}"),
                }
            }
        }
        while acknowledged < sent {
            let (Seen::PubAck(packet) | Seen::PubRec(packet)) = peer.next_but_pings().await else { panic!() };
            acknowledged = packet;
        }
        let shed = agent.metrics.shed_messages.get();
        assert!(shed > zeros / 2, "{shed} of {zeros} were shed: no overload");
        assert!(highest <= BOUND as i64 && highest > 0, "{highest}");
        assert!(pings >= 2, "{pings} pings");
        assert_eq!((agent.metrics.connections.get(), agent.metrics.overloads.get()), (1, 0));
        agent.until(|metrics| metrics.in_flight_messages.get() == 0).await;
        assert_eq!(journal.payloads().len() as u64, u64::from(sent) + zeros - shed, "all else is stored");
        agent.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named_and_tried_again() {
    let mut config = Config::new("no such host", "headwater-test", vec!["t/+".into()]);
    config.connect_timeout = Duration::from_secs(5);
    let error = connection::Connection::open(&config).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("failed to reach the broker at no such host:1883"), "{error}");
    assert!(!error.is_refusal(), "DNS comes back");
}

#[tokio::test]
async fn over_the_bound_qos_1_stays_with_the_broker() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |config| config.in_flight_bytes_max = 1_000);
    let mut peer = broker.subscribed(false).await;
    journal.hold(true);
    let payload = |packet: u16| format!("{packet:0>200}");
    for packet in 1..=9 {
        peer.publish(packet, payload(packet).as_bytes()).await;
    }
    assert_eq!(peer.next_but_pings().await, Seen::Closed);
    assert!(broker.is_left_alone(Duration::from_millis(150)).await, "its backlog is not durable");
    assert_eq!((agent.metrics.overloads.get(), agent.metrics.in_flight_messages.get()), (1, 3));
    journal.hold(false);
    let mut peer = broker.accept(true).await;
    for packet in 1..=9 {
        peer.redeliver(packet, payload(packet).as_bytes()).await;
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(packet));
    }
    assert_eq!(journal.payloads(), (1..=9).map(payload).collect::<Vec<_>>());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_journal_ends_the_source_and_nothing_is_acknowledged() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.subscribed(false).await;
    journal.fail();
    peer.publish(1, b"one").await;
    assert_eq!(peer.next_but_pings().await, Seen::Closed);
    assert!(matches!(agent.ended().await, Err(Error::Journal(_))));
}

#[tokio::test]
async fn shutdown_acknowledges_what_is_in_hand_and_keeps_the_session() {
    both(async |version| {
        let (broker, journal) = (Broker::bind(version).await, Memory::default());
        let agent = Agent::start(&broker, &journal, |config| config.version = version);
        let mut peer = broker.subscribed(false).await;
        journal.hold(true);
        peer.publish(1, b"one").await;
        journal.blocked().await;
        agent.stop.send_replace(true);
        journal.hold(false);
        assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
        assert_eq!(peer.next_but_pings().await, Seen::Disconnect);
        drop(peer);
        agent.ended().await.unwrap();
        assert_eq!(journal.payloads(), ["one"]);
    })
    .await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_journal_that_is_stuck() {
    let (broker, journal) = (Broker::bind(Version::V311).await, Memory::default());
    let agent = Agent::start(&broker, &journal, |_| {});
    let mut peer = broker.subscribed(false).await;
    journal.hold(true);
    peer.publish(1, b"one").await;
    journal.blocked().await;
    let begun = Instant::now();
    agent.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    journal.hold(false);
}
