//! The second copy of all small rows of `meta`: everything but the windows' state.
//!
//! It is written after each synced batch, without a sync of its own, and synced when the store is
//! opened and closed. So it shows a `meta` that went back to an earlier state, and from it
//! positions, committed ends, begun batches and sessions are had when `meta` is lost.
//!
//! ```text
//! version, 1 (1)  flags (1)  boot (16)  batches (varint)  rows…
//! flags   1: closed, nothing was written since   2: the number of batches alone, no rows
//! boot    the system's boot when it was written
//! row     length of the key (varint), the key, length of the value (varint), the value
//! ```
//!
//! After a kill it is that of the last batch. After a power cut it may be older: it is
//! [`Marks::is_exact`] when it was written in this very boot, or at the close.

use super::codec::{Garbled, Rest, put_varint};
use super::error::Error;
use super::slots::{Kept, Slots};
use std::collections::BTreeMap;
use std::path::Path;

const VERSION: u8 = 1;
const CLOSED: u8 = 1;
const NO_ROWS: u8 = 2;
/// Room for some thousand rows; more are not copied.
const SPACING: u64 = 1 << 20;

/// The small rows, by the bytes of their keys.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the copy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    closed: bool,
    boot: [u8; 16],
    /// Batches applied and synced.
    pub(super) batches: u64,
    /// The rows after them; `None` where only their number is known.
    pub(super) rows: Option<Rows>,
}

/// What the file of the copy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// It was never written.
    Nothing,
    Marks(Marks),
    /// Neither of its slots can be read.
    Spoilt,
}

/// The open file of the copy.
#[derive(Debug)]
pub(super) struct File(Slots);

impl File {
    pub(super) fn open(path: &Path) -> Result<(Self, Copied), Error> {
        let (slots, kept) = Slots::open(path, SPACING)?;
        Ok((Self(slots), Copied::of(&kept)))
    }

    /// Writes what a synced batch left. Too many rows are left out.
    pub(super) fn write(&self, marks: &[u8], batches: u64) -> Result<(), Error> {
        if !self.0.write(marks)? {
            let alone = Marks { closed: false, boot: boot(), batches, rows: None };
            self.0.write(&alone.encode())?;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.0.sync()
    }
}

impl Copied {
    /// What the file says, which stays as it is.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        Slots::read(path, SPACING).map(|kept| Self::of(&kept))
    }

    fn of(kept: &Kept) -> Self {
        match kept {
            Kept::Nothing => Self::Nothing,
            Kept::Value(bytes) => decode(bytes).map_or(Self::Spoilt, Self::Marks),
            Kept::Spoilt => Self::Spoilt,
        }
    }
}

impl Marks {
    /// The number of batches alone.
    pub(super) fn alone(batches: u64) -> Self {
        Self { closed: false, boot: [0; 16], batches, rows: None }
    }

    /// Whether nothing can have been committed after it.
    pub(super) fn is_exact(&self) -> bool {
        self.closed || (self.boot != [0; 16] && self.boot == boot())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let no_rows = if self.rows.is_none() { NO_ROWS } else { 0 };
        let mut out = vec![VERSION, (u8::from(self.closed) * CLOSED) | no_rows];
        out.extend_from_slice(&self.boot);
        put_varint(&mut out, self.batches);
        for (key, value) in self.rows.iter().flatten() {
            for bytes in [key, value] {
                put_varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
        out
    }
}

/// The bytes of the marks of now.
pub(super) fn encode(closed: bool, batches: u64, rows: &Rows) -> Vec<u8> {
    Marks { closed, boot: boot(), batches, rows: Some(rows.clone()) }.encode()
}

fn decode(bytes: &[u8]) -> Result<Marks, Garbled> {
    let mut rest = Rest(bytes);
    rest.version()?;
    let flags = rest.byte()?;
    let (boot, after) = rest.0.split_first_chunk().ok_or(Garbled("no boot"))?;
    rest.0 = after;
    let batches = rest.varint()?;
    let mut rows = Rows::new();
    while !rest.0.is_empty() {
        let key = rest.counted()?.to_vec();
        rows.insert(key, rest.counted()?.to_vec());
    }
    let rows = (flags & NO_ROWS == 0).then_some(rows);
    Ok(Marks { closed: flags & CLOSED != 0, boot: *boot, batches, rows })
}

/// What the system calls this boot; zeros where it does not say.
fn boot() -> [u8; 16] {
    static BOOT: std::sync::OnceLock<[u8; 16]> = std::sync::OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).unwrap_or_default().to_le_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_and_tell_whether_they_are_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let rows = Rows::from([(b"p\x01a".to_vec(), vec![1, 2]), (b"n\0".to_vec(), Vec::new())]);
        let (file, copied) = File::open(&path).unwrap();
        assert_eq!(copied, Copied::Nothing);
        file.write(&encode(false, 7, &rows), 7).unwrap();
        let Copied::Marks(marks) = Copied::read(&path).unwrap() else { panic!("written above") };
        assert_eq!((marks.batches, marks.rows.as_ref()), (7, Some(&rows)));
        assert!(marks.is_exact(), "of this boot");
        let earlier = Marks { boot: [9; 16], ..marks };
        assert!(!earlier.is_exact());
        assert!(Marks { closed: true, ..earlier }.is_exact());
        let many = Rows::from([(vec![0], vec![0; 1 << 20])]);
        file.write(&encode(false, 8, &many), 8).unwrap();
        let Copied::Marks(marks) = Copied::read(&path).unwrap() else { panic!("written above") };
        assert_eq!((marks.batches, marks.rows), (8, None), "too many rows: their number alone");
    }
}
