//! Stores batches: one transaction each, durable before the receipt is returned, all on one thread.
//!
//! **Invariants.** A batch is stored as a whole or not at all. The same key with the same digest is
//! stored once, with another digest never. A result with a window is replaced only by a higher revision,
//! and withdrawn by a retraction, in whichever order they come.
//! The sums in `pipelines` and the ranges in `coverage` change in the same transaction as the results
//! that they count, so they are never out of step.
//!
//! **Limits.** The queue has as many places as batches may be in work, so no sender waits for one.
//! **A crash here** loses the batches without a receipt, and the agents send them again. A failure of
//! the disk ends the thread: after a failed sync the next one may succeed although data is lost.

mod apply;
mod coverage;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::batch::ReceivedBatch;

/// The receipt of a stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitReceipt {
    /// The highest number such that it and all before it, from 0, are stored in this epoch.
    pub(crate) watermark: Option<u64>,
    /// True if the batch had been stored before.
    pub(crate) duplicate: bool,
}

/// An error that kept a batch from being stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("failed to store the batch: this key was used for another body")]
    Key,
    #[error("failed to store line {line}: its sequence number was used for another result")]
    Sequence { line: usize },
    #[error("failed to store the batch: the store is full or busy, make room or try later")]
    Full(#[source] rusqlite::Error),
    #[error("failed to store the batch: the store is broken, the collector must be restarted")]
    Broken,
    #[error("failed to store the batch")]
    Store(#[from] rusqlite::Error),
}

/// A batch on its way to the thread that commits.
struct CommitJob {
    batch: ReceivedBatch,
    /// The time of its arrival, in microseconds since the Unix epoch.
    received: i64,
    reply: oneshot::Sender<Result<CommitReceipt, CommitError>>,
}

/// A handle of the thread that commits. The thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct BatchWriter {
    jobs: mpsc::Sender<CommitJob>,
}

impl BatchWriter {
    /// Starts the thread that commits. At most `queue_max` batches wait for it.
    pub(crate) fn start(connection: Connection, queue_max: usize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(queue_max.max(1));
        std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || run_commits(connection, queue))?;
        Ok(Self { jobs })
    }

    /// Stores a batch that arrived at `received`, in microseconds since the Unix epoch. Once this has
    /// returned a receipt, the batch survives a power cut.
    pub(crate) async fn commit(
        &self,
        batch: ReceivedBatch,
        received: i64,
    ) -> Result<CommitReceipt, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = CommitJob { batch, received, reply };
        self.jobs.send(job).await.map_err(|_| CommitError::Broken)?;
        answer.await.unwrap_or(Err(CommitError::Broken))
    }

    /// Returns true if the thread has ended because the store failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Resolves when the thread has ended because the store failed.
    pub(crate) async fn broken(&self) {
        self.jobs.closed().await;
    }
}

fn run_commits(mut connection: Connection, mut queue: mpsc::Receiver<CommitJob>) {
    while let Some(CommitJob { batch, received, reply }) = queue.blocking_recv() {
        let outcome = store_batch(&mut connection, &batch, received).map_err(classify);
        let broken = matches!(outcome, Err(CommitError::Store(_)));
        if let Err(error) = &outcome {
            tracing::debug!(key = %batch.key, error = %error, "batch not stored");
        }
        if let Err(CommitError::Store(error) | CommitError::Full(error)) = &outcome {
            tracing::error!(error = %error, broken, "commit failed");
        }
        // The send fails if the peer disconnected; the batch is stored all the same.
        drop(reply.send(outcome));
        if broken {
            return;
        }
    }
}

/// Tells errors that pass (a full disk) from those that last (a failed write or sync, a damaged file).
fn classify(error: CommitError) -> CommitError {
    match error {
        CommitError::Store(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) =>
        {
            CommitError::Full(error)
        }
        other => other,
    }
}

/// Stores a batch in one transaction.
fn store_batch(
    connection: &mut Connection,
    batch: &ReceivedBatch,
    received: i64,
) -> Result<CommitReceipt, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = epoch_id(&transaction, batch, received)?;
    let duplicate = match stored_digest(&transaction, epoch, batch)? {
        Some(digest) if digest == batch.digest => true,
        Some(_) => return Err(CommitError::Key),
        None => false,
    };
    let [batches, duplicates] = if duplicate { [0, 1] } else { [1, 0] };
    if !duplicate {
        apply::apply_lines(&transaction, epoch, batch)?;
        let key = &batch.key;
        transaction.prepare_cached("INSERT INTO batches VALUES (?, ?, ?, ?, ?)")?.execute(params![
            epoch,
            key.first,
            key.last,
            batch.digest,
            received
        ])?;
        coverage::add(&transaction, epoch, key.first, key.last)?;
    }
    transaction
        .prepare_cached(
            "UPDATE epochs SET last_seen = max(last_seen, ?2), batches = batches + ?3,
                               duplicates = duplicates + ?4 WHERE id = ?1",
        )?
        .execute(params![epoch, received, batches, duplicates])?;
    let watermark = coverage::watermark(&transaction, epoch)?;
    transaction.commit()?;
    Ok(CommitReceipt { watermark, duplicate })
}

/// Returns the id of the batch's epoch, and inserts the epoch if it is new.
fn epoch_id(transaction: &Transaction<'_>, batch: &ReceivedBatch, received: i64) -> rusqlite::Result<i64> {
    let agent = &batch.key.agent;
    let epoch = &batch.key.epoch.to_string();
    let known = transaction
        .prepare_cached("SELECT id FROM epochs WHERE agent = ? AND epoch = ?")?
        .query_row([agent, epoch], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO epochs (agent, epoch, first_seen, last_seen) VALUES (?1, ?2, ?3, ?3)")?
        .insert(params![agent, epoch, received])
}

fn stored_digest(
    transaction: &Transaction<'_>,
    epoch: i64,
    batch: &ReceivedBatch,
) -> rusqlite::Result<Option<[u8; 32]>> {
    transaction
        .prepare_cached("SELECT digest FROM batches WHERE epoch = ? AND first = ? AND last = ?")?
        .query_row(params![epoch, batch.key.first, batch.key.last], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests;
