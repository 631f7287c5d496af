//! An outbox in memory that holds the forwarder to the store's rules.

use crate::flow::{DeadLetter, Epoch, Seq};
use crate::forward::Outbox;
use crate::store::{Batch, Error};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub(super) const EPOCH: Epoch = Epoch(0xfeed);

#[derive(Clone, Debug)]
pub(super) struct Memory {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<Seq>,
    /// One past what was confirmed.
    pub(super) done: watch::Sender<Seq>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Vec<u8>>,
    first: usize,
    begun: Option<Range<Seq>>,
    dead: Vec<(Seq, DeadLetter)>,
}

impl Memory {
    pub(super) fn new(lines: impl IntoIterator<Item = String>) -> Self {
        let memory =
            Self { state: Arc::default(), changed: watch::Sender::new(0), done: watch::Sender::new(0) };
        memory.put(lines);
        memory
    }

    pub(super) fn put(&self, lines: impl IntoIterator<Item = String>) {
        let mut state = self.state.lock().unwrap();
        state.lines.extend(lines.into_iter().map(String::into_bytes));
        self.changed.send_replace(state.lines.len() as Seq);
    }

    pub(super) fn dead(&self) -> Vec<(Seq, DeadLetter)> {
        self.state.lock().unwrap().dead.clone()
    }

    pub(super) fn confirmed(&self) -> Seq {
        *self.done.borrow()
    }
}

impl State {
    fn batch(&self) -> Batch {
        let range = self.begun.clone().unwrap();
        let lines = self.lines[range.start as usize..range.end as usize].to_vec();
        Batch { range, lines }
    }
}

impl Outbox for Memory {
    fn outbox_epoch(&self, _: &str) -> Result<Epoch, Error> {
        Ok(EPOCH)
    }

    fn begin_batch(&self, _: &str, results_max: usize, bytes_max: usize) -> Result<Option<Batch>, Error> {
        let mut state = self.state.lock().unwrap();
        if state.begun.is_none() {
            let mut bytes = 0;
            let fits = |line: &&Vec<u8>| {
                bytes += line.len() + 1;
                bytes <= bytes_max
            };
            let waiting = &state.lines[state.first..];
            let count = waiting.iter().take(results_max).take_while(fits).count().max(1);
            if waiting.is_empty() {
                return Ok(None);
            }
            state.begun = Some(state.first as Seq..(state.first + count) as Seq);
        }
        Ok(Some(state.batch()))
    }

    fn narrow_batch(&self, _: &str, results: usize) -> Result<Batch, Error> {
        let mut state = self.state.lock().unwrap();
        let begun = state.begun.clone().unwrap();
        assert!(
            results >= 1 && (results as Seq) < begun.end - begun.start,
            "narrowed {begun:?} to {results}"
        );
        state.begun = Some(begun.start..begun.start + results as Seq);
        Ok(state.batch())
    }

    fn confirm_batch(&self, _: &str, batch: &Range<Seq>, refused: Option<DeadLetter>) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        assert_eq!(state.begun.take().as_ref(), Some(batch));
        if let Some(letter) = refused {
            assert_eq!(batch.end - batch.start, 1, "more than a culprit dead-lettered");
            state.dead.push((batch.start, letter));
        }
        state.first = batch.end as usize;
        self.done.send_replace(batch.end);
        Ok(())
    }

    fn pending(&self, _: &str) -> Result<u64, Error> {
        let state = self.state.lock().unwrap();
        Ok((state.lines.len() - state.first) as u64)
    }

    fn outbox_changed(&self, _: &str) -> watch::Receiver<Seq> {
        self.changed.subscribe()
    }
}
