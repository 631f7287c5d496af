//! Damage and misuse of the state folder: always named, never silent.

use super::{commit, letter, lines, messages, open};
use crate::Error;
use crate::metrics::StoreMetrics;
use crate::room::Room;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) fn segments(log: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_second_agent_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let second = open(folder.path());
    assert!(matches!(&second, Err(Error::Locked { path }) if path.ends_with("lock")));
    drop(store);
    open(folder.path()).unwrap();
}

#[test]
fn own_metadata_gone_or_empty_is_never_a_fresh_start() {
    let check = |pending: u64, spoil: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).unwrap();
        store.append(&messages(0..3)).unwrap();
        store.commit(&commit(3, lines(0..3))).unwrap();
        let epoch = store.outbox_epoch("central").unwrap();
        drop(store);
        spoil(folder.path());
        let store = open(folder.path()).unwrap();
        assert_eq!((store.checkpoint("p").unwrap().position, store.journal_end()), (Some(3), 3));
        assert_eq!(
            (store.pending("central").unwrap(), store.outbox_epoch("central").unwrap()),
            (pending, epoch)
        );
        let report = fs::read_dir(folder.path().join("quarantine")).unwrap().next().unwrap().unwrap();
        assert!(report.path().join("report.json").is_file(), "it is written down");
    };
    check(3, &|path| fs::write(path.join("layout"), "").unwrap());
    check(3, &|path| fs::remove_file(path.join("layout")).unwrap());
    check(3, &|path| fs::remove_dir_all(path.join("meta")).unwrap());
    check(3, &|path| fs::remove_file(path.join("meta/db")).unwrap());
    check(3, &|path| fs::write(path.join("meta/db"), "").unwrap());
    check(3, &|path| fs::remove_dir_all(path.join("journal")).unwrap());
    check(0, &|path| fs::remove_dir_all(path.join("outbox/central")).unwrap());
    check(3, &|path| fs::write(path.join("journal-marks"), [1; 12]).unwrap());
    check(3, &|path| fs::write(path.join("meta/blobs/123"), "x").unwrap());
    check(3, &|path| fs::write(segments(&path.join("journal"))[0].join("blobs/1"), "x").unwrap());
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    // Not even root makes folders there.
    let refused = open(Path::new("/sys/headwater-state"));
    assert!(
        matches!(&refused, Err(Error::NotWritable { path, .. }) if path.starts_with("/sys")),
        "{refused:?}"
    );
}

#[test]
fn too_little_room_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = StoreMetrics::default().disk;
    let room = Room::open(folder.path(), 16 << 20, disk.clone()).unwrap();
    room.check_append(0).unwrap();
    room.check_commit(0).unwrap();
    assert_eq!(disk.full.get(), 0);
    let wanted = u64::MAX >> 1;
    for full in [room.check_append(wanted), room.check_commit(wanted)] {
        assert!(matches!(
            full,
            Err(Error::Full { free_bytes: 1.., wanted_bytes: 0x7000_0000_0000_0000.., .. })
        ));
    }
    assert_eq!((disk.full.get(), disk.refused_writes.get()), (1, 2));
}

#[test]
fn the_ballast_is_given_up_for_commits_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, ballast) = (StoreMetrics::default().disk, folder.path().join("ballast"));
    let blocks = || fs::metadata(&ballast).unwrap().blocks() * 512;
    let room = Room::open(folder.path(), 1 << 20, disk.clone()).unwrap();
    room.tend().unwrap();
    assert!(blocks() >= 1 << 20 && disk.ballast_bytes.get() == 1 << 20);
    room.check_append(u64::MAX >> 1).unwrap_err();
    assert!(ballast.exists(), "appends do not get it");
    room.check_commit(u64::MAX >> 1).unwrap_err();
    assert!(!ballast.exists() && disk.ballast_bytes.get() == 0);
    room.tend().unwrap();
    assert!(blocks() >= 1 << 20);

    // One without its blocks, as a copy may leave it, is none; half of one neither.
    fs::File::create(&ballast).unwrap().set_len(1 << 20).unwrap();
    fs::write(folder.path().join("new-ballast"), "half").unwrap();
    let room = Room::open(folder.path(), 1 << 20, disk).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    room.tend().unwrap();
    assert!(blocks() >= 1 << 20);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.append(&messages(0..3)).unwrap();
    drop(store);
    let journal = folder.path().join("journal");
    let segment = segments(&journal)[0].clone();
    fs::write(segment.join("snap.00000000FFFFFFFF.generating"), "torn").unwrap();
    fs::write(folder.path().join("meta/snap.00000000FFFFFFFF.generating"), "torn").unwrap();
    for left in ["new-segment", "dead-00000000000000000000"] {
        fs::create_dir(journal.join(left)).unwrap();
        fs::write(journal.join(left).join("db"), "half").unwrap();
    }
    let store = open(folder.path()).unwrap();
    assert_eq!(store.read(0, usize::MAX).unwrap().len(), 3);
    assert_eq!(segments(&journal), [segment]);
}

#[test]
fn a_crash_while_the_folder_was_made_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let check = |gone: &[&str]| {
        for path in gone {
            let path = folder.path().join(path);
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        }
        fs::create_dir_all(folder.path().join("new-meta")).unwrap();
        drop(open(folder.path()).unwrap());
    };
    check(&["outbox"]);
    check(&["outbox", "dead-letters"]);
    check(&["outbox", "dead-letters", "journal", "journal-marks"]);
    check(&["outbox", "dead-letters", "journal", "journal-marks", "meta", "meta-marks"]);
    check(&["outbox", "dead-letters", "journal", "journal-marks", "meta", "meta-marks", "layout"]);
}

#[test]
fn results_that_were_not_committed_are_gone_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut step = commit(1, lines(0..3));
    step.dead_letters = vec![letter(b"1")];
    store.commit(&step).unwrap();
    drop(store);
    // A crash after the logs were synced and before `meta` was: `meta` as it was before.
    let copy = folder.path().join("copy");
    copy_folder(&folder.path().join("meta"), &copy);
    let mark = fs::read(folder.path().join("meta-marks")).unwrap();
    let store = open(folder.path()).unwrap();
    let mut step = commit(2, vec![vec![b'x'; 3000]; 3000]);
    step.dead_letters = vec![letter(b"2")];
    store.commit(&step).unwrap();
    assert!(segments(&folder.path().join("outbox/central")).len() > 1, "spans segments");
    drop(store);
    fs::remove_dir_all(folder.path().join("meta")).unwrap();
    fs::rename(&copy, folder.path().join("meta")).unwrap();
    fs::write(folder.path().join("meta-marks"), mark).unwrap();

    let store = open(folder.path()).unwrap();
    assert_eq!(store.checkpoint("p").unwrap().position, Some(1));
    assert_eq!(store.pending("central").unwrap(), 3);
    store.commit(&commit(2, lines(3..5))).unwrap();
    let batch = store.begin_batch("central", 10_000, usize::MAX).unwrap().unwrap();
    assert_eq!((batch.range, batch.records), (0..5, lines(0..5)));
    assert_eq!(store.dead_letters(0, 9).unwrap(), [(0, letter(b"1"))]);
}

#[test]
fn a_meta_that_went_back_in_time_is_brought_forward() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.commit(&commit(1, lines(0..3))).unwrap();
    drop(store);
    let copy = folder.path().join("copy");
    copy_folder(&folder.path().join("meta"), &copy);
    let store = open(folder.path()).unwrap();
    store.append(&messages(0..2)).unwrap();
    store.commit(&commit(2, lines(3..5))).unwrap();
    drop(store);
    fs::remove_dir_all(folder.path().join("meta")).unwrap();
    fs::rename(&copy, folder.path().join("meta")).unwrap();
    let store = open(folder.path()).unwrap();
    let checkpoint = store.checkpoint("p").unwrap();
    assert_eq!((checkpoint.position, store.pending("central").unwrap()), (Some(2), 5));
    assert!(checkpoint.harm.unwrap().windows, "those it had are of an earlier state");
}

pub(super) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
