//! Readings that come too late for their windows, and where they go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::store::{Quota, Quotas};

/// Where they go.
const LATE: &str = "store.late";

/// Readings of 100 kB: more than the quota takes.
const MANY: u64 = 150;

/// A plant whose late readings go to an output of their own, and whose logs take 8 MB.
fn plant(when_full: WhenFull, age_max: Option<Duration>) -> Plant {
    let quota = Quota { bytes_max: 8_000_000, age_max };
    let outboxes = [LATE, "central"].map(|outbox| (outbox.to_owned(), quota));
    let quotas = Quotas { outboxes: BTreeMap::from(outboxes), ..Quotas::default() };
    let mut plant = Plant::of_segments(quotas, 1_000_000);
    plant.config.late = Some(Late { output: "store".to_owned(), when_full });
    plant
}

impl Plant {
    /// A reading of that second with a filling that makes it so large.
    fn reading(&self, second: u64, number: u64, bytes: usize) {
        let filling = "x".repeat(bytes);
        let message = Message {
            input: "plant".into(),
            topic: "a".to_owned(),
            payload: format!(r#"{{"t":1,"n":{number},"filling":"{filling}"}}"#).into_bytes().into(),
            properties: Vec::new(),
            received: Timestamp(NOW * 1_000_000),
            delivery: MqttDelivery::default(),
        };
        let stamp = format!(r#"{{"ts":{second},"#);
        let payload = stamp.into_bytes().into_iter().chain(message.payload[1..].iter().copied());
        let message = Message { payload: payload.collect::<Vec<_>>().into(), ..message };
        self.store.append(&[message]).unwrap();
    }

    /// Lines that wait for the late output, confirmed.
    fn late(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(batch) = self.store.begin_batch(LATE, 100, usize::MAX).unwrap() {
            lines.extend(values(&batch));
            self.store.confirm_batch(LATE, &batch.range, None).unwrap();
        }
        lines
    }

    fn stamps(mut self) -> Self {
        let place = decode::Place::Field(vec!["ts".to_owned()]);
        let (unit, when_missing) = (decode::TimeUnit::Seconds, decode::WhenMissing::Reject);
        self.config.decode.time = Some(decode::Stamp { place, unit, when_missing });
        self
    }
}

#[test]
fn a_late_reading_goes_out_as_it_was_and_without_an_output_it_is_only_counted() {
    let run = |late: Option<Late>| {
        let mut plant = plant(WhenFull::Block, None).stamps();
        plant.config.late = late;
        let mut pipeline = plant.build();
        for (number, second) in [NOW - 9, NOW, NOW - 5, NOW - 7].into_iter().enumerate() {
            plant.reading(second, number as u64, 1);
        }
        read(&plant, &mut pipeline);
        let metrics = plant.metrics.pipeline("p");
        assert_eq!((metrics.used_events.get(), metrics.late_events.get()), (2, 2));
        (plant, metrics.sent_late_events.get())
    };
    let late = Late { output: "store".to_owned(), when_full: WhenFull::Block };
    let (plant, sent) = run(Some(late));
    let lines = lines(&plant.store.begin_batch(LATE, 9, usize::MAX).unwrap().unwrap());
    let expected = concat!(
        r#"{"agent":"gw","pipeline":"p","kind":"late","topic":"a","key":"a","time":"2027-01-15T07:59:55Z","#,
        r#""module":null,"value":{"ts":1799999995,"t":1,"n":2,"filling":"x"}}"#
    );
    assert_eq!((sent, lines.len(), &*lines[0]), (2, 2, expected));
    assert_eq!(plant.store.outboxes("store").unwrap(), ["store", LATE]);
    let (plant, sent) = run(None);
    assert_eq!((sent, plant.store.outboxes("store").unwrap().len()), (0, 1));
}

/// Reads all there is, and commits once; whether that found room.
fn try_read(plant: &Plant, pipeline: &mut Pipeline) -> bool {
    for slice in pipeline.read_page(plant.store.journal_end()).unwrap() {
        pipeline.slice(slice).unwrap();
    }
    pipeline.settle(&AtomicBool::new(false), &|| {}).unwrap();
    pipeline.commit(|_| false).unwrap()
}

fn read(plant: &Plant, pipeline: &mut Pipeline) {
    assert!(try_read(plant, pipeline));
}

/// Late readings until the quota is reached several times over; how many commits there were.
fn fill(plant: &Plant, pipeline: &mut Pipeline) -> u64 {
    plant.reading(NOW, 0, 1);
    read(plant, pipeline);
    for number in 1..=MANY {
        plant.reading(NOW - 100, number, 100_000);
        if !try_read(plant, pipeline) {
            return number;
        }
    }
    MANY
}

/// What the late output is told, but for the words and the value's filling: numbers of readings, and the
/// counts of reports.
fn told(plant: &Plant) -> (Vec<u64>, Vec<Value>) {
    let (reports, late): (Vec<_>, Vec<_>) =
        plant.late().into_iter().partition(|line| line["report"].is_object());
    let reports = reports.iter().map(|line| {
        let report = &line["report"];
        json!([report["kind"], report["stage"], report["count"]])
    });
    (late.iter().map(|line| line["value"]["n"].as_u64().unwrap()).collect(), reports.collect())
}

#[test]
fn at_its_quota_a_late_output_that_blocks_holds_up_the_pipeline_and_loses_nothing() {
    let plant = plant(WhenFull::Block, None).stamps();
    let mut pipeline = plant.build();
    let last = fill(&plant, &mut pipeline);
    assert!((20..MANY).contains(&last), "{last} readings of 100 kB in 8 MB");
    let metrics = plant.metrics.pipeline("p");
    assert_eq!((metrics.sent_late_events.get(), metrics.blocked.get()), (last - 1, 1));
    // Not committed, so it is read again after a restart, and there is room then.
    let (numbers, reports) = told(&plant);
    assert_eq!((numbers, reports.len()), ((1..last).collect(), 0));
    let mut pipeline = plant.build();
    read(&plant, &mut pipeline);
    assert_eq!(told(&plant), (vec![last], Vec::new()));
    assert_eq!(metrics.blocked.get(), 0);
}

#[test]
fn at_its_quota_a_late_output_that_drops_says_how_many() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let plant = plant(when_full, None).stamps();
        let mut pipeline = plant.build();
        assert_eq!(fill(&plant, &mut pipeline), MANY, "it is never blocked");
        let metrics = plant.metrics.pipeline("p");
        let dropped = metrics.dropped_late_events.get();
        assert_eq!((metrics.sent_late_events.get(), metrics.dropped_results.get()), (MANY, 0));
        assert!((20..MANY - 5).contains(&dropped), "{when_full:?}: {dropped}");
        let (mut numbers, mut reports) = told(&plant);
        if when_full == WhenFull::DropNewest {
            // What is owed comes as soon as there is room.
            assert!(reports.is_empty() && numbers == (1..=MANY - dropped).collect::<Vec<_>>());
            assert!(pipeline.commit_is_due() || pipeline.owes());
            read(&plant, &mut pipeline);
            let more = told(&plant);
            numbers.extend(more.0);
            reports.extend(more.1);
        } else {
            assert!(numbers.is_sorted() && numbers.last() == Some(&MANY));
        }
        assert_eq!(
            (numbers.len() as u64, &reports),
            (MANY - dropped, &vec![json!(["dropped", "late", dropped])])
        );
        assert_eq!(metrics.late_report_lines.get(), 1);
        assert_eq!((metrics.report_lines.get(), plant.results()), (0, 0), "results are another way");
    }
}

#[test]
fn late_readings_too_old_are_given_up_and_reported_as_such() {
    let plant = plant(WhenFull::Block, Some(Duration::from_secs(2))).stamps();
    let mut pipeline = plant.build();
    plant.reading(NOW, 0, 1);
    for number in 1..=3 {
        plant.reading(NOW - 100, number, 1);
    }
    read(&plant, &mut pipeline);
    let kind = RecordKind::Results;
    let owner = |now| RecordOwner { agent: "gw", pipeline: "p", kind, now };
    std::thread::sleep(Duration::from_millis(130));
    let late = pipeline.late.as_mut().unwrap();
    late.expire(&plant.store, owner(Timestamp::now().after(Duration::from_secs(3)))).unwrap();
    assert_eq!(told(&plant), (Vec::new(), vec![json!(["expired", "late", 3])]));
    assert_eq!(plant.metrics.pipeline("p").expired_late_events.get(), 3);
}

#[test]
fn a_late_reading_that_its_output_refused_goes_there_again_when_it_is_replayed() {
    let mut plant = plant(WhenFull::Block, None);
    let letter = |payload: &str| DeadLetter {
        pipeline: "p".to_owned(),
        stage: "output".to_owned(),
        payload: payload.into(),
        ..DeadLetter::default()
    };
    let line = r#"{"agent":"gw","pipeline":"p","kind":"late","topic":"a","key":"a","time":"2027-01-15T07:59:55Z","module":null,"value":1}"#;
    let dead_letters = vec![letter(line), letter(r#"{"agent":"gw"}"#)];
    plant.store.commit(&Commit { pipeline: "other", dead_letters, ..Commit::default() }).unwrap();
    let replay = |plant: &Plant| {
        let wish = |number| store::Wish { number, again: true, ..store::Wish::default() };
        let mut pipeline = plant.build();
        assert!(plant.store.replay_letters("p", &[wish(0), wish(1)]).unwrap().iter().all(Result::is_ok));
        assert!(pipeline.replay().unwrap() && pipeline.commit(|_| false).unwrap());
        plant.results()
    };
    assert_eq!(replay(&plant), 1);
    assert_eq!(plant.late().len(), 1);
    // Without such an output it goes where results go.
    plant.config.late = None;
    assert_eq!((replay(&plant), plant.late().len()), (1 + 2, 0));
}
