//! The ledger while stages are added and removed under load.

use super::*;

const CONFIG: &str = r##"
[agent]
id = "gw"
state = "state"
[input.plant]
mqtt = { url = "mqtt://127.0.0.1", topics = ["#"] }
[input.other]
mqtt = { url = "mqtt://127.0.0.1", topics = ["#"] }
[pipeline.each]
input = "plant"
topics = ["kept/#"]
key = "k"
output = "central"
[pipeline.guest]
input = "plant"
key = "k"
output = "central"
[output.central]
http = { url = "http://127.0.0.1:9/v1/batches" }
"##;

/// A check that finds every equation to hold, for so long.
#[track_caller]
fn balances(ledger: &LedgerReader, audit: &mut LedgerAudit) {
    assert_eq!(checks(ledger, audit, Duration::from_millis(500)), []);
    assert_eq!(audit.broken(), BTreeMap::new());
}

#[test]
fn stages_come_and_go_under_load_and_the_ledger_balances_and_still_finds_one_lost_record() {
    let plant = Plant::of(CONFIG);
    let each = plant.pipeline("each");
    let roster = Roster::new(plant.metrics.clone());
    roster.add_input("plant", InputEntry::new(plant.metrics.input("plant"))).unwrap();
    plant.enter_output(&roster, "central");
    plant.enter(&roster, "each");
    let ledger = LedgerReader::open(plant.store.clone(), roster.reader());
    let mut audit = LedgerAudit::default();
    plant.load(each, || {
        balances(&ledger, &mut audit);
        for round in 1..3 {
            let guest = plant.pipeline("guest");
            plant.enter(&roster, "guest");
            roster.add_input("other", InputEntry::new(plant.metrics.input("other"))).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| guest.run(&stop, || {}).unwrap());
                balances(&ledger, &mut audit);
                plant.publish_to("other", 100);
                stop.store(true, Ordering::Release);
            });
            let counts = ledger.read().unwrap();
            assert!(counts.pipelines["guest"].results > 100 * round, "it had work: {counts:?}");
            assert_eq!(counts.inputs["other"].journaled, 100, "anew since it was added");
            roster.remove_pipeline("guest").unwrap();
            roster.remove_input("other").unwrap();
            balances(&ledger, &mut audit);
            let counts = ledger.read().unwrap();
            assert!(!counts.pipelines.contains_key("guest") && !counts.inputs.contains_key("other"));
            assert!(
                !plant.metrics.encode().contains("guest"),
                "round {round}: nothing is shown of it any more"
            );
        }
        plant.metrics.output("central").delivered_results.inc();
        checks(&ledger, &mut audit, Duration::from_secs(1));
        assert_eq!(audit.broken(), BTreeMap::from([("outbox/central".to_owned(), -1)]));
        roster.remove_output("central").unwrap();
        let findings = checks(&ledger, &mut audit, Duration::from_millis(100));
        assert_eq!(
            findings,
            [LedgerFinding::Mended("outbox/central".to_owned())],
            "with its stage it is gone"
        );
    });
}

/// The stages that stand still, as the auditor sees them at two moments.
#[test]
fn a_stage_is_looked_after_from_when_it_is_added_until_it_is_removed() {
    let plant = Plant::of(CONFIG);
    drop((plant.pipeline("each"), plant.pipeline("guest")));
    let roster = Roster::new(plant.metrics.clone());
    let ledger = LedgerReader::open(plant.store.clone(), roster.reader());
    let host = ModuleHost::new(None).unwrap();
    let mut auditor = Auditor::new(ledger, Duration::from_secs(60), plant.metrics.clone(), host);
    let start = Instant::now();
    let mut stuck_at = |seconds| {
        auditor.look(start + Duration::from_secs(seconds)).unwrap();
        let stuck = auditor.view.stuck(start + Duration::from_secs(seconds));
        stuck.into_iter().map(|stuck| stuck.stage).collect::<Vec<_>>()
    };
    plant.enter(&roster, "each");
    assert_eq!(stuck_at(0), [""; 0]);
    plant.enter(&roster, "guest");
    assert_eq!(stuck_at(50), [""; 0]);
    assert_eq!(stuck_at(100), ["pipeline `each`"], "nothing runs here, and the other was added later");
    assert_eq!(stuck_at(150), ["pipeline `each`", "pipeline `guest`"]);
    roster.remove_pipeline("each").unwrap();
    assert_eq!(stuck_at(160), ["pipeline `guest`"]);
}
