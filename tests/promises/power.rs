//! Power cuts: everything that the store has promised survives them. Built with `no-fdatasync`, which takes
//! the one barrier out of the store, the same rounds must lose something.

use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_agent::metrics::StoreMetrics;
use headwater_agent::store::{Config, Store};
use headwater_tests::image::DiskImage;
use headwater_tests::plant::power;
use headwater_tests::process::{built_program, eventually, freeze};

const ROUNDS: usize = 5;

/// The promises that the writer was given before the cut.
#[derive(Clone, Copy, Debug, Default)]
struct PromisedState {
    appended: u64,
    commits: u64,
    position: u64,
    forwarded: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_nothing_the_store_has_promised() {
    let mut broken = Vec::new();
    for round in 0..ROUNDS {
        let moment = Duration::from_millis(fastrand::u64(500..4_000));
        let (home, cut, promised) = cut(moment).await.expect("images can be mounted");
        assert!(promised.appended > 0 && promised.position > 0, "nothing was written in {moment:?}");
        let state = cut.folder().join("state");
        let verdict = catch_unwind(AssertUnwindSafe(|| verify(&state, promised)));
        let verdict = verdict.unwrap_or_else(|panic| Err(panic_text(&*panic)));
        eprintln!("round {round}, cut after {moment:?}, {promised:?}: {verdict:?}");
        broken.extend(verdict.err());
        drop((cut, home));
    }
    if cfg!(feature = "no-fdatasync") {
        assert!(!broken.is_empty(), "without its barrier the store lost nothing: this test sees nothing");
    } else {
        assert!(broken.is_empty(), "{broken:#?}");
    }
}

/// Lets a writer work on an image for a while, and cuts the power. The folder outlives the image.
async fn cut(moment: Duration) -> anyhow::Result<(tempfile::TempDir, DiskImage, PromisedState)> {
    let home = tempfile::tempdir()?;
    let disk = DiskImage::make(home.path(), "disk", 256 << 20)?;
    let mut writer = Command::new(built_program("power_writer"))
        .arg(disk.folder().join("state"))
        .stdout(Stdio::piped())
        .spawn()?;
    let promises = Arc::<Mutex<PromisedState>>::default();
    let received = Arc::clone(&promises);
    let out = writer.stdout.take().expect("a pipe");
    let listening = std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            note_promise(&mut received.lock().expect("no one panics with it"), &line);
        }
    });
    tokio::time::sleep(moment).await;
    // On a busy machine the writer may not have begun by then.
    eventually("a first promise", Duration::from_secs(60), async || {
        let promised = *promises.lock().expect("no one panics with it");
        (promised.appended > 0 && promised.position > 0).then_some(())
    })
    .await;
    assert!(writer.try_wait()?.is_none(), "the writer ended before the cut");
    // A promise that the writer prints from here on was given before it was stopped, so the copy must keep
    // it.
    let cut = match freeze(writer.id()).await {
        Ok(()) => disk.cut(home.path(), "cut"),
        Err(error) => Err(error),
    };
    writer.kill()?;
    writer.wait()?;
    listening.join().expect("the listener does not panic");
    let promised = *promises.lock().expect("no one panics with it");
    Ok((home, cut?, promised))
}

fn note_promise(promised: &mut PromisedState, line: &str) {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a whole line");
    match kind {
        "a" => promised.appended = number(),
        "c" => (promised.commits, promised.position) = (number(), number()),
        "f" => promised.forwarded = number(),
        other => panic!("the writer said {other}"),
    }
}

/// Checks that the state folder holds everything that was promised, and nothing that was never written.
fn verify(state: &Path, promised: PromisedState) -> Result<(), String> {
    let store = Store::open(&Config::new(state.to_owned()), &StoreMetrics::default())
        .map_err(|error| format!("open: {error:?}"))?;
    let end = store.journal_end();
    claim(end >= promised.appended, || format!("journal ends at {end}"))?;
    let found = store.checkpoint(power::PIPELINE).map_err(|error| format!("checkpoint: {error:?}"))?;
    let position = found.position.ok_or("the pipeline's position is gone")?;
    let commits: [u8; 8] = found.progress[..8].try_into().map_err(|_| "progress is cut")?;
    let commits = u64::from_be_bytes(commits);
    claim(commits >= promised.commits && position >= promised.position, || {
        format!("commit {commits} at {position}")
    })?;
    claim(position <= end, || format!("position {position} after the journal's end {end}"))?;
    claim(found.progress == power::progress(commits, position), || "progress is torn".to_owned())?;
    let mut windows = Vec::new();
    let mut each = |key, value| {
        windows.push((key, value));
        Ok::<_, headwater_agent::store::Error>(())
    };
    store.windows("p", &mut each).expect("whole rows");
    windows.sort();
    claim(windows == power::windows(commits), || format!("windows are not those of commit {commits}"))?;
    check_journal(&store, position, end)?;
    check_outbox(&store, position, promised.forwarded)?;
    check_dead_letters(&store, position)
}

fn check_journal(store: &Store, position: u64, end: u64) -> Result<(), String> {
    let mut next = position;
    while next < end {
        let page = store.read(next, 64 << 10).map_err(|error| format!("read at {next}: {error:?}"))?;
        claim(!page.is_empty(), || format!("nothing at {next} of {end}"))?;
        for (number, message) in page {
            claim(number == next, || format!("{number} follows {next}"))?;
            claim(message == power::message(number), || format!("message {number} is another"))?;
            next += 1;
        }
    }
    Ok(())
}

fn check_outbox(store: &Store, position: u64, forwarded: u64) -> Result<(), String> {
    let made = position.div_ceil(5);
    let mut next = None;
    let mut first = made;
    loop {
        let batch = store.begin_batch(power::OUTPUT, 1_000, 256 << 10);
        let Some(batch) = batch.map_err(|error| format!("outbox: {error:?}"))? else { break };
        if next.is_none() {
            first = batch.range.start;
        }
        claim(next.is_none_or(|next| next == batch.range.start), || {
            format!("batch {:?} after {next:?}", batch.range)
        })?;
        for (number, line) in batch.range.clone().zip(&batch.records) {
            claim(*line == power::result(number * 5), || format!("result {number} is another"))?;
        }
        store
            .confirm_batch(power::OUTPUT, &batch.range, None)
            .map_err(|error| format!("confirm: {error:?}"))?;
        next = Some(batch.range.end);
    }
    // One more batch may be removed than was printed, because the cut may come between the two.
    claim(first <= forwarded + power::BATCH_RESULTS_MAX, || {
        format!("results {forwarded} to {first} are gone")
    })?;
    claim(next.is_none_or(|next| next == made), || format!("outbox ends at {next:?} of {made}"))
}

fn check_dead_letters(store: &Store, position: u64) -> Result<(), String> {
    let expected: Vec<_> = (0..position).step_by(97).map(power::dead_letter).collect();
    let mut found = Vec::new();
    loop {
        let page = store.dead_letters(found.len() as u64, 100).map_err(|error| format!("{error:?}"))?;
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|(_, letter)| letter));
    }
    claim(found == expected, || format!("{} dead letters of {}", found.len(), expected.len()))
}

fn claim(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panic: {}", text.unwrap_or_default())
}
