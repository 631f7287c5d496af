//! The counters behind `/metrics`, and a limit on the log lines about refused batches.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::error_response::ErrorResponse;

/// The statuses with which a batch can be refused.
const STATUSES: [u16; 8] = [400, 401, 408, 413, 415, 422, 500, 503];
/// Shortest time between two log lines about refused batches, in microseconds: anybody can cause them.
const LOG_INTERVAL_MICROS: i64 = 1_000_000;

/// The numbers of batches by their outcome.
#[derive(Debug, Default)]
pub(super) struct BatchCounters {
    stored: AtomicU64,
    duplicates: AtomicU64,
    /// The numbers of refused batches, in the order of [`STATUSES`].
    refused: [AtomicU64; STATUSES.len()],
    /// The time of the last log line about a refused batch, in microseconds since the Unix epoch.
    logged: AtomicI64,
}

impl BatchCounters {
    pub(super) fn count_accepted(&self, duplicate: bool) {
        let counter = if duplicate { &self.duplicates } else { &self.stored };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a refused batch, and logs it unless another one was logged lately.
    pub(super) fn count_refused(&self, error: &ErrorResponse) {
        let counters = STATUSES.iter().zip(&self.refused);
        for (_, counter) in counters.filter(|(status, _)| **status == error.status.as_u16()) {
            counter.fetch_add(1, Relaxed);
        }
        let now = super::now();
        let logged = self.logged.load(Relaxed);
        let due = now.abs_diff(logged) >= LOG_INTERVAL_MICROS.unsigned_abs();
        if due && self.logged.compare_exchange(logged, now, Relaxed, Relaxed).is_ok() {
            tracing::warn!(status = error.status.as_u16(), %error, "batch refused");
        }
    }

    /// Returns the metrics in the text format of Prometheus.
    pub(super) fn encode(&self, bodies: usize, commits: usize) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            let name = format!("headwater_collector_{name}");
            let mut lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in samples {
                lines += &format!("{name}{labels} {value}\n");
            }
            text.write_str(&lines).expect("writing to a String cannot fail");
        };
        let unlabelled = |value: u64| [(String::new(), value)];
        let stored = unlabelled(self.stored.load(Relaxed));
        family("stored_batches_total", "counter", "Batches stored", &stored);
        let duplicates = unlabelled(self.duplicates.load(Relaxed));
        family("duplicate_batches_total", "counter", "Batches that came again", &duplicates);
        let refused: Vec<_> = STATUSES
            .iter()
            .zip(&self.refused)
            .map(|(status, counter)| (format!("{{status=\"{status}\"}}"), counter.load(Relaxed)))
            .collect();
        family("refused_batches_total", "counter", "Batches refused, by status", &refused);
        family("bodies_in_work", "gauge", "Bodies being received", &unlabelled(bodies as u64));
        family("commits_in_work", "gauge", "Batches being stored", &unlabelled(commits as u64));
        text
    }
}
