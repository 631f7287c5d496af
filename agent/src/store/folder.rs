//! The state folder: its lock and its layout's version.
//!
//! ```text
//! lock           held by the one agent that has it open
//! ballast        room held back: `store/room.rs`
//! layout         "headwater state 1": written first, so that a folder without it was never used
//! meta/          the rows
//! meta-mark      how many batches it must hold
//! journal/       a log: what was acknowledged
//! journal-mark   how far it must reach
//! outbox/NAME/   a log for each output: results to send
//! dead-letters/  a log
//! ```
//!
//! Other files are none of the store's.

use super::error::Error;
use super::{codec, sync};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

const LAYOUT: u32 = 1;
const LAYOUT_WORDS: &str = "headwater state ";

/// The locked state folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be, locks it and checks its layout.
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
        crate::fail::point("folder.locked");
        folder.check_layout()?;
        Ok(folder)
    }

    pub(super) fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }

    pub(super) fn meta_mark(&self) -> PathBuf {
        self.path.join("meta-mark")
    }

    pub(super) fn journal_mark(&self) -> PathBuf {
        self.path.join("journal-mark")
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

    fn check_layout(&self) -> Result<(), Error> {
        let path = self.path.join("layout");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.write_layout(&path);
            }
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let version = text.trim_end().strip_prefix(LAYOUT_WORDS).map(str::parse);
        match version {
            Some(Ok(LAYOUT)) => Ok(()),
            Some(Ok(found)) if found > LAYOUT => Err(Error::Newer { path, found, known: LAYOUT }),
            _ => Err(Error::damaged(&path, format!("it does not say \"{LAYOUT_WORDS}{LAYOUT}\""))),
        }
    }

    fn write_layout(&self, path: &Path) -> Result<(), Error> {
        let used = [self.meta(), self.journal(), self.outboxes(), self.dead_letters()];
        if let Some(used) = used.iter().find(|folder| folder.exists()) {
            let detail = format!("it is missing, yet {} is there", used.display());
            return Err(Error::damaged(path, detail));
        }
        let made = self.path.join("new-layout");
        let write = || {
            let mut file = File::create(&made)?;
            writeln!(file, "{LAYOUT_WORDS}{LAYOUT}")?;
            file.sync_all()?;
            crate::fail::point("layout.made");
            fs::rename(&made, path)
        };
        write().map_err(|source| Error::io("write", &made, source))?;
        crate::fail::point("layout.renamed");
        sync::sync_path(&self.path)
    }
}

/// Names become parts of keys and of folders.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let bytes_max = codec::NAME_BYTES_MAX;
    if name.is_empty() || name.len() > bytes_max {
        return Err(Error::Name { name: name.to_owned(), bytes_max });
    }
    Ok(())
}
