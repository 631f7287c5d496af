use proptest::prelude::*;

use super::*;
use crate::flow::{MqttDelivery, Timestamp};

fn publish(dup: bool, packet: u16, payload: &str) -> Publish {
    let (topic, payload) = ("t".into(), payload.to_owned().into());
    Publish { topic, payload, properties: Vec::new(), qos: 1, retain: false, dup, packet }
}

fn stored(session: u64, packet: u16, payload: &str) -> Message {
    Message {
        input: "plant".into(),
        topic: "t".into(),
        payload: payload.to_owned().into(),
        properties: Vec::new(),
        received: Timestamp(0),
        delivery: MqttDelivery { qos: 1, retain: false, session, packet },
    }
}

/// `new 1 a`, `dup 1 a` and `retained 1 a` are publishes and end with what is expected, `!` for
/// "recognised"; `ack 1`, `ping`, `pong`, `connect` and `session` are what happens in between.
#[track_caller]
fn check(script: &str) {
    let mut redelivery = Redelivery::default();
    for step in script.split(',').map(str::trim) {
        let words: Vec<_> = step.split(' ').collect();
        match words[..] {
            [kind @ ("new" | "dup" | "retained"), packet, payload] => {
                let retain = kind == "retained";
                let publish = Publish {
                    retain,
                    ..publish(kind == "dup", packet.parse().unwrap(), payload.trim_matches('!'))
                };
                let expected = if payload.ends_with('!') { Verdict::Redelivered } else { Verdict::New };
                assert_eq!(redelivery.judge(&publish), expected, "{step} in {script}");
            }
            ["ack", packet] => redelivery.acknowledged(packet.parse().unwrap()),
            ["ping"] => redelivery.pinged(),
            ["pong"] => redelivery.ponged(),
            ["connect"] => redelivery.connected(),
            ["session"] => redelivery.new_session(),
            _ => panic!("{step}"),
        }
    }
}

#[test]
fn same_identifier_and_bytes_under_dup_are_a_redelivery() {
    check("new 1 a, connect, dup 1 a!");
    check("new 1 a, ack 1, connect, dup 1 a!, ack 1, connect, dup 1 a!");
    check("new 1 a, dup 1 a!");
}

#[test]
fn anything_else_is_a_new_message() {
    check("dup 1 a");
    check("new 1 a, connect, dup 1 b, connect, dup 1 b!");
    check("new 1 a, connect, dup 2 a");
    check("new 1 a, ack 1, new 1 a, connect, dup 1 a!");
    check("new 1 a, session, dup 1 a");
}

#[test]
fn an_answered_ping_proves_the_acknowledgements_before_it() {
    check("new 1 a, ack 1, ping, pong, connect, dup 1 a");
    check("new 1 a, ack 1, ping, connect, dup 1 a!");
    check("new 1 a, ping, ack 1, pong, connect, dup 1 a!");
    check("new 1 a, new 2 b, ack 1, ping, ack 2, pong, connect, dup 1 a, dup 2 b!");
    // The answer on another connection proves nothing about this one.
    check("new 1 a, ack 1, connect, ping, pong, dup 1 a!");
    // Reused before the answer: the second message's acknowledgement is not proved by it.
    check("new 1 a, ack 1, ping, new 1 a, pong, connect, dup 1 a!");
}

#[test]
fn new_messages_end_the_redelivering_of_older_connections() {
    check("new 1 a, connect, new 2 b, ping, pong, connect, dup 1 a, dup 2 b!");
    check("new 1 a, connect, ping, new 2 b, pong, connect, dup 1 a!");
    check("new 1 a, connect, retained 2 b, ping, pong, connect, dup 1 a!");
    check("new 1 a, connect, dup 1 a!, new 2 b, ping, pong, connect, dup 1 a!");
}

#[test]
fn a_restart_remembers_the_session_s_last_messages() {
    let recent = [stored(1, 5, "old"), stored(2, 5, "a"), stored(2, 6, "b"), stored(2, 5, "c")];
    let mut redelivery = rebuilt(2, &recent);
    assert_eq!(redelivery.judge(&publish(true, 6, "b")), Verdict::Redelivered);
    assert_eq!(redelivery.judge(&publish(true, 5, "c")), Verdict::Redelivered);
    assert_eq!(redelivery.judge(&publish(true, 5, "old")), Verdict::New);
    assert_eq!(rebuilt(3, &recent).judge(&publish(true, 6, "b")), Verdict::New);
}

#[test]
fn what_the_journal_forgot_is_remembered_too() {
    let mut redelivery = Redelivery::default();
    for (session, packet) in [(1, 4), (2, 5), (2, 6)] {
        let delivered = Delivered { session, packet, digest: message_digest("t", b"a", &[]) };
        redelivery.recall_forgotten(2, &delivered);
    }
    redelivery.recall(2, &stored(2, 6, "b"));
    redelivery.connected();
    assert_eq!(redelivery.judge(&publish(true, 4, "a")), Verdict::New);
    assert_eq!(redelivery.judge(&publish(true, 5, "a")), Verdict::Redelivered);
    assert_eq!(redelivery.judge(&publish(true, 6, "a")), Verdict::New);
}

#[test]
fn a_restart_forgets_what_new_messages_prove_gone() {
    let mut redelivery = rebuilt(1, &[stored(1, 5, "a")]);
    redelivery.judge(&publish(false, 6, "b"));
    redelivery.pinged();
    redelivery.ponged();
    assert_eq!(redelivery.judge(&publish(true, 5, "a")), Verdict::New);
}

/// A session whose identifiers have counted up to `last`, all with equal bytes.
fn counted_to(last: u16) -> Redelivery {
    counted(1..=last)
}

fn counted(packets: impl Iterator<Item = u16>) -> Redelivery {
    let mut redelivery = Redelivery::default();
    for packet in packets {
        assert_eq!(redelivery.judge(&publish(false, packet, "on")), Verdict::New);
        redelivery.acknowledged(packet);
    }
    redelivery.pinged();
    redelivery.ponged();
    redelivery
}

#[test]
fn where_identifiers_count_up_a_crashed_broker_s_queue_is_recognised() {
    let mut redelivery = Redelivery::default();
    let judge = |redelivery: &mut Redelivery, dup, packet: u16| {
        redelivery.judge(&publish(dup, packet, &packet.to_string()))
    };
    for packet in 1..=3_000 {
        assert_eq!(judge(&mut redelivery, false, packet), Verdict::New);
    }
    redelivery.connected();
    for packet in 2_000..=3_000 {
        let dup = packet < 2_020;
        assert_eq!(judge(&mut redelivery, dup, packet), Verdict::Redelivered, "{packet}");
    }
    for packet in 3_001..=3_100 {
        assert_eq!(judge(&mut redelivery, false, packet), Verdict::New, "{packet}");
    }
}

#[test]
fn a_sensor_that_repeats_itself_is_believed_without_dup() {
    let mut redelivery = counted_to(3_000);
    redelivery.connected();
    // A crashed broker that restored an older counter, or one that numbers each connection from 1.
    for packet in 1_001..=1_100 {
        assert_eq!(redelivery.judge(&publish(false, packet, "on")), Verdict::New, "{packet}");
    }
}

#[test]
fn where_identifiers_count_up_equal_bytes_of_the_last_round_are_new() {
    let gaps = (1..=57_000).chain((57_001..=65_535).step_by(2));
    for mut redelivery in [counted_to(65_535), counted(gaps)] {
        for packet in 1..=10 {
            assert_eq!(redelivery.judge(&publish(false, packet, "on")), Verdict::New);
        }
        redelivery.connected();
        // 11 to 20 were lost on the way, and 5 to 10 were received.
        for packet in 5..=20 {
            let expected = if packet <= 10 { Verdict::Redelivered } else { Verdict::New };
            assert_eq!(redelivery.judge(&publish(true, packet, "on")), expected, "{packet}");
        }
    }
}

#[test]
fn a_broker_that_reuses_its_identifiers_is_not_taken_for_one_that_counts() {
    // Fewer in a row than tell, then back to the start.
    for messages in [1, 20, 1_000] {
        let mut redelivery = counted_to(messages);
        redelivery.connected();
        assert_eq!(redelivery.judge(&publish(false, 1, "on")), Verdict::New, "{messages}");
    }
    // More than tell, then a step back after new ones: what was proved is forgotten.
    let mut redelivery = counted_to(2_000);
    redelivery.judge(&publish(false, 1, "on"));
    redelivery.connected();
    assert_eq!(redelivery.judge(&publish(true, 2, "on")), Verdict::New);
}

#[test]
fn counting_survives_a_restart() {
    let recent: Vec<_> = (1..=2_000).map(|packet| stored(1, packet, &packet.to_string())).collect();
    let mut redelivery = rebuilt(1, &recent);
    assert_eq!(redelivery.judge(&publish(false, 1_990, "1990")), Verdict::Redelivered);
    assert_eq!(redelivery.judge(&publish(true, 2_001, "1")), Verdict::New);
}

#[test]
fn identifiers_go_round() {
    assert_eq!((ahead(65_535, 1), ahead(1, 65_535), ahead(7, 7)), (1, 65_534, 0));
    assert_eq!((behind(1, 1), behind(3, 2), behind(2, 2)), (65_535, 1, 65_535));
    for from in [1, 2, REMEMBERED, REMEMBERED + 1, 65_535] {
        assert_eq!(ahead(behind(from, REMEMBERED), from), REMEMBERED);
    }
}

/// A broker that keeps the standard, over a wire that keeps order and loses a suffix at each drop.
#[derive(Debug, Default)]
struct Broker {
    /// Sent and not acknowledged, in order: identifier and the message's number.
    unacknowledged: Vec<(u16, u32)>,
    next: u32,
    /// Identifiers in use start small, so that they are reused at once.
    identifiers: u16,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Publish,
    /// Acknowledges and drops: the broker reads this many of the acknowledgements, and this many
    /// messages sent meanwhile are lost on the way.
    Drop {
        read: usize,
        lost: usize,
    },
    /// Acknowledges, and the broker has answered a ping behind it.
    Ping,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Publish),
        1 => (0usize..4, 0usize..3).prop_map(|(read, lost)| Act::Drop { read, lost }),
        1 => Just(Act::Ping),
    ]
}

impl Broker {
    fn send(&mut self) -> Option<(u16, u32)> {
        let packet =
            (1..=self.identifiers).find(|id| self.unacknowledged.iter().all(|(used, _)| used != id))?;
        self.next += 1;
        self.unacknowledged.push((packet, self.next));
        Some((packet, self.next))
    }
}

proptest! {
    /// Distinct payloads, so that even the unprovable case has one right answer.
    #[test]
    fn every_message_is_stored_exactly_once(acts in prop::collection::vec(act(), 1..60)) {
        let mut broker = Broker { identifiers: 4, ..Broker::default() };
        let mut redelivery = Redelivery::default();
        let mut stored = Vec::new();
        let mut receive = |redelivery: &mut Redelivery, dup, (packet, number): (u16, u32)| {
            if redelivery.judge(&publish(dup, packet, &number.to_string())) == Verdict::New {
                stored.push(number);
            }
        };
        for act in acts {
            match act {
                Act::Publish => {
                    if let Some(sent) = broker.send() {
                        receive(&mut redelivery, false, sent);
                    }
                }
                Act::Ping => {
                    for (packet, _) in broker.unacknowledged.drain(..) {
                        redelivery.acknowledged(packet);
                    }
                    redelivery.pinged();
                    redelivery.ponged();
                }
                Act::Drop { read, lost } => {
                    let read = read.min(broker.unacknowledged.len());
                    for &(packet, _) in &broker.unacknowledged {
                        redelivery.acknowledged(packet);
                    }
                    broker.unacknowledged.drain(..read);
                    for _ in 0..lost {
                        broker.send();
                    }
                    redelivery.connected();
                    for sent in broker.unacknowledged.clone() {
                        receive(&mut redelivery, true, sent);
                    }
                }
            }
        }
        prop_assert_eq!(stored, (1..=broker.next).collect::<Vec<_>>());
    }
}

fn rebuilt(session: u64, recent: &[Message]) -> Redelivery {
    let mut redelivery = Redelivery::default();
    recent.iter().for_each(|message| redelivery.recall(session, message));
    redelivery.connected();
    redelivery
}

#[test]
fn a_user_property_that_is_kept_tells_two_messages_apart() {
    let stamped = |dup, stamp: Option<&str>| {
        let properties = stamp.map(|stamp| ("ts".to_owned(), stamp.to_owned())).into_iter().collect();
        Publish { properties, ..publish(dup, 1, "on") }
    };
    let judged = |first, second| {
        let mut redelivery = Redelivery::default();
        assert_eq!(redelivery.judge(&stamped(false, first)), Verdict::New);
        redelivery.connected();
        redelivery.judge(&stamped(true, second))
    };
    assert_eq!(judged(Some("5"), Some("5")), Verdict::Redelivered);
    assert_eq!(judged(Some("5"), Some("6")), Verdict::New);
    assert_eq!(judged(None, Some("5")), Verdict::Redelivered, "stored before it was asked for");
}
