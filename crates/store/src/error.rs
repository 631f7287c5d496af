//! What can go wrong with the state folder, and the health that remembers it.

use super::codec::Garbled;
use super::repair::harmed;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What went wrong with the state folder. The binary exits with 78 on any of them at start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent has the folder open.
    #[error("failed to lock {}: another agent uses this state folder; stop it, or set another [agent] state", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder, or something in it, may not be written.
    #[error("failed to write {}: {source}; give the agent's user write access to the state folder", .path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer agent wrote the folder.
    #[error("failed to open {}: layout {found} is newer than this agent's {known}; run the agent that wrote it, or set another [agent] state", .path.display())]
    Newer {
        /// The layout file.
        path: PathBuf,
        /// The layout it names.
        found: u32,
        /// The newest layout this agent knows.
        known: u32,
    },
    /// An older agent wrote the folder, and it is only looked at.
    #[error("failed to look at {}: layout {found} is older than this agent's {known}; start the agent once to migrate it, or run the agent that wrote it", .path.display())]
    Older {
        /// The layout file.
        path: PathBuf,
        /// The layout it names.
        found: u32,
        /// The layout of this agent.
        known: u32,
    },
    /// A checksum, a sequence or the engine says that the bytes are not those that were written.
    #[error("failed to read {}: damaged: {detail}; the next start repairs it", .path.display())]
    Damaged {
        /// The folder or file of the damage.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No room left. With `wanted_bytes` nothing was written: the same call works once there is
    /// room again. With 0 the disk filled up under a write: later calls are [`Error::Failed`].
    #[error("failed to write {}: disk full ({free_bytes} bytes free, {wanted_bytes} kept free); make room", .path.display())]
    Full {
        /// What could not be written.
        path: PathBuf,
        /// Room left for the agent.
        free_bytes: u64,
        /// Room the store insists on before this call.
        wanted_bytes: u64,
    },
    /// The log's quota is reached. Nothing was written: the same call works once there is room.
    #[error("failed to write {}: it holds {bytes} bytes, its quota is {bytes_max}; it goes on when some of it is delivered", .path.display())]
    Quota {
        /// The log.
        path: PathBuf,
        /// The outbox, if it is one.
        outbox: Option<String>,
        /// Disk it takes.
        bytes: u64,
        /// Disk it may take.
        bytes_max: u64,
    },
    /// Any other fault of the file system.
    #[error("failed to {action} {}: {source}; see the system's log for the disk", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or sync failed: what is on disk is only known again after a reopen.
    #[error("failed to write the state folder: an earlier write failed ({cause}); restart the agent")]
    Failed {
        /// The first failure.
        cause: String,
    },
    /// A record over the largest that is kept.
    #[error("failed to keep {bytes} bytes in {}: more than {bytes_max}; lower the limit on messages or results", .path.display())]
    TooLarge {
        /// The log it was for.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// The largest there may be.
        bytes_max: usize,
    },
    /// A name that cannot be one of a row or folder.
    #[error(
        "failed to use the name {name:?}: empty or longer than {bytes_max} bytes; shorten it in the configuration"
    )]
    Name {
        /// The name.
        name: String,
        /// The longest there may be.
        bytes_max: usize,
    },
    /// Narrowing or confirming what was not begun.
    #[error("failed to find the batch of output {output:?}: {detail}; restart the agent")]
    NoBatch {
        /// The output.
        output: String,
        /// What was asked for and what is begun.
        detail: String,
    },
}

impl Error {
    /// Whether nothing was written for want of room, so that the same call works later.
    #[must_use]
    pub fn is_for_room(&self) -> bool {
        matches!(self, Self::Quota { .. } | Self::Full { wanted_bytes: 1.., .. })
    }

    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, free_bytes: 0, wanted_bytes: 0 }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }

    pub(super) fn garbled(path: &Path, what: &str, Garbled(why): Garbled) -> Self {
        Self::damaged(path, format!("{what}: {why}"))
    }
}

/// Whether the store can still be trusted; shared by all that reads and writes.
///
/// After a failed write or sync the kernel may have dropped the pages and report success the
/// next time, so nothing is retried: only a reopen reads back what is really there. That, and damage
/// that was read, is noted in the folder, so that the next opening verifies all of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Condition>);

#[derive(Debug, Default)]
struct Condition {
    /// The store's folder; `None` in tests of its parts.
    folder: Option<PathBuf>,
    /// The first failed write or sync.
    failed: OnceLock<String>,
    noted: OnceLock<()>,
}

impl Health {
    /// Of the store in that folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self(Arc::new(Condition { folder: Some(folder.to_owned()), ..Condition::default() }))
    }

    /// Fails once a write or sync failed.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.0.failed.get() {
            Some(cause) => Err(Error::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Passes the outcome of a write on; a failure is remembered for good.
    pub(super) fn judge<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome {
            let cause = self.0.failed.get_or_init(|| error.to_string());
            tracing::error!(%error, %cause, "store failed, nothing more is written");
            self.note(error);
        }
        outcome
    }

    /// Passes the outcome of a read on; damage is noted for the next opening.
    pub(super) fn heed<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ (Error::Damaged { .. } | Error::Io { .. })) = &outcome {
            self.note(error);
        }
        outcome
    }

    /// Notes damage for the next opening.
    pub(super) fn noted(&self, error: Error) -> Error {
        self.note(&error);
        error
    }

    fn note(&self, error: &Error) {
        if let Some(folder) = &self.0.folder
            && self.0.noted.set(()).is_ok()
        {
            harmed::note(folder, &error.to_string());
        }
    }
}
