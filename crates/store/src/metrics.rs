//! What the store counts.

use headwater_meter::stage;

stage!(
    /// The store, labelled with the log it writes: `journal`, `outbox/NAME`, `dead-letters`, `meta`.
    Log, Logs, "store", "the log it writes: `journal`, `outbox/NAME`, `dead-letters`, `meta`", {
        /// Records appended durably.
        appended_records: Counter,
        /// Record bytes appended durably, before framing.
        appended_bytes: Counter,
        /// Synced flushes.
        syncs: Counter,
        /// Time spent in synced flushes, in microseconds.
        sync_micros: Counter,
        /// Segments on disk.
        segments: Gauge,
        /// Records not yet trimmed.
        pending_records: Gauge,
        /// Damaged parts mended at this start.
        repairs: Counter,
        /// Records lost by damage that was mended at this start: each is in a report.
        lost_records: Counter,
        /// 1 while a write waits for room, and is tried again: appends (`journal`), commits (`meta`).
        waiting: Gauge,
        /// Disk that it takes.
        bytes: Gauge,
        /// Dead letters given up: over quota or too old.
        given_up_records: Counter,
        /// Disk that it may take.
        quota_bytes: Gauge,
        /// 1 while a write waits for room under the quota.
        blocked: Gauge,
    }
);

stage!(
    /// The disk of the state folder, labelled `state`.
    Disk, Disks, "disk", "`state`", {
        /// 1 while there is too little room to append, or none for the ballast.
        full: Gauge,
        /// Writes held up because there is too little room.
        refused_writes: Counter,
        /// Bytes free when last looked at.
        free_bytes: Gauge,
        /// Bytes held back for a full disk; 0 while they are released.
        ballast_bytes: Gauge,
    }
);

/// The handles of one store.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    /// Those of its logs, made as they are opened.
    pub logs: Logs,
    /// That of the state folder's disk.
    pub disk: Disk,
}

impl StoreMetrics {
    /// The handle of the log of that name.
    #[must_use]
    pub fn log(&self, name: &str) -> Log {
        self.logs.named(name)
    }
}
