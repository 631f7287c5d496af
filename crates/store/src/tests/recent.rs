//! Window state wherever it lies: the log of late changes and rows hold what a plain map holds.

use super::{commit, open, windows};
use crate::codec::{Row, block_number};
use crate::engine::{Churn, Engine};
use crate::metrics::StoreMetrics;
use crate::repair::harmed;
use crate::{Change, Commit, Config, Error, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// With so little memory for late changes that most go on into rows.
fn small(path: &Path, window_memory_max: usize) -> Store {
    let config = Config { ballast_bytes: 1 << 20, window_memory_max, ..Config::new(path.to_owned()) };
    Store::open(&config, &StoreMetrics::default()).unwrap()
}

fn key(name: u8, tail: u8) -> Vec<u8> {
    let name = format!("plant/device-{name:06}");
    if tail == 0 { name.into_bytes() } else { [name.as_bytes(), &[255, b'p'], &[0; 11], &[tail]].concat() }
}

fn rows(folder: &Path, kind: u8) -> (usize, usize) {
    let engine = Engine::open(&folder.join("meta"), Churn::Once).unwrap();
    let (mut count, mut bytes) = (0, 0);
    engine
        .scan(Row::of(&[kind]).bytes(), |_, value| {
            (count, bytes) = (count + 1, bytes + value.len());
            Ok(())
        })
        .unwrap();
    (count, bytes)
}

/// Also key by key.
fn check(store: &Store, expected: &Map) {
    let all = windows(store, "p");
    assert_eq!(all.len(), expected.len(), "each once");
    assert!(all.into_iter().collect::<Map>() == *expected);
    for name in 0..20 {
        let name = key(name, 0);
        let mut found = Map::new();
        let mut each = |tail: &[u8], value: &[u8]| {
            found.insert([&name, tail].concat(), value.to_vec());
            Ok::<_, Error>(())
        };
        store.shelf("p", &name, &mut each).unwrap();
        let of_name = expected.iter().filter(|(key, _)| key.starts_with(&name));
        assert!(found == of_name.map(|(key, value)| (key.clone(), value.clone())).collect());
    }
}

fn changes() -> impl Strategy<Value = Vec<(u8, u8, Option<usize>)>> {
    let size = prop_oneof![9 => 0..300_usize, 1 => 3_000..20_000_usize];
    prop::collection::vec((0..20_u8, 0..4_u8, prop::option::weighted(0.7, size)), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn windows_are_those_of_a_plain_map(
        steps in prop::collection::vec((changes(), any::<bool>()), 1..40),
        bytes_max in prop::sample::select(vec![0, 20_000, usize::MAX]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, mut expected) = (small(folder.path(), bytes_max), Map::new());
        for (number, (changes, reopens)) in steps.into_iter().enumerate() {
            let mut step = commit(number as u64, Vec::new());
            for (name, tail, size) in changes {
                let (key, value) = (key(name, tail), size.map(|size| vec![number as u8; size]));
                match &value {
                    Some(value) => expected.insert(key.clone(), value.clone()),
                    None => expected.remove(&key),
                };
                step.windows.push((key, value));
            }
            store.commit(&step).unwrap();
            if reopens {
                check(&store, &expected);
                drop(store);
                store = small(folder.path(), bytes_max);
            }
        }
        check(&store, &expected);
    }
}

fn steps(store: &Store, commits: u64, change: impl Fn(u64, u64) -> Change) {
    for number in 0..commits {
        let windows = (0..100).map(|at| change(number, at)).collect();
        store.commit(&Commit { pipeline: "p", position: number, windows, ..Commit::default() }).unwrap();
    }
}

#[test]
fn the_log_stays_near_what_it_holds_and_memory_below_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(folder.path(), usize::MAX);
    // 3,000 keys in turn and one that never comes again, 200 bytes each, 40 times.
    let of = |number: u64, at: u64| if (number, at) == (0, 0) { 9_999 } else { (number * 100 + at) % 3_000 };
    let change = |number, at| (format!("{:06}", of(number, at)).into_bytes(), Some(vec![number as u8; 200]));
    steps(&store, 1_200, change);
    assert_eq!(windows(&store, "p").len(), 3_001);
    drop(store);
    let (blocks, bytes) = rows(folder.path(), b'y');
    assert!(bytes < 2 * 3_001 * 232 + (300 << 10), "{bytes} bytes");
    assert!(blocks < 2 * bytes / 4_096 + 400, "{blocks} blocks are not filled");
    assert_eq!(rows(folder.path(), b'w').0, 0);
    let store = small(folder.path(), 100_000);
    steps(&store, 1, change);
    let held = windows(&store, "p").len();
    drop(store);
    let moved = rows(folder.path(), b'w').0;
    assert!(held == 3_001 && (2_500..3_001).contains(&moved), "{moved} of {held}");
    // What was removed from the rows does not come back.
    let store = small(folder.path(), 100_000);
    let all: Vec<_> = windows(&store, "p").into_iter().map(|(key, _)| (key, None)).collect();
    store.commit(&Commit { pipeline: "p", windows: all, ..Commit::default() }).unwrap();
    drop(store);
    assert!(windows(&open(folder.path()).unwrap(), "p").is_empty());
    assert_eq!(rows(folder.path(), b'w').0, 0);
}

#[test]
fn windows_that_a_missing_block_may_have_changed_are_lost_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(folder.path(), 20_000);
    let of = |number: u64, at: u64| ((number * 100 + at) % 300).to_be_bytes().to_vec();
    steps(&store, 40, |number, at| (of(number, at), Some(vec![number as u8; 100])));
    drop(store);
    let (blocks, _) = rows(folder.path(), b'y');
    assert!(blocks > 2 && rows(folder.path(), b'w').0 > 0);
    let engine = Engine::open(&folder.path().join("meta"), Churn::Once).unwrap();
    let mut numbers = Vec::new();
    let each = |key: &[u8], value: &[u8]| {
        numbers.push((block_number(&value[3..]).unwrap(), key.to_vec()));
        Ok(())
    };
    engine.scan(Row::recents("p").bytes(), each).unwrap();
    numbers.sort();
    engine.apply(vec![(numbers.swap_remove(numbers.len() / 2).1, None)]).unwrap();
    engine.sync().unwrap();
    drop(engine);
    let store = small(folder.path(), 20_000);
    let checkpoint = store.checkpoint("p").unwrap();
    assert_eq!(checkpoint.position, Some(39));
    assert!(checkpoint.harm.is_some_and(|harm| harm.windows && !harm.position));
    assert!(windows(&store, "p").is_empty(), "none is of an earlier state");
}

#[test]
fn a_block_that_is_missed_while_running_is_noted_for_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(folder.path(), usize::MAX);
    steps(&store, 40, |number, at| ((number * 100 + at).to_be_bytes().to_vec(), Some(vec![1; 100])));
    drop(store);
    let store = small(folder.path(), usize::MAX);
    let (meta, mut blocks) = (&store.0.meta, Vec::new());
    let each = |row, value: Vec<u8>| {
        blocks.push((block_number(&value).unwrap(), row));
        Ok(())
    };
    meta.scan(&Row::recents("p"), each).unwrap();
    blocks.sort_unstable_by_key(|(number, _)| *number);
    meta.apply(&[(blocks.swap_remove(blocks.len() / 2).1, None)]).unwrap();
    let read = store.windows("p", &mut |_, _| Ok::<_, Error>(()));
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    assert!(harmed::is_harmed(folder.path()));
}

#[test]
fn a_row_that_is_none_is_noted_for_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let row = Row::of(b"none");
    store.0.meta.apply(&[(row.clone(), Some(b"no number".to_vec()))]).unwrap();
    let read = store.0.meta.number(&row);
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    assert!(harmed::is_harmed(folder.path()));
}
