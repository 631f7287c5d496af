//! The rows that are held of one key: mostly one, which lies beside the key and not behind a pointer more.

use super::WINDOW_TAIL_BYTES;
use std::collections::VecDeque;
use std::slice;

/// What tells the rows of a key apart; zeros where there is but one.
pub(super) type Tail = [u8; WINDOW_TAIL_BYTES];

/// A row, and the number of the block that it is in.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) tail: Tail,
    pub(super) block: u64,
    pub(super) value: Box<[u8]>,
}

/// At least one row, by tails.
#[derive(Debug)]
pub(super) enum Rows {
    One(Held),
    More(VecDeque<Held>),
}

impl Rows {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        let (front, back) = match self {
            Self::One(row) => (slice::from_ref(row), [].as_slice()),
            Self::More(rows) => rows.as_slices(),
        };
        front.iter().chain(back)
    }

    /// Where the row with that tail is, or would be.
    pub(super) fn find(&self, tail: &Tail) -> Result<usize, usize> {
        match self {
            Self::One(row) if row.tail == *tail => Ok(0),
            Self::One(row) => Err(usize::from(row.tail < *tail)),
            Self::More(rows) => rows.binary_search_by_key(tail, |row| row.tail),
        }
    }

    pub(super) fn at(&mut self, at: usize) -> &mut Held {
        match self {
            Self::One(row) => row,
            Self::More(rows) => &mut rows[at],
        }
    }

    pub(super) fn insert(&mut self, at: usize, row: Held) {
        if let Self::More(rows) = self {
            return rows.insert(at, row);
        }
        if let Self::One(first) = std::mem::replace(self, Self::More(VecDeque::new())) {
            let both = if at == 0 { [row, first] } else { [first, row] };
            *self = Self::More(both.into());
        }
    }

    /// `None` where it is the only one.
    pub(super) fn remove(&mut self, at: usize) -> Option<Held> {
        let Self::More(rows) = self else { return None };
        let row = rows.remove(at)?;
        if rows.len() == 1 {
            let last = rows.pop_front()?;
            *self = Self::One(last);
        }
        Some(row)
    }
}
