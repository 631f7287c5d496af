//! What a pipeline's windows become: by a module, or by built-ins.

use crate::builtin::BuiltinAggregate;
use crate::module::{self, Closed, TripCount};
use crate::window;

/// One of the two.
#[expect(clippy::large_enum_variant, reason = "there is one a pipeline, and it is boxed")]
#[derive(Debug)]
pub(super) enum Aggregate {
    Module(module::AggregateModule),
    Builtin(BuiltinAggregate),
}

impl Aggregate {
    /// Whose results they are: `sha256:<hex>` of the module, `builtin:<hex>` of the built-ins' configuration.
    pub(super) fn digest(&self) -> &str {
        match self {
            Self::Module(module) => module.digest(),
            Self::Builtin(builtin) => builtin.digest(),
        }
    }

    /// The trips since the last call of this; built-ins have none.
    pub(super) fn take_trips(&mut self) -> TripCount {
        match self {
            Self::Module(module) => module.take_trips(),
            Self::Builtin(_) => TripCount::default(),
        }
    }

    /// Of a module's states; built-ins' say it themselves.
    pub(super) fn state_version(&self) -> u32 {
        match self {
            Self::Module(module) => module.state_version(),
            Self::Builtin(_) => 0,
        }
    }

    /// A state of another version as this one would have made it.
    pub(super) fn migrate(&mut self, from: u32, state: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Module(module) => module.migrate(from, state),
            Self::Builtin(_) => Ok(state.to_vec()),
        }
    }

    /// What does the work.
    pub(super) fn inner(&mut self) -> &mut dyn window::Aggregate {
        match self {
            Self::Module(module) => module,
            Self::Builtin(builtin) => builtin,
        }
    }
}

impl super::thin::WindowMerge for Aggregate {
    fn digest(&self) -> &str {
        Self::digest(self)
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        self.inner().merge(a, b)
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        self.inner().finish(windows)
    }
}
