//! Bytes: what is written is read back, and garbage is an error, never a panic.

use crate::codec::{self, Row};
use crate::engine::VALUE_BYTES_MAX;
use crate::frame::{Body, Frame, Group, unpack};
use crate::salvage::Found;
use crate::sending::Sending;
use headwater_flow::testing::any_letter;
use headwater_flow::{Epoch, Message, MqttDelivery, Timestamp};
use proptest::prelude::*;
use std::sync::Arc;

prop_compose! {
    fn any_message()(
        input in ".{0,12}",
        topic in ".{0,40}",
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        properties in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..3),
        received in any::<u64>(),
        qos in 0..3u8,
        retain in any::<bool>(),
        session in any::<u64>(),
        packet in any::<u16>(),
    ) -> Message {
        let delivery = MqttDelivery { qos, retain, session, packet };
        let (input, received) = (Arc::from(input), Timestamp(received));
        Message { input, topic, payload: payload.into(), properties, received, delivery }
    }
}

/// Numbers where sums may not fit, and others.
fn edges() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), Just(u16::MAX - 1), Just(u16::MAX), any::<u16>()]
}

proptest! {
    #[test]
    fn a_message_comes_back(message in any_message(), before in ".{0,3}") {
        let mut record = Vec::new();
        codec::put_message(&mut record, &message);
        let mut input = Arc::from(before);
        prop_assert_eq!(codec::message(&record, &mut input), Ok(message));
    }

    #[test]
    fn a_dead_letter_comes_back(letter in any_letter()) {
        prop_assert_eq!(codec::dead_letter(&codec::put_dead_letter(&letter)), Ok(letter));
    }

    #[test]
    fn rows_come_back(a in any::<u64>(), b in any::<u64>(), epoch in any::<u128>(), bytes in any::<Vec<u8>>()) {
        prop_assert_eq!(codec::number(&codec::put_number(a)), Ok(a));
        prop_assert_eq!(codec::outbox(&codec::put_outbox(Epoch(epoch), a)), Ok((Epoch(epoch), a)));
        let (low, high) = (a.min(b), a.max(b));
        let sending = Sending::of(&[low, high]).unwrap();
        prop_assert_eq!(codec::batch(&codec::put_batch(&sending)), Ok(sending));
        prop_assert_eq!(codec::pipeline(&codec::put_pipeline(a, &bytes)), Ok((a, bytes.clone())));
        let window = codec::window(&codec::put_window(&bytes, &bytes));
        prop_assert_eq!(window, Ok((bytes.clone(), bytes)));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in any::<Vec<u8>>(), version in 0..3u8) {
        let record = [&[version][..], &bytes].concat();
        let mut input = Arc::from("");
        for read in [&bytes, &record] {
            let _read = (codec::message(read, &mut input), codec::dead_letter(read));
            let _read = (codec::number(read), codec::outbox(read), codec::batch(read));
            let _read = (codec::pipeline(read), codec::window(read));
            prop_assert!(codec::chunk(b"key", read).is_err());
            prop_assert!(Frame::parse(read).is_err());
            prop_assert!(unpack(bytes.len() as u16, read).count() <= bytes.len() + 1);
        }
    }

    #[test]
    fn bytes_that_begin_like_a_frame_are_none_without_its_checksum(
        kind in 0..4u8, first in 0..3u64, a in edges(), b in edges(), rest in proptest::collection::vec(any::<u8>(), 0..5_000)
    ) {
        let bytes = [&[1, kind], &first.to_le_bytes()[..], &a.to_le_bytes(), &b.to_le_bytes(), &rest].concat();
        let found = Frame::begins(&bytes, &(0..2));
        // By chance one of so many places may bear the sum of those before.
        prop_assert!(found.is_none_or(|frame| frame.first < 2 && kind == 1), "{:?}", found);
        let mut all = Found::new(0..2);
        all.by_bytes(&bytes);
        all.finish();
    }

    #[test]
    fn a_record_cut_short_is_an_error_or_a_shorter_payload(message in any_message(), cut in any::<prop::sample::Index>()) {
        let mut record = Vec::new();
        codec::put_message(&mut record, &message);
        record.truncate(cut.index(record.len()));
        if let Ok(read) = codec::message(&record, &mut Arc::from("")) {
            prop_assert_eq!(read.topic, message.topic);
            prop_assert!(message.payload.starts_with(&read.payload));
        }
    }

    #[test]
    fn a_flipped_bit_in_a_frame_or_chunk_is_an_error(record in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let frame = Group::of([&record]).into_frames().remove(0).seal(7);
        prop_assert!(Frame::parse(&frame).is_ok());
        prop_assert!(Frame::parse(&flip(&frame, at.index(frame.len()), bit)).is_err());
        let (key, chunk) = codec::chunks(&Row::pipeline("p"), &record).unwrap().remove(0);
        prop_assert_eq!(codec::chunk(&key, &chunk), Ok((1, &record[..])));
        prop_assert!(codec::chunk(&key, &flip(&chunk, at.index(chunk.len()), bit)).is_err());
        prop_assert!(codec::chunk(&flip(&key, at.index(key.len()), bit), &chunk).is_err());
    }

    #[test]
    fn frames_hold_the_records_within_the_values_bound(lengths in proptest::collection::vec(0..9000usize, 0..20), base in 0..u64::MAX / 2) {
        let records: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![length as u8; length]).collect();
        let (mut read, mut parts) = (Vec::new(), Vec::new());
        for draft in Group::of(&records).into_frames() {
            let length = draft.len();
            let value = draft.seal(base);
            prop_assert_eq!(value.len(), length);
            prop_assert!(value.len() <= VALUE_BYTES_MAX);
            let frame = Frame::parse(&value).unwrap();
            prop_assert_eq!(frame.first, base + read.len() as u64);
            match frame.body {
                Body::Packed { count, bytes } => {
                    read.extend(unpack(count, bytes).map(|record| record.unwrap().to_vec()));
                }
                Body::Gap { .. } => panic!("nothing was dropped"),
                Body::Part { index, total, bytes } => {
                    parts.extend_from_slice(bytes);
                    if index + 1 == total {
                        read.push(std::mem::take(&mut parts));
                    }
                }
            }
        }
        prop_assert!(read == records);
    }
}

#[test]
fn numbers_over_64_bits_are_an_error() {
    let check = |bytes: &[u8], expected: Option<u64>| {
        assert_eq!(codec::number(bytes).ok(), expected, "{bytes:?}");
    };
    check(&[0xff; 9], None);
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Some(u64::MAX));
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], None);
    check(&[0x80; 11], None);
}

fn flip(bytes: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}
