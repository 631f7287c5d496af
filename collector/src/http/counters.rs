//! What `/metrics` tells, and a bound on what the log tells about refusals.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::answer::Refused;

/// What a batch can be refused with.
const STATUSES: [u16; 8] = [400, 401, 408, 413, 415, 422, 500, 503];
/// Between two lines of the log about refusals: anybody can cause them.
const QUIET_MICROS: i64 = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Counters {
    stored: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; STATUSES.len()],
    spoken: AtomicI64,
}

impl Counters {
    pub(super) fn accepted(&self, duplicate: bool) {
        let counter = if duplicate { &self.duplicates } else { &self.stored };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, refused: &Refused) {
        let refusals = STATUSES.iter().zip(&self.refused);
        for (_, counter) in refusals.filter(|(status, _)| **status == refused.status.as_u16()) {
            counter.fetch_add(1, Relaxed);
        }
        let (now, spoken) = (super::now(), self.spoken.load(Relaxed));
        let due = now.abs_diff(spoken) >= QUIET_MICROS.unsigned_abs();
        if due && self.spoken.compare_exchange(spoken, now, Relaxed, Relaxed).is_ok() {
            tracing::warn!(status = refused.status.as_u16(), error = %refused, "batch refused");
        }
    }

    /// The text format of Prometheus.
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
        let one = |value: u64| [(String::new(), value)];
        let stored = one(self.stored.load(Relaxed));
        family("stored_batches_total", "counter", "Batches stored", &stored);
        let duplicates = one(self.duplicates.load(Relaxed));
        family("duplicate_batches_total", "counter", "Batches that came again", &duplicates);
        let refused: Vec<_> = STATUSES
            .iter()
            .zip(&self.refused)
            .map(|(status, counter)| (format!("{{status=\"{status}\"}}"), counter.load(Relaxed)))
            .collect();
        family("refused_batches_total", "counter", "Batches refused, by status", &refused);
        family("bodies_in_work", "gauge", "Bodies being received", &one(bodies as u64));
        family("commits_in_work", "gauge", "Batches being stored", &one(commits as u64));
        text
    }
}
