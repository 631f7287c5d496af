//! Batches of one outbox made ready to be sent. All calls block on the disk or the compressor,
//! and so run on the output's thread.

use super::config::Compression;
use super::{Error, Outbox, encode};
use crate::blocking::BlockingThread;
use crate::flow::{DeadLetter, Seq, Timestamp};
use crate::store::{self, Batch};
use crate::wire::BatchKey;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// A batch ready to be sent, as often as it takes.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Which of the output's outboxes it is from.
    pub(super) outbox: usize,
    pub(super) batch: Batch,
    pub(super) key: BatchKey,
    pub(super) body: Bytes,
}

/// One output's side of its outboxes.
#[derive(Clone, Debug)]
pub(super) struct Parcels<O> {
    pub(super) output: Arc<str>,
    pub(super) agent: Arc<str>,
    pub(super) compression: Compression,
    pub(super) outbox: O,
    pub(super) thread: BlockingThread,
    /// Names of its outboxes: its own, and those of its live pipelines and of late readings if it has them.
    pub(super) outboxes: Arc<[String]>,
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
            stage: "output".to_owned(),
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
    /// Looks for outboxes that it does not know yet, and puts them behind the others; returns whether there are any.
    pub(super) async fn find_outboxes(&mut self) -> Result<bool, Error> {
        let found =
            self.call(|this| this.outbox.outboxes(&this.output).map_err(|source| this.store_failed(source)));
        let mut outboxes = self.outboxes.to_vec();
        outboxes.extend(found.await?.into_iter().filter(|found| !self.outboxes.contains(found)));
        let is_more = outboxes.len() > self.outboxes.len();
        self.outboxes = outboxes.into();
        Ok(is_more)
    }

    /// Returns which of the outboxes is that of the live pipelines, where there is one.
    pub(super) fn live(&self) -> Option<usize> {
        let live = store::live(&self.output);
        self.outboxes.iter().position(|outbox| *outbox == live)
    }

    /// What is pending in each outbox, stretch by stretch.
    pub(super) async fn stretches(&self) -> Result<Vec<Vec<Range<Seq>>>, Error> {
        self.call(|this| {
            let stretches = this.outboxes.iter().map(|outbox| this.outbox.stretches(outbox));
            stretches.collect::<Result<_, _>>().map_err(|source| this.store_failed(source))
        })
        .await
    }

    /// The batch to send now of the stretch that goes on at `from`, if anything is due.
    pub(super) async fn begin(
        &self,
        outbox: usize,
        from: Seq,
        (results_max, bytes_max): (usize, usize),
    ) -> Result<Option<Parcel>, Error> {
        self.call(move |this| {
            let batch = this.outbox.begin_batch_at(&this.outboxes[outbox], from, results_max, bytes_max);
            let batch = batch.map_err(|source| this.store_failed(source))?;
            batch.map(|batch| this.parcel(outbox, batch)).transpose()
        })
        .await
    }

    /// The first `results` of a batch that was begun, as a batch of their own.
    pub(super) async fn narrow(&self, parcel: &Parcel, results: usize) -> Result<Parcel, Error> {
        let (outbox, from) = (parcel.outbox, parcel.batch.range.start);
        self.call(move |this| {
            let batch = this.outbox.narrow_batch_at(&this.outboxes[outbox], from, results);
            this.parcel(outbox, batch.map_err(|source| this.store_failed(source))?)
        })
        .await
    }

    /// Forgets a batch that arrived, or keeps it as a dead letter.
    pub(super) async fn confirm(&self, parcel: Parcel, refused: Option<DeadLetter>) -> Result<(), Error> {
        self.call(move |this| {
            let (outbox, range) = (&this.outboxes[parcel.outbox], &parcel.batch.range);
            this.outbox.confirm_batch(outbox, range, refused).map_err(|source| this.store_failed(source))
        })
        .await
    }

    /// Lets what is from `at` on overtake what is before; whether it now may.
    pub(super) async fn cut(&self, outbox: usize, at: Seq) -> Result<bool, Error> {
        self.call(move |this| {
            this.outbox.cut(&this.outboxes[outbox], at).map_err(|source| this.store_failed(source))
        })
        .await
    }

    /// Fires when there are new results in any outbox.
    pub(super) fn changed(&self) -> Vec<watch::Receiver<Seq>> {
        self.outboxes.iter().map(|outbox| self.outbox.outbox_changed(outbox)).collect()
    }

    /// That the store will not answer any more.
    pub(super) fn store_gone(&self) -> Error {
        Error::StoreGone { output: self.output.to_string() }
    }

    fn store_failed(&self, source: store::Error) -> Error {
        Error::Store { output: self.output.to_string(), source }
    }

    fn parcel(&self, outbox: usize, batch: Batch) -> Result<Parcel, Error> {
        let failed = |source| self.store_failed(source);
        let epoch = self.outbox.outbox_epoch(&self.outboxes[outbox]).map_err(failed)?;
        let body = encode::body(&batch.lines, self.compression)
            .map_err(|source| Error::Encode { output: self.output.to_string(), source })?;
        let key = BatchKey::new(&self.agent, epoch, &batch.range);
        Ok(Parcel { outbox, batch, key, body: body.into() })
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        // After a panic in the store it is in no state to go on from.
        self.thread.call(move || call(&this)).await.unwrap_or_else(|_| Err(self.store_gone()))
    }
}
