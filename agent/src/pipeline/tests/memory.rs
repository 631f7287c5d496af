//! Memory for window state has a bound, which is to be seen and changes no result.

use super::*;

const KEYS: u64 = 3_000;

/// Three windows of a reading of each of many keys, in turn; the most memory after a commit, and the results.
fn run_with(window_memory_max: usize) -> (i64, Vec<serde_json::Value>) {
    let plant = Plant::new();
    let folder = tempfile::tempdir().unwrap();
    let config = store::Config { window_memory_max, ..store::Config::new(folder.path().join("store")) };
    let plant = Plant { store: Store::open(&config, &plant.metrics.store()).unwrap(), ..plant };
    let mut pipeline = plant.build();
    let (mut most, mut lines) = (0, Vec::new());
    for second in 1..4 {
        for from in (0..KEYS).step_by(250) {
            let message = |key| Message {
                input: "plant".into(),
                topic: format!("device-{key:06}"),
                payload: br#"{"t":1}"#.to_vec().into(),
                properties: Vec::new(),
                received: Timestamp(second * 1_000_000),
                delivery: MqttDelivery::default(),
            };
            plant.store.append(&(from..from + 250).map(message).collect::<Vec<_>>()).unwrap();
            for slice in pipeline.read_page(plant.store.journal_end()).unwrap() {
                pipeline.slice(slice).unwrap();
                assert!(pipeline.settle(&AtomicBool::new(false), &|| {}).unwrap());
            }
            assert!(pipeline.commit(|_| false).unwrap());
            pipeline.gauge(plant.store.journal_end());
            most = most.max(plant.metrics.pipeline("p").window_memory_bytes.get());
        }
    }
    while let Some(batch) = plant.store.begin_batch("central", 1_000, 1 << 20).unwrap() {
        lines.extend(values(&batch));
        plant.store.confirm_batch("central", &batch.range, None).unwrap();
    }
    (most, lines)
}

#[test]
fn memory_for_windows_keeps_to_its_bound_and_changes_no_result() {
    let (much, all) = run_with(32 << 20);
    let (little, same) = run_with(256 << 10);
    assert!(much > 512 << 10, "{much} bytes without need of more");
    assert!(little <= 256 << 10, "{little} bytes");
    assert_eq!(all.len() as u64, 2 * KEYS);
    assert!(all == same, "the results are others");
}
