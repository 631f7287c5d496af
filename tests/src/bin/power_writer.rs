//! Writes to a store until its power is cut, and prints each promise of the store once it has made it:
//!
//! - `a <end>`: messages below `end` are in the journal;
//! - `c <number> <position>`: this commit is done;
//! - `f <end>`: results below `end` are confirmed, the outbox may remove them.
//!
//! `power.rs` of the promises knows the content of each message, commit and result.

use std::env::args_os;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use headwater_agent::metrics::StoreMetrics;
use headwater_agent::store::{Config, Store};
use headwater_tests::plant::power;

fn main() -> anyhow::Result<()> {
    let path = args_os().nth(1).map(PathBuf::from).expect("the state folder is the argument");
    let store = Store::open(&Config::new(path), &StoreMetrics::default())?;
    thread::scope(|threads| {
        threads.spawn(|| append(&store));
        threads.spawn(|| step(&store));
        threads.spawn(|| forward(&store));
    });
    Ok(())
}

fn append(store: &Store) {
    let mut next = 0;
    loop {
        let group: Vec<_> = (0..fastrand::u64(1..200)).map(|it| power::message(next + it)).collect();
        next = store.append(&group).expect("the journal takes messages").end;
        say(&format!("a {next}"));
    }
}

fn step(store: &Store) {
    let mut position = 0;
    let mut number = 0;
    loop {
        let end = store.wait(position, Duration::from_millis(100));
        let messages = store.read(position, 64 << 10).expect("the journal can be read");
        let Some((last, _)) = messages.last() else { continue };
        assert!(*last < end);
        let next = last + 1;
        store.commit(&power::commit(number, position..next)).expect("the store commits");
        (position, number) = (next, number + 1);
        say(&format!("c {number} {position}"));
        if number % 16 == 0 {
            store.trim(&[power::PIPELINE]).expect("the store trims");
        }
    }
}

fn forward(store: &Store) {
    loop {
        let max = power::BATCH_RESULTS_MAX as usize;
        match store.begin_batch(power::OUTPUT, max, 64 << 10).expect("the outbox can be read") {
            None => thread::sleep(Duration::from_millis(2)),
            Some(batch) => {
                store.confirm_batch(power::OUTPUT, &batch.range, None).expect("the outbox forgets");
                say(&format!("f {}", batch.range.end));
            }
        }
    }
}

/// Writes a line in one call, so that the reader never sees half of it unless the writer died in the call.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("someone reads");
}
