//! A pipeline's window state in the store, as its windows read it.

use super::remembered;
use crate::store::{self, Store};
use crate::window;

/// The rows of one pipeline.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) store: Store,
    pub(super) pipeline: String,
}

impl Rows {
    /// Shows all of them but those of the transforms.
    pub(super) fn show(
        &self,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), window::WindowError>,
    ) -> Result<(), window::WindowError> {
        let mut shown = Ok(());
        let read = self.store.windows(&self.pipeline, &mut |row, value| {
            if shown.is_ok() && remembered::step_of(&row).is_none() {
                shown = each(row, value);
            }
            Ok(())
        });
        read.map_err(unreadable)?;
        shown
    }
}

impl window::WindowStore for Rows {
    fn rows(&self, key: &str, each: window::RowVisitor<'_>) -> Result<(), window::WindowError> {
        let mut shown = Ok(());
        let read = self.store.shelf(&self.pipeline, key.as_bytes(), &mut |tail, value| {
            if shown.is_ok() {
                shown = each(tail, value);
            }
            Ok(())
        });
        read.map_err(unreadable)?;
        shown
    }
}

fn unreadable(error: store::Error) -> window::WindowError {
    window::WindowError::Store(Box::new(error))
}
