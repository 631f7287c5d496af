//! Batches of one outbox made ready to be sent. All calls block on the disk or the compressor
//! and so run beside the async runtime.

use super::config::Compression;
use super::{Error, Outbox, encode};
use crate::flow::{DeadLetter, Seq, Timestamp};
use crate::store::{self, Batch};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A batch ready to be sent, as often as it takes.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) batch: Batch,
    pub(super) key: String,
    pub(super) body: Bytes,
    /// Results in the outbox, these included.
    pub(super) pending: u64,
}

/// One output's side of its outbox.
#[derive(Clone, Debug)]
pub(super) struct Parcels<O> {
    pub(super) output: Arc<str>,
    pub(super) agent: Arc<str>,
    pub(super) compression: Compression,
    pub(super) outbox: O,
}

impl Parcel {
    /// How many results.
    pub(super) fn len(&self) -> u64 {
        self.batch.range.end - self.batch.range.start
    }

    /// Bytes of its lines.
    pub(super) fn bytes(&self) -> usize {
        encode::size(&self.batch.lines)
    }

    /// Whether it took all there was.
    pub(super) fn is_last(&self) -> bool {
        self.pending <= self.len()
    }

    /// What is kept of it when the destination refused it alone.
    pub(super) fn dead_letter(&self, reason: String, now: Timestamp) -> DeadLetter {
        #[derive(Default, serde::Deserialize)]
        struct Line {
            pipeline: String,
            key: String,
            module: Option<String>,
        }
        let payload = self.batch.lines.first().cloned().unwrap_or_default();
        let line: Line = serde_json::from_slice(&payload).unwrap_or_default();
        DeadLetter {
            pipeline: line.pipeline,
            stage: "forward".to_owned(),
            reason,
            module: line.module,
            key: line.key,
            time: now.0,
            payload,
            ..DeadLetter::default()
        }
    }
}

impl<O: Outbox> Parcels<O> {
    /// The batch to send now, if anything is due.
    pub(super) async fn begin(
        &self,
        (results_max, bytes_max): (usize, usize),
    ) -> Result<Option<Parcel>, Error> {
        self.call(move |this| {
            let batch = this.outbox.begin_batch(&this.output, results_max, bytes_max);
            batch.map_err(|source| this.store_failed(source))?.map(|batch| this.parcel(batch)).transpose()
        })
        .await
    }

    /// The first `results` of the batch that was begun, as a batch of their own.
    pub(super) async fn narrow(&self, results: usize) -> Result<Parcel, Error> {
        self.call(move |this| {
            let batch = this.outbox.narrow_batch(&this.output, results);
            this.parcel(batch.map_err(|source| this.store_failed(source))?)
        })
        .await
    }

    /// Forgets a batch that arrived, or keeps it as a dead letter. Returns what is pending then.
    pub(super) async fn confirm(&self, range: Range<Seq>, refused: Option<DeadLetter>) -> Result<u64, Error> {
        self.call(move |this| {
            let confirmed = this.outbox.confirm_batch(&this.output, &range, refused);
            confirmed
                .and_then(|()| this.outbox.pending(&this.output))
                .map_err(|source| this.store_failed(source))
        })
        .await
    }

    /// Results in the outbox.
    pub(super) async fn pending(&self) -> Result<u64, Error> {
        self.call(|this| this.outbox.pending(&this.output).map_err(|source| this.store_failed(source))).await
    }

    /// That the store will not answer any more.
    pub(super) fn store_gone(&self) -> Error {
        Error::StoreGone { output: self.output.to_string() }
    }

    fn store_failed(&self, source: store::Error) -> Error {
        Error::Store { output: self.output.to_string(), source }
    }

    fn parcel(&self, batch: Batch) -> Result<Parcel, Error> {
        let failed = |source| self.store_failed(source);
        let epoch = self.outbox.outbox_epoch(&self.output).map_err(failed)?;
        let pending = self.outbox.pending(&self.output).map_err(failed)?;
        let body = encode::body(&batch.lines, self.compression)
            .map_err(|source| Error::Encode { output: self.output.to_string(), source })?;
        let key = encode::key(&self.agent, epoch, &batch.range);
        Ok(Parcel { batch, key, body: body.into(), pending })
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        // An error of the join is a panic in the store: it is in no state to go on from.
        tokio::task::spawn_blocking(move || call(&this)).await.unwrap_or_else(|_| Err(self.store_gone()))
    }
}
