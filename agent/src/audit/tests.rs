//! The ledger between a real store and a real pipeline, under load, with and without a leak.

mod changes;
mod policies;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::config::Config;
use crate::flow::{Message, MqttDelivery, Timestamp};
use crate::pipeline::{Parts, Pipeline};
use crate::roster::{InputEntry, OutputEntry, PipelineEntry, Roster};
use crate::store::Store;

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
        Self::of(CONFIG)
    }

    fn of(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::config::parse(&folder.path().join("agent.toml"), config).unwrap();
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(&store::Config::new(folder.path().join("store")), &metrics.store()).unwrap();
        Self { store, metrics, config, stop: Arc::default(), _folder: folder }
    }

    /// Builds a pipeline, which comes before it is entered in the roster.
    fn pipeline(&self, name: &str) -> Pipeline {
        let host = ModuleHost::new(None).unwrap();
        let config = &self.config.pipelines[name];
        let parts =
            Parts { name, agent: "gw", config, host: &host, store: &self.store, metrics: &self.metrics };
        parts.build().unwrap()
    }

    /// Enters all stages of the configuration, of which the pipelines are built.
    fn roster(&self) -> Roster {
        let roster = Roster::new(self.metrics.clone());
        for name in self.config.inputs.keys() {
            roster.add_input(name, InputEntry::new(self.metrics.input(name))).unwrap();
        }
        for name in self.config.outputs.keys() {
            self.enter_output(&roster, name);
        }
        for name in self.config.pipelines.keys() {
            self.enter(&roster, name);
        }
        roster
    }

    fn enter_output(&self, roster: &Roster, name: &str) {
        let pending = self.store.pending(name).unwrap();
        let entry = OutputEntry::new(&self.config.outputs[name], self.metrics.output(name), pending);
        roster.add_output(name, entry).unwrap();
    }

    fn enter(&self, roster: &Roster, name: &str) {
        let config = &self.config.pipelines[name];
        let metrics = self.metrics.pipeline(name);
        let calls = self.metrics.calls(name);
        let entry = PipelineEntry::new(config, Arc::default(), Arc::default(), metrics, calls);
        roster.add_pipeline(name, entry).unwrap();
    }

    fn ledger(&self) -> LedgerReader {
        LedgerReader::open(self.store.clone(), self.roster().reader())
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// As an input does: received under a turn, durable, and counted under a turn.
    fn publish(&self, count: u64) {
        self.publish_to("plant", count);
    }

    fn publish_to(&self, name: &str, count: u64) {
        let input = self.metrics.input(name);
        let messages: Vec<_> =
            (0..count).map(|number| Message { input: name.into(), ..message(number) }).collect();
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
    fn load(&self, pipeline: Pipeline, during: impl FnOnce()) {
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

/// Checks often for so long, and returns what that found.
fn checks(ledger: &LedgerReader, audit: &mut LedgerAudit, time: Duration) -> Vec<LedgerFinding> {
    let end = Instant::now() + time;
    let mut findings = Vec::new();
    while Instant::now() < end {
        findings.extend(audit.check(&ledger.missing().unwrap()));
        std::thread::sleep(Duration::from_millis(20));
    }
    findings
}

#[test]
fn the_ledger_balances_at_every_check_under_load() {
    let plant = Plant::new();
    // What is pending before the start is the opening balance.
    plant.load(plant.pipeline("each"), || std::thread::sleep(Duration::from_millis(300)));
    let plant = Plant { stop: Arc::default(), metrics: Arc::new(Metrics::new()), ..plant };
    let pipeline = plant.pipeline("each");
    let ledger = plant.ledger();
    let mut audit = LedgerAudit::default();
    // The store's rooms are closed for good after one stop, which only costs this run its waiting.
    plant.load(pipeline, || assert_eq!(checks(&ledger, &mut audit, Duration::from_secs(3)), []));
    let counts = ledger.read().unwrap();
    let pipeline = counts.pipelines["each"];
    assert!(counts.inputs["plant"].journaled > 1_000, "there was load: {counts:?}");
    assert!(pipeline.skipped > 0 && pipeline.rejected > 0 && pipeline.used > 0, "{counts:?}");
    assert!(counts.outputs["central"].delivered > 100, "{counts:?}");
}

/// After the leak exactly this is found soon, under load, and stays so.
#[track_caller]
fn finds(leak: impl FnOnce(&Plant), expected: &[(&str, i64)]) {
    let plant = Plant::new();
    let pipeline = plant.pipeline("each");
    let ledger = plant.ledger();
    let mut audit = LedgerAudit::default();
    plant.load(pipeline, || {
        assert_eq!(checks(&ledger, &mut audit, Duration::from_millis(500)), []);
        leak(&plant);
        checks(&ledger, &mut audit, Duration::from_secs(1));
        let expected = expected.iter().map(|(name, missing)| ((*name).to_owned(), *missing)).collect();
        assert_eq!(audit.broken(), expected);
    });
}

#[test]
fn one_message_that_the_input_forgets_is_found_under_load() {
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
    let pipeline = plant.pipeline("each");
    let ledger = plant.ledger();
    let mut audit = LedgerAudit::default();
    plant.load(pipeline, || {
        assert_eq!(checks(&ledger, &mut audit, Duration::from_millis(500)), []);
        plant.metrics.output("central").delivered_results.inc();
        checks(&ledger, &mut audit, Duration::from_secs(1));
        assert_eq!(audit.broken(), BTreeMap::from([("outbox/central".to_owned(), -1)]));
    });
    let lost = plant.store.pending("central").unwrap();
    if lost > 0 {
        while plant.deliver(false) {}
        checks(&ledger, &mut audit, Duration::from_millis(200));
        assert_eq!(audit.broken()["outbox/central"], i64::try_from(lost).unwrap() - 1);
    }
}
