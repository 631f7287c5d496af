//! The bytes of windows in the store.
//!
//! ```text
//! progress   version u8 = 2 | newest + 1 or 0 u64 | watermark u64 | lost before u64
//! pane key   start u64, big endian | key
//! pane       version u8 = 1 | count u64 | late u64 | rejected u64 | revision u32 | state
//! ```
//! Numbers are little endian but for the start, which sorts.

use std::collections::HashMap;

use super::{Config, Pane, Windows};
use crate::flow::Timestamp;
use crate::store::Change;

const VERSION: u8 = 1;
const PROGRESS_VERSION: u8 = 2;
const PANE_HEADER: usize = 1 + 8 + 8 + 8 + 4;

/// Stored windows that this version cannot read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the stored windows: {0}")]
pub struct CodecError(&'static str);

impl Windows {
    /// What changed since the last call, as (key, value) pairs of the store; `None` removes.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        let forgotten = self.forgotten.drain(..).map(|(start, key)| (pane_key(start, &key), None));
        let mut changes: Vec<_> = forgotten.collect();
        for (start, panes) in &mut self.panes {
            for (key, pane) in panes.iter_mut().filter(|(_, pane)| pane.dirty) {
                pane.dirty = false;
                pane.stored = true;
                changes.push((pane_key(*start, key), Some(encode(pane))));
            }
        }
        changes
    }

    /// The watermark and what it follows.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        let newest = self.newest.map_or(0, |newest| newest.0.saturating_add(1));
        let mut bytes = vec![PROGRESS_VERSION];
        bytes.extend(newest.to_le_bytes());
        bytes.extend(self.watermark.0.to_le_bytes());
        bytes.extend(self.lost_before.0.to_le_bytes());
        bytes
    }

    /// Windows as they were committed; `progress` is empty for a new pipeline.
    ///
    /// # Errors
    /// When the bytes are not of this version.
    pub fn restore(
        config: Config,
        progress: &[u8],
        panes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Self, CodecError> {
        let mut windows = Self::new(config);
        // Without progress there may be windows all the same: of a pipeline that was without in between.
        if !progress.is_empty() {
            let mut progress = Reader(progress);
            let [version] = progress.bytes()?;
            if !(VERSION..=PROGRESS_VERSION).contains(&version) {
                return Err(CodecError("the watermark has another version"));
            }
            windows.newest = progress.u64()?.checked_sub(1).map(Timestamp);
            windows.watermark = Timestamp(progress.u64()?);
            // Before it was written, nothing was ever lost.
            windows.lost_before = if version == VERSION { Timestamp(0) } else { Timestamp(progress.u64()?) };
        }
        // A commit is made of settled windows, so what the watermark has passed is closed.
        windows.settled = windows.watermark;
        for (key, value) in panes {
            let mut reader = Reader(key);
            let start = Timestamp(u64::from_be_bytes(reader.bytes()?));
            let key = std::str::from_utf8(reader.0).map_err(|_| CodecError("a key is not UTF-8"))?;
            let panes: &mut HashMap<_, _> = windows.panes.entry(start).or_default();
            panes.insert(key.to_owned(), decode(value)?);
        }
        Ok(windows)
    }
}

fn pane_key(start: Timestamp, key: &str) -> Vec<u8> {
    [&start.0.to_be_bytes()[..], key.as_bytes()].concat()
}

fn encode(pane: &Pane) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PANE_HEADER + pane.state.len());
    bytes.push(VERSION);
    for number in [pane.count, pane.late, pane.rejected] {
        bytes.extend(number.to_le_bytes());
    }
    // Whether the results show all of it needs no bit: in settled windows, exactly the open ones do not.
    bytes.extend(pane.revision.to_le_bytes());
    bytes.extend(&pane.state);
    bytes
}

fn decode(value: &[u8]) -> Result<Pane, CodecError> {
    let mut reader = Reader(value);
    reader.version("a window has another version")?;
    let (count, late, rejected) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let revision = u32::from_le_bytes(reader.bytes()?);
    Ok(Pane {
        state: reader.0.to_vec(),
        count,
        late,
        rejected,
        revision,
        changed: revision == 0 && count > 0,
        stored: true,
        ..Pane::default()
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn version(&mut self, otherwise: &'static str) -> Result<(), CodecError> {
        let [version] = self.bytes()?;
        if version == VERSION { Ok(()) } else { Err(CodecError(otherwise)) }
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(CodecError("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }
}
