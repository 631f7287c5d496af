//! The barrier between the page cache and the disk: every promise of the store rests on it.
//!
//! sled's own flush is none: it uses `sync_file_range`, which neither writes the file's size nor
//! empties the disk's cache. So each database file is also held open here, from before its first
//! write (the kernel reports a failed write-back once to each open file), and synced after each
//! flush.

use super::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file that is synced again and again.
#[derive(Debug)]
pub(super) struct Barrier {
    file: File,
    path: PathBuf,
}

impl Barrier {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Returns once what was written to the file survives a power cut.
    #[cfg(not(feature = "no-fdatasync"))]
    pub(super) fn sync(&self) -> Result<(), Error> {
        headwater_fail::io("disk.sync")
            .and_then(|()| self.file.sync_data())
            .map_err(|source| Error::io("sync", &self.path, source))
    }

    /// Nothing: the power-cut test is built so once, to see that it notices the missing barrier.
    #[cfg(feature = "no-fdatasync")]
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.metadata().map(drop).map_err(|source| Error::io("sync", &self.path, source))
    }
}

/// Syncs a file or a folder once, size and names included.
pub(super) fn sync_path(path: &Path) -> Result<(), Error> {
    headwater_fail::io("disk.sync-path")
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(|source| Error::io("sync", path, source))
}

/// Syncs a folder with all below it.
pub(super) fn sync_tree(folder: &Path) -> Result<(), Error> {
    let list = |source| Error::io("list", folder, source);
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let entry = entry.map_err(list)?;
        if entry.file_type().map_err(list)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync_path(&entry.path())?;
        }
    }
    sync_path(folder)
}

/// Has the system forget what it holds in memory of all files below, as far as it was written: what is
/// read after that is what the disk has. After a failed sync the two may differ.
pub(super) fn forget_cached(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            forget_cached(&entry.path());
        } else if let Ok(file) = File::open(entry.path())
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            tracing::debug!(%error, path = %entry.path().display(), "cached pages not dropped");
        }
    }
}

/// Makes a folder, with its name in its parent synced, unless it is there.
pub(super) fn create_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))?;
    path.parent().map_or(Ok(()), sync_path)
}

/// Disk that a folder's files take; none where it is gone.
pub(super) fn disk_bytes(folder: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let measure = |source| Error::io("measure", folder, source);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(0),
        entries => entries.map_err(measure)?,
    };
    let mut bytes = 0;
    for entry in entries {
        match entry.map_err(measure)?.metadata() {
            Err(error) if gone(&error) => {}
            metadata => bytes += metadata.map_err(measure)?.blocks() * 512,
        }
    }
    Ok(bytes)
}
