//! The ledger between a real store and a real pipeline, under load, with and without a leak.

mod policies;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::flow::{Message, MqttDelivery, Timestamp};
use crate::pipeline::{Parts, Pipeline as Stage};

const CONFIG: &str = r##"
[agent]
id = "gw"
state = "state"
[input.plant]
mqtt = { url = "mqtt://127.0.0.1", topics = ["#"] }
[pipeline.each]
input = "plant"
topics = ["kept/#"]
key = "k"
output = "central"
[output.central]
http = { url = "http://127.0.0.1:9/v1/batches" }
"##;

struct Plant {
    store: Store,
    metrics: Arc<Metrics>,
    config: Config,
    stop: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Plant {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::config::parse(&folder.path().join("agent.toml"), CONFIG).unwrap();
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(&store::Config::new(folder.path().join("store")), &metrics.store()).unwrap();
        Self { store, metrics, config, stop: Arc::default(), _folder: folder }
    }

    /// To be built before the books are opened, as the agent does.
    fn pipeline(&self) -> Stage {
        let host = Host::new(None).unwrap();
        let (config, store, metrics) = (&self.config.pipelines["each"], &self.store, &self.metrics);
        Parts { name: "each", agent: "gw", config, host: &host, store, metrics }.build().unwrap()
    }

    fn books(&self) -> Books {
        Books::open(&self.config, &self.metrics, &self.store).unwrap()
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// As an input does: received under a turn, durable, and counted under a turn.
    fn publish(&self, count: u64) {
        let input = self.metrics.input("plant");
        let messages: Vec<_> = (0..count).map(message).collect();
        for _ in &messages {
            let _together = input.turn();
            input.received_messages.inc();
            input.in_flight_messages.inc();
        }
        self.store.append(&messages).unwrap();
        let _together = input.turn();
        input.in_flight_messages.dec_by(i64::try_from(count).unwrap());
        input.journaled_messages.inc_by(count);
    }

    /// As an output does: confirmed, and counted some time later.
    fn deliver(&self, counted: bool) -> bool {
        let Some(batch) = self.store.begin_batch("central", 100, 1 << 20).unwrap() else { return false };
        self.store.confirm_batch("central", &batch.range, None).unwrap();
        std::thread::sleep(Duration::from_micros(300));
        if counted {
            let delivered = batch.range.end - batch.range.start;
            self.metrics.output("central").delivered_results.inc_by(delivered);
        }
        true
    }

    /// Runs a plant that never rests while `during` looks on.
    fn load(&self, pipeline: Stage, during: impl FnOnce()) {
        std::thread::scope(|threads| {
            let stop = Stop(self);
            threads.spawn(|| {
                while self.runs() {
                    self.publish(fastrand::u64(1..200));
                }
            });
            threads.spawn(|| pipeline.run(&self.stop, || {}).unwrap());
            threads.spawn(|| {
                while self.runs() {
                    if !self.deliver(true) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            during();
            drop(stop);
        });
    }
}

/// Ends the load, also when what looked on has failed.
struct Stop<'a>(&'a Plant);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.store.wake_all();
    }
}

fn message(number: u64) -> Message {
    Message {
        input: "plant".into(),
        topic: if number.is_multiple_of(3) { "other".to_owned() } else { "kept/one".to_owned() },
        payload: (if number.is_multiple_of(7) { "no json" } else { "1" }).into(),
        properties: Vec::new(),
        received: Timestamp(1),
        delivery: MqttDelivery::default(),
    }
}

/// Checks for so long, often; what they found.
fn checks(books: &Books, audit: &mut Audit, time: Duration) -> Vec<Finding> {
    let (end, mut findings) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        findings.extend(audit.check(&books.missing().unwrap()));
        std::thread::sleep(Duration::from_millis(20));
    }
    findings
}

#[test]
fn the_ledger_balances_at_every_check_under_load() {
    let plant = Plant::new();
    // What is pending before the start is the opening balance.
    plant.load(plant.pipeline(), || std::thread::sleep(Duration::from_millis(300)));
    let plant = Plant { stop: Arc::default(), metrics: Arc::new(Metrics::new()), ..plant };
    let (pipeline, books, mut audit) = (plant.pipeline(), plant.books(), Audit::default());
    // The store's rooms are closed for good after one stop, which only costs this run its waiting.
    plant.load(pipeline, || assert_eq!(checks(&books, &mut audit, Duration::from_secs(3)), []));
    let book = books.look().unwrap();
    let pipeline = book.pipelines["each"];
    assert!(book.inputs["plant"].journaled > 1_000, "there was load: {book:?}");
    assert!(pipeline.skipped > 0 && pipeline.rejected > 0 && pipeline.used > 0, "{book:?}");
    assert!(book.outputs["central"].delivered > 100, "{book:?}");
}

/// After the leak exactly this is found soon, under load, and stays so.
#[track_caller]
fn finds(leak: impl FnOnce(&Plant), expected: &[(&str, i64)]) {
    let plant = Plant::new();
    let (pipeline, books, mut audit) = (plant.pipeline(), plant.books(), Audit::default());
    plant.load(pipeline, || {
        assert_eq!(checks(&books, &mut audit, Duration::from_millis(500)), []);
        leak(&plant);
        checks(&books, &mut audit, Duration::from_secs(1));
        let expected = expected.iter().map(|(name, missing)| ((*name).to_owned(), *missing)).collect();
        assert_eq!(audit.broken(), expected);
    });
}

#[test]
fn one_message_that_the_source_forgets_is_found_under_load() {
    finds(|plant| _ = plant.metrics.input("plant").received_messages.inc(), &[("input/plant", 1)]);
}

#[test]
fn one_message_that_the_journal_never_held_is_found_under_load() {
    let acknowledged_only = |plant: &Plant| {
        let input = plant.metrics.input("plant");
        let _together = input.turn();
        input.received_messages.inc();
        input.journaled_messages.inc();
    };
    finds(acknowledged_only, &[("journal", 1)]);
}

#[test]
fn one_event_that_counts_twice_is_found_under_load() {
    finds(|plant| _ = plant.metrics.pipeline("each").used_events.inc(), &[("events/each", -1)]);
}

#[test]
fn one_message_that_a_pipeline_misses_is_found_under_load() {
    finds(|plant| _ = plant.metrics.pipeline("each").skipped_messages.inc(), &[("position/each", -1)]);
}

#[test]
fn results_that_leave_the_outbox_uncounted_are_found_under_load() {
    let plant = Plant::new();
    let (pipeline, books, mut audit) = (plant.pipeline(), plant.books(), Audit::default());
    plant.load(pipeline, || {
        assert_eq!(checks(&books, &mut audit, Duration::from_millis(500)), []);
        plant.metrics.output("central").delivered_results.inc();
        checks(&books, &mut audit, Duration::from_secs(1));
        assert_eq!(audit.broken(), BTreeMap::from([("outbox/central".to_owned(), -1)]));
    });
    let lost = plant.store.pending("central").unwrap();
    if lost > 0 {
        while plant.deliver(false) {}
        checks(&books, &mut audit, Duration::from_millis(200));
        assert_eq!(audit.broken()["outbox/central"], i64::try_from(lost).unwrap() - 1);
    }
}
