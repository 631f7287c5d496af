//! A number that only grows, kept beside a database to notice that it lost its tail.
//!
//! On a flipped bit the engine may drop all that was written after it and say nothing. So after
//! each sync a mark is written, without a sync of its own: it costs a microsecond, survives a
//! kill, and after a power cut may be older than what it marks, never newer.
//!
//! ```text
//! 0  8  number, little-endian
//! 8  4  CRC-32 of it
//! ```

use super::error::Error;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open mark.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens the file, and reads the number unless it was never written.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), Error> {
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(|source| Error::io("open", path, source))?;
        let mut bytes = [0; 12];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                let (number, crc) = bytes.split_at(8);
                if crc != crc32fast::hash(number).to_le_bytes() {
                    return Err(Error::damaged(path, "checksum does not match"));
                }
                u64::from_le_bytes(<[u8; 8]>::try_from(number).unwrap_or_default())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(source) => return Err(Error::io("read", path, source)),
        };
        Ok((Self { file, path: path.to_owned() }, number))
    }

    /// Writes the number: what it marks is durable.
    pub(super) fn set(&self, number: u64) -> Result<(), Error> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_le_bytes());
        crate::fail::io("disk.mark")
            .and_then(|()| self.file.write_all_at(&bytes, 0))
            .map_err(|source| Error::io("write", &self.path, source))
    }
}
