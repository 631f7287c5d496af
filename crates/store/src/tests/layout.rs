//! The layout's version: refused, migrated, mended.

use super::{commit, disk_bytes, lines, messages, open};
use crate::Error;
use crate::layout::said;
use crate::mark::Mark;
use crate::marks::Copied;
use std::fs;
use std::path::{Path, PathBuf};

/// A state folder as layout 1 had it: 30 messages, a commit at 20 with 12 results, of which 5 are
/// confirmed and 3 begun, and five windows. Its marks were single numbers under other names, and an
/// outbox did not keep its epoch beside it; all else is as today.
fn layout_1(folder: &Path) -> PathBuf {
    let path = folder.join("store");
    let store = open(&path).unwrap();
    store.append(&messages(0..30)).unwrap();
    let mut step = commit(20, lines(0..12));
    step.progress = vec![1; 90];
    step.windows = (0..5u8).map(|key| (vec![key], Some(vec![key; 5000]))).collect();
    store.commit(&step).unwrap();
    let batch = store.begin_batch("central", 5, 1 << 20).unwrap().unwrap();
    store.confirm_batch("central", &batch.range, None).unwrap();
    store.begin_batch("central", 3, 1 << 20).unwrap().unwrap();
    drop(store);
    let Copied::Marks(marks) = Copied::read(&path.join("meta-marks")).unwrap() else {
        panic!("closed above")
    };
    let reached = Mark::read(&path.join("journal-marks")).unwrap().unwrap();
    for (name, number) in [("meta-mark", marks.batches), ("journal-mark", reached)] {
        let number = number.to_le_bytes();
        let crc = crc32fast::hash(&number).to_le_bytes();
        fs::write(path.join(name), [&number[..], &crc].concat()).unwrap();
    }
    for new in ["meta-marks", "journal-marks", "outbox/central/epoch"] {
        fs::remove_file(path.join(new)).unwrap();
    }
    fs::write(path.join("layout"), "headwater state 1\n").unwrap();
    path
}

#[track_caller]
fn assert_whole(path: &Path) {
    let store = open(path).unwrap();
    assert_eq!(store.read(0, usize::MAX).unwrap(), (0..).zip(messages(0..30)).collect::<Vec<_>>());
    let checkpoint = store.checkpoint("p").unwrap();
    assert_eq!(
        (checkpoint.position, checkpoint.progress, super::windows(&store, "p").len()),
        (Some(20), vec![1; 90], 5)
    );
    let batch = store.begin_batch("central", 100, 1 << 20).unwrap().unwrap();
    assert_eq!((batch.range, batch.lines), (5..8, lines(5..8)));
}

#[test]
fn layout_1_is_migrated_and_what_was_rewritten_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = layout_1(folder.path());
    let marks = ["journal-mark", "meta-mark"].map(|name| fs::read(store.join(name)).unwrap());
    assert_whole(&store);
    assert_eq!(fs::read_to_string(store.join("layout")).unwrap(), said(3));
    let backup = store.join("layout-1");
    assert_eq!(fs::read_to_string(backup.join("layout")).unwrap(), "headwater state 1\n");
    assert_eq!(["journal-mark", "meta-mark"].map(|name| fs::read(backup.join(name)).unwrap()), marks);
    assert!(disk_bytes(&backup) < 64 << 10);
    assert_whole(&store);
}

#[test]
fn a_migration_cut_short_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let store = layout_1(folder.path());
    drop(open(&store).unwrap());
    // As after a crash before the version was written, and one before the backup had its name.
    fs::write(store.join("layout"), "headwater state 1\n").unwrap();
    fs::create_dir(store.join("new-layout-1")).unwrap();
    assert_whole(&store);
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    fs::write(folder.path().join("layout"), said(4)).unwrap();
    assert!(matches!(open(folder.path()), Err(Error::Newer { found: 4, known: 3, .. })));
    assert_eq!(fs::read_to_string(folder.path().join("layout")).unwrap(), said(4));
}

#[test]
fn a_version_that_rotted_is_no_other_version() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().join("layout");
    let whole = fs::read(&path).unwrap();
    for (place, bit) in (0..whole.len() - 1).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
        let mut rotten = whole.clone();
        rotten[place] ^= 1 << bit;
        fs::write(&path, &rotten).unwrap();
        drop(open(folder.path()).unwrap_or_else(|error| panic!("bit {bit} of byte {place}: {error}")));
        assert_eq!(fs::read(&path).unwrap(), whole, "bit {bit} of byte {place}");
        assert!(!folder.path().join("layout-2").exists(), "bit {bit} of byte {place}: migrated");
    }
}
