//! With the store's own outbox, over a crash.

use super::*;
use crate::roster::InputEntry;
use crate::store::{Commit, Config as StoreConfig, Outgoing};
use std::path::Path;

fn open(path: &Path) -> Store {
    Store::open(&StoreConfig::new(path.to_owned()), &crate::metrics::StoreMetrics::default()).unwrap()
}

fn start(config: Config, store: &Store) -> (watch::Sender<bool>, JoinSet<Result<(), Error>>) {
    start_with(config, store, &Roster::new(Arc::default()))
}

fn start_with(
    config: Config,
    store: &Store,
    roster: &Roster,
) -> (watch::Sender<bool>, JoinSet<Result<(), Error>>) {
    let metrics = Metrics::new().output("central");
    let output = HttpOutput::build("central", "gw-1", config, store.clone(), metrics).unwrap();
    let (shutdown, stop) = watch::channel(false);
    let mut task = JoinSet::new();
    task.spawn(output.run(roster.reader(), stop));
    (shutdown, task)
}

fn put(store: &Store, outbox: &str, numbers: std::ops::Range<u32>) {
    let results = lines(numbers).into_iter().map(String::into_bytes).collect();
    let commit = Commit { pipeline: "p", results: Outgoing::new(outbox, results), ..Commit::default() };
    store.commit(&commit).unwrap();
}

#[tokio::test]
async fn a_batch_begun_before_a_crash_goes_out_unchanged_after_it() {
    let backend = Backend::start(|n, seen| match n {
        0 => Reply::Hang,
        _ if seen.lines().iter().any(|line| line.contains("\"k5\"")) => {
            Reply::Status(422, r#"{"error":"no"}"#)
        }
        _ => Reply::Receipt,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "central", 0..8);
    let (shutdown, mut task) = start(quick(backend.url()), &store);
    eventually("under way", || backend.seen().len() == 1).await;
    // As a crash does: nothing is told, and nothing waited for.
    task.shutdown().await;
    drop((shutdown, task, store));

    let store = open(folder.path());
    put(&store, "central", 8..12);
    let mut config = quick(backend.url());
    config.results_max = 100;
    let (shutdown, mut task) = start(config, &store);
    eventually("all done", || store.pending("central").unwrap() == 0).await;
    assert_same(&backend.seen()[..2], 2);
    let dead = store.dead_letters(0, 10).unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].1.key.as_str(), dead[0].1.stage.as_str()), ("k5", "output"));
    shutdown.send(true).unwrap();
    timeout(PATIENCE, task.join_next()).await.expect("ends").unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn outboxes_that_a_new_pipeline_brings_are_sent_as_well() {
    let backend = Backend::start(|_, _| Reply::Receipt).await;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "central", 0..3);
    let metrics = Arc::new(Metrics::new());
    let roster = Roster::new(metrics.clone());
    let (shutdown, mut task) = start_with(quick(backend.url()), &store, &roster);
    eventually("the first", || store.pending("central").unwrap() == 0).await;
    for outbox in [crate::store::late("central"), crate::store::live("central")] {
        put(&store, &outbox, 0..5);
        assert_eq!(store.pending("central").unwrap(), 5, "{outbox}");
        roster.add_input(&outbox, InputEntry::new(metrics.input("plant"))).unwrap();
        eventually("those of the new outbox", || store.pending("central").unwrap() == 0).await;
        put(&store, &outbox, 5..9);
        eventually("more of them", || store.pending("central").unwrap() == 0).await;
    }
    assert_eq!(backend.seen().iter().map(|seen| seen.lines().len()).sum::<usize>(), 3 + 2 * 9);
    shutdown.send(true).unwrap();
    timeout(PATIENCE, task.join_next()).await.expect("ends").unwrap().unwrap().unwrap();
}
