//! What the forwarder asks of an outbox: the store's, or one in memory where only the way to
//! the destination is looked at. Every method but the last blocks.

use crate::flow::{DeadLetter, Epoch, Seq};
use crate::store::{Batch, Error, Store};
use std::ops::Range;
use tokio::sync::watch;

/// As [`Store`]'s methods of the same names.
#[expect(missing_docs, reason = "as the store's methods of the same names")]
pub trait Outbox: Clone + Send + Sync + 'static {
    fn outbox_epoch(&self, output: &str) -> Result<Epoch, Error>;
    fn begin_batch(&self, output: &str, results_max: usize, bytes_max: usize)
    -> Result<Option<Batch>, Error>;
    fn narrow_batch(&self, output: &str, results: usize) -> Result<Batch, Error>;
    fn confirm_batch(
        &self,
        output: &str,
        batch: &Range<Seq>,
        refused: Option<DeadLetter>,
    ) -> Result<(), Error>;
    fn pending(&self, output: &str) -> Result<u64, Error>;
    fn outbox_changed(&self, output: &str) -> watch::Receiver<Seq>;
}

impl Outbox for Store {
    fn outbox_epoch(&self, output: &str) -> Result<Epoch, Error> {
        self.outbox_epoch(output)
    }

    fn begin_batch(
        &self,
        output: &str,
        results_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Batch>, Error> {
        self.begin_batch(output, results_max, bytes_max)
    }

    fn narrow_batch(&self, output: &str, results: usize) -> Result<Batch, Error> {
        self.narrow_batch(output, results)
    }

    fn confirm_batch(
        &self,
        output: &str,
        batch: &Range<Seq>,
        refused: Option<DeadLetter>,
    ) -> Result<(), Error> {
        self.confirm_batch(output, batch, refused)
    }

    fn pending(&self, output: &str) -> Result<u64, Error> {
        self.pending(output)
    }

    fn outbox_changed(&self, output: &str) -> watch::Receiver<Seq> {
        self.outbox_changed(output)
    }
}
