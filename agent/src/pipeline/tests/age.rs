//! What is too old: in the journal when it is read, in the outbox when it was not delivered.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::store::{Outgoing, Quota, Quotas};
use crate::wire::{EventResult, JsonText};

const HOUR: Duration = Duration::from_hours(1);

/// A plant without windows.
fn plant(quotas: Quotas) -> Plant {
    let mut plant = Plant::within(quotas);
    plant.config.windowed = None;
    plant
}

/// Reads all there is, and commits.
fn read(plant: &Plant, pipeline: &mut Pipeline) {
    for slice in pipeline.read_page(plant.store.journal_end()).unwrap() {
        pipeline.slice(slice).unwrap();
    }
    assert!(pipeline.commit(|_| false).unwrap());
}

/// Reports that wait in the outbox, without their words, and how many other lines.
fn waiting(plant: &Plant) -> (Vec<Value>, usize) {
    let batch = plant.store.begin_batch("central", 100, 1 << 20).unwrap().unwrap();
    let (mut reports, results): (Vec<Value>, Vec<Value>) =
        values(&batch).into_iter().partition(|line| !line["report"].is_null());
    for report in &mut reports {
        *report = report["report"].take();
        report.as_object_mut().unwrap().remove("reason");
    }
    (reports, results.len())
}

#[test]
fn messages_too_old_are_given_up_unread_unless_their_stamp_tells_no_age() {
    let mut quotas = Quotas::default();
    quotas.journal.age_max = Some(HOUR);
    let plant = plant(quotas);
    let (mut pipeline, now) = (plant.build(), Timestamp::now());
    let publish = |received: Timestamp| {
        let (topic, payload) = ("a".to_owned(), br#"{"t":1}"#.to_vec().into());
        let delivery = MqttDelivery::default();
        let message =
            Message { input: "plant".into(), topic, payload, properties: Vec::new(), received, delivery };
        plant.store.append(&[message]).unwrap();
    };
    let old = now.before(HOUR * 2);
    // The clock was not set when the first came, and lost again before the fourth did.
    for received in [Timestamp(5_000_000), old, old.after(HOUR / 2), Timestamp(6_000_000), now] {
        publish(received);
    }
    read(&plant, &mut pipeline);
    let expected = json!({
        "kind": "expired", "stage": "journal", "count": 2, "first": 1, "last": 2,
        "from": old, "to": old.after(HOUR / 2),
    });
    assert_eq!(waiting(&plant), (vec![expected], 3));
    assert_eq!((pipeline.counts.read, pipeline.results.overflow.tally.expired_messages), (3, 2));
    assert_eq!(plant.metrics.pipeline("p").expired_messages.get(), 2);

    // What came last has a stamp that this clock is behind: it is wrong, and judges nothing.
    publish(old);
    publish(now.after(HOUR));
    read(&plant, &mut pipeline);
    assert_eq!((pipeline.counts.read, pipeline.results.overflow.tally.expired_messages), (5, 2));
}

#[test]
fn results_too_old_are_given_up_undelivered_unless_their_stamp_tells_no_age() {
    let second = Duration::from_secs(1);
    let quota = Quota { age_max: Some(second), ..Quota::OUTBOX };
    let outboxes = BTreeMap::from([("central".to_owned(), quota)]);
    let plant = plant(Quotas { outboxes, ..Quotas::default() });
    let (mut pipeline, today) = (plant.build(), Timestamp(1_800_000_000_000_000));
    for (now, count) in [(Timestamp(5), 3), (today, 2), (today.after(second * 10), 1)] {
        let value = JsonText::checked(b"1").unwrap();
        let event = EventResult {
            agent: "gw".into(),
            pipeline: "p".into(),
            key: "k".into(),
            time: now,
            module: None,
            value,
        };
        let results = vec![Record::Event(event).to_bytes(); count];
        plant
            .store
            .commit(&Commit {
                pipeline: "p",
                results: Outgoing::new("central", results),
                now,
                ..Commit::default()
            })
            .unwrap();
    }
    let mut expire = |now: Timestamp| {
        // So often it looks.
        std::thread::sleep(Duration::from_millis(110));
        let owner = RecordOwner { agent: "gw", pipeline: "p", kind: RecordKind::Results, now };
        pipeline.results.expire(&plant.store, owner).unwrap();
        pipeline.results.overflow.tally.expired
    };
    assert_eq!(expire(Timestamp(9_000_000)), 0, "booted in 1970");
    assert_eq!(expire(today.after(second * 9)), 0, "a clock that is behind the newest judges nothing");
    assert_eq!(expire(today.after(second * 11)), 2);
    assert_eq!(plant.metrics.pipeline("p").expired_results.get(), 2);
    let expected = json!({
        "kind": "expired", "stage": "outbox", "count": 2, "first": null, "last": null, "from": today, "to": today,
    });
    assert_eq!(waiting(&plant), (vec![expected], 4));
}
