//! Replays: asked for durably, done once, refused twice.

use super::*;
use crate::codec::{self, Row};
use crate::{QUEUE_MAX, Refusal, Sum, Wish};
use headwater_flow::ReportKind;

fn wish(number: u64) -> Wish {
    Wish { number, ..Wish::default() }
}

fn refused(store: &Store, letters: usize) {
    let dead_letters = (0..letters).map(|number| letter(&number.to_be_bytes())).collect();
    store.commit(&Commit { pipeline: "p", dead_letters, ..Commit::default() }).unwrap();
}

fn waiting(store: &Store) -> Vec<u64> {
    store.letters_to_replay("p", 100).unwrap().iter().map(|(number, _)| *number).collect()
}

fn replayed(store: &Store, count: usize) {
    store.commit(&Commit { pipeline: "p", replayed: count, ..Commit::default() }).unwrap();
}

#[test]
fn a_replay_is_asked_for_once_and_outlives_a_crash_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    refused(&store, 5);
    let asked = store.replay_letters("p", &[wish(3), wish(1), wish(3), wish(9)]).unwrap();
    assert_eq!(asked, [Ok(()), Ok(()), Err(Refusal::Waiting), Err(Refusal::Missing)]);
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(waiting(&store), [3, 1], "in the order they were asked for");
    assert_eq!(store.waiting_letters("other").unwrap(), 0);
    let kept: Vec<bool> = store.kept_letters(0, 9).unwrap().iter().map(|kept| kept.replayed).collect();
    assert_eq!(kept, [false, true, false, true, false]);
    assert_eq!(waiting(&store), [3, 1], "looked at is not done");
    replayed(&store, 1);
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(waiting(&store), [1]);
    replayed(&store, 1);
    assert_eq!(waiting(&store), [0; 0]);
    assert_eq!(store.replay_letters("p", &[wish(1)]).unwrap(), [Err(Refusal::Replayed)]);
    let again = Wish { again: true, ..wish(1) };
    assert_eq!(store.replay_letters("p", &[again]).unwrap(), [Ok(())]);
    assert_eq!(waiting(&store), [1]);
}

#[test]
fn a_mended_letter_is_kept_and_replayed_in_the_place_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    refused(&store, 2);
    let mended = DeadLetter { replay_of: Some(0), ..letter(b"mended") };
    let wishes = [Wish { mended: vec![mended.clone(), mended.clone()], ..wish(0) }, wish(1)];
    assert_eq!(store.replay_letters("p", &wishes).unwrap(), [Ok(()), Ok(())]);
    drop(store);
    let store = open(folder.path()).unwrap();
    let next = store.letters_to_replay("p", 9).unwrap();
    assert_eq!(next[..2], [(2, Some(mended.clone())), (3, Some(mended))]);
    assert_eq!(next[2].0, 1);
    assert!(store.kept_letters(0, 9).unwrap().iter().all(|kept| kept.replayed));
}

#[test]
fn the_queue_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    refused(&store, QUEUE_MAX + 2);
    let wishes: Vec<_> = (0..QUEUE_MAX as u64 + 1).map(wish).collect();
    let asked = store.replay_letters("p", &wishes).unwrap();
    assert_eq!(asked.iter().filter(|verdict| verdict.is_ok()).count(), QUEUE_MAX);
    assert_eq!(asked[QUEUE_MAX], Err(Refusal::Full));
    replayed(&store, 1);
    assert_eq!(store.replay_letters("p", &wishes[QUEUE_MAX..]).unwrap(), [Ok(())]);
}

#[test]
fn what_is_trimmed_is_gone_with_its_marks_and_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    // A segment holds 20,000 records.
    for _ in 0..3 {
        refused(&store, 20_000);
    }
    assert_eq!(store.replay_letters("p", &[wish(7), wish(59_000)]).unwrap(), [Ok(()), Ok(())]);
    assert_eq!(store.give_up_letters(45_000, ReportKind::Dropped).unwrap(), 40_000);
    let next = store.letters_to_replay("p", 9).unwrap();
    assert_eq!((next[0].0, next[0].1.is_none(), next[1].1.is_some()), (7, true, true));
    let again = Wish { again: true, ..wish(8) };
    assert_eq!(store.replay_letters("p", &[again]).unwrap(), [Err(Refusal::Missing)]);
    assert!(store.0.meta.get(&Row::letter_marks(0)).unwrap().is_none());
    assert!(store.0.meta.get(&Row::letter_marks(59_000 / 4096)).unwrap().is_some());
}

/// Letters of these pipelines in turn, until a segment is closed; how many there are.
fn segment(store: &Store, pipelines: &[&str]) -> u64 {
    let letters = (0..20_000u64).map(|number| {
        let pipeline = pipelines[usize::try_from(number).unwrap() % pipelines.len()].to_owned();
        DeadLetter { pipeline, received: Timestamp(number + 1), ..letter(&number.to_be_bytes()) }
    });
    let dead_letters = letters.collect();
    store.commit(&Commit { pipeline: "z", dead_letters, ..Commit::default() }).unwrap();
    20_000
}

/// What a pipeline is to tell: at the quota count, first, last, and from, to; by age the count.
fn told(store: &Store, pipeline: &str) -> (u64, (u64, u64), (u64, u64), u64) {
    let Sum { dropped, expired } = store.given_up(pipeline);
    (dropped.count, dropped.numbers, (dropped.span.0.0, dropped.span.1.0), expired.count)
}

#[test]
fn what_is_given_up_is_told_by_its_pipeline_in_one_commit_whatever_comes_between() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let commit = |store: &Store, pipeline| store.commit(&Commit { pipeline, ..Commit::default() }).unwrap();
    (0..3).for_each(|_| _ = segment(&store, &["a", "b"]));
    // Of these the first is replayed, the other waits for that: neither is lost unsaid.
    assert_eq!(store.replay_letters("a", &[wish(0), wish(2)]).unwrap(), [Ok(()), Ok(())]);
    store.commit(&Commit { pipeline: "a", replayed: 1, ..Commit::default() }).unwrap();
    assert_eq!(store.give_up_letters(20_000, ReportKind::Dropped).unwrap(), 20_000);
    assert!(store.has_given_up("a") && !store.has_given_up("c"));
    let first = (9_998, (4, 19_998), (5, 19_999), 0);
    assert_eq!(told(&store, "a"), first);
    assert_eq!(told(&store, "a"), first, "handed over is not told");
    // Killed before the commit that tells it.
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!((store.letters_start(), told(&store, "a")), (20_000, first));
    // What goes in the middle of a commit is of the next.
    store.give_up_letters(40_000, ReportKind::Expired).unwrap();
    commit(&store, "b");
    commit(&store, "a");
    assert_eq!(told(&store, "a"), (0, (u64::MAX, 0), (u64::MAX, 0), 10_000));
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(told(&store, "a").3, 10_000);
    commit(&store, "a");
    assert!(!store.has_given_up("a") && store.has_given_up("b"));
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(told(&store, "a").3, 0, "told once");
    assert_eq!(
        told(&store, "b"),
        (10_000, (1, 19_999), (2, 20_000), 10_000),
        "that commit told nothing of it"
    );
    assert_eq!(store.letters_to_replay("a", 9).unwrap(), [(2, None)]);
    // Of a pipeline that is gone the first tells.
    store.trim(&["a", "c"]).unwrap();
    assert!(!store.has_given_up("c"));
    assert_eq!(told(&store, "a").0, 10_000);
}

#[test]
fn letters_given_up_are_gone_though_their_segment_was_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    (0..2).for_each(|_| _ = segment(&store, &["a"]));
    // As a kill between the two leaves it.
    store.0.meta.apply(&[(Row::letters_below(), Some(codec::put_number(20_000)))]).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.dead_letters(0, 1).unwrap()[0].0, 20_000);
    assert_eq!(store.replay_letters("a", &[wish(7)]).unwrap(), [Err(Refusal::Missing)]);
    assert_eq!(store.0.dead_letters.start(), 0);
    assert_eq!(store.give_up_letters(20_000, ReportKind::Dropped).unwrap(), 0);
    assert_eq!(store.0.dead_letters.start(), 20_000);
    assert!(!store.has_given_up("a"), "it was told before");
}
