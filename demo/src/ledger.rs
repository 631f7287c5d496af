//! What became of every reading, from four independent counts: publishers, agent, store, collector.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::publisher::Published;
use super::{AGENT, Watched};
use headwater_agent::metrics;

/// One moment's counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Acknowledged to the publishers by the broker.
    pub(super) published: u64,
    /// Delivered to the agent by the broker.
    pub(super) received: u64,
    /// Of these, recognised redeliveries.
    pub(super) duplicates: u64,
    /// Made durable.
    pub(super) journaled: u64,
    /// Read by the pipelines.
    pub(super) read: u64,
    /// Used in a result.
    pub(super) used: u64,
    /// Too late for their window.
    pub(super) late: u64,
    /// In the dead letters.
    pub(super) rejected: u64,
    /// Committed to the outbox.
    pub(super) results: u64,
    /// Confirmed by the collector.
    pub(super) delivered: u64,
    /// Rows at the collector.
    pub(super) stored: u64,
    /// Sum of the rows' counts.
    pub(super) readings_stored: u64,
    /// Not closed yet.
    pub(super) open_windows: u64,
}

impl Ledger {
    pub(super) async fn take(watched: &Watched, published: &Published) -> anyhow::Result<Self> {
        let totals = watched.collector.totals(Some(AGENT.to_owned()), None).await?;
        let metrics = &watched.agent;
        let input = metrics.input("sensors");
        let output = metrics.output("collector");
        let pipelines = [metrics.pipeline("plant"), metrics.pipeline("machine")];
        let sum = |count: fn(&metrics::Pipeline) -> u64| pipelines.iter().map(count).sum::<u64>();
        let open: i64 = pipelines.iter().map(|pipeline| pipeline.open_windows.get()).sum();
        Ok(Self {
            published: published.readings.load(Ordering::Relaxed),
            received: input.received_messages.get(),
            duplicates: input.duplicate_messages.get(),
            journaled: metrics.store().log("journal").appended_records.get(),
            read: sum(|pipeline| pipeline.read_messages.get()),
            used: sum(|pipeline| pipeline.used_events.get()),
            late: sum(|pipeline| pipeline.late_events.get()),
            rejected: sum(|pipeline| pipeline.rejected_messages.get() + pipeline.rejected_events.get()),
            results: sum(|pipeline| pipeline.results.get()),
            delivered: output.delivered_results.get(),
            stored: totals.iter().map(|total| total.sums.results + total.sums.events).sum(),
            readings_stored: totals.iter().map(|total| total.sums.readings).sum(),
            open_windows: u64::try_from(open).unwrap_or_default(),
        })
    }

    /// The equations that do not hold; none when every reading is accounted for.
    pub(super) fn faults(&self) -> Vec<String> {
        let equations = [
            (
                "published = received - duplicates",
                self.published,
                self.received.saturating_sub(self.duplicates),
            ),
            (
                "received - duplicates = journaled",
                self.received.saturating_sub(self.duplicates),
                self.journaled,
            ),
            ("journaled = read", self.journaled, self.read),
            ("read = used + late + rejected", self.read, self.used + self.late + self.rejected),
            ("results = delivered", self.results, self.delivered),
            ("delivered = stored", self.delivered, self.stored),
            ("used = readings in the stored results", self.used, self.readings_stored),
            ("open windows = 0", self.open_windows, 0),
        ];
        let broken = equations.into_iter().filter(|(_, left, right)| left != right);
        let mut faults: Vec<String> =
            broken.map(|(name, left, right)| format!("{name}: {left} is not {right}")).collect();
        if self.stored == 0 {
            faults.push("nothing arrived".to_owned());
        }
        faults
    }

    pub(super) fn rows(&self) -> [(&'static str, u64); 13] {
        [
            ("published", self.published),
            ("received", self.received),
            ("duplicates", self.duplicates),
            ("journaled", self.journaled),
            ("read", self.read),
            ("used", self.used),
            ("late", self.late),
            ("rejected", self.rejected),
            ("results", self.results),
            ("delivered", self.delivered),
            ("stored", self.stored),
            ("readings_stored", self.readings_stored),
            ("open_windows", self.open_windows),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json: serde_json::Map<_, _> =
            self.rows().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        json.insert("balances".to_owned(), json!(self.faults().is_empty()));
        json.into()
    }
}
