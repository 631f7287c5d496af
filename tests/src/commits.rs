//! The commits of the store against a plain model: the contents that must be there after any operations, and
//! after any crash between or inside them.
//!
//! A worker process ([`worker`]) does one operation a line, and the model does the same to plain vectors.
//! When the worker dies inside an operation, the model keeps all contents that the store may have then: those
//! before the operation, those after it, and for an append those with a part of its messages.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub mod worker;

/// The number of messages kept to recognise redeliveries.
pub const REDELIVERY_WINDOW: u64 = 50;
/// The inputs that messages come from, in turn.
pub const INPUTS: [&str; 2] = ["north", "south"];
/// The pipelines, each with its output; two of them share one.
pub const PIPELINES: [(&str, &str); 3] = [("a", "x"), ("b", "x"), ("c", "y")];
/// The outboxes: those of the outputs, and the one of the late readings, to which all pipelines send.
pub const OUTPUTS: [&str; 3] = ["x", "y", LATE];
/// The outbox of the late readings, of an output that has no other.
pub const LATE: &str = "z.late";

/// An operation on the store. Numbers beyond the contents of the store are reduced to those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreOperation {
    /// Appends messages.
    Append {
        /// The size of each message, in bytes.
        sizes: Vec<usize>,
    },
    /// Commits a step of a pipeline.
    Commit(PipelineStep),
    /// Begins a batch.
    Begin {
        /// The index of the output.
        output: usize,
        /// Most results in the batch, if it is a new one.
        results_max: usize,
    },
    /// Makes the begun batch smaller.
    Narrow {
        /// The index of the output.
        output: usize,
        /// The number of results that stay in it.
        results: usize,
    },
    /// Confirms the begun batch.
    Confirm {
        /// The index of the output.
        output: usize,
        /// True if the batch goes to the dead letters.
        refused: bool,
    },
    /// Removes the records that are no longer needed.
    Trim,
    /// Begins a new session, as after the broker has lost the last one.
    Session {
        /// The index of the input.
        input: usize,
    },
    /// Reads the contents. This begins a batch of one result in each outbox where none is begun.
    Look,
}

/// A step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStep {
    /// The index of the pipeline.
    pub pipeline: usize,
    /// The number of messages read.
    pub advance: u64,
    /// The keys of windows with the new size of their state; `None` removes the window.
    pub windows: Vec<(u8, Option<usize>)>,
    /// The sizes of results, in bytes.
    pub results: Vec<usize>,
    /// The sizes of late readings, in bytes.
    pub late: Vec<usize>,
    /// The sizes of dead letters, in bytes.
    pub letters: Vec<usize>,
}

/// The contents of the store, as its callers see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreContents {
    /// The positions in the journal that can be read, each with the mark of its record.
    pub journal: Vec<(u64, u64)>,
    /// The position after the last record.
    pub end: u64,
    /// The position of each pipeline, the mark of its progress, and its windows with the marks of their
    /// states.
    pub pipelines: BTreeMap<String, (u64, u64, BTreeMap<u8, u64>)>,
    /// The begun batch of each output as a range, the marks of its results, and the number of unconfirmed
    /// results.
    pub outputs: BTreeMap<String, (Range<u64>, Vec<u64>, u64)>,
    /// The marks of the dead letters.
    pub letters: Vec<u64>,
    /// The session of each input, and the marks of its messages that are kept for redeliveries.
    pub inputs: BTreeMap<String, (u64, Vec<u64>)>,
}

/// Returns bytes that can be told from others: a mark, repeated up to the size, at least once.
#[must_use]
pub fn bytes(mark: u64, size: usize) -> Vec<u8> {
    mark.to_be_bytes().into_iter().cycle().take(size.max(8)).collect()
}

/// Returns the mark of such bytes.
///
/// # Panics
/// When they are not such bytes of such a size.
#[must_use]
pub fn mark(found: &[u8]) -> u64 {
    let mark = u64::from_be_bytes(*found.first_chunk().expect("a mark has eight bytes"));
    assert!(found == bytes(mark, found.len()), "bytes of {mark} are not as they were written");
    mark
}

/// The contents that the store must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreModel {
    /// The next mark. Everything written gets a mark of its own.
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
    /// Returns the first mark for the data of the next operation.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.marks
    }

    /// Returns the operation, reduced to the contents that there are; `None` if nothing is left to do.
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

    /// Returns all states in which the store may be after it died inside the operation.
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
        // A mark is never used twice, in whichever state the store is.
        let marks = states.iter().map(|state| state.marks).max().unwrap_or_default();
        states.iter_mut().for_each(|state| state.marks = marks);
        states
    }

    /// Applies an operation.
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

    /// Returns true if the store may have these contents. The journal may begin anywhere, but not after a
    /// message that a pipeline has still to read or that may be redelivered.
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

/// Returns the index of the input that the message with this mark came from.
#[must_use]
pub fn input_of(mark: u64) -> usize {
    (mark % INPUTS.len() as u64) as usize
}
