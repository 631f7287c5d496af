//! The demo, in an empty folder: it accounts for every reading and leaves nothing behind.

use std::process::Command;

use headwater_tests::agent::PROGRAM;
use headwater_tests::process::built_program;
use serde_json::Value;

#[test]
fn the_demo_balances_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(built_program(PROGRAM))
        .args(["demo", "--for", "8s", "--json"])
        .current_dir(folder.path())
        .env("TMPDIR", temporary.path())
        .env("HOME", temporary.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    let ledger: Value = serde_json::from_str(&out)
        .unwrap_or_else(|error| panic!("the output is no ledger and nothing else: {error}\n{out}"));
    check(&ledger);
    for left in [folder.path(), temporary.path()] {
        let files: Vec<_> = std::fs::read_dir(left).unwrap().map(|it| it.unwrap().path()).collect();
        assert!(files.is_empty(), "left behind: {files:?}");
    }
}

/// Computes the sums again, because the word of the demo that it balances proves nothing.
fn check(ledger: &Value) {
    let of =
        |name: &str| ledger[name].as_u64().unwrap_or_else(|| panic!("no {name} in the ledger: {ledger}"));
    assert!(of("published") > 100, "hardly anything happened: {ledger}");
    assert!(of("late") > 0, "no reading was late: {ledger}");
    assert_eq!(of("received") - of("duplicates"), of("published"), "{ledger}");
    assert_eq!(of("journaled"), of("published"), "{ledger}");
    assert_eq!(of("used") + of("late") + of("rejected"), of("journaled"), "{ledger}");
    assert!(of("results") > 10, "{ledger}");
    assert_eq!(of("delivered"), of("results"), "{ledger}");
    assert_eq!(of("stored"), of("delivered"), "{ledger}");
    assert_eq!(of("readings_stored"), of("used"), "{ledger}");
    assert_eq!(ledger["balances"], true, "{ledger}");
}
