//! The state folder: its lock and its layout's version.
//!
//! ```text
//! lock           held by the one agent that has it open
//! ballast        room held back: `room.rs`
//! layout         "headwater state 4" and a checksum: written first, so that a folder without it was never used
//! meta/          the rows
//! meta-marks     the second copy of the small ones
//! journal/       a log: what was acknowledged
//! journal-marks  how far it must reach
//! outbox/NAME/   a log for each output: results to send; and `epoch`, the second copy of its epoch
//! dead-letters/  a log
//! harmed         why the store is not to be trusted until all of it was verified; seldom there
//! quarantine/    damaged parts that were replaced, and what was found
//! layout-N/      what the migration from layout N rewrote, as it was; outboxes, until all in them has arrived
//! ```
//!
//! Other files are none of the store's.

use super::error::Error;
use super::{codec, sync};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The locked state folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        sync::create_folder(path)?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| Error::io("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: lock_path }),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &lock_path, source)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        headwater_fail::point("folder.locked");
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }

    pub(super) fn meta_marks(&self) -> PathBuf {
        self.path.join("meta-marks")
    }

    pub(super) fn journal_marks(&self) -> PathBuf {
        self.path.join("journal-marks")
    }

    /// Where `meta` is while it is made.
    pub(super) fn meta_made(&self) -> PathBuf {
        self.path.join("new-meta")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(super) fn dead_letters(&self) -> PathBuf {
        self.path.join("dead-letters")
    }

    /// The folder of all outboxes.
    pub(super) fn outboxes(&self) -> PathBuf {
        self.path.join("outbox")
    }

    /// An output's outbox.
    pub(super) fn outbox(&self, output: &str) -> PathBuf {
        let mut name = String::new();
        for byte in output.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
                _ => name.push_str(&format!("%{byte:02x}")),
            }
        }
        self.outboxes().join(name)
    }

    /// The first part that shows that the folder was used.
    pub(super) fn used(&self) -> Option<PathBuf> {
        let parts = [self.meta(), self.journal(), self.outboxes(), self.dead_letters()];
        parts.into_iter().find(|part| part.exists())
    }
}

/// The output whose outbox has that folder name.
pub(super) fn output_of(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|name| check_name(name).is_ok())
}

/// Names become parts of keys and of folders.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let bytes_max = codec::NAME_BYTES_MAX;
    if name.is_empty() || name.len() > bytes_max {
        return Err(Error::Name { name: name.to_owned(), bytes_max });
    }
    Ok(())
}
