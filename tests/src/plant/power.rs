//! The data that the power test writes. All of it follows from a number, so that the data found after a power
//! cut can be checked without another copy.

use std::ops::Range;
use std::sync::Arc;

use headwater_agent::flow::{DeadLetter, Message, MqttDelivery, Timestamp};
use headwater_agent::store::{Commit, Outgoing};

/// The pipeline that commits.
pub const PIPELINE: &str = "p";

/// The output of its results.
pub const OUTPUT: &str = "o";

/// Most results that the writer sends in one batch.
pub const BATCH_RESULTS_MAX: u64 = 500;

/// The number of windows, which the commits change in turn.
pub const WINDOWS: u64 = 8;

/// Returns the message with this number: up to 3,000 bytes that no other message has.
#[must_use]
pub fn message(number: u64) -> Message {
    let mut noise = fastrand::Rng::with_seed(number);
    let length = if number.is_multiple_of(50) { noise.usize(1_000..3_000) } else { noise.usize(20..300) };
    let payload: Vec<u8> = std::iter::repeat_with(|| noise.u8(..)).take(length).collect();
    Message {
        input: Arc::from("i"),
        topic: format!("plant/{}", number % 10),
        payload: payload.into(),
        properties: Vec::new(),
        received: Timestamp(number),
        delivery: MqttDelivery { qos: 1, packet: (number % 1_000) as u16 + 1, ..MqttDelivery::default() },
    }
}

/// Returns the commit with this number, for this range of messages.
#[must_use]
pub fn commit(number: u64, messages: Range<u64>) -> Commit<'static> {
    let key = (number % WINDOWS).to_be_bytes().to_vec();
    Commit {
        pipeline: PIPELINE,
        position: messages.end,
        progress: progress(number + 1, messages.end),
        windows: vec![(key, window(number))],
        results: Outgoing::new(OUTPUT, messages.clone().filter(|it| it % 5 == 0).map(result).collect()),
        dead_letters: messages.filter(|it| it % 97 == 0).map(dead_letter).collect(),
        replayed: 0,
        ..Commit::default()
    }
}

/// Returns the number of commits and the position reached, as bytes.
#[must_use]
pub fn progress(commits: u64, position: u64) -> Vec<u8> {
    [commits.to_be_bytes(), position.to_be_bytes()].concat()
}

/// Returns the state that the commit with this number gives its window: every third removes it, some are
/// large.
#[must_use]
pub fn window(number: u64) -> Option<Vec<u8>> {
    let length = if number.is_multiple_of(7) { 20_000 } else { 200 };
    let mut noise = fastrand::Rng::with_seed(number);
    (!number.is_multiple_of(3)).then(|| std::iter::repeat_with(|| noise.u8(..)).take(length).collect())
}

/// Returns all windows after this many commits.
#[must_use]
pub fn windows(commits: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let newest = |slot: u64| (0..commits).rev().take(WINDOWS as usize).find(|it| it % WINDOWS == slot);
    (0..WINDOWS).filter_map(|slot| Some((slot.to_be_bytes().to_vec(), window(newest(slot)?)?))).collect()
}

/// Returns the result of the message with this number.
#[must_use]
pub fn result(number: u64) -> Vec<u8> {
    format!("{{\"of\":{number},\"pad\":\"{}\"}}", "x".repeat((number % 300) as usize)).into_bytes()
}

/// Returns the dead letter of the message with this number.
#[must_use]
pub fn dead_letter(number: u64) -> DeadLetter {
    DeadLetter {
        pipeline: PIPELINE.to_owned(),
        stage: "decode".to_owned(),
        reason: format!("message {number}"),
        topic: "plant".to_owned(),
        key: "k".to_owned(),
        time: number,
        payload: result(number),
        ..DeadLetter::default()
    }
}
