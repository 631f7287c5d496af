//! The seam to WASM modules: what a pipeline hands over, gets back, and can rely on.
//!
//! A module is a WebAssembly component of one of the two worlds in `wit/headwater.wit`. It has no
//! files, no network, no environment, no clock and no randomness: the log is its only import, and
//! any other is refused at load, unless its configuration grants a [`Capability`] by name.
//!
//! **Invariants.**
//! - A call never fails as a whole: what a module does wrong (trap, deadline, a limit, an answer
//!   that breaks the contract) costs the inputs that cause it. An input is rejected only after a
//!   fresh instance failed on it alone, or the module named it.
//! - After any fault the instance is thrown away with all it holds; nothing that matters is in it.
//! - What a module returns is bounded before it is copied, and a finished result is one line of JSON.
//!
//! **Limits**: [`Limits`] for each module; [`FILE_BYTES_MAX`] for its file; [`Config`] for
//! compiling it, which happens in a process of its own (`aside.rs`), at
//! start or beside the pipelines (`reload.rs`), not while readings wait.
//!
//! **A crash** in here loses nothing: state is the pipeline's, and the cache of compiled modules is
//! written whole or not at all.
//!
//! Log lines of a module carry the caller's tracing span (the pipeline) and the module's name.

mod aggregate;
pub mod aside;
mod cache;
mod clock;
mod code;
mod contract;
mod fetch;
mod guest;
#[cfg(feature = "author")]
mod inspect;
mod instance;
mod load;
pub mod metrics;
mod precompiled;
pub mod state;
mod transform;
mod trust;
mod wasi;

#[cfg(test)]
mod tests;

pub use aggregate::Aggregate;
pub use fetch::{Config as FetchConfig, Credentials, Network, Remote};
pub use headwater_flow::aggregation::{Closed, Group, Rejection, Updated};
#[cfg(feature = "author")]
pub use inspect::Inspection;
#[cfg(feature = "author")]
pub use load::check_preamble;
pub use load::{FILE_BYTES_MAX, Host, digest};
pub use metrics::{CallMetrics, HostMetrics};
#[cfg(feature = "author")]
pub use precompiled::make as precompile;
pub use transform::Transform;
pub use trust::signature_file;
pub use trust::{Digest, Origin, PublicKey};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a module may use beside the log, where its configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// WASI 0.2 with nothing behind it: no files, network, environment or arguments.
    Wasi,
    /// Values that a transform remembers by name ([`state`]), committed together with its results.
    State,
}

/// Bounds of one module's calls. Past one of them the call fails and the instance is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Longest call, to 20 ms. Default 1 s.
    pub deadline: Duration,
    /// Linear memory, all of an instance's together. Default 64 MiB.
    pub memory_bytes_max: usize,
    /// Bytes one call may return, as the agent keeps them (an event has some 80 bytes beside its
    /// texts). Default 8 MiB.
    pub output_bytes_max: usize,
    /// Log lines per second; more are counted and dropped. Default 10.
    pub log_lines_per_second_max: u32,
    /// Names that a stateful transform may keep. Default 100,000.
    pub state_names_max: u64,
    /// Imports that it may have. Default none.
    pub granted: BTreeSet<Capability>,
}

impl Default for Limits {
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

/// `[modules]`: which may run, and what compiling one may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who may sign modules: with any, every module needs a signature by one of them. Default none.
    pub keys: Vec<PublicKey>,
    /// Longest compilation; past it the module is refused. Default 2 min.
    pub compile_deadline: Duration,
    /// Memory that compiling a module may take, in a process of its own; past it the module is
    /// refused. Default 512 MiB.
    pub compile_memory_max: usize,
    /// What fetching modules may take, and whom it asks.
    pub fetch: FetchConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            compile_deadline: Duration::from_mins(2),
            compile_memory_max: 512 << 20,
            fetch: FetchConfig::default(),
        }
    }
}

/// Inputs on which a module ended in a trap, at its deadline or at a limit, each found to do so alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trips {
    /// How many.
    pub count: u64,
    /// What the latest one ended in.
    pub reason: String,
}

/// Why a module cannot be used. While it runs, none of these can come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine or its settings cannot run WebAssembly.
    #[error("failed to start the WebAssembly engine: {reason}")]
    Engine {
        /// The engine's words.
        reason: String,
    },
    /// The folder of compiled modules.
    #[error("failed to prepare the cache of compiled modules in {}", folder.display())]
    Cache {
        /// Where it is, or should be.
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
    /// It is not here, and cannot be had.
    #[error("failed to fetch the module {}: {reason}", file.display())]
    Fetch {
        /// Where it should come from.
        file: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Compiled code that is not loaded.
    #[error("failed to load the compiled module {}: {reason}", file.display())]
    Precompiled {
        /// The file.
        file: PathBuf,
        /// Why, and the remedy.
        reason: String,
    },
    /// A machine that cannot be compiled for.
    #[error(
        "failed to compile for {target}: {reason}: there are compilers for aarch64-, x86_64- and riscv64gc-unknown-linux-musl and their -gnu, and for no 32-bit processor"
    )]
    Target {
        /// Which.
        target: String,
        /// The compiler's words.
        reason: String,
    },
    /// Another file than the one pinned.
    #[error("failed to load the module {}: expected {expected}, found {found}: put the right file there, or correct `digest`", file.display())]
    WrongDigest {
        /// The module.
        file: PathBuf,
        /// What `digest` says.
        expected: Digest,
        /// The file's.
        found: Digest,
    },
    /// Nobody vouches for it who is trusted.
    #[error("failed to load the module {}: {reason}: sign it with one of `keys` in [modules] (`headwater module sign`)", file.display())]
    Unsigned {
        /// The module.
        file: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// It takes too much to compile, or the compiler failed on it.
    #[error("failed to compile the module {}: {reason}", file.display())]
    Compile {
        /// The module.
        file: PathBuf,
        /// What happened, and the remedy.
        reason: String,
    },
    /// Something else than a component, or a damaged one.
    #[error("failed to load the module {}: expected a WebAssembly component, found {found}", file.display())]
    NotAComponent {
        /// The module.
        file: PathBuf,
        /// What the file is instead.
        found: String,
    },
    /// It wants what no module gets.
    #[error("failed to load the module {}: it imports `{import}`, which it is not granted: {remedy}", file.display())]
    ForbiddenImport {
        /// The module.
        file: PathBuf,
        /// The import, as the module names it.
        import: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Built against another version of the contract.
    #[error("failed to load the module {}: expected headwater:module@{expected}, found {found}: build it against the agent's wit/headwater.wit", file.display())]
    WrongVersion {
        /// The module.
        file: PathBuf,
        /// The agent's version.
        expected: &'static str,
        /// What the module imports.
        found: String,
    },
    /// A transform where an aggregate is wanted, or neither of them.
    #[error("failed to load the module {}: expected the world `{expected}`, found {found}", file.display())]
    WrongWorld {
        /// The module.
        file: PathBuf,
        /// The world wanted.
        expected: &'static str,
        /// What the module exports.
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
    /// It trapped, or went over a limit, before its first reading.
    #[error("failed to start the module {}: {reason}", file.display())]
    Start {
        /// The module.
        file: PathBuf,
        /// The host's words.
        reason: String,
    },
}
