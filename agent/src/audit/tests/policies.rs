//! The equation of an outbox while its results are dropped, merged and given up because of their age,
//! and reported; and one record that is lost meanwhile.

use super::*;
use crate::store::{Quota, Quotas};

const CONFIG: &str = r##"
[agent]
id = "gw"
state = "state"
[input.plant]
mqtt = { url = "mqtt://127.0.0.1", topics = ["#"] }
[pipeline.oldest]
input = "plant"
key = "k"
output = "central"
when_full = "drop-oldest"
[pipeline.newest]
input = "plant"
key = "k"
output = "central"
when_full = "drop-newest"
[pipeline.coarse]
input = "plant"
key = "k"
time = { field = "ts", unit = "ms" }
window = { tumbling = "10ms" }
aggregate = { module = "stats.wasm", settings = { fields = ["ts"] } }
output = "central"
when_full = "coarsen"
[pipeline.aged]
input = "plant"
key = "k"
output = "aged"
[output.central]
http = { url = "http://127.0.0.1:9/v1/batches" }
[output.aged]
http = { url = "http://127.0.0.1:9/v1/batches" }
"##;

/// Outboxes of eight segments; one of them keeps nothing for long.
fn plant() -> Plant {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stats.wasm"), headwater_bundle::STATS).unwrap();
    let config = crate::config::parse(&folder.path().join("agent.toml"), CONFIG).unwrap();
    let metrics = Arc::new(Metrics::new());
    let quota = |age_max| Quota { bytes_max: 8_000_000, age_max };
    let aged = Some(Duration::from_millis(500));
    let outboxes = [("central", None), ("aged", aged)].map(|(name, age)| (name.to_owned(), quota(age)));
    let store = store::Config {
        quotas: Quotas { outboxes: BTreeMap::from(outboxes), ..Quotas::default() },
        segment_bytes: 1_000_000,
        ballast_bytes: 1 << 20,
        ..store::Config::new(folder.path().join("store"))
    };
    let store = Store::open(&store, &metrics.store()).unwrap();
    Plant { store, metrics, config, stop: Arc::default(), _folder: folder }
}

fn publish(plant: &Plant, numbers: std::ops::Range<u64>) {
    let input = plant.metrics.input("plant");
    let count = numbers.end - numbers.start;
    let filling = "x".repeat(1_000);
    let messages = numbers.map(|number| {
        let payload = format!(r#"{{"ts":{},"filling":"{filling}"}}"#, 1_767_225_600_000 + number * 10);
        Message { payload: payload.into(), ..message(1) }
    });
    let messages: Vec<_> = messages.collect();
    let _together = input.turn();
    input.received_messages.inc_by(count);
    plant.store.append(&messages).unwrap();
    input.journaled_messages.inc_by(count);
}

/// Confirms a batch of an output, and counts so many fewer than were in it.
fn deliver(plant: &Plant, output: &str, results_max: usize, uncounted: u64) -> bool {
    let Some(batch) = plant.store.begin_batch(output, results_max, 1 << 20).unwrap() else { return false };
    plant.store.confirm_batch(output, &batch.range, None).unwrap();
    let delivered = batch.range.end - batch.range.start - uncounted;
    plant.metrics.output(output).delivered_results.inc_by(delivered);
    true
}

#[test]
fn the_ledger_balances_while_results_are_given_up_and_one_lost_record_raises_the_alarm() {
    let plant = plant();
    let built: Vec<_> = plant.config.pipelines.keys().map(|name| plant.pipeline(name)).collect();
    let ledger = plant.ledger();
    let mut auditor = Auditor::new(
        ledger.clone(),
        Duration::from_mins(1),
        plant.metrics.clone(),
        ModuleHost::new(None).unwrap(),
    );
    let alarm = |equation: &str| plant.metrics.imbalance(equation).imbalance_records.get();
    let read = |name: &str| plant.metrics.pipeline(name).read_messages.get();
    std::thread::scope(|threads| {
        let stop = Stop(&plant);
        for stage in built {
            threads.spawn(|| stage.run(&plant.stop, || {}).unwrap());
        }
        let (mut published, mut audit) = (0, LedgerAudit::default());
        let mut go_on = |messages: u64| {
            let until = published + messages;
            while published < until {
                publish(&plant, published..published + 500);
                published += 500;
                assert_eq!(checks(&ledger, &mut audit, Duration::from_millis(10)), []);
            }
            let patience = Instant::now() + Duration::from_mins(1);
            while plant.config.pipelines.keys().any(|name| read(name) < published) {
                assert!(Instant::now() < patience, "the pipelines read on");
                assert_eq!(checks(&ledger, &mut audit, Duration::from_millis(50)), []);
            }
        };
        // The destinations are away, come back for a while, and are away again.
        go_on(15_000);
        for _ in 0..3 {
            deliver(&plant, "central", 1_000, 0);
        }
        go_on(5_000);
        std::thread::sleep(Duration::from_secs(1));
        go_on(500);
        let outputs = ledger.read().unwrap().outputs;
        let central = outputs["central"];
        let aged = outputs["aged"];
        let all_ways =
            central.dropped > 0 && central.coarsened > 0 && central.reports > 0 && central.delivered > 0;
        assert!(all_ways, "{central:?}");
        assert!(aged.expired > 0 && aged.reports > 0 && aged.dropped == 0, "{aged:?}");
        for name in ["oldest", "newest"] {
            assert!(plant.metrics.pipeline(name).dropped_results.get() > 0, "{name}");
        }
        // As the auditor does at each look.
        (0..4).for_each(|_| auditor.check().unwrap());
        assert_eq!((alarm("outbox/central"), alarm("outbox/aged")), (0, 0));

        assert!(deliver(&plant, "aged", 1, 1), "one goes and nobody counts it");
        (0..4).for_each(|_| auditor.check().unwrap());
        assert_eq!((alarm("outbox/central"), alarm("outbox/aged")), (0, 1));
        drop(stop);
    });
}
