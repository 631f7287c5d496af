//! The log against a plain vector.

use crate::error::{Error, Health};
use crate::frame::Group;
use crate::log::{End, Log, Page, Shared, Size};
use crate::mark::Mark;
use crate::metrics;
use crate::prepare::Preparer;
use crate::repair::harmed;
use crate::segment::Segment;
use proptest::prelude::*;
use std::path::Path;

const SMALL: Size = Size { records: 40, bytes: 60_000 };

fn open(path: &Path, end: End, preparer: &Preparer) -> Result<Log, Error> {
    let (health, size) = (Health::default(), SMALL);
    let shared = Shared { preparer, health: &health, size };
    Log::open(&path.join("log"), end, shared, metrics::Log::default())
}

fn held(path: &Path, used: u64) -> End {
    let (mark, marked) = Mark::open(&path.join("mark")).unwrap();
    End::Held { mark, marked, used }
}

fn read(log: &Log, from: u64, until: u64, records_max: usize) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    let page = Page { records_max, bytes_max: usize::MAX };
    let each = |seq, record: &[u8]| {
        records.push((seq, record.to_vec()));
        Ok(())
    };
    log.read(from..until, page, each).unwrap();
    records
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<usize>),
    Trim(prop::sample::Index),
    Read(prop::sample::Index, usize),
    Reopen,
    /// Reopens at an earlier committed end, on the bounds of an append.
    Discard(prop::sample::Index),
}

fn any_act() -> impl Strategy<Value = Act> {
    let length = prop_oneof![6 => 0..300usize, 2 => 3000..5000usize, 1 => 10_000..70_000usize];
    prop_oneof![
        8 => proptest::collection::vec(length, 1..30).prop_map(Act::Append),
        1 => any::<prop::sample::Index>().prop_map(Act::Trim),
        3 => (any::<prop::sample::Index>(), 1..50usize).prop_map(|(from, max)| Act::Read(from, max)),
        1 => Just(Act::Reopen),
        1 => any::<prop::sample::Index>().prop_map(Act::Discard),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn holds_what_a_vector_holds(acts in proptest::collection::vec(any_act(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let preparer = Preparer::start();
        let mut log = open(folder.path(), End::Committed(0), &preparer).unwrap();
        let (mut model, mut bounds, mut trimmed) = (Vec::<Vec<u8>>::new(), vec![0], 0);
        for act in acts {
            match act {
                Act::Append(lengths) => {
                    let salt = model.len();
                    let records: Vec<Vec<u8>> = lengths
                        .iter()
                        .map(|&length| (0..length).map(|at| (at + salt) as u8).collect())
                        .collect();
                    let range = log.append(Group::of(&records)).unwrap();
                    prop_assert_eq!(range.start, model.len() as u64);
                    model.extend(records);
                    prop_assert_eq!(range.end, model.len() as u64);
                    bounds.push(model.len());
                }
                Act::Trim(at) => {
                    let below = at.index(model.len() + 1);
                    log.trim(below as u64).unwrap();
                    prop_assert!(log.start() <= trimmed.max(below) as u64);
                    trimmed = trimmed.max(below);
                }
                Act::Read(from, records_max) => {
                    let from = from.index(model.len() + 1).max(log.start() as usize);
                    let expected: Vec<_> = (from as u64..)
                        .zip(model[from..].iter().take(records_max).cloned())
                        .collect();
                    prop_assert!(read(&log, from as u64, u64::MAX, records_max) == expected);
                }
                Act::Reopen => {
                    drop(log);
                    let end = End::Committed(model.len() as u64);
                    log = open(folder.path(), end, &preparer).unwrap();
                }
                Act::Discard(at) => {
                    drop(log);
                    let possible: Vec<_> =
                        bounds.iter().copied().filter(|&end| end >= trimmed).collect();
                    let end = possible[at.index(possible.len())];
                    bounds.retain(|&bound| bound <= end);
                    model.truncate(end);
                    log = open(folder.path(), End::Committed(end as u64), &preparer).unwrap();
                }
            }
            prop_assert_eq!(log.end(), model.len() as u64);
        }
        let start = log.start() as usize;
        let expected: Vec<_> = (start as u64..).zip(model[start..].iter().cloned()).collect();
        prop_assert!(read(&log, 0, u64::MAX, usize::MAX) == expected);
    }
}

#[test]
fn opens_only_its_last_segment() {
    let folder = tempfile::tempdir().unwrap();
    let preparer = Preparer::start();
    let log = open(folder.path(), held(folder.path(), 0), &preparer).unwrap();
    for _ in 0..10 {
        log.append(Group::of(vec![b"record"; 20])).unwrap();
    }
    drop(log);
    let first = folder.path().join("log/j-00000000000000000000/db");
    std::fs::write(&first, b"not a database").unwrap();
    let log = open(folder.path(), held(folder.path(), 0), &preparer).unwrap();
    assert_eq!(log.end(), 200);
    assert_eq!(read(&log, 100, u64::MAX, usize::MAX).len(), 100);
}

#[test]
fn keeps_few_segments_open_while_reading_many() {
    let folder = tempfile::tempdir().unwrap();
    let preparer = Preparer::start();
    let log = open(folder.path(), held(folder.path(), 0), &preparer).unwrap();
    for _ in 0..20 {
        log.append(Group::of(vec![b"record"; 40])).unwrap();
    }
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        targets.filter(|target| target.starts_with(folder.path())).count()
    };
    assert_eq!(read(&log, 0, u64::MAX, usize::MAX).len(), 800);
    // Two files each for the last segment, two idle ones and the one read last; and the mark.
    assert!(open_files() <= 9, "{} files open", open_files());
}

#[test]
fn never_gives_a_number_again_that_a_pipeline_has_used() {
    let folder = tempfile::tempdir().unwrap();
    let preparer = Preparer::start();
    let log = open(folder.path(), held(folder.path(), 0), &preparer).unwrap();
    log.append(Group::of([b"a", b"b"])).unwrap();
    drop(log);
    let short = open(folder.path(), held(folder.path(), 7), &preparer);
    assert!(matches!(short, Err(Error::Damaged { .. })), "{short:?}");
}

#[test]
fn an_end_short_of_its_mark_or_of_what_was_committed_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let preparer = Preparer::start();
    let log = open(folder.path(), held(folder.path(), 0), &preparer).unwrap();
    log.append(Group::of([b"a", b"b"])).unwrap();
    drop(log);
    Mark::open(&folder.path().join("mark")).unwrap().0.set(3).unwrap();
    let short = open(folder.path(), held(folder.path(), 0), &preparer);
    assert!(matches!(short, Err(Error::Damaged { .. })), "{short:?}");
    let short = open(folder.path(), End::Committed(3), &preparer);
    assert!(matches!(short, Err(Error::Damaged { .. })), "{short:?}");
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    let gone = open(folder.path(), End::Committed(3), &preparer);
    assert!(matches!(gone, Err(Error::Damaged { .. })), "{gone:?}");
}

#[test]
fn writes_no_more_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (preparer, health) = (Preparer::start(), Health::default());
    let shared = Shared { preparer: &preparer, health: &health, size: SMALL };
    let path = folder.path().join("log");
    let log = Log::open(&path, End::Committed(0), shared, metrics::Log::default()).unwrap();
    log.append(Group::of([b"a"])).unwrap();
    let failure = Error::damaged(&path, "the disk is on fire");
    assert!(health.judge(Err::<(), _>(failure)).is_err());
    let refused = log.append(Group::of([b"b"]));
    assert!(matches!(&refused, Err(Error::Failed { cause }) if cause.contains("on fire")));
    assert_eq!(read(&log, 0, u64::MAX, 9), [(0, b"a".to_vec())], "reading goes on");
}

#[test]
fn a_segment_that_cannot_be_removed_is_noted_for_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let (preparer, health) = (Preparer::start(), Health::of(folder.path()));
    let shared = Shared { preparer: &preparer, health: &health, size: SMALL };
    let path = folder.path().join("log");
    let log = Log::open(&path, End::Committed(0), shared, metrics::Log::default()).unwrap();
    for _ in 0..3 {
        log.append(Group::of(vec![b"record"; 40])).unwrap();
    }
    std::fs::write(path.join("dead-00000000000000000000"), "no folder").unwrap();
    let refused = log.trim(80);
    assert!(matches!(refused, Err(Error::Io { action: "rename", .. })), "{refused:?}");
    assert!(harmed::is_harmed(folder.path()));
}

#[test]
fn a_gap_is_stepped_over_and_its_numbers_stay_used() {
    let folder = tempfile::tempdir().unwrap();
    let (preparer, health) = (Preparer::start(), Health::default());
    let size = Size { records: 10, bytes: 1 << 20 };
    let shared = Shared { preparer: &preparer, health: &health, size };
    let path = folder.path().join("log");
    let log = Log::open(&path, End::Committed(0), shared, metrics::Log::default()).unwrap();
    for number in 0..25_u8 {
        log.append(Group::of([[number]])).unwrap();
    }
    let made = path.join("new-made");
    let large = vec![7; 10_000];
    let kept = [(12, vec![12]), (13, vec![13]), (15, large.clone()), (18, vec![18])];
    Segment::compose(&made, 10..20, &kept).unwrap();
    assert!(log.replace(10..20, &made).unwrap());
    drop(log);

    let log = Log::open(&path, End::Committed(25), shared, metrics::Log::default()).unwrap();
    assert_eq!(log.end(), 25);
    let page = Page { records_max: usize::MAX, bytes_max: usize::MAX };
    for from in 0..25 {
        let mut found = Vec::new();
        let reached = log.read(from..25, page, |seq, record| {
            assert_eq!(record, if seq == 15 { large.clone() } else { vec![u8::try_from(seq).unwrap()] });
            found.push(seq);
            Ok(())
        });
        let there = |seq: &u64| !(10..20).contains(seq) || [12, 13, 15, 18].contains(seq);
        assert_eq!(found, (from..25).filter(there).collect::<Vec<_>>());
        assert_eq!(reached.unwrap(), 25);
    }
    let one = Page { records_max: 1, bytes_max: usize::MAX };
    assert_eq!(log.read(9..25, one, |_, _| Ok(())).unwrap(), 10);
    assert_eq!(log.read(10..12, page, |_, _| panic!("a gap has no records")).unwrap(), 12);
    assert_eq!(log.read(19..20, page, |_, _| panic!("a gap has no records")).unwrap(), 20);
}
