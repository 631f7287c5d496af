//! A module at work, whichever of the two worlds it is for.

use super::TripCount;
use super::instance::ModuleCalls;
use super::world::ModuleWorld;
use std::fmt;

/// A module that is loaded and ready to be called, by one thread.
///
/// A transform is a [`TransformModule`](super::TransformModule), an aggregate an
/// [`AggregateModule`](super::AggregateModule).
pub struct LoadedModule<W: ModuleWorld> {
    pub(super) calls: ModuleCalls<W>,
    pub(super) own: W::Own,
}

impl<W: ModuleWorld> LoadedModule<W> {
    pub(super) fn new(calls: ModuleCalls<W>) -> Self {
        Self { calls, own: W::Own::default() }
    }

    /// Returns `sha256:<hex>` of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.calls.digest()
    }

    /// Returns the trips since this was last called.
    pub fn take_trips(&mut self) -> TripCount {
        self.calls.take_trips()
    }
}

/// Calls for those who look at a module rather than use it.
#[cfg(feature = "author")]
impl<W: ModuleWorld> LoadedModule<W> {
    /// Starts a fresh instance, from now on with these settings.
    ///
    /// # Errors
    /// The module's words where it refuses the settings, or the cause where it trapped.
    pub fn renew(&mut self, settings: &str) -> Result<(), String> {
        self.calls.renew(settings)
    }

    /// Returns the linear memory that the instance has by now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.calls.memory_bytes()
    }

    /// Returns the number of instances that ended in a trap or at a limit.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.calls.traps()
    }
}

impl<W: ModuleWorld> fmt::Debug for LoadedModule<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(W::NAME).field("digest", &self.digest()).finish_non_exhaustive()
    }
}
