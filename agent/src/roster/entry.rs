//! The entries of the roster: of each stage that runs, the handles that others need.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::{DepartedInputs, OutboxWrites};
use crate::liveness::Heartbeat;
use crate::metrics;
use crate::pipeline::{self, PipelineMailbox};

/// An input that runs.
#[derive(Debug)]
pub struct InputEntry {
    /// Its counts.
    pub metrics: metrics::Input,
}

impl InputEntry {
    /// Enters an input that has counted nothing yet.
    #[must_use]
    pub fn new(metrics: metrics::Input) -> Self {
        Self { metrics }
    }

    /// Returns the terms that it has in the journal's equation.
    pub(super) fn counts(&self) -> DepartedInputs {
        let _together = self.metrics.turn();
        DepartedInputs {
            journaled: self.metrics.journaled_messages.get(),
            in_flight: self.metrics.in_flight_messages.get().try_into().unwrap_or_default(),
        }
    }
}

/// A pipeline that runs.
#[derive(Debug)]
pub struct PipelineEntry {
    /// The output of its results.
    pub output: String,
    /// The output of its late readings.
    pub late_output: Option<String>,
    /// The number of its transforms.
    pub transforms: usize,
    /// The longest time between two commits.
    pub commit_every: Duration,
    /// What it is asked about its modules, and what it shows of them.
    pub mailbox: Arc<PipelineMailbox>,
    /// Its signs of life.
    pub heartbeat: Arc<Heartbeat>,
    /// Its counts.
    pub metrics: metrics::Pipeline,
    /// Of its modules' calls.
    pub calls: metrics::CallMetrics,
    opening: PipelineWrites,
}

impl PipelineEntry {
    /// Enters a pipeline that is built, so that its counts are those of its last commit, and does not run yet.
    #[must_use]
    pub fn new(
        config: &pipeline::Config,
        mailbox: Arc<PipelineMailbox>,
        heartbeat: Arc<Heartbeat>,
        metrics: metrics::Pipeline,
        calls: metrics::CallMetrics,
    ) -> Self {
        Self {
            output: config.output.clone(),
            late_output: config.late.as_ref().map(|late| late.output.clone()),
            transforms: config.transforms.len(),
            commit_every: config.commit_every,
            mailbox,
            heartbeat,
            opening: PipelineWrites::count(&metrics),
            metrics,
            calls,
        }
    }

    /// Returns what it has written to an output's outboxes since it was entered.
    #[must_use]
    pub fn written_to(&self, output: &str) -> OutboxWrites {
        let mut written = OutboxWrites::default();
        let takes_results = self.output == output;
        let takes_late = self.late_output.as_deref() == Some(output);
        if takes_results || takes_late {
            let now = PipelineWrites::count(&self.metrics);
            if takes_results {
                written.add(&now.results.since(&self.opening.results));
            }
            if takes_late {
                written.add(&now.late.since(&self.opening.late));
            }
        }
        written
    }
}

/// An output that runs.
#[derive(Clone, Debug)]
pub struct OutputEntry {
    /// The longest that one attempt may take.
    pub attempt_max: Duration,
    /// Its counts.
    pub metrics: metrics::Output,
    /// What was pending when it was entered.
    pub opening: u64,
    /// What pipelines that were removed had written to it.
    pub(super) departed: OutboxWrites,
}

impl OutputEntry {
    /// Enters an output that has so much pending, and does not run yet.
    #[must_use]
    pub fn new(config: &crate::output::Config, metrics: metrics::Output, opening: u64) -> Self {
        let attempt_max = config.timeout + config.linger;
        Self { attempt_max, metrics, opening, departed: OutboxWrites::default() }
    }

    /// Returns what pipelines that were removed had written to it.
    #[must_use]
    pub fn departed(&self) -> &OutboxWrites {
        &self.departed
    }
}

/// What a pipeline has ever written, by the kind of lines.
#[derive(Clone, Copy, Debug)]
struct PipelineWrites {
    results: OutboxWrites,
    late: OutboxWrites,
}

impl PipelineWrites {
    fn count(metrics: &metrics::Pipeline) -> Self {
        let _together = metrics.turn();
        let results = OutboxWrites {
            results: metrics.results.get(),
            reports: metrics.report_lines.get(),
            dropped: metrics.dropped_results.get(),
            coarsened: metrics.coarsened_results.get(),
            expired: metrics.expired_results.get(),
            ..OutboxWrites::default()
        };
        let late = OutboxWrites {
            late: metrics.sent_late_events.get(),
            reports: metrics.late_report_lines.get(),
            dropped: metrics.dropped_late_events.get(),
            expired: metrics.expired_late_events.get(),
            ..OutboxWrites::default()
        };
        Self { results, late }
    }
}
