//! The way out of the store: outboxes for the outputs.

use super::codec::Row;
use super::error::Error;
use super::folder::check_name;
use super::log::Shared;
use super::outbox::Outbox;
use super::sending::EncoderMark;
use super::{Batch, Store, lock};
use headwater_flow::{DeadLetter, Epoch, Seq};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// The outbox of an output's live pipelines, beside that of the others, which bears the output's
/// own name. No output can be configured with such a name.
#[must_use]
pub fn live(output: &str) -> String {
    format!("{output}.live")
}

/// The bounds of a new batch.
#[derive(Clone, Copy)]
pub struct BatchBounds<'a> {
    /// Records, at most.
    pub records_max: usize,
    /// Bytes, as `size` counts them; the last record may go over.
    pub bytes_max: usize,
    /// Returns how many bytes a record counts for.
    pub size: &'a dyn Fn(&[u8]) -> usize,
}

impl BatchBounds<'_> {
    /// No bounds at all.
    pub(super) const NONE: Self = Self { records_max: usize::MAX, bytes_max: usize::MAX, size: &|_| 0 };
}

/// The outbox of the readings that came too late for their pipelines' windows, beside the output's
/// others; and whose lines they are in there, of a pipeline's name.
#[must_use]
pub fn late(name: &str) -> String {
    format!("{name}.late")
}

impl Store {
    /// The outboxes that the output has: its own, and those of its live pipelines and of late readings if
    /// it ever had them.
    pub fn outboxes(&self, output: &str) -> Result<Vec<String>, Error> {
        let mut outboxes = vec![output.to_owned()];
        for other in [live(output), late(output)] {
            check_name(&other)?;
            let opened = lock(&self.0.outboxes).contains_key(&other);
            if opened || self.0.meta.get(&Row::outbox(&other))?.is_some() {
                outboxes.push(other);
            }
        }
        Ok(outboxes)
    }

    /// The output's epoch, part of its idempotency keys; made durable on first use.
    pub fn outbox_epoch(&self, output: &str) -> Result<Epoch, Error> {
        Ok(self.outbox(output)?.epoch())
    }

    /// The batch to send now: the one begun and not confirmed (same bounds, also after a crash), else
    /// a new one of what is due, begun durably before it is returned. `None` when nothing is pending.
    /// The last record of a new batch may go over `bytes_max`.
    pub fn begin_batch(
        &self,
        output: &str,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Batch>, Error> {
        let bounds = BatchBounds { records_max, bytes_max, size: &<[u8]>::len };
        self.outbox(output)?.begin(&self.0.meta, None, &bounds, None)
    }

    /// As [`Self::begin_batch`], in the one of the [`Self::stretches`] that goes on at `from`. A new batch
    /// keeps the encoder; one that was begun before is returned with the one that it keeps.
    pub fn begin_batch_at(
        &self,
        output: &str,
        from: Seq,
        bounds: &BatchBounds<'_>,
        encoder: &EncoderMark,
    ) -> Result<Option<Batch>, Error> {
        self.outbox(output)?.begin(&self.0.meta, Some(from), bounds, Some(encoder))
    }

    /// Begins the batch anew that was begun at `from`, under the same numbers, with another encoder: its bytes
    /// will be others.
    pub fn begin_batch_anew(&self, output: &str, from: Seq, encoder: &EncoderMark) -> Result<(), Error> {
        self.outbox(output)?.begin_anew(&self.0.meta, from, encoder)
    }

    /// Replaces the begun batch by its first `results` results (413, 400, 422: narrowing).
    pub fn narrow_batch(&self, output: &str, results: usize) -> Result<Batch, Error> {
        self.outbox(output)?.narrow(&self.0.meta, None, results)
    }

    /// As [`Self::narrow_batch`], in the one of the [`Self::stretches`] that goes on at `from`.
    pub fn narrow_batch_at(&self, output: &str, from: Seq, results: usize) -> Result<Batch, Error> {
        self.outbox(output)?.narrow(&self.0.meta, Some(from), results)
    }

    /// What is pending, cut into stretches that are sent independently, oldest first. The last one
    /// goes on as results are committed, and may be empty.
    pub fn stretches(&self, output: &str) -> Result<Vec<Range<Seq>>, Error> {
        Ok(self.outbox(output)?.stretches())
    }

    /// Cuts a stretch in two, durably, so that what is from `at` on can overtake what is before.
    /// Returns false where that would cut a begun batch, overtake nothing, or be one stretch over
    /// [`STRETCHES_MAX`](super::STRETCHES_MAX).
    pub fn cut(&self, output: &str, at: Seq) -> Result<bool, Error> {
        self.outbox(output)?.cut(&self.0.meta, at)
    }

    /// Forgets the begun batch, which arrived. Records of it that were `refused` go to the dead letters instead,
    /// in the same commit.
    pub fn confirm_batch(
        &self,
        output: &str,
        batch: &Range<Seq>,
        refused: impl IntoIterator<Item = DeadLetter>,
    ) -> Result<(), Error> {
        let refused: Vec<DeadLetter> = refused.into_iter().collect();
        let outbox = self.outbox(output)?;
        self.0.room.make()?;
        outbox.confirm(batch, |confirmed| {
            self.commit_letters(&refused, ("", 0), |letters| {
                self.0.meta.apply(&letters.into_iter().chain([confirmed]).collect::<Vec<_>>())
            })
        })
    }

    /// Results committed and not confirmed, in all its outboxes.
    pub fn pending(&self, output: &str) -> Result<u64, Error> {
        self.outboxes(output)?
            .iter()
            .try_fold(0, |pending, outbox| Ok(pending + self.outbox(outbox)?.pending()))
    }

    /// Fires after each commit that put results into the output's outbox; its value is the end.
    #[must_use]
    pub fn outbox_changed(&self, output: &str) -> watch::Receiver<Seq> {
        self.changed(output).subscribe()
    }

    pub(super) fn outbox(&self, output: &str) -> Result<Arc<Outbox>, Error> {
        check_name(output)?;
        let inner = &self.0;
        let mut outboxes = lock(&inner.outboxes);
        if let Some(outbox) = outboxes.get(output) {
            return Ok(Arc::clone(outbox));
        }
        let shared = Shared { preparer: &inner.preparer, health: &inner.health, size: inner.size };
        let metrics = inner.logs.named(&format!("outbox/{output}"));
        let outbox = Outbox::open(output, &inner.folder, &inner.meta, shared, metrics)?;
        let outbox = Arc::new(outbox);
        outboxes.insert(output.to_owned(), Arc::clone(&outbox));
        self.changed(output).send_replace(outbox.committed());
        Ok(outbox)
    }

    pub(super) fn changed(&self, output: &str) -> watch::Sender<Seq> {
        let mut changed = lock(&self.0.changed);
        changed.entry(output.to_owned()).or_insert_with(|| watch::Sender::new(0)).clone()
    }
}
