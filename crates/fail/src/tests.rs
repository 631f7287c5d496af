use super::rules::{Action, POINTS, parse};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

#[track_caller]
fn check(text: &str, action: Action, acts: &[u64]) {
    let rules = parse(text).unwrap();
    assert_eq!(rules[0].action, action);
    let due: Vec<u64> = (1..=6).filter(|_| rules[0].is_due()).collect();
    assert_eq!(due.len(), acts.len(), "{text}");
    let rules = parse(text).unwrap();
    let due: Vec<u64> = (1..=6).filter(|_| rules[0].is_due()).collect();
    assert_eq!(due, acts, "{text}");
}

#[test]
fn a_rule_says_what_and_at_which_hits() {
    check("disk.sync=kill@3", Action::Kill, &[3, 4, 5, 6]);
    check(" disk.sync = panic ", Action::Panic, &[1, 2, 3, 4, 5, 6]);
    check("disk.sync=error@2x3", Action::Error(ErrorKind::Other), &[2, 3, 4]);
    check("disk.sync=error:fullx1", Action::Error(ErrorKind::StorageFull), &[1]);
    check("disk.sync=stall:2s@6", Action::Stall(Duration::from_secs(2)), &[6]);
    check("disk.sync=stall:150ms x2", Action::Stall(Duration::from_millis(150)), &[1, 2]);
    assert_eq!(parse("disk.sync=kill; ; disk.sync=stall:1s;").unwrap().len(), 2);
}

#[test]
fn what_is_no_rule_is_refused() {
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

/// Every point of the sources is in the list, and every name of the list is somewhere.
#[test]
fn the_list_is_that_of_the_sources() {
    let mut found = Vec::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    find(&workspace.join("agent/src"), &mut found);
    find(&workspace.join("crates"), &mut found);
    found.sort();
    let mut listed: Vec<_> = POINTS.iter().map(|(name, can_fail)| ((*name).to_owned(), *can_fail)).collect();
    listed.sort();
    assert_eq!(found, listed);
}

fn find(folder: &Path, found: &mut Vec<(String, bool)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // This crate's own sources name points in examples.
            if !path.ends_with("crates/fail") {
                find(&path, found);
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
