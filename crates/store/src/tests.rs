//! The store as its callers see it.

use super::{Commit, Config, Error, Outgoing, Store};
use crate::metrics::StoreMetrics;
use crate::{Delivered, Filter, Session};
use headwater_flow::{DeadLetter, Message, MqttDelivery, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path) -> Result<Store, Error> {
    Store::open(
        &Config { redelivery_window: 10, ballast_bytes: 1 << 20, ..Config::new(path.to_owned()) },
        &StoreMetrics::default(),
    )
}

fn message(number: u64, payload: &[u8]) -> Message {
    Message {
        input: Arc::from("plant"),
        topic: format!("plant/line/{number}"),
        payload: bytes::Bytes::copy_from_slice(payload),
        properties: Vec::new(),
        received: Timestamp(number),
        delivery: MqttDelivery { qos: 1, retain: false, session: 1, packet: 7 },
    }
}

fn messages(numbers: std::ops::Range<u64>) -> Vec<Message> {
    numbers.map(|number| message(number, &number.to_be_bytes())).collect()
}

fn letter(payload: &[u8]) -> DeadLetter {
    DeadLetter {
        pipeline: "p".to_owned(),
        stage: "decode".to_owned(),
        reason: "not JSON".to_owned(),
        topic: "plant/line/1".to_owned(),
        key: "line-1".to_owned(),
        time: 5,
        payload: payload.to_vec(),
        ..DeadLetter::default()
    }
}

fn lines(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("{{\"n\":{number}}}").into_bytes()).collect()
}

fn commit(position: u64, results: Vec<Vec<u8>>) -> Commit<'static> {
    Commit { pipeline: "p", position, results: Outgoing::new("central", results), ..Commit::default() }
}

#[test]
fn reads_back_what_was_appended_also_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.append(&messages(0..3)).unwrap(), 0..3);
    assert_eq!(store.append(&[]).unwrap(), 3..3);
    assert_eq!(store.append(&messages(3..5)).unwrap(), 3..5);
    let check = |store: &Store| {
        let read = store.read(1, usize::MAX).unwrap();
        let expected: Vec<_> = (1..).zip(messages(1..5)).collect();
        assert_eq!(read, expected);
        assert_eq!(store.read(1, 1).unwrap(), expected[..1], "at least one");
        assert!(store.read(5, 1).unwrap().is_empty());
        assert_eq!(store.journal_end(), 5);
    };
    check(&store);
    drop(store);
    check(&open(folder.path()).unwrap());
}

mod damage;
mod layout;
mod letters;
mod log;
mod quota;
mod recent;
mod records;
mod repair;
mod thin;

#[test]
fn hands_out_the_batch_begun_before_a_reopen_with_the_same_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.begin_batch("central", 10, 1 << 20).unwrap(), None);
    store.commit(&commit(5, lines(0..5))).unwrap();
    let batch = store.begin_batch("central", 3, 1 << 20).unwrap().unwrap();
    assert_eq!((batch.range.clone(), &batch.records), (0..3, &lines(0..3)));
    store.commit(&commit(9, lines(5..9))).unwrap();
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(store.begin_batch("central", 100, 1 << 20).unwrap().unwrap(), batch);
    let narrow = store.narrow_batch("central", 2).unwrap();
    assert_eq!((narrow.range.clone(), &narrow.records), (0..2, &lines(0..2)));
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(store.begin_batch("central", 100, 1).unwrap().unwrap(), narrow);
    assert!(matches!(store.confirm_batch("central", &(0..3), None), Err(Error::NoBatch { .. })));
    store.confirm_batch("central", &(0..2), None).unwrap();
    assert!(matches!(store.confirm_batch("central", &(0..2), None), Err(Error::NoBatch { .. })));
    assert_eq!(store.pending("central").unwrap(), 7);
    drop(store);

    let store = open(folder.path()).unwrap();
    let rest = store.begin_batch("central", 100, 1 << 20).unwrap().unwrap();
    assert_eq!((rest.range, rest.records), (2..9, lines(2..9)));
}

#[test]
fn bounds_a_batch_by_results_and_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.commit(&commit(1, lines(0..10))).unwrap();
    let bytes = lines(0..1)[0].len();
    let batch = store.begin_batch("central", 10, bytes * 3).unwrap().unwrap();
    assert_eq!(batch.range, 0..3);
    store.confirm_batch("central", &batch.range, None).unwrap();
    let batch = store.begin_batch("central", 2, usize::MAX).unwrap().unwrap();
    assert_eq!(batch.range, 3..5);
}

#[test]
fn keeps_an_outputs_epoch_and_gives_each_output_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let (one, other) = (store.outbox_epoch("central").unwrap(), store.outbox_epoch("../other").unwrap());
    assert_ne!(one, other);
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.outbox_epoch("central").unwrap(), one);
    assert_eq!(store.outbox_epoch("../other").unwrap(), other);
}

#[test]
fn puts_a_refused_batch_into_the_dead_letters_in_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut step = commit(1, lines(0..1));
    step.dead_letters = vec![letter(b"\xff\x00")];
    store.commit(&step).unwrap();
    let batch = store.begin_batch("central", 1, 1).unwrap().unwrap();
    store.confirm_batch("central", &batch.range, Some(letter(&batch.records[0]))).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.pending("central").unwrap(), 0);
    let letters = store.dead_letters(0, 10).unwrap();
    assert_eq!(letters, [(0, letter(b"\xff\x00")), (1, letter(&lines(0..1)[0]))]);
    assert_eq!(store.dead_letters(1, 10).unwrap(), letters[1..]);
    assert_eq!(store.dead_letters(0, 1).unwrap(), letters[..1]);
}

#[test]
fn a_confirmation_that_is_refused_leaves_no_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.commit(&commit(1, lines(0..1))).unwrap();
    let wrong = store.confirm_batch("central", &(0..1), Some(letter(b"x")));
    assert!(matches!(wrong, Err(Error::NoBatch { .. })));
    assert!(store.dead_letters(0, 10).unwrap().is_empty());
    store.commit(&commit(2, lines(1..2))).unwrap();
}

#[test]
fn window_state_of_any_size_shrinks_grows_and_goes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let state =
        |length: usize, salt: u8| -> Vec<u8> { (0..length).map(|at| (at % 251) as u8 ^ salt).collect() };
    let key = |number: usize| vec![number as u8; 1 + number * 100];
    let mut expected = std::collections::BTreeMap::new();
    for (round, length) in [300 << 10, 0, 4089, 4090, 10, 20 << 10, 1 << 20].into_iter().enumerate() {
        let store = open(folder.path()).unwrap();
        let mut step = Commit { pipeline: "p", position: round as u64, ..Commit::default() };
        step.progress = state(length / 7, 1);
        let changed = (key(0), state(length, round as u8));
        step.windows.push((changed.0.clone(), Some(changed.1.clone())));
        expected.insert(changed.0, changed.1);
        if round % 2 == 1 {
            step.windows.push((key(round - 1), None));
            expected.remove(&key(round - 1));
        } else {
            step.windows.push((key(round), Some(state(length / 3, 9))));
            expected.insert(key(round), state(length / 3, 9));
        }
        store.commit(&step).unwrap();
        let other = Commit { pipeline: "pp", position: 99, ..Commit::default() };
        store.commit(&other).unwrap();
        drop(store);
        let store = open(folder.path()).unwrap();
        let checkpoint = store.checkpoint("p").unwrap();
        assert_eq!(checkpoint.position, Some(round as u64));
        assert_eq!(checkpoint.progress, state(length / 7, 1));
        let windows: std::collections::BTreeMap<_, _> = windows(&store, "p").into_iter().collect();
        assert!(windows == expected, "round {round}");
        assert_eq!(std::fs::read_dir(folder.path().join("meta/blobs")).unwrap().count(), 0);
    }
}

/// All window state of a pipeline.
fn windows(store: &Store, pipeline: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut each = |key, value| {
        all.push((key, value));
        Ok::<_, Error>(())
    };
    store.windows(pipeline, &mut each).unwrap();
    all
}

#[test]
fn what_is_kept_together_is_found_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let key = |shelf: &str, tail: u8| [shelf.as_bytes(), &[255], &[0; 12], &[tail]].concat();
    let keys = [key("a", 2), key("a", 1), key("ab", 1), key("", 3), key("a", 255)];
    let mut step = Commit { pipeline: "p", ..Commit::default() };
    step.windows = keys.iter().map(|key| (key.clone(), Some(vec![7; 5_000]))).collect();
    store.commit(&step).unwrap();
    let of = |shelf: &str| {
        let mut rows = Vec::new();
        let mut each = |tail: &[u8], value: &[u8]| {
            rows.push(([shelf.as_bytes(), tail].concat(), value.len()));
            Ok::<_, Error>(())
        };
        store.shelf("p", shelf.as_bytes(), &mut each).unwrap();
        rows
    };
    assert_eq!(
        of("a"),
        [(key("a", 1), 5_000), (key("a", 2), 5_000), (key("a", 255), 5_000)],
        "in their order"
    );
    assert_eq!((of("ab").len(), of("").len(), of("b").len()), (1, 1, 0));
    store.shelf("q", b"a", &mut |_, _| -> Result<(), Error> { panic!("it has none") }).unwrap();
    step.windows = vec![(key("a", 1), None)];
    store.commit(&step).unwrap();
    assert_eq!((of("a").len(), windows(&store, "p").len()), (2, 4));
}

#[test]
fn of_two_changes_of_one_window_the_last_counts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut step = Commit { pipeline: "p", ..Commit::default() };
    step.windows = vec![(b"k".to_vec(), Some(vec![1; 9000])), (b"k".to_vec(), Some(vec![2]))];
    store.commit(&step).unwrap();
    assert_eq!(windows(&store, "p"), [(b"k".to_vec(), vec![2])]);
}

#[test]
fn keeps_a_message_of_a_mebibyte_among_small_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let payload: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 7) as u8).collect();
    let group = [message(0, b"a"), message(1, &payload), message(2, b"b"), message(3, &payload)];
    store.append(&group).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    for from in 0..4 {
        let read: Vec<_> = store.read(from, 1).unwrap();
        assert_eq!(read, [(from, group[from as usize].clone())]);
    }
    let too_large = store.append(&[message(4, &vec![0; 17 << 20])]);
    assert!(matches!(too_large, Err(Error::TooLarge { .. })));
    assert_eq!(store.append(&[message(4, b"c")]).unwrap(), 4..5, "nothing was written of it");
}

#[test]
fn keeps_a_session_for_each_input() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.session("plant").unwrap(), Session::default());
    let granted = ["a/#", "$share/g/b"].map(|topic| Filter { topic: topic.to_owned(), qos: 2 });
    let session =
        Session { number: 300, broker: "h:1883 c".to_owned(), sure: true, granted: granted.to_vec() };
    store.keep_session("plant", &session).unwrap();
    store.keep_session("plan", &Session { number: 1, ..Session::default() }).unwrap();
    drop(store);
    assert_eq!(open(folder.path()).unwrap().session("plant").unwrap(), session);
}

#[test]
fn an_input_s_deliveries_outlive_another_s_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let quiet = |packet: u16| Message {
        input: "quiet".into(),
        delivery: MqttDelivery { qos: 2, retain: false, session: 3, packet },
        ..message(u64::from(packet), b"q")
    };
    for input in ["plant", "quiet"] {
        store.keep_session(input, &Session { number: 3, ..Session::default() }).unwrap();
    }
    // A quarter of the window of 10 is kept of each: 2.
    store.append(&[quiet(1), quiet(2), quiet(3)]).unwrap();
    let big = vec![7; 60_000];
    for number in 0..300 {
        store.append(&[message(number, &big)]).unwrap();
        if number % 50 == 0 {
            store.trim(&[]).unwrap();
        }
    }
    store.trim(&[]).unwrap();
    assert!(store.journal_start() > 3, "the journal has forgotten them");
    drop(store);
    let store = open(folder.path()).unwrap();
    assert!(recent(&store, "quiet").is_empty());
    let digest = headwater_flow::message_digest(&quiet(1).topic, b"q", &[]);
    let kept = |packet| Delivered {
        session: 3,
        packet,
        digest: headwater_flow::message_digest(&quiet(packet).topic, b"q", &[]),
    };
    assert_ne!(digest, headwater_flow::message_digest(&quiet(1).topic, b"other", &[]));
    assert_eq!(store.delivered("quiet").unwrap(), [kept(2), kept(3)]);
    assert_eq!(store.delivered("plant").unwrap().len(), 2);
    assert!(!recent(&store, "plant").is_empty());
}

#[test]
fn trims_below_the_slowest_pipeline_and_keeps_the_redelivery_window() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let big = vec![7; 60_000];
    for number in 0..300 {
        store.append(&[message(number, &big)]).unwrap();
    }
    let journal = folder.path().join("journal");
    let full = disk_bytes(&journal);
    store.trim(&["p"]).unwrap();
    assert_eq!(store.journal_start(), 0, "a pipeline that never committed holds all");
    store.commit(&Commit { pipeline: "p", position: 150, ..Commit::default() }).unwrap();
    store.commit(&Commit { pipeline: "q", position: 250, ..Commit::default() }).unwrap();
    store.trim(&["p", "q"]).unwrap();
    assert!((70..=150).contains(&store.journal_start()), "{}", store.journal_start());
    assert_eq!(store.read(150, 1).unwrap()[0].0, 150);
    assert_eq!(store.read(0, 1).unwrap()[0].0, store.journal_start());
    store.commit(&Commit { pipeline: "p", position: 300, ..Commit::default() }).unwrap();
    store.commit(&Commit { pipeline: "q", position: 300, ..Commit::default() }).unwrap();
    store.trim(&["p", "q"]).unwrap();
    let left = disk_bytes(&journal);
    assert!(left * 2 < full, "{left} of {full} bytes left");
    let kept = recent(&store, "plant");
    assert_eq!(kept, (290..300).map(|number| message(number, &big)).collect::<Vec<_>>());
    assert!(recent(&store, "other").is_empty());
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.append(&messages(0..1)).unwrap(), 300..301);
}

#[test]
fn gives_the_outboxs_disk_back_after_confirmation() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let line = vec![b'x'; 2000];
    for position in 0..20 {
        store.commit(&commit(position, vec![line.clone(); 500])).unwrap();
    }
    let outbox = folder.path().join("outbox/central");
    let full = disk_bytes(&outbox);
    while let Some(batch) = store.begin_batch("central", 1000, 1 << 20).unwrap() {
        store.confirm_batch("central", &batch.range, None).unwrap();
    }
    store.trim(&[]).unwrap();
    let left = disk_bytes(&outbox);
    assert!(left * 2 < full, "{left} of {full} bytes left");
}

#[test]
fn wakes_readers_when_messages_come_and_at_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.wait(0, Duration::ZERO), 0);
    let waiting = |from| {
        let store = store.clone();
        std::thread::spawn(move || store.wait(from, Duration::from_secs(60)))
    };
    let reader = waiting(0);
    store.append(&messages(0..2)).unwrap();
    assert_eq!(reader.join().unwrap(), 2);
    let reader = waiting(2);
    store.wake_all();
    assert_eq!(reader.join().unwrap(), 2);
}

#[test]
fn tells_the_output_of_each_commit_with_results() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut changed = store.outbox_changed("central");
    store.commit(&commit(1, lines(0..2))).unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 2);
    store.commit(&commit(2, Vec::new())).unwrap();
    assert!(!changed.has_changed().unwrap());
}

#[test]
fn pipelines_that_share_an_output_commit_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        for pipeline in ["a", "b", "c"] {
            let store = &store;
            scope.spawn(move || {
                for position in 1..=20 {
                    let results = Outgoing::new("central", vec![pipeline.as_bytes().to_vec(); 3]);
                    let dead_letters = vec![letter(pipeline.as_bytes())];
                    let step = Commit { pipeline, position, results, dead_letters, ..Commit::default() };
                    store.commit(&step).unwrap();
                }
            });
        }
    });
    drop(store);
    let store = open(folder.path()).unwrap();
    let batch = store.begin_batch("central", 1000, 1 << 20).unwrap().unwrap();
    let letters = store.dead_letters(0, 1000).unwrap();
    for pipeline in ["a", "b", "c"] {
        let of = |line: &&Vec<u8>| ***line == *pipeline.as_bytes();
        assert_eq!(batch.records.iter().filter(of).count(), 60);
        assert_eq!(letters.iter().filter(|(_, it)| it.payload == pipeline.as_bytes()).count(), 20);
        assert_eq!(store.checkpoint(pipeline).unwrap().position, Some(20));
    }
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).unwrap();
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    std::fs::read_dir(path).unwrap().map(|entry| disk_bytes(&entry.unwrap().path())).sum()
}

fn recent(store: &Store, input: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    store.recent(input, &mut |message| messages.push(message.clone())).unwrap();
    messages
}
