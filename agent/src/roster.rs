//! The roster: the inputs, pipelines and outputs that run, and the handles by which others reach them.
//!
//! The wiring owns the [`Roster`] and alone changes it, also while everything runs. The agent's own HTTP, the audit,
//! reloads, the trim of the store and the outputs hold a [`RosterReader`] and keep no lists of their own. A change is
//! published whole, so nobody sees a part of it.
//!
//! **Order.** An output is added before the pipelines that write to it, and removed after them. A pipeline is added
//! before its first commit: from then on the journal keeps for it what it has not read.
//!
//! **The ledger goes on.** A stage is added before it runs and removed when it has ended. What it had counted until
//! then stays in [`RosterSnapshot::departed`] and [`OutputEntry`], so that no equation loses a term.
//!
//! **Limits.** [`INPUTS_MAX`], [`PIPELINES_MAX`] and [`OUTPUTS_MAX`]: each has threads of its own.

mod entry;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::ledger::DepartedInputs;
use crate::metrics::Metrics;
pub use entry::{InputEntry, OutputEntry, PipelineEntry};

/// Most inputs of one agent: each has two threads.
pub const INPUTS_MAX: usize = 256;
/// Most pipelines of one agent: each has a thread.
pub const PIPELINES_MAX: usize = 1_024;
/// Most outputs of one agent: each has a thread, and the open files of its outboxes.
pub const OUTPUTS_MAX: usize = 256;

/// All that runs at one moment, by name.
#[derive(Clone, Debug, Default)]
pub struct RosterSnapshot {
    /// The inputs.
    pub inputs: BTreeMap<Arc<str>, Arc<InputEntry>>,
    /// The pipelines.
    pub pipelines: BTreeMap<Arc<str>, Arc<PipelineEntry>>,
    /// The outputs.
    pub outputs: BTreeMap<Arc<str>, Arc<OutputEntry>>,
    /// The counts of inputs that were removed.
    pub departed: DepartedInputs,
}

/// A stage that cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Another one of its kind has the name.
    #[error("failed to add the {kind} `{name}`: one of that name runs; remove it first")]
    NameTaken {
        /// The kind of stage.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There are as many of its kind as there may be.
    #[error("failed to add the {kind} `{name}`: {max} run, which is the most; remove one first")]
    Full {
        /// The kind of stage.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The most of that kind.
        max: usize,
    },
}

/// The owner of the list of what runs.
#[derive(Debug)]
pub struct Roster {
    current: watch::Sender<Arc<RosterSnapshot>>,
    metrics: Arc<Metrics>,
}

impl Roster {
    /// Begins with nothing that runs.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { current: watch::Sender::new(Arc::default()), metrics }
    }

    /// Returns a handle that sees every change.
    #[must_use]
    pub fn reader(&self) -> RosterReader {
        RosterReader(self.current.subscribe())
    }

    /// Adds an input that does not run yet.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn add_input(&self, name: &str, entry: InputEntry) -> Result<(), RosterError> {
        self.change(|roster| add(&mut roster.inputs, "input", INPUTS_MAX, name, entry))
    }

    /// Adds a pipeline that does not run yet.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn add_pipeline(&self, name: &str, entry: PipelineEntry) -> Result<(), RosterError> {
        self.change(|roster| add(&mut roster.pipelines, "pipeline", PIPELINES_MAX, name, entry))
    }

    /// Adds an output that does not run yet.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn add_output(&self, name: &str, entry: OutputEntry) -> Result<(), RosterError> {
        self.change(|roster| add(&mut roster.outputs, "output", OUTPUTS_MAX, name, entry))
    }

    /// Removes an input that has ended, and the metrics of its name.
    pub fn remove_input(&self, name: &str) -> Option<Arc<InputEntry>> {
        let removed = self.change(|roster| {
            let removed = roster.inputs.remove(name)?;
            roster.departed.add(&removed.counts());
            Some(removed)
        });
        self.metrics.forget_input(name);
        removed
    }

    /// Removes a pipeline that has ended, and the metrics of its name.
    pub fn remove_pipeline(&self, name: &str) -> Option<Arc<PipelineEntry>> {
        let removed = self.change(|roster| {
            let removed = roster.pipelines.remove(name)?;
            for (output, entry) in &mut roster.outputs {
                Arc::make_mut(entry).departed.add(&removed.written_to(output));
            }
            Some(removed)
        });
        self.metrics.forget_pipeline(name, removed.as_ref().map_or(0, |removed| removed.transforms));
        removed
    }

    /// Removes an output that has ended, and the metrics of its name.
    pub fn remove_output(&self, name: &str) -> Option<Arc<OutputEntry>> {
        let removed = self.change(|roster| roster.outputs.remove(name));
        self.metrics.forget_output(name);
        removed
    }

    /// Publishes what is left of the snapshot when `change` is done with it.
    fn change<T>(&self, change: impl FnOnce(&mut RosterSnapshot) -> T) -> T {
        let mut changed = None;
        self.current.send_modify(|current| changed = Some(change(Arc::make_mut(current))));
        changed.expect("the change is made at once")
    }
}

/// A handle that sees what runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RosterReader(watch::Receiver<Arc<RosterSnapshot>>);

impl RosterReader {
    /// Returns what runs now.
    #[must_use]
    pub fn current(&self) -> Arc<RosterSnapshot> {
        self.0.borrow().clone()
    }

    /// Waits for a change since this handle last waited, for ever where none can come.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn add<T>(
    entries: &mut BTreeMap<Arc<str>, Arc<T>>,
    kind: &'static str,
    max: usize,
    name: &str,
    entry: T,
) -> Result<(), RosterError> {
    if entries.contains_key(name) {
        return Err(RosterError::NameTaken { kind, name: name.to_owned() });
    }
    if entries.len() >= max {
        return Err(RosterError::Full { kind, name: name.to_owned(), max });
    }
    entries.insert(name.into(), Arc::new(entry));
    Ok(())
}

#[cfg(test)]
mod tests;
