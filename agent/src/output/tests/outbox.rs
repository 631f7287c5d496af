//! Outboxes in memory that hold an output to the store's rules.

use crate::flow::{DeadLetter, Epoch, Seq};
use crate::output::Outbox;
use crate::store::{Batch, BatchBounds, EncoderMark, Error, STRETCHES_MAX, Sending};
use crate::wire::Record;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

pub(super) const EPOCH: Epoch = Epoch(0xfeed);
pub(super) const LIVE_EPOCH: Epoch = Epoch(0xbeef);

/// The outboxes of one output: its own, and if asked for that of its live pipelines.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    boxes: Vec<Box>,
    dead: Arc<Mutex<Vec<(Seq, DeadLetter)>>>,
    /// Results confirmed of its own outbox, or one past the last.
    pub(super) done: watch::Sender<Seq>,
}

#[derive(Clone, Debug)]
struct Box {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<Seq>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Vec<u8>>,
    sending: Sending,
}

impl Memory {
    pub(super) fn new(lines: impl IntoIterator<Item = String>) -> Self {
        let memory = Self { boxes: vec![Box::new()], dead: Arc::default(), done: watch::Sender::new(0) };
        memory.put(lines);
        memory
    }

    /// With an outbox for live pipelines that holds these.
    pub(super) fn with_live(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.boxes.push(Box::new());
        self.put_live(lines);
        self
    }

    pub(super) fn put(&self, lines: impl IntoIterator<Item = String>) {
        self.boxes[0].put(lines);
    }

    pub(super) fn put_live(&self, lines: impl IntoIterator<Item = String>) {
        self.boxes[1].put(lines);
    }

    pub(super) fn dead(&self) -> Vec<(Seq, DeadLetter)> {
        self.dead.lock().unwrap().clone()
    }

    pub(super) fn confirmed(&self) -> Seq {
        *self.done.borrow()
    }

    /// What is pending in the outbox for live pipelines.
    pub(super) fn live_pending(&self) -> Vec<Range<Seq>> {
        self.stretches("live").unwrap()
    }

    fn of(&self, outbox: &str) -> &Box {
        &self.boxes[usize::from(outbox != "central")]
    }

    fn state(&self, outbox: &str) -> MutexGuard<'_, State> {
        self.of(outbox).state.lock().unwrap()
    }
}

impl Box {
    fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }

    fn put(&self, lines: impl IntoIterator<Item = String>) {
        let mut state = self.state.lock().unwrap();
        state.records.extend(lines.into_iter().map(|line| Record::of_line(line.as_bytes(), "p").to_bytes()));
        self.changed.send_replace(state.records.len() as Seq);
    }
}

impl State {
    fn batch(&self, range: Range<Seq>) -> Batch {
        let records = self.records[range.start as usize..range.end as usize].to_vec();
        let encoder = self.sending.stretch(range.start).unwrap().encoder;
        Batch { range, records, encoder }
    }
}

impl Outbox for Memory {
    fn outboxes(&self, output: &str) -> Result<Vec<String>, Error> {
        let names = [output.to_owned(), crate::store::live(output)];
        Ok(names.into_iter().take(self.boxes.len()).collect())
    }

    fn outbox_epoch(&self, outbox: &str) -> Result<Epoch, Error> {
        Ok(if outbox == "central" { EPOCH } else { LIVE_EPOCH })
    }

    fn stretches(&self, outbox: &str) -> Result<Vec<Range<Seq>>, Error> {
        let state = self.state(outbox);
        Ok(state.sending.pending(state.records.len() as Seq))
    }

    fn begin_batch_at(
        &self,
        outbox: &str,
        from: Seq,
        bounds: &BatchBounds<'_>,
        encoder: &EncoderMark,
    ) -> Result<Option<Batch>, Error> {
        let mut state = self.state(outbox);
        let stretch = state.sending.stretch(from).expect("a stretch that is there");
        let mut end = stretch.begun;
        if end == from {
            let mut bytes = 0;
            let fits = |record: &&Vec<u8>| {
                bytes += (bounds.size)(record);
                bytes <= bounds.bytes_max
            };
            let until = stretch.end.min(state.records.len() as Seq);
            let waiting = &state.records[from as usize..until as usize];
            if waiting.is_empty() {
                return Ok(None);
            }
            end = from + waiting.iter().take(bounds.records_max).take_while(fits).count().max(1) as Seq;
            state.sending = state.sending.with_begun(from, &(from..end), Some(encoder)).unwrap();
        }
        Ok(Some(state.batch(from..end)))
    }

    fn begin_batch_anew(&self, outbox: &str, from: Seq, encoder: &EncoderMark) -> Result<(), Error> {
        let mut state = self.state(outbox);
        let begun = from..state.sending.stretch(from).unwrap().begun;
        assert!(!begun.is_empty(), "nothing is begun at {from}");
        state.sending = state.sending.with_begun(from, &begun, Some(encoder)).unwrap();
        Ok(())
    }

    fn narrow_batch_at(&self, outbox: &str, from: Seq, results: usize) -> Result<Batch, Error> {
        let mut state = self.state(outbox);
        let stretch = state.sending.stretch(from).unwrap();
        let begun = from..stretch.begun;
        assert!(
            results >= 1 && (results as Seq) < begun.end - begun.start,
            "narrowed {begun:?} to {results}"
        );
        let narrow = from..from + results as Seq;
        state.sending = state.sending.with_begun(from, &narrow, stretch.encoder.as_ref()).unwrap();
        Ok(state.batch(narrow))
    }

    fn confirm_batch(&self, outbox: &str, batch: &Range<Seq>, refused: Vec<DeadLetter>) -> Result<(), Error> {
        let mut state = self.state(outbox);
        state.sending = state.sending.with_confirmed(batch).expect("a begun batch is confirmed");
        for letter in refused {
            assert_eq!(batch.end - batch.start, 1, "more than a culprit dead-lettered");
            self.dead.lock().unwrap().push((batch.start, letter));
        }
        if outbox == "central" {
            self.done.send_replace(batch.end);
        }
        Ok(())
    }

    fn cut(&self, outbox: &str, at: Seq) -> Result<bool, Error> {
        assert_ne!(outbox, "central", "order is kept there");
        let mut state = self.state(outbox);
        let cut = state.sending.with_cut(at).filter(|_| at <= state.records.len() as Seq);
        let is_cut = cut.is_some();
        state.sending = cut.unwrap_or_else(|| state.sending.clone());
        assert!(state.sending.pending(0).len() <= STRETCHES_MAX);
        Ok(is_cut)
    }

    fn outbox_changed(&self, outbox: &str) -> watch::Receiver<Seq> {
        self.of(outbox).changed.subscribe()
    }
}
