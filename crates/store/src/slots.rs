//! A small value kept beside a database, in two slots that are written in turn: a torn write spoils
//! one of them, and the other holds the value before.
//!
//! ```text
//! slot          at 0, and at the spacing; the higher generation counts
//! 0     8       generation
//! 8     4       length of the value
//! 12    n       the value
//! 12+n  4       CRC-32 of all before
//! ```
//!
//! All numbers are little-endian. A write is not synced: it costs a microsecond, survives a kill,
//! and after a power cut may be older than what was written last, never newer.

use super::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const HEAD: usize = 12;
const TAIL: usize = 4;

/// An open file of two slots.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    path: PathBuf,
    spacing: u64,
    generation: AtomicU64,
}

/// What a file of two slots holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It was never written.
    Nothing,
    /// The value written last, as far as that is known.
    Value(Vec<u8>),
    /// Something, and neither slot is whole.
    Spoilt,
}

impl Slots {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path, spacing: u64) -> Result<(Self, Kept), Error> {
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(|source| Error::io("open", path, source))?;
        let (generation, kept) = look(&file, spacing).map_err(|source| Error::io("read", path, source))?;
        let generation = AtomicU64::new(generation);
        Ok((Self { file, path: path.to_owned(), spacing, generation }, kept))
    }

    /// What is in the file, which stays as it is.
    pub(super) fn read(path: &Path, spacing: u64) -> Result<Kept, Error> {
        match File::open(path).and_then(|file| look(&file, spacing)) {
            Ok((_, kept)) => Ok(kept),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::Nothing),
            Err(source) => Err(Error::io("read", path, source)),
        }
    }

    /// Writes a value over the older one. `false`, and nothing done, when it is too long for a slot.
    pub(super) fn write(&self, value: &[u8]) -> Result<bool, Error> {
        let Some(length) = u32::try_from(value.len()).ok().filter(|_| self.fits(value)) else {
            return Ok(false);
        };
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let mut slot = Vec::with_capacity(HEAD + value.len() + TAIL);
        slot.extend_from_slice(&generation.to_le_bytes());
        slot.extend_from_slice(&length.to_le_bytes());
        slot.extend_from_slice(value);
        let crc = crc32fast::hash(&slot);
        slot.extend_from_slice(&crc.to_le_bytes());
        headwater_fail::io("disk.mark")
            .and_then(|()| self.file.write_all_at(&slot, generation % 2 * self.spacing))
            .map_err(|source| Error::io("write", &self.path, source))?;
        Ok(true)
    }

    /// Returns once what was written survives a power cut.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|source| Error::io("sync", &self.path, source))
    }

    fn fits(&self, value: &[u8]) -> bool {
        (HEAD + value.len() + TAIL) as u64 <= self.spacing
    }
}

/// The higher generation, and its value.
fn look(file: &File, spacing: u64) -> std::io::Result<(u64, Kept)> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok((0, Kept::Nothing));
    }
    let mut found: Option<(u64, Vec<u8>)> = None;
    for at in [0, spacing] {
        let mut slot = vec![0; usize::try_from(size.saturating_sub(at).min(spacing)).unwrap_or(0)];
        file.read_exact_at(&mut slot, at)?;
        if let Some(slot) = parse(&slot)
            && found.as_ref().is_none_or(|(generation, _)| *generation < slot.0)
        {
            found = Some(slot);
        }
    }
    Ok(match found {
        Some((generation, value)) => (generation, Kept::Value(value)),
        None => (0, Kept::Spoilt),
    })
}

fn parse(slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (generation, rest) = slot.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let value = rest.get(..length)?;
    let crc = rest[length..].first_chunk::<4>()?;
    let whole = crc32fast::hash(&slot[..HEAD + length]) == u32::from_le_bytes(*crc);
    whole.then(|| (u64::from_le_bytes(*generation), value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_value_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots");
        let (slots, kept) = Slots::open(&path, 64).unwrap();
        assert_eq!(kept, Kept::Nothing);
        for value in [b"one", b"two"] {
            assert!(slots.write(value).unwrap());
        }
        assert!(!slots.write(&[0; 60]).unwrap(), "too long for a slot");
        drop(slots);
        assert_eq!(Slots::read(&path, 64).unwrap(), Kept::Value(b"two".to_vec()));
        // The second generation is in the first slot.
        let whole = std::fs::read(&path).unwrap();
        for at in 0..HEAD + 3 + TAIL {
            let mut torn = whole.clone();
            torn[at] ^= 4;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(Slots::read(&path, 64).unwrap(), Kept::Value(b"one".to_vec()), "byte {at}");
        }
        std::fs::write(&path, [1; 100]).unwrap();
        assert_eq!(Slots::read(&path, 64).unwrap(), Kept::Spoilt);
        let (slots, _) = Slots::open(&path, 64).unwrap();
        assert!(slots.write(b"three").unwrap());
        assert_eq!(Slots::read(&path, 64).unwrap(), Kept::Value(b"three".to_vec()));
    }
}
