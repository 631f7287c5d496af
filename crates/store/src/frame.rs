//! How records become values: packed together, or split, into frames of at most 4 KiB.
//!
//! ```text
//!  0   1  version, 1
//!  1   1  kind: 0 packed, 1 part, 2 gap
//!  2   8  sequence number of its first record
//! 10   2  packed: number of records; part: its index within the record
//! 12   2  packed: 0; part: number of parts
//! 14   n  packed: per record its length (2) and its bytes; part: bytes of the record;
//!         gap: how many numbers it stands for (8)
//!      4  CRC-32 of all before
//! ```
//!
//! All numbers are little-endian. A record begins in a new frame when it does not fit into the
//! last one; one over [`RECORD_INLINE_MAX`] is split over frames of its own. A gap stands for numbers
//! whose records are gone: lost by damage or dropped by policy.

use super::codec::Garbled;
use super::engine::VALUE_BYTES_MAX;
use headwater_flow::Seq;
use std::ops::Range;

const VERSION: u8 = 1;
const PACKED: u8 = 0;
const PART: u8 = 1;
const GAP: u8 = 2;
const HEAD: usize = 14;
const TAIL: usize = 4;
const BODY_MAX: usize = VALUE_BYTES_MAX - HEAD - TAIL;
/// Largest record that shares a frame.
const RECORD_INLINE_MAX: usize = BODY_MAX - 2;
/// Largest record there is: one batch of the engine must hold it.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Records on their way into a log, already in frames; their numbers come with [`Draft::seal`].
#[derive(Debug, Default)]
pub(super) struct Group {
    frames: Vec<Draft>,
    records: u64,
    bytes: u64,
    largest: usize,
}

/// A frame without its sequence number and checksum.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    /// Records of the group before its first.
    before: u64,
    /// Records that end in it, or the numbers of a gap.
    pub(super) records: u64,
}

impl Group {
    /// Numbers without records.
    pub(super) fn gap(numbers: u64) -> Self {
        let mut group = Self::default();
        group.begin(GAP, 0, 0, HEAD + 8 + TAIL);
        let frame = group.frames.last_mut().expect("begun above");
        frame.bytes.extend_from_slice(&numbers.to_le_bytes());
        frame.records = numbers;
        group.records = numbers;
        group
    }

    pub(super) fn of<R: AsRef<[u8]>>(records: impl IntoIterator<Item = R>) -> Self {
        let mut group = Self::default();
        for record in records {
            group.push(record.as_ref());
        }
        group
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        if record.len() <= RECORD_INLINE_MAX {
            self.pack(record);
        } else {
            self.split(record);
        }
        self.records += 1;
        self.bytes += record.len() as u64;
        self.largest = self.largest.max(record.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the records, before framing.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the largest record.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    pub(super) fn into_frames(self) -> Vec<Draft> {
        self.frames
    }

    fn pack(&mut self, record: &[u8]) {
        let room = |frame: &Draft| {
            frame.bytes[1] == PACKED && frame.bytes.len() + 2 + record.len() <= VALUE_BYTES_MAX - TAIL
        };
        if !self.frames.last().is_some_and(room) {
            self.begin(PACKED, 0, 0, HEAD + 2 + record.len() + TAIL);
        }
        let frame = self.frames.last_mut().expect("begun above at the latest");
        frame.records += 1;
        let count = u16::try_from(frame.records).expect("at most 2,039 empty records fit");
        frame.bytes[10..12].copy_from_slice(&count.to_le_bytes());
        let length = u16::try_from(record.len()).expect("at most RECORD_INLINE_MAX");
        frame.bytes.extend_from_slice(&length.to_le_bytes());
        frame.bytes.extend_from_slice(record);
    }

    fn split(&mut self, record: &[u8]) {
        let parts = record.len().div_ceil(BODY_MAX);
        // Records over RECORD_BYTES_MAX never get into a log, so a wrapped number is never read.
        let total = u16::try_from(parts).unwrap_or(u16::MAX);
        for (index, piece) in record.chunks(BODY_MAX).enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.begin(PART, index, total, HEAD + piece.len() + TAIL);
            let frame = self.frames.last_mut().expect("begun above");
            frame.bytes.extend_from_slice(piece);
        }
        self.frames.last_mut().expect("a split record has parts").records = 1;
    }

    fn begin(&mut self, kind: u8, a: u16, b: u16, capacity: usize) {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&a.to_le_bytes());
        bytes.extend_from_slice(&b.to_le_bytes());
        self.frames.push(Draft { bytes, before: self.records, records: 0 });
    }
}

impl Draft {
    /// Whether a record begins with it: only before such a frame may a log begin a new segment.
    pub(super) fn begins_record(&self) -> bool {
        self.bytes[1] != PART || self.bytes[10..12] == [0, 0]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() + TAIL
    }

    /// The finished value, the group's first record being number `first`.
    pub(super) fn seal(mut self, first: Seq) -> Vec<u8> {
        let seq = first + self.before;
        self.bytes[2..10].copy_from_slice(&seq.to_le_bytes());
        let crc = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// A frame read back, its checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its first record's number.
    pub(super) first: Seq,
    pub(super) body: Body<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Packed { count: u16, bytes: &'a [u8] },
    Part { index: u16, total: u16, bytes: &'a [u8] },
    Gap { numbers: u64 },
}

impl<'a> Frame<'a> {
    /// The frame that begins these bytes, whatever follows it, if its number is in `range`.
    pub(super) fn begins(bytes: &'a [u8], range: &Range<Seq>) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD>()?;
        let first = Seq::from_le_bytes(*head[2..].first_chunk()?);
        if head[0] != VERSION || head[1] > GAP || !range.contains(&first) {
            return None;
        }
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let length = match head[1] {
            GAP => HEAD + 8 + TAIL,
            PART if short(10) < short(12).saturating_sub(1) => VALUE_BYTES_MAX,
            PART => return Self::of_unknown_length(bytes),
            _ => packed_length(short(10), bytes)?,
        };
        Self::parse(bytes.get(..length)?).ok()
    }

    /// The last part of a record does not say how long it is: where the checksum matches, it ends.
    fn of_unknown_length(bytes: &'a [u8]) -> Option<Self> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..HEAD]);
        for length in HEAD..=(bytes.len().min(VALUE_BYTES_MAX).checked_sub(TAIL)?) {
            if *bytes[length..].first_chunk()? == crc.clone().finalize().to_le_bytes() {
                return Self::parse(&bytes[..length + TAIL]).ok();
            }
            crc.update(&bytes[length..=length]);
        }
        None
    }

    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Garbled> {
        if value.len() < HEAD + TAIL {
            return Err(Garbled("frame too short"));
        }
        let (checked, crc) = value.split_at(value.len() - TAIL);
        if crc != crc32fast::hash(checked).to_le_bytes() {
            return Err(Garbled("checksum does not match"));
        }
        let short = |at: usize| u16::from_le_bytes([checked[at], checked[at + 1]]);
        let mut first = [0; 8];
        first.copy_from_slice(&checked[2..10]);
        let bytes = &checked[HEAD..];
        let body = match (checked[0], checked[1]) {
            (VERSION, PACKED) => Body::Packed { count: short(10), bytes },
            (VERSION, PART) if short(10) < short(12) => {
                Body::Part { index: short(10), total: short(12), bytes }
            }
            (VERSION, GAP) => {
                let numbers = <[u8; 8]>::try_from(bytes).map_err(|_| Garbled("gap of a wrong length"))?;
                Body::Gap { numbers: u64::from_le_bytes(numbers) }
            }
            (VERSION, _) => return Err(Garbled("unknown kind of frame")),
            _ => return Err(Garbled("unknown version of frame")),
        };
        Ok(Self { first: Seq::from_le_bytes(first), body })
    }
}

/// How long a packed frame of so many records is, as its records' lengths say.
fn packed_length(count: u16, bytes: &[u8]) -> Option<usize> {
    let mut length = HEAD;
    for _ in 0..count {
        let record = bytes.get(length..)?.first_chunk::<2>()?;
        length += 2 + usize::from(u16::from_le_bytes(*record));
        if length + TAIL > VALUE_BYTES_MAX {
            return None;
        }
    }
    Some(length + TAIL)
}

/// The records of a packed frame.
pub(super) fn unpack(count: u16, mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], Garbled>> {
    let mut left = count;
    std::iter::from_fn(move || {
        if left == 0 {
            return (!std::mem::take(&mut bytes).is_empty())
                .then_some(Err(Garbled("frame longer than its records")));
        }
        left -= 1;
        let record = bytes.split_first_chunk::<2>().and_then(|(length, rest)| {
            let length = usize::from(u16::from_le_bytes(*length));
            (length <= rest.len()).then(|| rest.split_at(length))
        });
        let Some((record, rest)) = record else {
            left = 0;
            bytes = &[];
            return Some(Err(Garbled("frame shorter than its records")));
        };
        bytes = rest;
        Some(Ok(record))
    })
}
