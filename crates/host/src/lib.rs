//! The seam to WebAssembly modules: the calls of a pipeline, their answers, and the guarantees around them.
//!
//! A module is a WebAssembly component of one of the two worlds in `wit/headwater.wit`. It has no
//! files, no network, no environment, no clock and no randomness: the log is its only import, and
//! any other is refused at load, unless its configuration grants a [`ModuleCapability`] by name.
//!
//! **Invariants.**
//! - A call never fails as a whole: a fault of a module (trap, deadline, a limit, an answer that breaks
//!   the contract) costs the inputs that cause it. An input is rejected only after a
//!   fresh instance failed on it alone, or the module named it.
//! - After any fault the instance is thrown away with all it holds; nothing that matters is in it.
//! - An answer of a module is bounded before it is copied, and a finished result is one line of JSON.
//!
//! **Limits**: [`ModuleLimits`] for each module; [`FILE_BYTES_MAX`] for its file; [`HostConfig`] for
//! compiling it, which happens in a process of its own (`compile_process.rs`), at
//! start or beside the pipelines (`reload.rs`), not while readings wait.
//!
//! **A crash** in here loses nothing: state is the pipeline's, and the cache of compiled modules is
//! written whole or not at all.
//!
//! Log lines of a module carry the caller's tracing span (the pipeline) and the module's name.

mod aggregate;
mod batches;
mod cache;
mod clock;
mod code;
pub mod compile_process;
mod contract;
mod fetch;
mod guest;
#[cfg(feature = "author")]
mod inspect;
mod instance;
mod load;
pub mod metrics;
mod module;
mod precompiled;
pub mod state;
mod transform;
mod trust;
mod wasi;
mod world;

#[cfg(test)]
mod tests;

pub use aggregate::AggregateModule;
pub use fetch::{FetchConfig, NetworkAccess, RemoteAddress, ServerCredentials};
pub use headwater_flow::aggregation::{Closed, Group, Rejection, Updated};
#[cfg(feature = "author")]
pub use inspect::ModuleInspection;
#[cfg(feature = "author")]
pub use load::check_preamble;
pub use load::{FILE_BYTES_MAX, ModuleHost, digest};
pub use metrics::{CallMetrics, HostMetrics};
pub use module::LoadedModule;
#[cfg(feature = "author")]
pub use precompiled::make as precompile;
pub use transform::TransformModule;
pub use trust::signature_file;
pub use trust::{ModuleDigest, ModuleOrigin, PublicKey};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An import that a module may have beside the log, where its configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleCapability {
    /// WASI 0.2 with nothing behind it: no files, network, environment or arguments.
    Wasi,
    /// Values that a transform remembers by name ([`state`]), committed together with its results.
    State,
}

/// Bounds of one module's calls. Past one of them the call fails and the instance is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleLimits {
    /// The longest that a call may take, to 20 ms. Default 1 s.
    pub deadline: Duration,
    /// The linear memory of an instance, all of it together. Default 64 MiB.
    pub memory_bytes_max: usize,
    /// The bytes that one call may return, as the agent keeps them (an event has some 80 bytes beside its
    /// texts). Default 8 MiB.
    pub output_bytes_max: usize,
    /// The log lines per second; more are counted and dropped. Default 10.
    pub log_lines_per_second_max: u32,
    /// The names that a stateful transform may keep. Default 100,000.
    pub state_names_max: u64,
    /// The imports that it may have. Default none.
    pub granted: BTreeSet<ModuleCapability>,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            memory_bytes_max: 64 << 20,
            output_bytes_max: 8 << 20,
            log_lines_per_second_max: 10,
            state_names_max: 100_000,
            granted: BTreeSet::new(),
        }
    }
}

/// The section `[modules]`: the modules that may run, and the bounds of compiling one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The keys that may sign modules: with any, every module needs a signature by one of them. Default none.
    pub keys: Vec<PublicKey>,
    /// The longest that a compilation may take; past it the module is refused. Default 2 min.
    pub compile_deadline: Duration,
    /// The memory that compiling a module may take, in a process of its own; past it the module is
    /// refused. Default 512 MiB.
    pub compile_memory_max: usize,
    /// The bounds of fetching modules, and the servers asked.
    pub fetch: FetchConfig,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            compile_deadline: Duration::from_mins(2),
            compile_memory_max: 512 << 20,
            fetch: FetchConfig::default(),
        }
    }
}

/// A count of trips: inputs on which a module ended in a trap, at its deadline or at a limit, each found to do so alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TripCount {
    /// The number of trips.
    pub count: u64,
    /// The cause of the latest one.
    pub reason: String,
}

/// The reason why a module cannot be used. While it runs, none of these can come.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The machine or its settings cannot run WebAssembly.
    #[error("failed to start the WebAssembly engine: {reason}")]
    Engine {
        /// The engine's words.
        reason: String,
    },
    /// The folder of compiled modules cannot be used.
    #[error("failed to prepare the cache of compiled modules in {}", folder.display())]
    Cache {
        /// The folder, which may not be there.
        folder: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file is not there, or not ours to read.
    #[error("failed to read the module {}", file.display())]
    Read {
        /// The module.
        file: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file is over [`FILE_BYTES_MAX`].
    #[error("failed to load the module {}: more than {bytes_max} bytes: strip it of debug information", file.display())]
    TooLarge {
        /// The module.
        file: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The module is not here, and cannot be fetched.
    #[error("failed to fetch the module {}: {reason}", file.display())]
    Fetch {
        /// The place that it should come from.
        file: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The file is compiled code that is not loaded.
    #[error("failed to load the compiled module {}: {reason}", file.display())]
    Precompiled {
        /// The file.
        file: PathBuf,
        /// The cause, and the remedy.
        reason: String,
    },
    /// The target is a machine that cannot be compiled for.
    #[error(
        "failed to compile for {target}: {reason}: there are compilers for aarch64-, x86_64- and riscv64gc-unknown-linux-musl and their -gnu, and for no 32-bit processor"
    )]
    Target {
        /// The machine.
        target: String,
        /// The compiler's words.
        reason: String,
    },
    /// The file is another one than the one pinned.
    #[error("failed to load the module {}: expected {expected}, found {found}: put the right file there, or correct `digest`", file.display())]
    WrongDigest {
        /// The module.
        file: PathBuf,
        /// The digest that `digest` names.
        expected: ModuleDigest,
        /// The file's.
        found: ModuleDigest,
    },
    /// Nobody who is trusted vouches for the file.
    #[error("failed to load the module {}: {reason}: sign it with one of `keys` in [modules] (`headwater module sign`)", file.display())]
    Unsigned {
        /// The module.
        file: PathBuf,
        /// The signature that is missing or wrong.
        reason: String,
    },
    /// The module takes too much to compile, or the compiler failed on it.
    #[error("failed to compile the module {}: {reason}", file.display())]
    Compile {
        /// The module.
        file: PathBuf,
        /// The cause, and the remedy.
        reason: String,
    },
    /// The file is something else than a component, or a damaged one.
    #[error("failed to load the module {}: expected a WebAssembly component, found {found}", file.display())]
    NotAComponent {
        /// The module.
        file: PathBuf,
        /// The kind of file that it is instead.
        found: String,
    },
    /// The module imports something that it is not granted.
    #[error("failed to load the module {}: it imports `{import}`, which it is not granted: {remedy}", file.display())]
    ForbiddenImport {
        /// The module.
        file: PathBuf,
        /// The import, as the module names it.
        import: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The module was built against another version of the contract.
    #[error("failed to load the module {}: expected headwater:module@{expected}, found {found}: build it against the agent's wit/headwater.wit", file.display())]
    WrongVersion {
        /// The module.
        file: PathBuf,
        /// The agent's version.
        expected: &'static str,
        /// The version that the module imports.
        found: String,
    },
    /// The module is a transform where an aggregate is wanted, or neither of them.
    #[error("failed to load the module {}: expected the world `{expected}`, found {found}", file.display())]
    WrongWorld {
        /// The module.
        file: PathBuf,
        /// The world wanted.
        expected: &'static str,
        /// The module's exports.
        found: String,
    },
    /// The module does not accept its `config`.
    #[error("failed to start the module {}: its config is refused: {reason}", file.display())]
    Settings {
        /// The module.
        file: PathBuf,
        /// The module's words.
        reason: String,
    },
    /// The module trapped, or went over a limit, before its first event.
    #[error("failed to start the module {}: {reason}", file.display())]
    Start {
        /// The module.
        file: PathBuf,
        /// The host's words.
        reason: String,
    },
}
