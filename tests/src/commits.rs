//! The store's commit logic against a plain model: what must be there after any operations and any
//! crash between or inside them.
//!
//! A worker process ([`worker`]) does one operation a line; the model does the same to plain
//! vectors. Where the worker dies inside an operation, the model keeps what the store may hold then:
//! the operation done, not done, or, of an append, a part of its messages.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub mod worker;

/// Messages kept to recognise redeliveries.
pub const REDELIVERY_WINDOW: u64 = 50;
/// The inputs that messages come from, by turns.
pub const INPUTS: [&str; 2] = ["north", "south"];
/// The pipelines, and the output of each: two share one.
pub const PIPELINES: [(&str, &str); 3] = [("a", "x"), ("b", "x"), ("c", "y")];
/// The outboxes: of the outputs, and of the late readings, which all pipelines send to the same.
pub const OUTPUTS: [&str; 3] = ["x", "y", LATE];
/// That of the late readings, of an output that has no other.
pub const LATE: &str = "z.late";

/// One operation on the store. Amounts are wishes, cut to what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreOperation {
    /// Messages of these sizes.
    Append {
        /// One for each message, in bytes.
        sizes: Vec<usize>,
    },
    /// A step of a pipeline.
    Commit(PipelineStep),
    /// The batch to send now.
    Begin {
        /// Which output.
        output: usize,
        /// Results in a new batch, at most.
        results_max: usize,
    },
    /// Fewer results of it.
    Narrow {
        /// Which output.
        output: usize,
        /// Results that stay in it.
        results: usize,
    },
    /// It arrived, or was refused.
    Confirm {
        /// Which output.
        output: usize,
        /// Whether it goes to the dead letters.
        refused: bool,
    },
    /// Forget what nobody needs.
    Trim,
    /// The broker lost the session.
    Session {
        /// Which input.
        input: usize,
    },
    /// Nothing but a look: it begins a batch of one result where none is begun.
    Look,
}

/// A pipeline's step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStep {
    /// Which pipeline.
    pub pipeline: usize,
    /// Messages read.
    pub advance: u64,
    /// Keys of windows, and the new size of their state; `None` removes.
    pub windows: Vec<(u8, Option<usize>)>,
    /// Sizes of results.
    pub results: Vec<usize>,
    /// Sizes of late readings.
    pub late: Vec<usize>,
    /// Sizes of dead letters.
    pub letters: Vec<usize>,
}

/// What the store holds, as an outsider sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreContents {
    /// Numbers of the journal that can be read, each followed by its record's mark.
    pub journal: Vec<(u64, u64)>,
    /// One past the last number.
    pub end: u64,
    /// Each pipeline's position, mark of its progress, and windows: key and mark of the state.
    pub pipelines: BTreeMap<String, (u64, u64, BTreeMap<u8, u64>)>,
    /// Each output's begun batch, marks of its results, and how many are not confirmed.
    pub outputs: BTreeMap<String, (Range<u64>, Vec<u64>, u64)>,
    /// Marks of the dead letters.
    pub letters: Vec<u64>,
    /// Each input's session, and marks of its messages that are kept for redeliveries.
    pub inputs: BTreeMap<String, (u64, Vec<u64>)>,
}

/// Bytes that tell which they are: a mark, repeated to the size, at least once.
#[must_use]
pub fn bytes(mark: u64, size: usize) -> Vec<u8> {
    mark.to_be_bytes().into_iter().cycle().take(size.max(8)).collect()
}

/// The mark of such bytes.
///
/// # Panics
/// When they are not such bytes of such a size.
#[must_use]
pub fn mark(found: &[u8]) -> u64 {
    let mark = u64::from_be_bytes(*found.first_chunk().expect("a mark has eight bytes"));
    assert!(found == bytes(mark, found.len()), "bytes of {mark} are not as they were written");
    mark
}

/// What the store must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreModel {
    /// The next mark: what is written is told apart by it.
    marks: u64,
    journal: Vec<u64>,
    pipelines: BTreeMap<&'static str, (u64, u64, BTreeMap<u8, u64>)>,
    outputs: BTreeMap<&'static str, OutboxModel>,
    letters: Vec<u64>,
    sessions: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OutboxModel {
    results: Vec<u64>,
    confirmed: u64,
    begun: u64,
}

impl StoreModel {
    /// The first of the marks for what the next operation writes.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.marks
    }

    /// The operation, cut to what there is; `None` when nothing is left of it.
    #[must_use]
    pub fn cut(&self, operation: &StoreOperation) -> Option<StoreOperation> {
        match operation {
            StoreOperation::Commit(step) => {
                let (name, _) = PIPELINES[step.pipeline];
                let position = self.pipelines.get(name).map_or(0, |(position, ..)| *position);
                let advance = step.advance.min(self.journal.len() as u64 - position);
                Some(StoreOperation::Commit(PipelineStep { advance, ..step.clone() }))
            }
            StoreOperation::Narrow { output, results } => {
                let outbox = self.outputs.get(OUTPUTS[*output])?;
                let begun = (outbox.begun - outbox.confirmed) as usize;
                let results = 1 + results % begun.max(1);
                (begun > 0).then_some(StoreOperation::Narrow { output: *output, results })
            }
            StoreOperation::Confirm { output, .. } => {
                let outbox = self.outputs.get(OUTPUTS[*output])?;
                (outbox.begun > outbox.confirmed).then(|| operation.clone())
            }
            other => Some(other.clone()),
        }
    }

    /// Every state that the store may be in when it died inside the operation.
    #[must_use]
    pub fn after_crash(&self, operation: &StoreOperation) -> Vec<Self> {
        let mut states = vec![self.clone()];
        if let StoreOperation::Append { sizes } = operation {
            states.extend((1..sizes.len()).map(|part| {
                let mut state = self.clone();
                state.done(&StoreOperation::Append { sizes: sizes[..part].to_vec() });
                state
            }));
        }
        let mut done = self.clone();
        done.done(operation);
        states.push(done);
        // Marks are not used twice, whichever it was.
        let marks = states.iter().map(|state| state.marks).max().unwrap_or_default();
        states.iter_mut().for_each(|state| state.marks = marks);
        states
    }

    /// Does it.
    pub fn done(&mut self, operation: &StoreOperation) {
        match operation {
            StoreOperation::Append { sizes } => {
                let marks = self.take(sizes.len());
                self.journal.extend(marks);
            }
            StoreOperation::Commit(step) => self.step(step),
            StoreOperation::Begin { output, results_max } => {
                self.outbox(*output).begin(*results_max as u64);
            }
            StoreOperation::Narrow { output, results } => {
                let outbox = self.outbox(*output);
                outbox.begun = outbox.confirmed + *results as u64;
            }
            StoreOperation::Confirm { output, refused } => {
                let outbox = self.outbox(*output);
                outbox.confirmed = outbox.begun;
                if *refused {
                    let marks = self.take(1);
                    self.letters.extend(marks);
                }
            }
            StoreOperation::Session { input } => *self.sessions.entry(INPUTS[*input]).or_default() += 1,
            StoreOperation::Look => (0..OUTPUTS.len()).for_each(|output| {
                self.outbox(output).begin(1);
            }),
            StoreOperation::Trim => {}
        }
    }

    /// Whether this may be what is there. The journal begins where the store thinks right, but not
    /// behind what a pipeline has to read or a redelivery may repeat.
    #[must_use]
    pub fn allows(&self, seen: &StoreContents) -> bool {
        let end = self.journal.len() as u64;
        let start = seen.journal.first().map_or(end, |(seq, _)| *seq);
        let slowest = PIPELINES.iter().map(|(name, _)| self.pipelines.get(name).map_or(0, |it| it.0)).min();
        let needed = slowest.unwrap_or(0).min(end.saturating_sub(REDELIVERY_WINDOW));
        let kept: Vec<_> = (start..end).map(|seq| (seq, self.journal[seq as usize])).collect();
        let pipelines = self.pipelines.iter().map(|(name, held)| ((*name).to_owned(), held.clone()));
        seen.end == end
            && start <= needed
            && seen.journal == kept
            && seen.pipelines == pipelines.collect()
            && seen.outputs == self.seen_outputs()
            && seen.letters == self.letters
            && seen.inputs == self.seen_inputs()
    }

    fn seen_outputs(&self) -> BTreeMap<String, (Range<u64>, Vec<u64>, u64)> {
        let seen = |outbox: &OutboxModel| {
            let batch = if outbox.begun > outbox.confirmed { outbox.confirmed..outbox.begun } else { 0..0 };
            let marks = outbox.results[outbox.confirmed as usize..outbox.begun as usize].to_vec();
            (batch, marks, outbox.results.len() as u64 - outbox.confirmed)
        };
        let of = |name: &&str| self.outputs.get(*name).cloned().unwrap_or_default();
        OUTPUTS.iter().map(|name| ((*name).to_owned(), seen(&of(name)))).collect()
    }

    fn seen_inputs(&self) -> BTreeMap<String, (u64, Vec<u64>)> {
        let first = (self.journal.len() as u64).saturating_sub(REDELIVERY_WINDOW) as usize;
        let of = |index: usize| {
            let mine = self.journal[first..].iter().filter(|mark| input_of(**mark) == index);
            (self.sessions.get(INPUTS[index]).copied().unwrap_or(0), mine.copied().collect())
        };
        INPUTS.iter().enumerate().map(|(index, name)| ((*name).to_owned(), of(index))).collect()
    }

    fn step(&mut self, step: &PipelineStep) {
        let (name, output) = PIPELINES[step.pipeline];
        let progress = self.take(1).start;
        let windows = self.take(step.windows.len());
        let results = self.take(step.results.len());
        let late = self.take(step.late.len());
        let letters = self.take(step.letters.len());
        let pipeline = self.pipelines.entry(name).or_default();
        pipeline.0 += step.advance;
        pipeline.1 = progress;
        for ((key, size), mark) in step.windows.iter().zip(windows) {
            match size {
                Some(_) => pipeline.2.insert(*key, mark),
                None => pipeline.2.remove(key),
            };
        }
        self.outputs.entry(output).or_default().results.extend(results);
        self.outputs.entry(LATE).or_default().results.extend(late);
        self.letters.extend(letters);
    }

    fn outbox(&mut self, output: usize) -> &mut OutboxModel {
        self.outputs.entry(OUTPUTS[output]).or_default()
    }

    fn take(&mut self, marks: usize) -> Range<u64> {
        let first = self.marks;
        self.marks += marks as u64;
        first..self.marks
    }
}

impl OutboxModel {
    fn begin(&mut self, results_max: u64) {
        if self.begun <= self.confirmed {
            self.begun = (self.confirmed + results_max).min(self.results.len() as u64);
        }
    }
}

/// The input that the message with this mark came from.
#[must_use]
pub fn input_of(mark: u64) -> usize {
    (mark % INPUTS.len() as u64) as usize
}
