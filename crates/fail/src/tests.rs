use super::rules::{FailAction, POINTS, parse};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

#[track_caller]
fn check(text: &str, action: FailAction, acts: &[u64]) {
    let rules = parse(text).unwrap();
    assert_eq!(rules[0].action, action);
    let due: Vec<u64> = (1..=6).filter(|_| rules[0].is_due()).collect();
    assert_eq!(due.len(), acts.len(), "{text}");
    let rules = parse(text).unwrap();
    let due: Vec<u64> = (1..=6).filter(|_| rules[0].is_due()).collect();
    assert_eq!(due, acts, "{text}");
}

#[test]
fn a_rule_gives_the_action_and_its_hits() {
    check("disk.sync=kill@3", FailAction::Kill, &[3, 4, 5, 6]);
    check(" disk.sync = panic ", FailAction::Panic, &[1, 2, 3, 4, 5, 6]);
    check("disk.sync=error@2x3", FailAction::Error(ErrorKind::Other), &[2, 3, 4]);
    check("disk.sync=error:fullx1", FailAction::Error(ErrorKind::StorageFull), &[1]);
    check("disk.sync=stall:2s@6", FailAction::Stall(Duration::from_secs(2)), &[6]);
    check("disk.sync=stall:150ms x2", FailAction::Stall(Duration::from_millis(150)), &[1, 2]);
    assert_eq!(parse("disk.sync=kill; ; disk.sync=stall:1s;").unwrap().len(), 2);
}

#[test]
fn text_that_is_no_rule_is_refused() {
    for text in [
        "disk.sync",
        "disk.sync=",
        "disk.sync=explode",
        "disk.sync=kill@",
        "disk.sync=stall:",
        "nowhere=kill",
        "input.received=error",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

/// Checks that every point in the code is in the list, and that every name of the list is in the code.
#[test]
fn the_list_names_exactly_the_points_in_the_code() {
    let mut found = Vec::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for folder in ["agent/src", "author/src", "cli/src", "crates", "demo/src"] {
        find_points(&workspace.join(folder), &mut found);
    }
    found.sort();
    let mut listed: Vec<_> = POINTS.iter().map(|(name, can_fail)| ((*name).to_owned(), *can_fail)).collect();
    listed.sort();
    assert_eq!(found, listed);
}

fn find_points(folder: &Path, found: &mut Vec<(String, bool)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // This crate's own sources name points in examples.
            if !path.ends_with("crates/fail") {
                find_points(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for (call, can_fail) in [("fail::point(\"", false), ("fail::io(\"", true)] {
                let names = text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap());
                found.extend(names.map(|name| (name.to_owned(), can_fail)));
            }
        }
    }
    found.sort();
    found.dedup();
}
