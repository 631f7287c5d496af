//! Reads the ledger out of the counts of the stages that run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use crate::ledger::{InputTerms, JournalTerms, LedgerSnapshot, OutputTerms, PipelineTerms, least};
use crate::metrics;
use crate::roster::{OutputEntry, RosterReader, RosterSnapshot};
use crate::store::{self, Store};

/// Looks at the ledger in one check, until one finds every equation to hold.
const LOOKS: u32 = 8;
/// The time between two of them: longer than stages take from one's count to the next one's.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Reads the ledger: the counts of the stages, and those of the journal since the reader was opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    store: Store,
    roster: RosterReader,
    journal_opening: u64,
}

impl LedgerReader {
    /// Opens the ledger. Nothing may append to the journal yet.
    #[must_use]
    pub fn open(store: Store, roster: RosterReader) -> Self {
        let journal_opening = store.journal_end();
        Self { store, roster, journal_opening }
    }

    /// Reads all counts once.
    ///
    /// # Errors
    /// When the store cannot say what is pending.
    pub fn read(&self) -> Result<LedgerSnapshot, store::Error> {
        let roster = self.roster();
        let (journal, inputs) = self.journal(&roster);
        let mut outputs = BTreeMap::new();
        for (name, entry) in &roster.outputs {
            outputs.insert(name.to_string(), self.output(name, entry, &roster)?);
        }
        let end = self.store.journal_end();
        let pipelines = roster.pipelines.iter();
        let pipelines = pipelines.map(|(name, entry)| (name.to_string(), pipeline(&entry.metrics, end)));
        Ok(LedgerSnapshot { journal, inputs, pipelines: pipelines.collect(), outputs })
    }

    /// Returns what each equation misses in the best of some looks.
    ///
    /// # Errors
    /// When the store cannot say what is pending.
    pub fn missing(&self) -> Result<BTreeMap<String, i64>, store::Error> {
        let mut missing = self.read()?.missing();
        for _ in 1..LOOKS {
            if missing.values().all(|missing| *missing == 0) {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
            missing = least(missing, &self.read()?.missing());
        }
        Ok(missing)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn roster(&self) -> Arc<RosterSnapshot> {
        self.roster.current()
    }

    /// Reads the inputs, which all stand still while the journal's end is read.
    fn journal(&self, roster: &RosterSnapshot) -> (JournalTerms, BTreeMap<String, InputTerms>) {
        let _together: Vec<_> = roster.inputs.values().map(|entry| entry.metrics.turn()).collect();
        let inputs = roster.inputs.iter();
        let inputs: BTreeMap<_, _> =
            inputs.map(|(name, entry)| (name.to_string(), input(&entry.metrics))).collect();
        let sum = |count: fn(&InputTerms) -> u64| inputs.values().map(count).sum::<u64>();
        let journal = JournalTerms {
            appended: self.store.journal_end() - self.journal_opening,
            journaled: sum(|input| input.journaled) + roster.departed.journaled,
            in_flight: sum(|input| input.in_flight) + roster.departed.in_flight,
        };
        (journal, inputs)
    }

    fn output(
        &self,
        name: &str,
        entry: &OutputEntry,
        roster: &RosterSnapshot,
    ) -> Result<OutputTerms, store::Error> {
        let mut written = *entry.departed();
        for pipeline in roster.pipelines.values() {
            written.add(&pipeline.written_to(name));
        }
        let pending = self.store.pending(name)?;
        let metrics = &entry.metrics;
        let _together = metrics.turn();
        Ok(OutputTerms {
            opening: entry.opening,
            results: written.results,
            late: written.late,
            reports: written.reports,
            delivered: metrics.delivered_results.get(),
            refused: metrics.rejected_results.get(),
            lost: metrics.lost_results.get(),
            dropped: written.dropped,
            coarsened: written.coarsened,
            expired: written.expired,
            pending,
        })
    }
}

fn input(metrics: &metrics::Input) -> InputTerms {
    InputTerms {
        received: metrics.received_messages.get(),
        journaled: metrics.journaled_messages.get(),
        duplicates: metrics.duplicate_messages.get(),
        shed: metrics.shed_messages.get(),
        refused: metrics.refused_messages.get(),
        in_flight: unsigned(&metrics.in_flight_messages),
    }
}

fn pipeline(metrics: &metrics::Pipeline, journal_end: u64) -> PipelineTerms {
    let _together = metrics.turn();
    let position = unsigned(&metrics.position_messages);
    PipelineTerms {
        position,
        skipped: metrics.skipped_messages.get(),
        lost: metrics.lost_messages.get(),
        expired: metrics.expired_messages.get(),
        read: metrics.read_messages.get(),
        replayed: metrics.replayed_messages.get() + metrics.replayed_events.get(),
        multiplied: metrics.multiplied_events.get(),
        filtered: metrics.filtered_events.get(),
        rejected: metrics.rejected_messages.get() + metrics.rejected_events.get(),
        used: metrics.used_events.get(),
        late: metrics.late_events.get(),
        lost_events: metrics.lost_events.get(),
        sent_late: metrics.sent_late_events.get(),
        results: metrics.results.get(),
        dead_letters: metrics.dead_letters.get(),
        given_up_letters: metrics.given_up_letters.get(),
        pending: journal_end.saturating_sub(position),
    }
}

fn unsigned(gauge: &Gauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or_default()
}
