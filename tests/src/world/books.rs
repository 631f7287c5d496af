//! The pipelines' books: each message read once, or in a report. One that damage took before the broker had
//! its acknowledgement is in both, and no other.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Host, Verdict, World};
use crate::resent::JournalEnd;

/// Stands for a number that a report does not know.
const UNKNOWN: u64 = u32::MAX as u64;

/// The losses that reports at the collector tell of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reported {
    /// Readings, or results that may have been one each; as many as there are where one does not know.
    pub readings: u64,
    /// Whether windows may lack readings.
    pub windows: bool,
}

/// The numbers in the journal that a pipeline misses, as reports at the collector say.
#[derive(Debug, Default)]
struct MissedNumbers {
    ranges: Vec<RangeInclusive<u64>>,
    /// A report does not say how many.
    uncounted: bool,
}

impl World {
    /// Sums up the losses that reports at the collector tell of.
    pub async fn reported(&self) -> Reported {
        let mut reported = Reported::default();
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

    /// Checks that each pipeline has read each message once, over all lives: its counts are committed with its
    /// results. Its counts hold too what damage took from the journal, and what the broker sent again of that.
    pub(super) async fn books(&self, mut verdict: Verdict) -> Verdict {
        let messages = self.devices.load.published() + self.devices.poisons;
        let deadline = Instant::now() + Duration::from_secs(5);
        for pipeline in ["windows", "each"] {
            loop {
                let of = |it: &crate::agent::MetricsText, name| {
                    it.of(&format!("pipeline_{name}_messages"), pipeline)
                };
                let metrics = self.host.agent.metrics().await;
                let missed = self.missed(pipeline).await;
                let resent = self.host.resent(&missed.ranges).unwrap_or_else(|error| {
                    eprintln!("the journal before its damage says nothing: {error:#}");
                    0
                });
                match metrics.map(|it| of(&it, "read") + of(&it, "lost")) {
                    Ok(read) if read == messages + resent => {
                        verdict.resent = verdict.resent.max(resent);
                        break;
                    }
                    // How many are lost nobody can know, and that is reported.
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

    /// The numbers in the journal that reports say the pipeline misses.
    async fn missed(&self, pipeline: &str) -> MissedNumbers {
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

    /// The reports of losses at the collector, none while it does not answer.
    async fn loss_reports(&self) -> Vec<Value> {
        match self.host.collector.get("/v1/reports?kind=lost").await {
            Ok(mut answer) => serde_json::from_value(answer["reports"].take()).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

impl Host {
    /// Notes what the journal of the killed agent ends with, before it is damaged.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn note_journal(&mut self) {
        let store = self.agent.state().join("store");
        let copy = self.agent.home().join("journal-end");
        let end = JournalEnd::of(&store, copy, &self.broker_log);
        self.journal_end = Some(end.expect("a journal that can be copied"));
    }

    /// Counts the messages with these numbers in the journal before its damage that the broker sent again.
    fn resent(&self, numbers: &[RangeInclusive<u64>]) -> anyhow::Result<u64> {
        match &self.journal_end {
            Some(end) if !numbers.is_empty() => end.resent(numbers),
            _ => Ok(0),
        }
    }
}
