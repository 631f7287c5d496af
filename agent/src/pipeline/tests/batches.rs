//! How the journal is cut into batches does not show, also where a transform sets the time of its events.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::builtin::{AggregateFunction, ComputedMember};
use crate::decode::WhenOff;
use crate::testing::property_config;

/// A message: microseconds after the one before, and those by which the transform has its event ahead of its
/// arrival. `None`: it leaves the time as it is.
type Sent = (u64, Option<i64>);

fn plant() -> Plant {
    let mut plant = Plant::new();
    plant.host = ModuleHost::new(Some(plant.folder.path().join("modules"))).unwrap();
    let compute = vec![
        ComputedMember::new(AggregateFunction::Count, None),
        ComputedMember::new(AggregateFunction::Sum, Some(vec!["n".into()])),
    ];
    let kind = window::WindowKind::Tumbling(window::TumblingWindow {
        size: Duration::from_secs(1),
        offset: Duration::ZERO,
    });
    let window = window::WindowConfig { lateness: Duration::from_secs(1), ..window::WindowConfig::new(kind) };
    plant.config.windowed = Some((window, AggregateConfig::Builtin(builtin::BuiltinConfig { compute })));
    plant.config.transforms = vec![ModuleConfig {
        origin: Path::new(headwater_bundle::HOSTILE_PATH).into(),
        settings: r#"{"do":"retime"}"#.to_owned(),
        limits: ModuleLimits { deadline: Duration::from_secs(60), ..ModuleLimits::default() },
    }];
    plant
}

fn journal(sent: &[Sent]) -> Vec<(Seq, Message)> {
    let mut received = NOW * 1_000_000;
    let messages = (0..).zip(sent).map(|(seq, (after, ahead))| {
        received += after;
        let set = ahead.map(|ahead| format!(r#","bad":true,"to":{}"#, received.saturating_add_signed(ahead)));
        let message = Message {
            input: "plant".into(),
            topic: "a".to_owned(),
            payload: format!(r#"{{"n":{seq}{}}}"#, set.unwrap_or_default()).into_bytes().into(),
            properties: Vec::new(),
            received: Timestamp(received),
            delivery: MqttDelivery::default(),
        };
        (seq, message)
    });
    messages.collect()
}

/// Results, dead letters and counts of an agent that reads so many messages at once.
fn made(plant: &Plant, sent: &[Sent], mut batches: impl Iterator<Item = usize>) -> (Vec<String>, Counts) {
    let (mut pipeline, mut rest) = (plant.build(), journal(sent));
    while !rest.is_empty() {
        let behind = rest.split_off(batches.next().unwrap_or(usize::MAX).min(rest.len()));
        pipeline.slice(std::mem::replace(&mut rest, behind)).unwrap();
        pipeline.settle(&AtomicBool::new(false), &|| {}).unwrap();
    }
    let step = std::mem::take(&mut pipeline.step);
    let letters = step.dead_letters.into_iter().map(|letter| {
        let payload = String::from_utf8(letter.payload).unwrap();
        format!("{} {:?} {}: {payload}", letter.stage, letter.event_time, letter.reason)
    });
    let line = |record: &Vec<u8>| String::from_utf8(Record::from_bytes(record).unwrap().to_line()).unwrap();
    let lines = step.results.iter().map(line);
    let mut made: Vec<_> = lines.chain(letters).collect();
    made.sort_unstable();
    (made, step.counts)
}

/// At once, in bursts and after a while; in time, ahead by more or less than is allowed, and behind.
fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let after = prop_oneof![0..3_000_u64, 0..150_000_u64, 0..3_000_000_u64, Just(30_000_000)];
    let ahead = prop_oneof![2 => Just(None), 3 => (-2_000_000..6_000_000_i64).prop_map(Some)];
    prop::collection::vec((after, ahead), 1..60)
}

thread_local! {
    static PLANT: std::cell::RefCell<Plant> = std::cell::RefCell::new(plant());
}

proptest! {
    #![proptest_config(property_config(60))]

    #[test]
    fn how_messages_are_batched_does_not_show_where_a_transform_sets_the_time(
        sent in sent(),
        batches in prop::collection::vec(1_usize..20, 60),
        when_ahead in prop::sample::select(vec![WhenOff::Reject, WhenOff::Arrival, WhenOff::Clamp]),
    ) {
        PLANT.with_borrow_mut(|plant| {
            plant.config.decode.guard =
                decode::Guard { skew: Duration::from_secs(2), when_ahead, ..decode::Guard::default() };
            let live = made(plant, &sent, std::iter::repeat(1));
            prop_assert_eq!(&live, &made(plant, &sent, std::iter::empty()), "a backlog");
            prop_assert_eq!(&live, &made(plant, &sent, batches.into_iter()));
            Ok(())
        })?;
    }
}
