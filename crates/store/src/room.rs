//! Room on the disk of the state folder: what is free, and what is held back for the day it is full.
//!
//! On a full disk the engine can neither be reopened nor drained. So a file of
//! [`Config::ballast_bytes`](super::Config), allocated and never read, lies in the folder: once
//! others have filled the disk it is removed, and what is stored can be sent on, which gives the
//! disk back. It is made again when there is room for it beside what appends need.
//!
//! **Invariant.** The ballast is not for what is new: while it is gone, appends want its size free
//! on top of their own.

use super::error::Error;
use super::metrics::Disk;
use super::{COMMIT_FREE_BYTES_MIN, JOURNAL_FREE_BYTES_MIN, OPEN_FREE_BYTES_MIN, lock, sync};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The disk under the state folder.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    ballast_bytes: u64,
    /// Whether the ballast is there; held while that changes.
    held: Mutex<bool>,
    metrics: Disk,
}

impl Room {
    /// Finds out what is there, and gives the ballast up if nothing can be opened without.
    ///
    /// # Errors
    /// [`Error::Full`] when there is too little to open anything even so: nothing was touched.
    pub(super) fn open(folder: &Path, ballast_bytes: u64, metrics: Disk) -> Result<Self, Error> {
        let held = Mutex::new(false);
        let room = Self { folder: folder.to_owned(), ballast_bytes, held, metrics };
        remove(&room.made())?;
        let held = fs::metadata(room.ballast()).is_ok_and(|file| file.blocks() * 512 >= ballast_bytes);
        if held {
            *lock(&room.held) = true;
        } else {
            remove(&room.ballast())?;
        }
        if room.free()? < COMMIT_FREE_BYTES_MIN {
            room.release()?;
        }
        room.judge(OPEN_FREE_BYTES_MIN, room.free()?)?;
        Ok(room)
    }

    /// Before messages are appended that may take so many bytes.
    pub(super) fn check_append(&self, bytes: u64) -> Result<(), Error> {
        let released = if *lock(&self.held) { 0 } else { self.ballast_bytes };
        self.judge(JOURNAL_FREE_BYTES_MIN + released + bytes, self.free()?)
    }

    /// Before a commit that may take so many bytes: it may have the ballast's.
    pub(super) fn check_commit(&self, bytes: u64) -> Result<(), Error> {
        let wanted = COMMIT_FREE_BYTES_MIN + bytes;
        if self.free()? < wanted {
            self.release()?;
        }
        self.judge(wanted, self.free()?)
    }

    /// Before what gives disk back in the end, and takes a little: it may have the ballast's.
    pub(super) fn make(&self) -> Result<(), Error> {
        if self.free()? < OPEN_FREE_BYTES_MIN { self.release() } else { Ok(()) }
    }

    /// Makes the ballast again where there is room; from time to time.
    pub(super) fn tend(&self) -> Result<(), Error> {
        let mut held = lock(&self.held);
        let free = self.free()?;
        if !*held && free >= self.ballast_bytes.saturating_add(JOURNAL_FREE_BYTES_MIN) {
            *held = match self.fill() {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(path = %self.made().display(), %error, "ballast not made");
                    remove(&self.made())?;
                    false
                }
            };
        }
        self.metrics.ballast_bytes.set(if *held { gauge(self.ballast_bytes) } else { 0 });
        let is_full = self.free()? < JOURNAL_FREE_BYTES_MIN;
        self.metrics.full.set((is_full || !*held).into());
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        let mut held = lock(&self.held);
        if *held {
            remove(&self.ballast())?;
            // Until then the file system may keep the blocks back.
            sync::sync_path(&self.folder)?;
            *held = false;
            self.metrics.ballast_bytes.set(0);
            tracing::error!(path = %self.folder.display(), bytes = self.ballast_bytes,
                "disk full: ballast released, so that what is stored can be sent on");
        }
        Ok(())
    }

    /// A file with every block allocated; under its name only when it is whole.
    fn fill(&self) -> io::Result<()> {
        let file = File::create(self.made())?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let mut file = &file;
                io::copy(&mut io::Read::take(io::repeat(0), self.ballast_bytes), &mut file)?;
            }
            allocated => allocated?,
        }
        file.sync_all()?;
        headwater_fail::point("ballast.made");
        fs::rename(self.made(), self.ballast())
    }

    fn judge(&self, wanted_bytes: u64, free_bytes: u64) -> Result<(), Error> {
        self.metrics.free_bytes.set(gauge(free_bytes));
        if free_bytes < wanted_bytes {
            self.metrics.full.set(1);
            self.metrics.refused_writes.inc();
            return Err(Error::Full { path: self.folder.clone(), free_bytes, wanted_bytes });
        }
        Ok(())
    }

    fn free(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|source| Error::io("measure", &self.folder, source.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Where the ballast is while it is made.
    fn made(&self) -> PathBuf {
        self.folder.join("new-ballast")
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, source)),
        _ => Ok(()),
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
