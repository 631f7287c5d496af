//! What an output asks of its outboxes: the store's, or those in memory where only the
//! way to the destination is looked at. Every method but the last blocks.

use crate::flow::{DeadLetter, Epoch, Seq};
use crate::store::{Batch, BatchBounds, EncoderMark, Error, Store};
use std::ops::Range;
use tokio::sync::watch;

/// As [`Store`]'s methods of the same names.
#[expect(missing_docs, reason = "as the store's methods of the same names")]
pub trait Outbox: Clone + Send + Sync + 'static {
    fn outboxes(&self, output: &str) -> Result<Vec<String>, Error>;
    fn outbox_epoch(&self, outbox: &str) -> Result<Epoch, Error>;
    fn stretches(&self, outbox: &str) -> Result<Vec<Range<Seq>>, Error>;
    fn begin_batch_at(
        &self,
        outbox: &str,
        from: Seq,
        bounds: &BatchBounds<'_>,
        encoder: &EncoderMark,
    ) -> Result<Option<Batch>, Error>;
    fn begin_batch_anew(&self, outbox: &str, from: Seq, encoder: &EncoderMark) -> Result<(), Error>;
    fn narrow_batch_at(&self, outbox: &str, from: Seq, results: usize) -> Result<Batch, Error>;
    fn confirm_batch(&self, outbox: &str, batch: &Range<Seq>, refused: Vec<DeadLetter>) -> Result<(), Error>;
    fn cut(&self, outbox: &str, at: Seq) -> Result<bool, Error>;
    fn outbox_changed(&self, outbox: &str) -> watch::Receiver<Seq>;
}

impl Outbox for Store {
    fn outboxes(&self, output: &str) -> Result<Vec<String>, Error> {
        self.outboxes(output)
    }

    fn outbox_epoch(&self, outbox: &str) -> Result<Epoch, Error> {
        self.outbox_epoch(outbox)
    }

    fn stretches(&self, outbox: &str) -> Result<Vec<Range<Seq>>, Error> {
        self.stretches(outbox)
    }

    fn begin_batch_at(
        &self,
        outbox: &str,
        from: Seq,
        bounds: &BatchBounds<'_>,
        encoder: &EncoderMark,
    ) -> Result<Option<Batch>, Error> {
        self.begin_batch_at(outbox, from, bounds, encoder)
    }

    fn begin_batch_anew(&self, outbox: &str, from: Seq, encoder: &EncoderMark) -> Result<(), Error> {
        self.begin_batch_anew(outbox, from, encoder)
    }

    fn narrow_batch_at(&self, outbox: &str, from: Seq, results: usize) -> Result<Batch, Error> {
        self.narrow_batch_at(outbox, from, results)
    }

    fn confirm_batch(&self, outbox: &str, batch: &Range<Seq>, refused: Vec<DeadLetter>) -> Result<(), Error> {
        self.confirm_batch(outbox, batch, refused)
    }

    fn cut(&self, outbox: &str, at: Seq) -> Result<bool, Error> {
        self.cut(outbox, at)
    }

    fn outbox_changed(&self, outbox: &str) -> watch::Receiver<Seq> {
        self.outbox_changed(outbox)
    }
}
