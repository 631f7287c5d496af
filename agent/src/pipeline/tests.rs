//! A pipeline between a real store and real modules.

mod age;
mod batches;
mod late;
mod memory;
mod shadow;

use std::sync::Arc;

use super::*;
use crate::flow::{DeadLetter, MqttDelivery};
use crate::metrics::Metrics;
use crate::store::Commit;
use crate::wire::Record;

/// A store, and a pipeline of windows of a second on input `plant`.
struct Plant {
    store: Store,
    metrics: Metrics,
    config: Config,
    host: ModuleHost,
    folder: tempfile::TempDir,
}

impl Plant {
    fn new() -> Self {
        Self::within(store::Quotas::default())
    }

    fn within(quotas: store::Quotas) -> Self {
        Self::of_segments(quotas, 4 << 20)
    }

    fn of_segments(quotas: store::Quotas, segment_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stats.wasm");
        std::fs::write(&file, headwater_bundle::STATS).unwrap();
        let metrics = Metrics::new();
        let kind = window::WindowKind::Tumbling(window::TumblingWindow {
            size: Duration::from_secs(1),
            offset: Duration::ZERO,
        });
        let idle = Some(Duration::from_millis(100));
        let window = window::WindowConfig { idle, ..window::WindowConfig::new(kind) };
        let settings = r#"{"fields":["t"]}"#.to_owned();
        let aggregate = AggregateConfig::Module(ModuleConfig {
            origin: (&file).into(),
            settings,
            limits: ModuleLimits::default(),
        });
        let config = Config {
            input: "plant".to_owned(),
            decode: decode::Config {
                topics: Vec::new(),
                format: decode::Format::Json,
                key: "{topic}".parse().unwrap(),
                time: None,
                guard: decode::Guard::default(),
            },
            transforms: Vec::new(),
            windowed: Some((window, aggregate)),
            commit_every: Duration::from_millis(10),
            output: "central".to_owned(),
            when_full: WhenFull::Block,
            coarsen_max: COARSEN_MAX,
            priority: Priority::Order,
            late: None,
            on_trip: OnTrip::default(),
            shadow: Duration::ZERO,
        };
        let store =
            store::Config { quotas, segment_bytes, ..store::Config::new(folder.path().join("store")) };
        let store = Store::open(&store, &metrics.store()).unwrap();
        Self { store, metrics, config, host: ModuleHost::new(None).unwrap(), folder }
    }

    fn build(&self) -> Pipeline {
        let Self { config, host, store, metrics, .. } = self;
        Parts { name: "p", agent: "gw", config, host, store, metrics }.build().unwrap()
    }

    fn publish(&self, second: u64) {
        let message = Message {
            input: "plant".into(),
            topic: "a".to_owned(),
            payload: br#"{"t":1}"#.to_vec().into(),
            properties: Vec::new(),
            received: Timestamp(second * 1_000_000),
            delivery: MqttDelivery::default(),
        };
        self.store.append(&[message]).unwrap();
    }

    fn results(&self) -> u64 {
        self.store.pending("central").unwrap()
    }
}

/// Returns the lines of a batch's records.
fn lines(batch: &store::Batch) -> Vec<String> {
    let line = |record: &Vec<u8>| String::from_utf8(Record::from_bytes(record).unwrap().to_line()).unwrap();
    batch.records.iter().map(line).collect()
}

/// Returns these lines, parsed.
fn values(batch: &store::Batch) -> Vec<serde_json::Value> {
    lines(batch).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs the pipeline on a thread of its own while `during` looks on.
fn run(plant: &Plant, pipeline: Pipeline, during: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || pipeline.run(&stopped, || {}));
    during();
    stop.store(true, Ordering::Release);
    plant.store.wake_all();
    thread.join().unwrap().unwrap();
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn time_stands_still_while_the_input_is_away() {
    let plant = Plant::new();
    let (pipeline, input) = (plant.build(), plant.metrics.input("plant"));
    plant.publish(1);
    run(&plant, pipeline, || {
        eventually("the reading is used", || plant.metrics.pipeline("p").used_events.get() == 1);
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(plant.results(), 0, "devices that cannot be heard are not silent");
        input.connected.set(1);
        eventually("a silent device's window closes", || plant.results() == 1);
    });
}

#[test]
fn an_open_window_outlives_a_restart_and_counts_once() {
    let plant = Plant::new();
    let pipeline = plant.build();
    plant.publish(1);
    let used = || plant.metrics.pipeline("p").used_events.get();
    run(&plant, pipeline, || eventually("the reading is used", || used() == 1));
    plant.publish(1);
    plant.publish(2);
    let again = Plant { metrics: Metrics::new(), ..plant };
    // The stop above closed the store's waiting rooms for good, as a process that ends does.
    let mut pipeline = again.build();
    for slice in pipeline.read_page(again.store.journal_end()).unwrap() {
        pipeline.slice(slice).unwrap();
    }
    assert!(pipeline.settle(&AtomicBool::new(false), &|| {}).unwrap());
    assert!(pipeline.commit(|_| false).unwrap());
    let batch = again.store.begin_batch("central", 10, 1 << 20).unwrap().unwrap();
    let line = &values(&batch)[0];
    assert_eq!(
        (batch.records.len(), &line["count"], &line["value"]["t"]["count"]),
        (1, &2.into(), &2.into())
    );
    assert_eq!(pipeline.counts.used, 3);
}

#[test]
fn a_new_pipeline_starts_at_the_end_and_stays_there() {
    let plant = Plant::new();
    plant.publish(1);
    assert_eq!(plant.build().position, 1);
    plant.publish(2);
    assert_eq!(plant.build().position, 1, "what came since is for it");
}

#[test]
fn a_letter_enters_again_where_it_was_refused() {
    let plant = Plant::new();
    let mut pipeline = plant.build();
    let window = crate::flow::UnfinishedWindow {
        start: Timestamp(0),
        end: Timestamp(1_000_000),
        part: 1,
        revision: 2,
        count: 3,
        late: 1,
        rejected: 0,
    };
    let letter = |stage: &str, payload: &str| DeadLetter {
        pipeline: "p".to_owned(),
        stage: stage.to_owned(),
        input: "plant".to_owned(),
        topic: "a".to_owned(),
        key: "k".to_owned(),
        received: Timestamp(5_000_000),
        event_time: Some(Timestamp(5_000_000)),
        payload: payload.into(),
        ..DeadLetter::default()
    };
    let windowed = |stage: &str, payload: &str| DeadLetter { window: Some(window), ..letter(stage, payload) };
    let dead_letters = vec![
        letter("decode", r#"{"t":1}"#),
        letter("decode", r#"{"t":"#),
        letter("transform[0]", r#"{"t":2}"#),
        letter("transform[3]", r#"{"t":3}"#),
        letter("check", r#"{"t":4}"#),
        letter("aggregate", r#"{"u":5}"#),
        letter("encode", r#"{"t":6}"#),
        windowed("encode", r#"{"n":7}"#),
        windowed("finish", "no state"),
        letter("output", r#"{"agent":"gw"}"#),
        letter("forward", "{\n}"),
        letter("nowhere", ""),
    ];
    let wishes = |numbers: std::ops::Range<u64>| -> Vec<_> {
        numbers.map(|number| store::Wish { number, ..store::Wish::default() }).collect()
    };
    let all = dead_letters.len() as u64;
    plant.store.commit(&Commit { pipeline: "other", dead_letters, ..Commit::default() }).unwrap();
    assert!(plant.store.replay_letters("p", &wishes(0..all)).unwrap().iter().all(Result::is_ok));
    assert!(pipeline.replay().unwrap() && pipeline.commit(|_| false).unwrap());
    assert!(!pipeline.replay().unwrap(), "each once");

    let new = plant.store.dead_letters(all, 99).unwrap();
    let new: Vec<_> = new.iter().map(|(_, letter)| (&*letter.stage, letter.replay_of)).collect();
    assert_eq!(new, [("decode", Some(1)), ("aggregate", Some(5)), ("finish", Some(8)), ("output", Some(10))]);
    let expected = Counts {
        replayed_messages: 4,
        replayed_events: 3,
        replayed_results: 4,
        succeeded_replays: 7,
        rejected_messages: 1,
        events: 3,
        used: 5,
        rejected_events: 1,
        results: 2,
        dead_letters: 4,
        ..Counts::default()
    };
    assert_eq!(pipeline.counts, expected);
    let batch = plant.store.begin_batch("central", 10, 1 << 20).unwrap().unwrap();
    let lines = lines(&batch);
    let result = &lines[0];
    assert!(result.contains(r#""revision":2,"#) && result.ends_with(r#""value":{"n":7}}"#), "{result}");
    assert_eq!(lines[1], r#"{"agent":"gw"}"#);
}

/// 2027, in seconds.
const NOW: u64 = 1_800_000_000;

impl Plant {
    /// A reading with its stamp, and when it arrived by the host's clock; both in seconds.
    fn stamped(&self, received: u64, stamp: impl std::fmt::Display) {
        let message = Message {
            input: "plant".into(),
            topic: "a".to_owned(),
            payload: format!("{{\"t\":1,\"ts\":{stamp}}}").into_bytes().into(),
            properties: Vec::new(),
            received: Timestamp(received * 1_000_000),
            delivery: MqttDelivery::default(),
        };
        self.store.append(&[message]).unwrap();
    }

    /// Takes in all that was published, as a process would that ends then.
    fn take_in(&self) -> Counts {
        let mut pipeline = self.build();
        for slice in pipeline.read_page(self.store.journal_end()).unwrap() {
            pipeline.slice(slice).unwrap();
        }
        assert!(pipeline.settle(&AtomicBool::new(false), &|| {}).unwrap());
        assert!(pipeline.commit(|_| false).unwrap());
        pipeline.counts
    }
}

#[test]
fn readings_count_by_their_stamps_though_the_host_booted_in_1970_or_an_hour_back() {
    let mut plant = Plant::new();
    let path = vec!["ts".to_owned()];
    plant.config.decode.time = Some(decode::Stamp {
        place: decode::Place::Field(path),
        unit: decode::TimeUnit::Seconds,
        when_missing: decode::WhenMissing::Reject,
    });
    plant.build();
    // Never told the time: nothing is judged, and nothing rejected.
    plant.stamped(30, NOW - 5);
    plant.stamped(31, NOW - 4);
    let counts = plant.take_in();
    assert_eq!((counts.used, counts.rejected_messages, counts.clock_behind), (2, 0, 2));
    // Then it was told, and booted again. The committed clock judges, not the host's.
    plant.stamped(NOW, NOW);
    plant.take_in();
    plant.stamped(20, NOW + 1);
    plant.stamped(21, NOW + 3_600);
    plant.stamped(NOW - 3_600, NOW + 2);
    plant.stamped(NOW + 3_600, NOW + 3_600);
    plant.stamped(NOW + 10, NOW + 3_601);
    let counts = plant.take_in();
    assert_eq!((counts.used, counts.late, counts.clock_behind), (7, 0, 2 + 4));
    assert_eq!((counts.rejected_messages, counts.ahead_rejected), (1, 1));
    let letters = plant.store.dead_letters(0, 9).unwrap();
    assert!(letters[0].1.reason.contains("ahead of its arrival"), "{}", letters[0].1.reason);
}

#[test]
fn an_arrival_is_not_late_because_the_host_booted_in_1970() {
    let plant = Plant::new();
    plant.build();
    plant.publish(NOW);
    plant.take_in();
    plant.publish(20);
    plant.publish(NOW - 3_600);
    plant.publish(NOW + 5);
    let counts = plant.take_in();
    assert_eq!((counts.used, counts.late, counts.clock_behind), (4, 0, 2));
    let batch = plant.store.begin_batch("central", 10, 1 << 20).unwrap().unwrap();
    assert_eq!(values(&batch)[0]["count"], 3, "they are where the last trusted arrival was");
}

#[test]
fn each_stamp_that_is_off_is_counted_under_its_policy() {
    use decode::WhenOff::{Arrival, Clamp, Reject};
    let stamps = ["1e9", "1.8e9", "9e9", "-5", "1e300", "null", "\"soon\""];
    let run = |policy, when_missing| {
        let mut plant = Plant::new();
        let place = decode::Place::Field(vec!["ts".to_owned()]);
        plant.config.decode.time =
            Some(decode::Stamp { place, unit: decode::TimeUnit::Seconds, when_missing });
        let past = Some(Duration::from_hours(1));
        plant.config.decode.guard =
            decode::Guard { skew: Duration::ZERO, when_ahead: policy, past, when_past: policy };
        plant.build();
        stamps.iter().for_each(|stamp| plant.stamped(NOW, stamp));
        let counts = plant.take_in();
        let metrics = plant.metrics.pipeline("p");
        assert_eq!(counts.read, counts.rejected_messages + counts.events);
        assert_eq!(counts.dead_letters, counts.rejected_messages, "only what is refused is in the ledger");
        let ahead =
            [&metrics.ahead_rejected_stamps, &metrics.ahead_arrival_stamps, &metrics.ahead_clamped_stamps];
        let past =
            [&metrics.past_rejected_stamps, &metrics.past_arrival_stamps, &metrics.past_clamped_stamps];
        let missing = metrics.missing_arrival_stamps.get();
        (ahead.map(|it| it.get()), past.map(|it| it.get()), missing, counts.rejected_messages)
    };
    assert_eq!(run(Reject, decode::WhenMissing::Reject), ([2, 0, 0], [2, 0, 0], 0, 6));
    assert_eq!(run(Arrival, decode::WhenMissing::Arrival), ([0, 2, 0], [0, 2, 0], 1, 1));
    assert_eq!(run(Clamp, decode::WhenMissing::Reject), ([0, 0, 2], [0, 0, 2], 0, 2));
}

#[test]
fn a_commit_is_due_before_many_changed_keys_are_held() {
    let mut plant = Plant::new();
    plant.config.commit_every = Duration::from_secs(3600);
    let mut pipeline = plant.build();
    let message = |topic: usize| Message {
        input: "plant".into(),
        topic: topic.to_string(),
        payload: br#"{"t":1}"#.to_vec().into(),
        properties: Vec::new(),
        received: Timestamp(1_000_000),
        delivery: MqttDelivery::default(),
    };
    let page = |keys: std::ops::Range<usize>| keys.map(|key| (key as u64, message(key))).collect();
    pipeline.slice(page(0..COMMIT_KEYS_MAX)).unwrap();
    assert!(!pipeline.commit_is_due());
    pipeline.slice(page(COMMIT_KEYS_MAX..COMMIT_KEYS_MAX + 1)).unwrap();
    assert!(pipeline.commit_is_due());
    assert!(pipeline.commit(|_| false).unwrap());
    assert!(!pipeline.commit_is_due());
}
