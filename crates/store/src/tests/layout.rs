//! The layout's version: refused, migrated, mended.

use super::{commit, disk_bytes, lines, messages, open};
use crate::codec;
use crate::folder::Folder;
use crate::layout::{self, said};
use crate::mark::Mark;
use crate::marks::Copied;
use crate::room::Room;
use crate::segment::Segment;
use crate::segments::Segments;
use crate::{Error, Store, StoreMetrics};
use headwater_wire::Record;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Results that were committed.
const ALL: u64 = 12;

/// A state folder as layout 1 had it: 30 messages, a commit at 20 with 12 results, of which 5 are
/// confirmed and 3 begun, and five windows. Its marks were single numbers under other names, and an
/// outbox did not keep its epoch beside it; all else is as today.
fn layout_1(folder: &Path) -> PathBuf {
    let path = folder.join("store");
    let store = open(&path).unwrap();
    store.append(&messages(0..30)).unwrap();
    let mut step = commit(20, lines(0..ALL));
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
    lines_for_records(&path);
    fs::write(path.join("layout"), "headwater state 1\n").unwrap();
    path
}

/// Gives the outbox the segments that layout 3 had: the same numbers, and lines for records.
fn lines_for_records(path: &Path) {
    let outbox = path.join("outbox/central");
    let segments = Segments::find(&outbox).unwrap();
    let end = lines(0..ALL).len() as u64;
    let mut numbers = segments.closed();
    numbers.push(numbers.last().map_or(segments.start(), |closed| closed.end)..end);
    for numbers in numbers {
        let mut records = Vec::new();
        let (_, segment) = segments.of(numbers.start).unwrap().unwrap();
        let (reached, _) = segment
            .read(numbers.start, numbers.end, |number, record| {
                let stored = codec::record(record).unwrap();
                // Version 1, when it was made, its writer, no state, the line.
                let mut line = vec![1];
                codec::put_varint(&mut line, stored.made.0);
                codec::put_varint(&mut line, stored.writer.len() as u64);
                line.extend_from_slice(stored.writer.as_bytes());
                line.push(0);
                line.extend_from_slice(stored.body);
                records.push((number, line));
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert_eq!(reached, numbers.end);
        drop(segment);
        segments.close_all_idle();
        let segment = outbox.join(format!("j-{:020}", numbers.start));
        fs::remove_dir_all(&segment).unwrap();
        Segment::compose(&segment, numbers, &records).unwrap();
    }
}

/// A state folder as layout 3 had it, in other words as [`layout_1`] says.
fn layout_3(folder: &Path) -> PathBuf {
    let path = layout_1(folder);
    layout::check(&Folder::open(&path).unwrap(), true).unwrap();
    assert_eq!(fs::read_to_string(path.join("layout")).unwrap(), said(3));
    path
}

/// The records that the migration makes of the lines.
fn records(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    lines(numbers).iter().map(|line| Record::of_line(line, "p").to_bytes()).collect()
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
    assert_eq!((batch.range, batch.records), (5..8, records(5..8)));
}

#[test]
fn layout_1_is_migrated_and_what_was_rewritten_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = layout_1(folder.path());
    let marks = ["journal-mark", "meta-mark"].map(|name| fs::read(store.join(name)).unwrap());
    assert_whole(&store);
    assert_eq!(fs::read_to_string(store.join("layout")).unwrap(), said(4));
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
fn lines_become_records_under_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = layout_3(folder.path());
    let epoch = fs::read(path.join("outbox/central/epoch")).ok();
    assert_whole(&path);
    assert_eq!(fs::read_to_string(path.join("layout")).unwrap(), said(4));
    let kept = path.join("layout-3/outbox/central");
    assert!(kept.join("j-00000000000000000000").is_dir() && !path.join("new-layout-4").exists());
    assert_eq!(fs::read(kept.join("epoch")).ok(), epoch);
    // The begun batch is the same one; it and the rest arrive, and then the copy goes.
    let store = open(&path).unwrap();
    store.trim(&["p"]).unwrap();
    assert!(kept.exists(), "some of it has not arrived");
    let mut arrived = Vec::new();
    while let Some(batch) = store.begin_batch("central", 100, 1 << 20).unwrap() {
        assert_eq!(batch.encoder, None, "no layout before said which");
        arrived.extend(batch.records);
        store.confirm_batch("central", &batch.range, None).unwrap();
    }
    assert_eq!(arrived, records(5..ALL));
    store.trim(&["p"]).unwrap();
    assert!(!kept.exists() && path.join("layout-3").is_dir());
}

#[test]
fn a_line_keeps_its_writer_its_state_and_its_time() {
    let window = r#"{"agent":"gw","pipeline":"p","key":"k","window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:01:00Z"},"revision":0,"module":"builtin:0123456789abcdef","count":1,"late":0,"rejected":0,"watermark":"1970-01-01T00:01:00Z","value":{"n":1}}"#;
    let mut old = vec![1, 7, 6];
    old.extend_from_slice(b"p.late\x03abc");
    old.extend_from_slice(window.as_bytes());
    let new = layout::records::record_of(&old).unwrap();
    let stored = codec::record(&new).unwrap();
    assert_eq!((stored.writer, stored.made.0, stored.state), ("p.late", 7, &b"abc"[..]));
    let record = Record::from_bytes(stored.body).unwrap();
    assert!(matches!(record, Record::Window(_)) && record.to_line() == window.as_bytes());
    assert_eq!(layout::records::record_of(&new).unwrap(), new, "what is a record already stays");
    old.truncate(13);
    old.extend_from_slice(b"not a line");
    let new = layout::records::record_of(&old).unwrap();
    let record = Record::from_bytes(codec::record(&new).unwrap().body).unwrap();
    assert_eq!((record.pipeline(), &*record.to_line()), ("p", &b"not a line"[..]));
    assert!(layout::records::record_of(b"\x03").is_err());
}

/// As after a crash at each step: what is there is put together by hand.
#[test]
fn a_migration_of_outboxes_cut_short_goes_on() {
    let check = |what: &str, spoil: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        let path = layout_3(folder.path());
        spoil(&path);
        assert_whole(&path);
        assert!(!path.join("new-layout-4").exists(), "{what}");
        assert_eq!(fs::read_to_string(path.join("layout")).unwrap(), said(4), "{what}");
    };
    let prepare = |path: &Path| {
        let folder = Folder::open(path).unwrap();
        let room = Room::open(path, 1 << 20, StoreMetrics::default().disk).unwrap();
        layout::records::prepare(&folder, &room).unwrap();
    };
    let version = |path: &Path| fs::write(path.join("layout"), said(4)).unwrap();
    check("half made", &|path| {
        prepare(path);
        fs::remove_dir_all(path.join("new-layout-4/outbox/central/j-00000000000000000000")).unwrap();
        fs::remove_file(path.join("new-layout-4/layout")).unwrap();
    });
    check("made", &prepare);
    check("said", &|path| {
        prepare(path);
        version(path);
    });
    let moved = |path: &Path| {
        prepare(path);
        version(path);
        fs::create_dir(path.join("layout-3")).unwrap();
        fs::rename(path.join("outbox"), path.join("layout-3/outbox")).unwrap();
    };
    check("moved", &moved);
    check("moved, and the version rotted", &|path| {
        moved(path);
        fs::write(path.join("layout"), "headwater stale 4").unwrap();
    });
    check("switched", &|path| {
        moved(path);
        fs::rename(path.join("new-layout-4/outbox"), path.join("outbox")).unwrap();
    });
    check("damaged before", &|path| {
        fs::write(path.join("outbox/central/j-00000000000000000000/blobs/1"), "x").unwrap();
    });
}

#[test]
fn a_store_of_layout_3_is_looked_at_and_repaired_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = layout_3(folder.path());
    assert_eq!(Store::verify(&path).unwrap(), []);
    fs::write(path.join("journal-marks"), "garbage").unwrap();
    assert_eq!(Store::verify(&path).unwrap().len(), 1);
    Store::repair(&path).unwrap();
    assert_eq!(fs::read_to_string(path.join("layout")).unwrap(), said(3), "migrated when it is opened");
    assert_whole(&path);
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    fs::write(folder.path().join("layout"), said(5)).unwrap();
    assert!(matches!(open(folder.path()), Err(Error::Newer { found: 5, known: 4, .. })));
    assert_eq!(fs::read_to_string(folder.path().join("layout")).unwrap(), said(5));
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
        assert!(!folder.path().join("layout-3").exists(), "bit {bit} of byte {place}: migrated");
    }
}
