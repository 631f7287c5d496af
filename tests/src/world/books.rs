//! The account of the messages: each pipeline has read each message once, or a report says that it is lost. A
//! message that damage took before the broker had its acknowledgement may be both, and no other.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{TestHost, TestWorld, WorldVerdict};
use crate::resent::JournalEnd;

/// The number that stands for one that a report does not know.
const UNKNOWN: u64 = u32::MAX as u64;

/// The losses in the reports at the collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportedLosses {
    /// The number of readings, or of results that may have been one each; very large if a report does not
    /// know it.
    pub readings: u64,
    /// True if windows may lack readings.
    pub windows: bool,
}

/// The positions in the journal that a pipeline has missed, by the reports at the collector.
#[derive(Debug, Default)]
struct MissedNumbers {
    ranges: Vec<RangeInclusive<u64>>,
    /// True if a report does not know the number of messages.
    uncounted: bool,
}

impl TestWorld {
    /// Sums up the losses in the reports at the collector.
    pub async fn reported(&self) -> ReportedLosses {
        let mut reported = ReportedLosses::default();
        for line in self.loss_reports().await {
            let pipeline = line["pipeline"].as_str();
            let report = &line["report"];
            if pipeline != Some("each") {
                reported.windows = true;
            }
            if pipeline != Some("windows") && report["stage"] != "dead-letters" {
                let count = report["count"].as_u64().unwrap_or(UNKNOWN);
                reported.readings = reported.readings.saturating_add(count);
            }
        }
        reported
    }

    /// Checks that each pipeline has read each message once since the first start: its counts are committed
    /// with its results. The counts include the messages that damage took from the journal, and those of them
    /// that the broker sent again.
    pub(super) async fn check_books(&self, mut verdict: WorldVerdict) -> WorldVerdict {
        let messages = self.devices.load.published() + self.devices.poisons;
        let deadline = Instant::now() + Duration::from_secs(5);
        for pipeline in ["windows", "each"] {
            loop {
                let of = |it: &crate::agent::MetricsText, name| {
                    it.of(&format!("pipeline_{name}_messages"), pipeline)
                };
                let metrics = self.host.agent.metrics().await;
                let missed = self.missed_numbers(pipeline).await;
                let resent = self.host.resent(&missed.ranges).unwrap_or_else(|error| {
                    eprintln!("the journal before its damage says nothing: {error:#}");
                    0
                });
                match metrics.map(|it| of(&it, "read") + of(&it, "lost")) {
                    Ok(read) if read == messages + resent => {
                        verdict.resent = verdict.resent.max(resent);
                        break;
                    }
                    // The report says that nobody can know how many are lost.
                    Ok(read) if read < messages + resent && missed.uncounted => break,
                    Ok(read) if Instant::now() > deadline => {
                        let wrong =
                            format!("{pipeline} read {read} messages of {messages}, {resent} sent again");
                        verdict.wrong.push(wrong);
                        break;
                    }
                    Err(error) if Instant::now() > deadline => {
                        verdict.wrong.push(format!("no metrics: {error}"));
                        break;
                    }
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        if !verdict.wrong.is_empty() {
            let kept = self.host.agent.home().join("broker.log");
            std::fs::copy(&self.host.broker_log, kept).expect("the broker has a log");
        }
        verdict
    }

    /// Returns the positions in the journal that the pipeline has missed, by the reports.
    async fn missed_numbers(&self, pipeline: &str) -> MissedNumbers {
        let mut missed = MissedNumbers::default();
        for line in self.loss_reports().await {
            let report = &line["report"];
            if line["pipeline"] != *pipeline || report["stage"] != "journal" {
                continue;
            }
            let first = report["first"].as_u64().unwrap_or(0);
            missed.ranges.push(first..=report["last"].as_u64().unwrap_or(u64::MAX));
            missed.uncounted |= report["count"].is_null();
        }
        missed
    }

    /// Returns the reports of losses at the collector; none while it does not answer.
    async fn loss_reports(&self) -> Vec<Value> {
        match self.host.collector.get("/v1/reports?kind=lost").await {
            Ok(mut answer) => serde_json::from_value(answer["reports"].take()).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

impl TestHost {
    /// Records the end of the killed agent's journal before it is damaged.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn note_journal(&mut self) {
        let store = self.agent.state().join("store");
        let copy = self.agent.home().join("journal-end");
        let end = JournalEnd::of(&store, copy, &self.broker_log);
        self.journal_end = Some(end.expect("a journal that can be copied"));
    }

    /// Counts the messages at these positions of the journal before its damage that the broker has sent
    /// again.
    fn resent(&self, numbers: &[RangeInclusive<u64>]) -> anyhow::Result<u64> {
        match &self.journal_end {
            Some(end) if !numbers.is_empty() => end.resent(numbers),
            _ => Ok(0),
        }
    }
}
