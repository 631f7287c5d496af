//! Quotas at work.

use super::{commit, letter, lines, messages};
use crate::metrics::StoreMetrics;
use crate::{Commit, Config, Error, Outgoing, Quota, Quotas, Store, sync};
use headwater_flow::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const QUOTA: u64 = 8_000_000;
const DAY: Duration = Duration::from_hours(24);

fn open(path: &Path, age_max: Option<Duration>) -> Store {
    Store::open(&config(path, age_max), &StoreMetrics::default()).unwrap()
}

fn config(path: &Path, age_max: Option<Duration>) -> Config {
    let quota = Quota { bytes_max: QUOTA, age_max };
    let outboxes = BTreeMap::from(["central", "central.late"].map(|outbox| (outbox.to_owned(), quota)));
    let quotas = Quotas { journal: quota, dead_letters: quota, outboxes };
    Config {
        quotas,
        redelivery_window: u64::MAX,
        segment_bytes: 1_000_000,
        ballast_bytes: 1 << 20,
        ..Config::new(path.to_owned())
    }
}

fn held(path: &Path, log: &str) -> u64 {
    let segments = std::fs::read_dir(path.join(log)).unwrap();
    segments.map(|segment| sync::disk_bytes(&segment.unwrap().path()).unwrap()).sum()
}

/// Messages of 50 kB each.
fn large(count: u64) -> Vec<headwater_flow::Message> {
    let mut messages = messages(0..count);
    messages.iter_mut().for_each(|message| message.payload = vec![1; 50_000].into());
    messages
}

#[test]
fn a_full_journal_gives_up_the_redelivery_window_first_and_then_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None);
    store.commit(&commit(0, lines(0..1))).unwrap();
    store.trim(&["p"]).unwrap();
    let mut appended = 0;
    let full = loop {
        match store.append(&large(4)) {
            Ok(_) => appended += 4,
            Err(error) => break error,
        }
        assert!(held(folder.path(), "journal") < QUOTA + 1_000_000);
    };
    assert!(matches!(full, Error::Quota { .. }) && full.is_for_room(), "{full}");
    assert!(matches!(store.append(&large(4)), Err(Error::Quota { .. })), "still full");
    store.commit(&commit(appended, lines(1..2))).unwrap();
    for _ in 0..100 {
        let end = store.append(&large(4)).unwrap().end;
        store.commit(&commit(end, Vec::new())).unwrap();
        assert!(held(folder.path(), "journal") < QUOTA + 1_000_000);
    }
    assert!(store.journal_start() > appended && store.journal_start() < store.journal_end());
}

#[test]
fn a_full_outbox_takes_commits_without_results_and_goes_on_when_some_are_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None);
    let results = || vec![vec![b'7'; 50_000]; 4];
    let mut committed = 0;
    while store.commit(&commit(committed, results())).is_ok() {
        committed += 4;
    }
    assert!(matches!(store.commit(&commit(committed, results())), Err(Error::Quota { .. })));
    store.commit(&commit(committed + 1, Vec::new())).unwrap();
    assert_eq!(store.pending("central").unwrap(), committed);
    while store.commit(&commit(committed, results())).is_err() {
        let batch = store.begin_batch("central", 4, usize::MAX).unwrap().unwrap();
        store.confirm_batch("central", &batch.range, None).unwrap();
    }
    assert!(store.pending("central").unwrap() > 4, "it need not drain first");
}

#[test]
fn a_commit_for_two_outboxes_is_whole_or_waits_for_the_one_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), None);
    let store = Store::open(&config, &StoreMetrics::default()).unwrap();
    let both = |position| Commit {
        late: Outgoing {
            tally: Some(vec![position as u8]),
            ..Outgoing::new("central.late", vec![vec![b'9'; 100_000]])
        },
        ..commit(position, lines(0..3))
    };
    let mut commits = 0;
    let full = loop {
        match store.commit(&both(commits + 1)) {
            Ok(()) => commits += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&full, Error::Quota { outbox: Some(outbox), .. } if outbox == "central.late"), "{full}");
    store.commit(&commit(commits, lines(0..3))).unwrap();
    let holds = |store: &Store| {
        let checkpoint = store.checkpoint("p").unwrap();
        let pending = ["central", "central.late"].map(|outbox| store.outbox(outbox).unwrap().pending());
        assert_eq!((checkpoint.position, pending), (Some(commits), [commits * 3 + 3, commits]));
        assert_eq!((checkpoint.tally, checkpoint.late_tally), (Vec::new(), vec![commits as u8]));
    };
    holds(&store);
    drop(store);
    holds(&Store::open(&config, &StoreMetrics::default()).unwrap());
}

#[test]
fn the_oldest_dead_letters_go_at_the_quota_and_when_they_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Some(DAY));
    let today = Timestamp(1_800_000_000_000_000);
    let write = |now: Timestamp| {
        let mut dead = letter(&[7; 50_000]);
        dead.time = now.0;
        let dead_letters = vec![dead; 4];
        let commit = Commit { pipeline: "p", dead_letters, now, ..Commit::default() };
        store.commit(&commit).unwrap();
        assert!(held(folder.path(), "dead-letters") < QUOTA + 1_000_000);
    };
    let first = |store: &Store| store.dead_letters(0, 1).unwrap()[0].0;
    (0..60).for_each(|_| write(today));
    let at_quota = first(&store);
    assert!(at_quota > 60, "{at_quota}");
    // Booted in 1970: what is behind the newest letter judges nothing.
    store.bound_letters(0, Timestamp(0)).unwrap();
    store.bound_letters(0, today.after(DAY / 2)).unwrap();
    assert_eq!(first(&store), at_quota);
    store.bound_letters(0, today.after(DAY * 2)).unwrap();
    assert!(first(&store) > at_quota);
}
