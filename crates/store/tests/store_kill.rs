//! The store under `kill -9` at random moments: nothing acknowledged is lost, and a commit is
//! done as a whole or not at all.
//!
//! The test runs itself as the child: appender, pipeline and output at once, each telling
//! over a pipe what it was told is durable. The parent kills it, opens the folder and compares.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use headwater_flow::{DeadLetter, Message, MqttDelivery, Seq, Timestamp};
use headwater_store::{Commit, Config, Outgoing, Store, StoreMetrics};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const FOLDER: &str = "HEADWATER_TEST_STATE";
const ROUNDS: usize = 25;
/// Windows of the child's pipeline: message `n` counts in window `n % WINDOWS`.
const WINDOWS: u64 = 5;
/// Every so manieth message becomes a dead letter instead of a result.
const REFUSED: u64 = 7;

/// What the child told; all of it must hold after the kill.
#[derive(Debug, Default)]
struct Told {
    appended: Seq,
    position: Seq,
    begun: Option<(Seq, Seq)>,
    confirmed: Seq,
}

#[test]
fn nothing_acknowledged_is_lost_and_commits_are_whole_under_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..ROUNDS {
        run_and_kill(folder.path(), round, &mut told);
        check(folder.path(), &told);
    }
    assert!(told.position > 100 && told.confirmed > 50, "the child got somewhere: {told:?}");
}

/// Not a test of its own: what the parent runs and kills.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let store = open(Path::new(&folder));
    std::thread::scope(|scope| {
        scope.spawn(|| append(&store));
        scope.spawn(|| process(&store));
        scope.spawn(|| forward(&store));
    });
}

fn open(path: &Path) -> Store {
    // Less than the windows take, so that some are in rows.
    let window_memory_max = 40_000;
    let config = Config {
        redelivery_window: 100,
        ballast_bytes: 1 << 20,
        window_memory_max,
        ..Config::new(path.to_owned())
    };
    Store::open(&config, &StoreMetrics::default()).unwrap()
}

fn tell(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

fn append(store: &Store) {
    let mut next = store.journal_end();
    loop {
        let messages: Vec<_> = (next..next + fastrand::u64(1..40)).map(message).collect();
        next = store.append(&messages).unwrap().end;
        tell(format_args!("A {next}"));
    }
}

fn process(store: &Store) {
    let checkpoint = store.checkpoint("p").unwrap();
    let mut position = checkpoint.position.unwrap_or(0);
    let mut counts = counts(windows(store));
    loop {
        let _end = store.wait(position, Duration::from_secs(1));
        let messages = store.read(position, fastrand::usize(1..100_000)).unwrap();
        let (mut results, mut dead_letters) = (Vec::new(), Vec::new());
        for (seq, _) in &messages {
            *counts.entry(seq % WINDOWS).or_insert(0) += 1;
            if seq.is_multiple_of(REFUSED) {
                dead_letters.push(letter(*seq));
            } else {
                results.push(line(*seq));
            }
        }
        position += messages.len() as u64;
        // Its size changes, so chunks come and go.
        let state = |count: &u64| {
            let mut state = count.to_le_bytes().to_vec();
            state.resize(8 + fastrand::usize(..20_000), 0);
            state
        };
        let windows = counts.iter().map(|(key, count)| (vec![*key as u8], Some(state(count)))).collect();
        let progress = position.to_le_bytes().to_vec();
        store
            .commit(&Commit {
                pipeline: "p",
                position,
                progress,
                windows,
                results: Outgoing::new("central", results),
                dead_letters,
                ..Commit::default()
            })
            .unwrap();
        tell(format_args!("C {position}"));
        if fastrand::u8(..) < 30 {
            store.trim(&["p"]).unwrap();
        }
    }
}

fn forward(store: &Store) {
    loop {
        let Some(batch) = store.begin_batch("central", fastrand::usize(1..200), 1 << 20).unwrap() else {
            std::thread::yield_now();
            continue;
        };
        let mut range = batch.range;
        tell(format_args!("B {} {}", range.start, range.end));
        if range.end - range.start > 1 && fastrand::bool() {
            range = store.narrow_batch("central", 1).unwrap().range;
            tell(format_args!("B {} {}", range.start, range.end));
        }
        store.confirm_batch("central", &range, None).unwrap();
        tell(format_args!("F {}", range.end));
    }
}

fn run_and_kill(folder: &Path, round: usize, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if round.is_multiple_of(3) {
        // While it opens, or just after.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..60_000)));
    } else {
        for line in lines.by_ref().take(fastrand::usize(1..1200)) {
            hear(told, &line.unwrap());
        }
    }
    child.kill().unwrap();
    for line in lines {
        hear(told, &line.unwrap());
    }
    assert!(!child.wait().unwrap().success(), "it runs until it is killed");
}

fn hear(told: &mut Told, line: &str) {
    let words: Vec<_> = line.split(' ').collect();
    let number = |at: usize| words[at].parse().unwrap();
    match words[0] {
        "A" => told.appended = number(1),
        "C" => told.position = number(1),
        "B" => told.begun = Some((number(1), number(2))),
        "F" => {
            told.confirmed = number(1);
            told.begun = None;
        }
        _ => {} // the test harness's own words
    }
}

fn check(folder: &Path, told: &Told) {
    let store = open(folder);
    let end = store.journal_end();
    assert!(end >= told.appended, "{end} of {told:?}");
    let mut next = store.journal_start();
    while next < end {
        for (seq, found) in store.read(next, 1 << 20).unwrap() {
            assert_eq!(seq, next);
            assert_eq!(found, message(seq));
            next += 1;
        }
    }

    let checkpoint = store.checkpoint("p").unwrap();
    let position = checkpoint.position.unwrap_or(0);
    assert!(position >= told.position && position <= end, "{position} of {told:?}");
    if position > 0 {
        assert_eq!(checkpoint.progress, position.to_le_bytes());
    }
    let expected: BTreeMap<_, _> = (0..WINDOWS)
        .map(|key| (key, (0..position).filter(|seq| seq % WINDOWS == key).count() as u64))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(counts(windows(&store)), expected, "at {position}");

    let refused: Vec<_> = (0..position).filter(|seq| seq.is_multiple_of(REFUSED)).collect();
    let letters = store.dead_letters(0, usize::MAX).unwrap();
    let letters: Vec<_> = letters.into_iter().map(|(_, letter)| letter).collect();
    assert!(letters == refused.into_iter().map(letter).collect::<Vec<_>>());

    let results: Vec<_> = (0..position).filter(|seq| seq % REFUSED != 0).collect();
    let confirmed = results.len() as u64 - store.pending("central").unwrap();
    assert!(confirmed >= told.confirmed, "{confirmed} of {told:?}");
    let Some(batch) = store.begin_batch("central", usize::MAX, usize::MAX).unwrap() else {
        assert_eq!(confirmed, results.len() as u64);
        return;
    };
    assert_eq!(batch.range.start, confirmed);
    if let Some((first, end)) = told.begun
        && first == confirmed
    {
        // Narrowed at most: the store did it, and the child died before it told.
        assert!(batch.range.end == end || batch.range.end == first + 1, "{batch:?} {told:?}");
    }
    let expected = &results[confirmed as usize..batch.range.end as usize];
    assert!(batch.records == expected.iter().copied().map(line).collect::<Vec<_>>());
}

/// All window state of the pipeline.
fn windows(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut each = |key, value| {
        all.push((key, value));
        Ok::<_, headwater_store::Error>(())
    };
    store.windows("p", &mut each).unwrap();
    all
}

fn counts(windows: Vec<(Vec<u8>, Vec<u8>)>) -> BTreeMap<u64, u64> {
    let count = |state: &[u8]| u64::from_le_bytes(state[..8].try_into().unwrap());
    windows.iter().map(|(key, state)| (u64::from(key[0]), count(state))).collect()
}

/// The message with that number, always the same.
fn message(seq: Seq) -> Message {
    let length = if seq.is_multiple_of(50) { 20_000 } else { seq % 300 };
    Message {
        input: Arc::from("plant"),
        topic: format!("plant/{}", seq % 3),
        payload: (0..length).map(|at| (at ^ seq) as u8).collect(),
        properties: Vec::new(),
        received: Timestamp(seq),
        delivery: MqttDelivery { qos: 1, retain: false, session: 1, packet: seq as u16 },
    }
}

fn line(seq: Seq) -> Vec<u8> {
    format!("{{\"n\":{seq}}}").into_bytes()
}

fn letter(seq: Seq) -> DeadLetter {
    DeadLetter {
        pipeline: "p".to_owned(),
        stage: "decode".to_owned(),
        reason: format!("{seq} is refused"),
        topic: "plant".to_owned(),
        key: String::new(),
        time: seq,
        payload: seq.to_be_bytes().to_vec(),
        ..DeadLetter::default()
    }
}
