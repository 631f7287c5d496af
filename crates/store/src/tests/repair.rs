//! Damage of every kind at every place: what is not reported as lost is there, and nothing twice.

use super::damage::{copy_folder, segments};
use super::{commit, letter, lines, messages, open};
use crate::frame::Group;
use crate::log::Page;
use crate::metrics::StoreMetrics;
use crate::repair::harmed;
use crate::salvage::Found;
use crate::{Config, Error, Finding, Store};
use headwater_flow::{Seq, Timestamp};
use headwater_wire::Record;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const MESSAGES: Seq = 45_000;
const RESULTS: Seq = 45_000;
const LETTERS: Seq = 100;
const POSITION: Seq = 30_000;
const CONFIRMED: Seq = 22_000;

/// A stopped store with three segments of messages and three of results, made once.
fn template() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).unwrap();
        for first in (0..MESSAGES).step_by(5_000) {
            store.append(&messages(first..first + 5_000)).unwrap();
        }
        for first in (0..RESULTS).step_by(5_000) {
            let mut step = commit(POSITION.min(first), lines(first..first + 5_000));
            step.windows = windows();
            store.commit(&step).unwrap();
        }
        let mut step = commit(POSITION, Vec::new());
        step.progress = vec![7; 90];
        step.dead_letters = (0..LETTERS).map(|number| letter(&number.to_be_bytes())).collect();
        store.commit(&step).unwrap();
        while store.begin_batch("central", 2_000, 1 << 20).unwrap().unwrap().range.start < CONFIRMED {
            let begun = store.begin_batch("central", 2_000, 1 << 20).unwrap().unwrap();
            store.confirm_batch("central", &begun.range, None).unwrap();
        }
        drop(store);
        folder
    })
    .path()
}

fn windows() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    (0..30u8).map(|key| (vec![key], Some(vec![key; 6_000]))).collect()
}

fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(template(), copy.path());
    copy
}

/// What a repair left for upstream, by stage: numbers reported as lost.
#[derive(Debug, Default)]
struct Reported {
    numbers: BTreeMap<String, BTreeSet<Seq>>,
}

impl Reported {
    fn add(&mut self, stage: &str, first: Option<Seq>, last: Option<Seq>, count: Option<u64>) {
        if let (Some(first), Some(last)) = (first, last) {
            assert_eq!(count, Some(last - first + 1), "a range of its own for each loss");
            let numbers = self.numbers.entry(stage.to_owned()).or_default();
            assert!((first..=last).all(|number| numbers.insert(number)), "{stage} {first}-{last} twice");
        }
    }

    fn of(&self, stage: &str) -> BTreeSet<Seq> {
        self.numbers.get(stage).cloned().unwrap_or_default()
    }
}

/// Opens the damaged store and holds all that is in it against what was.
fn check(path: &Path, what: &str) -> Reported {
    let store = open_and_read(path, what);
    store.tell("gw", Timestamp(5)).unwrap();
    assert!(!harmed::is_harmed(path), "{what}");
    let mut reported = Reported::default();
    check_outbox(&store, &mut reported, what);
    check_letters(&store, &mut reported, what);
    check_pipeline(&store, path, &mut reported, what);
    // It goes on as if nothing had been, with numbers never given before, where it is known which were.
    let end = store.journal_end();
    assert!(
        end >= MESSAGES || store.checkpoint("p").unwrap().harm.is_some_and(|harm| harm.end),
        "{what}: {end}"
    );
    assert_eq!(store.append(&messages(end..end + 3)).unwrap(), end..end + 3, "{what}");
    store.commit(&commit(end, lines(0..3))).unwrap();
    drop(store);
    assert_eq!(Store::verify(path).unwrap(), [], "{what}");
    let store = open(path).unwrap();
    let before = store.pending("central").unwrap();
    store.tell("gw", Timestamp(6)).unwrap();
    assert_eq!(store.pending("central").unwrap(), before, "{what}: told once");
    reported
}

/// Reads all there is as its readers would. What is damaged in the middle only they notice: then the
/// process ends, and the next opening mends it.
fn open_and_read(path: &Path, what: &str) -> Store {
    for _ in 0..2 {
        let store = open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
        let page = Page { records_max: usize::MAX, bytes_max: usize::MAX };
        let outbox = store.outbox("central").unwrap();
        let logs = [&store.0.journal, &outbox.log, &store.0.dead_letters];
        let read: Result<Vec<_>, _> =
            logs.iter().map(|log| log.read(0..Seq::MAX, page, |_, _| Ok(()))).collect();
        match read {
            Ok(_) => return store,
            Err(Error::Damaged { .. }) => assert!(harmed::is_harmed(path), "{what}: noted"),
            Err(error) => panic!("{what}: {error}"),
        }
    }
    panic!("{what}: damaged after its repair")
}

/// A report, or a line that stands for a result in these tests.
fn json(record: &[u8]) -> Value {
    let line = Record::from_bytes(record).map_or_else(|_| record.to_vec(), |record| record.to_line());
    serde_json::from_slice(&line).unwrap()
}

fn check_outbox(store: &Store, reported: &mut Reported, what: &str) {
    let (mut found, mut next) = (BTreeSet::new(), 0);
    while let Some(batch) = store.begin_batch("central", 5_000, 1 << 20).unwrap() {
        assert!(batch.range.start >= next, "{what}: {:?} after {next}", batch.range);
        next = batch.range.end;
        for (number, line) in batch.range.clone().zip(&batch.records) {
            let json = json(line);
            if let Some(report) = json.get("report") {
                assert_eq!((&json["agent"], &report["kind"]), (&"gw".into(), &"lost".into()), "{what}");
                let get = |name: &str| report[name].as_u64();
                let stage = report["stage"].as_str().unwrap();
                reported.add(stage, get("first"), get("last"), get("count"));
            } else {
                assert_eq!(json["n"], number, "{what}");
                assert!(found.insert(number), "{what}: result {number} twice");
            }
        }
        store.confirm_batch("central", &batch.range, None).unwrap();
    }
    let lost: BTreeSet<_> = (CONFIRMED..RESULTS).filter(|number| !found.contains(number)).collect();
    assert_eq!(lost, reported.of("outbox"), "{what}");
}

fn check_letters(store: &Store, reported: &mut Reported, what: &str) {
    let (mut found, mut next) = (BTreeSet::new(), 0);
    loop {
        let page = store.dead_letters(next, 1_000).unwrap();
        let Some((last, _)) = page.last() else { break };
        next = last + 1;
        for (number, kept) in page {
            assert_eq!(kept, letter(&number.to_be_bytes()), "{what}");
            found.insert(number);
        }
    }
    let lost: BTreeSet<_> = (0..LETTERS).filter(|number| !found.contains(number)).collect();
    assert_eq!(lost, reported.of("dead-letters"), "{what}");
}

/// What a pipeline finds: its position, its windows, and from there on the journal.
fn check_pipeline(store: &Store, path: &Path, reported: &mut Reported, what: &str) {
    let checkpoint = store.checkpoint("p").unwrap();
    let position = checkpoint.position.unwrap_or(MESSAGES);
    let (harm, end) = (checkpoint.harm.clone(), store.journal_end());
    if harm.as_ref().is_some_and(|harm| harm.position) {
        assert!(position >= MESSAGES, "{what}: {position}");
    } else {
        assert_eq!((position, checkpoint.progress), (POSITION, vec![7; 90]), "{what}");
    }
    let mut held = super::windows(store, "p");
    held.sort();
    let expected: Vec<_> = windows().into_iter().map(|(key, state)| (key, state.unwrap())).collect();
    if harm.is_some_and(|harm| harm.windows) {
        assert!(held.iter().all(|window| expected.contains(window)), "{what}: none that is not whole");
    } else {
        assert_eq!(held.len(), expected.len(), "{what}");
        assert!(held == expected, "{what}");
    }
    let (mut found, mut next) = (BTreeSet::new(), 0);
    loop {
        let page = store.read(next, 1 << 20).unwrap();
        let Some((last, _)) = page.last() else { break };
        next = last + 1;
        let first = page[0].0;
        for ((number, message), expected) in page.into_iter().zip(messages(first..next)) {
            let expected =
                if number == expected.received.0 { expected } else { messages(number..number + 1).remove(0) };
            assert!(message == expected, "{what}: message {number}");
            found.insert(number);
        }
    }
    for finding in findings(path) {
        for loss in finding.lost.iter().filter(|loss| loss.stage == "journal") {
            reported.add("journal", loss.first, loss.last, loss.count);
        }
    }
    // Where the journal begins only its readers know: they see what is missing before it.
    let start = store.journal_start();
    // Where its mark is gone too, so is how far it went: that is told without numbers.
    let end = if checkpoint.harm.is_some_and(|harm| harm.end) { end } else { MESSAGES };
    let lost: BTreeSet<_> = (start..end).filter(|number| !found.contains(number)).collect();
    assert_eq!(lost, reported.of("journal"), "{what}");
}

fn findings(path: &Path) -> Vec<Finding> {
    let quarantine = path.join("quarantine");
    let entries = fs::read_dir(quarantine).into_iter().flatten().flatten();
    let reports = entries.map(|entry| fs::read(entry.path().join("report.json")).unwrap());
    let findings = reports.flat_map(|report| {
        let report: Value = serde_json::from_slice(&report).unwrap();
        serde_json::from_value::<Vec<Finding>>(report["findings"].clone()).unwrap()
    });
    findings.collect()
}

/// A kind of damage.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Flip,
    Zero,
    Cut,
    DeleteFile,
    DeleteFolder,
    Garbage,
    Another,
}

const KINDS: [Kind; 7] =
    [Kind::Flip, Kind::Zero, Kind::Cut, Kind::DeleteFile, Kind::DeleteFolder, Kind::Garbage, Kind::Another];

/// Damages a database's folder; `at` says where, from 0 to 1.
fn damage_database(path: &Path, kind: Kind, at: f64, another: &Path) {
    let db = path.join("db");
    let length = fs::metadata(&db).map_or(0, |file| file.len());
    let offset = (length.saturating_sub(1) as f64 * at) as u64;
    match kind {
        Kind::DeleteFile => fs::remove_file(&db).unwrap(),
        Kind::DeleteFolder => fs::remove_dir_all(path).unwrap(),
        Kind::Garbage => fs::write(&db, vec![0xa7; 70_000]).unwrap(),
        Kind::Another => drop(fs::copy(another.join("db"), &db).unwrap()),
        Kind::Flip | Kind::Zero | Kind::Cut => damage_file(&db, kind, offset),
    }
}

fn damage_file(path: &Path, kind: Kind, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    match kind {
        Kind::Cut => file.set_len(offset).unwrap(),
        Kind::Zero => file.write_all_at(&[0; 4096], offset / 4096 * 4096).unwrap(),
        _ => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
        }
    }
}

/// Where messages of a log's segment lie: the first part of a segment's file is empty slots.
fn databases(path: &Path) -> Vec<PathBuf> {
    let mut all = segments(&path.join("journal"));
    all.extend(segments(&path.join("outbox/central")).into_iter().filter(|path| path.is_dir()));
    all.extend(segments(&path.join("dead-letters")));
    all.push(path.join("meta"));
    all
}

#[test]
fn every_kind_of_damage_to_every_database_is_mended_and_reported() {
    let count = databases(template()).len();
    assert!(count >= 8, "{count} databases");
    let mut lost = 0;
    for index in 0..count {
        for kind in KINDS {
            let copy = copy();
            let all = databases(copy.path());
            let database = &all[index];
            damage_database(database, kind, 0.6, &all[(index + 1) % count]);
            let what = format!("{kind:?} of {}", database.strip_prefix(copy.path()).unwrap().display());
            let reported = check(copy.path(), &what);
            let numbers: usize = reported.numbers.values().map(BTreeSet::len).sum();
            if matches!(kind, Kind::Flip | Kind::Zero) {
                assert!(numbers < 1_000, "{what}: {numbers}, one page holds some hundred");
            }
            eprintln!("{what}: {numbers} lost of {MESSAGES} messages, {RESULTS} results, {LETTERS} letters");
            lost += numbers;
        }
    }
    assert!(lost > 50_000, "whole segments were deleted: {lost}");
}

#[test]
fn damage_to_small_files_loses_nothing() {
    let files = ["layout", "meta-marks", "journal-marks", "outbox/central/epoch", "lock"];
    for file in files {
        for kind in [Kind::Flip, Kind::Zero, Kind::Cut, Kind::DeleteFile, Kind::Garbage] {
            let copy = copy();
            let path = copy.path().join(file);
            match kind {
                Kind::DeleteFile => fs::remove_file(&path).unwrap(),
                Kind::Garbage => fs::write(&path, vec![0xa7; 3000]).unwrap(),
                Kind::Cut => File::options().write(true).open(&path).unwrap().set_len(5).unwrap(),
                // Of both slots.
                _ => {
                    let mut bytes = fs::read(&path).unwrap();
                    bytes
                        .iter_mut()
                        .for_each(|byte| *byte = if matches!(kind, Kind::Zero) { 0 } else { *byte ^ 1 });
                    fs::write(&path, bytes).unwrap();
                }
            }
            let what = format!("{kind:?} of {file}");
            let reported = check(copy.path(), &what);
            assert!(reported.numbers.is_empty(), "{what}: {reported:?}");
            assert_eq!(
                open(copy.path()).unwrap().journal_end(),
                MESSAGES + 3,
                "{what}: and three of the check's"
            );
        }
    }
}

#[test]
fn without_meta_its_rows_come_from_their_copy_and_only_windows_are_lost() {
    let copy = copy();
    fs::remove_dir_all(copy.path().join("meta")).unwrap();
    let store = open(copy.path()).unwrap();
    let checkpoint = store.checkpoint("p").unwrap();
    assert_eq!((checkpoint.position, checkpoint.progress), (Some(POSITION), vec![7; 90]));
    let harm = checkpoint.harm.unwrap();
    assert!(harm.windows && !harm.position, "{harm:?}");
    assert!(super::windows(&store, "p").is_empty());
    store.commit(&commit(POSITION, Vec::new())).unwrap();
    assert_eq!(store.checkpoint("p").unwrap().harm, None, "told with the commit");
}

#[test]
fn without_meta_and_its_copy_nothing_is_counted_twice() {
    let copy = copy();
    let epoch = open(copy.path()).unwrap().outbox_epoch("central").unwrap();
    fs::remove_dir_all(copy.path().join("meta")).unwrap();
    fs::remove_file(copy.path().join("meta-marks")).unwrap();
    let store = open(copy.path()).unwrap();
    assert_eq!(store.outbox_epoch("central").unwrap(), epoch, "what is sent again is recognised");
    let first = store.begin_batch("central", 10, 1 << 20).unwrap().unwrap();
    assert!(first.range.start <= CONFIRMED, "{:?}", first.range);
    assert_eq!(first.records[0], lines(first.range.start..first.range.start + 1)[0]);
    let checkpoint = store.checkpoint("p").unwrap();
    assert_eq!(checkpoint.position, None, "it goes on at the end, and says so");
    assert!(checkpoint.harm.unwrap().position);
}

#[test]
fn without_any_copy_of_its_epoch_an_outbox_is_lost_rather_than_sent_twice() {
    let copy = copy();
    let epoch = open(copy.path()).unwrap().outbox_epoch("central").unwrap();
    fs::remove_dir_all(copy.path().join("meta")).unwrap();
    fs::remove_file(copy.path().join("meta-marks")).unwrap();
    fs::remove_file(copy.path().join("outbox/central/epoch")).unwrap();
    let store = open(copy.path()).unwrap();
    assert_ne!(store.outbox_epoch("central").unwrap(), epoch);
    store.tell("gw", Timestamp(1)).unwrap();
    let batch = store.begin_batch("central", 10, 1 << 20).unwrap().unwrap();
    assert_eq!(batch.records.len(), 1, "nothing but the report");
    assert_eq!(json(&batch.records[0])["report"]["stage"], "outbox");
}

#[test]
fn without_the_journals_mark_what_lies_behind_its_damaged_end_is_found_and_the_rest_told() {
    let end_after_damage_to = |message: &str| {
        let copy = copy();
        let last = segments(&copy.path().join("journal")).pop().unwrap().join("db");
        let bytes = fs::read(&last).unwrap();
        let found =
            bytes.windows(message.len()).enumerate().filter(|(_, found)| *found == message.as_bytes());
        found.for_each(|(at, _)| damage_file(&last, Kind::Flip, at as u64));
        fs::write(copy.path().join("journal-marks"), "garbage").unwrap();
        let store = open(copy.path()).unwrap();
        let (end, harm) = (store.journal_end(), store.checkpoint("p").unwrap().harm.unwrap());
        assert!(harm.end && !harm.windows && !harm.position, "{harm:?}");
        drop(store);
        check(copy.path(), message);
        end
    };
    assert_eq!(end_after_damage_to("plant/line/42500"), MESSAGES);
    let end = end_after_damage_to("plant/line/44999");
    assert!((44_000..MESSAGES).contains(&end), "{end}");
}

#[test]
fn a_dry_run_changes_nothing_and_names_the_place() {
    let copy = copy();
    let segment = segments(&copy.path().join("journal"))[1].clone();
    damage_database(&segment, Kind::Cut, 0.5, &segment);
    let before = bytes_below(copy.path());
    let findings = Store::verify(copy.path()).unwrap();
    assert!(before == bytes_below(copy.path()), "nothing was changed");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(segment.ends_with(&findings[0].place), "{findings:?}");
    assert_eq!(Store::repair(copy.path()).unwrap(), findings, "the repair loses what was said");
    assert_eq!(Store::verify(copy.path()).unwrap(), []);
}

#[test]
fn damage_read_while_running_is_mended_at_the_next_opening() {
    let copy = copy();
    let segment = segments(&copy.path().join("journal"))[1].clone();
    let store = open(copy.path()).unwrap();
    damage_database(&segment, Kind::Garbage, 0.0, &segment);
    let outcome = (0..MESSAGES).step_by(1000).try_for_each(|from| store.read(from, 1 << 16).map(drop));
    assert!(matches!(outcome, Err(Error::Damaged { .. })), "{outcome:?}");
    assert!(harmed::is_harmed(copy.path()), "noted for the next opening");
    drop(store);
    assert!(!check(copy.path(), "garbage while running").of("journal").is_empty());
}

/// A store is opened without its older segments: what is wrong with them whoever reads them meets first.
#[test]
fn damage_that_only_a_reader_meets_is_mended_at_the_next_opening() {
    type Read = fn(&Store) -> Result<(), Error>;
    let read_journal: Read = |store| store.read(POSITION, 1 << 16).map(drop);
    let send: Read = |store| {
        while let Some(batch) = store.begin_batch("central", 5_000, 1 << 20)? {
            store.confirm_batch("central", &batch.range, None)?;
        }
        Ok(())
    };
    let thin: Read = |store| store.thin("central", "p", 0, &mut |_| None).map(drop);
    let cases: [(&str, &str, Read); 3] = [
        ("journal", "a pipeline reads", read_journal),
        ("outbox/central", "results are sent", send),
        ("outbox/central", "results give way to fewer", thin),
    ];
    for (log, what, read) in cases {
        let copy = copy();
        let store = open(copy.path()).unwrap();
        for segment in segments(&copy.path().join(log)).iter().filter(|path| path.is_dir()) {
            fs::write(segment.join("conf"), "segme").unwrap();
            damage_database(segment, Kind::Garbage, 0.0, segment);
        }
        let outcome = read(&store);
        assert!(matches!(outcome, Err(Error::Damaged { .. })), "{what}: {outcome:?}");
        assert!(harmed::is_harmed(copy.path()), "{what}: noted for the next opening");
        drop(store);
        check(copy.path(), what);
    }
}

#[test]
fn openings_that_never_end_lead_to_a_repair_that_does_not_open_the_culprit() {
    let copy = copy();
    let segment = segments(&copy.path().join("journal"))[1].clone();
    let place = segment.strip_prefix(copy.path()).unwrap().display().to_string();
    // As three openings left it that were killed, and a repair that was killed on this segment.
    fs::write(copy.path().join("opening"), "3").unwrap();
    let opening = format!("{{\"repair\":\"20260101T000000Z-1\"}}\n{{\"opening\":\"{place}\"}}\n");
    fs::write(copy.path().join("harmed"), opening).unwrap();
    let reported = check(copy.path(), "hangs at opening");
    assert!(reported.numbers.is_empty(), "all of it is in the bytes of its file: {reported:?}");
    assert!(copy.path().join("quarantine/20260101T000000Z-1").join(place).is_dir());
}

#[test]
fn a_repair_that_is_killed_at_its_end_reports_once() {
    let copy = copy();
    let segment = segments(&copy.path().join("outbox/central"))[1].clone();
    damage_database(&segment, Kind::Zero, 0.6, &segment);
    let findings = Store::repair(copy.path()).unwrap();
    assert_eq!(findings.len(), 1);
    // Everything is done but that the file that says so is still there.
    let quarantine = fs::read_dir(copy.path().join("quarantine")).unwrap().next().unwrap().unwrap();
    let name = quarantine.file_name().into_string().unwrap();
    let finding = serde_json::json!({ "finding": findings[0] });
    fs::write(copy.path().join("harmed"), format!("{{\"repair\":\"{name}\"}}\n{finding}\n{{\"op")).unwrap();
    let lost: u64 = findings[0].lost.iter().filter_map(|loss| loss.count).sum();
    let reported = check(copy.path(), "killed at its end");
    assert_eq!(reported.of("outbox").len() as u64, lost);
}

#[test]
fn of_two_records_that_claim_one_number_neither_is_trusted() {
    let frame = |record: &[u8]| Group::of([record]).into_frames().remove(0).seal(5);
    let check = |frames: &[Vec<u8>], expected: &[(Seq, Vec<u8>)]| {
        let mut found = Found::new(0..10);
        found.by_bytes(&frames.join(&b"between"[..]));
        assert_eq!(found.finish().records, expected);
    };
    check(&[frame(b"one")], &[(5, b"one".to_vec())]);
    check(&[frame(b"one"), frame(b"one")], &[(5, b"one".to_vec())]);
    check(&[frame(b"one"), frame(b"two")], &[]);
    check(&[frame(b"one"), frame(b"two"), frame(b"one")], &[]);
}

#[test]
fn a_split_record_is_carved_out_whole_or_not_at_all() {
    let record: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
    let frames: Vec<_> = Group::of([&record]).into_frames().into_iter().map(|frame| frame.seal(5)).collect();
    let mut found = Found::new(0..10);
    found.by_bytes(&frames.concat());
    assert_eq!(found.finish().records, [(5, record)]);
    let mut found = Found::new(0..10);
    found.by_bytes(&frames[1..].concat());
    let salvaged = found.finish();
    assert!(salvaged.records.is_empty());
    assert_eq!(salvaged.lost(&(4..7)).first(), Some(&(4..7)));
}

#[test]
fn the_quarantine_keeps_the_last_repairs_only() {
    let copy = copy();
    for _ in 0..10 {
        fs::write(copy.path().join("meta-marks"), "garbage").unwrap();
        assert_eq!(Store::repair(copy.path()).unwrap().len(), 1);
    }
    assert_eq!(fs::read_dir(copy.path().join("quarantine")).unwrap().count(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn random_damage_is_mended_and_reported(
        harms in proptest::collection::vec((any::<prop::sample::Index>(), 0..3usize, 0.0..1.0f64), 1..4)
    ) {
        let copy = copy();
        for (index, kind, at) in &harms {
            let all: Vec<_> = bytes_below(copy.path()).into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
            let (file, bytes) = &all[index.index(all.len())];
            damage_file(file, KINDS[*kind], (bytes.len() as f64 * at) as u64);
        }
        check(copy.path(), &format!("{harms:?}"));
    }
}

fn bytes_below(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes_below(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Not a check but a measurement: `cargo test --release -- --ignored how_long --nocapture`.
#[test]
#[ignore = "a measurement: writes a backlog of 1 GB"]
fn how_long_it_takes_to_verify_a_large_backlog() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut config = Config::new(folder.path().to_owned());
    config.quotas.journal.bytes_max = 4 << 30;
    let store = Store::open(&config, &StoreMetrics::default()).unwrap();
    let large = vec![0x5a; 4_000];
    for first in (0..256_000).step_by(1_000) {
        let group: Vec<_> = (first..first + 1_000).map(|number| super::message(number, &large)).collect();
        store.append(&group).unwrap();
    }
    drop(store);
    let count = segments(&folder.path().join("journal")).len();
    let began = std::time::Instant::now();
    assert_eq!(Store::repair(folder.path()).unwrap(), []);
    eprintln!("{count} segments verified in {:?}", began.elapsed());
    let damaged = segments(&folder.path().join("journal"))[count / 2].clone();
    damage_database(&damaged, Kind::Zero, 0.5, &damaged);
    harmed::note(folder.path(), "measured");
    let began = std::time::Instant::now();
    let store = open(folder.path()).unwrap();
    eprintln!("mended and open in {:?}", began.elapsed());
    drop(store);
}
