//! The bytes of windows in the store.
//!
//! ```text
//! progress   version u8 = 3 | newest + 1 or 0 u64 | watermark u64 | lost before u64 | passed u64…
//! row key    key | 0xFF | kind u8 | at u64, big endian | tie u32, big endian
//!   k        version u8 = 1 | ended | newest + 1 or 0 | counted
//!   p, c     version u8 = 2 | flags u8 | count | late | rejected | taken | taken bytes
//!            | [due] | [first | last] | [results | (start | end | revision)…] | state
//!   g        version u8 = 1 | revision | late | due + 1 or 0
//! ```
//! Numbers are little endian, or variable (LEB128) where no width is named; what stands in brackets
//! is there when its flag is. The order of a key's rows is that of the panes. Version 1 of a pane
//! had the key `start u64, big endian | key` and was a tumbling window.

use std::sync::Arc;

use super::cache::RowVisitor;
use super::pane::{EmittedResult, EmittedWindow, KeyRow, KeyState, PaneId, PaneState};
use super::{OpenWindows, WindowConfig, WindowError};
use headwater_flow::Timestamp;
use headwater_flow::rows::{Change, WINDOW_TAIL_BYTES};

const PROGRESS_VERSION: u8 = 3;
const PANE_VERSION: u8 = 2;
const ROW_VERSION: u8 = 1;
/// The length of the tail behind the key in a row's own key.
const TAIL_BYTES: usize = WINDOW_TAIL_BYTES;

const CHANGED: u8 = 1;
const PROVISIONAL: u8 = 2;
const FULL: u8 = 4;
const DUE: u8 = 8;
const SPAN: u8 = 16;
const SHOWN: u8 = 32;

/// Stored windows that this version cannot read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the stored windows: {0}")]
pub struct CodecError(&'static str);

const KIND: CodecError = CodecError("a row is of no kind that this version knows");

impl OpenWindows {
    /// Returns the bytes of the watermark and of the times that it follows from.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        let newest = self.newest.map_or(0, |newest| newest.saturating_add(1));
        let mut bytes = vec![PROGRESS_VERSION];
        let passed = self.passed.iter().copied();
        for number in [newest, self.watermark, self.lost_before].into_iter().chain(passed) {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn take_progress(&mut self, progress: &[u8]) -> Result<(), CodecError> {
        // Without progress there may be windows all the same: of a pipeline that was without in between.
        let Some((version, rest)) = progress.split_first() else { return Ok(()) };
        if !(1..=PROGRESS_VERSION).contains(version) {
            return Err(CodecError("the watermark has another version"));
        }
        let (numbers, []) = rest.as_chunks::<8>() else {
            return Err(CodecError("the watermark is cut short"));
        };
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let mut next = || numbers.next().ok_or(CodecError("the watermark is cut short"));
        self.newest = next()?.checked_sub(1);
        self.watermark = next()?;
        // Before it was written, nothing was ever lost.
        self.lost_before = if *version == 1 { 0 } else { next()? };
        self.passed = numbers.collect();
        Ok(())
    }
}

/// Appends the changes of a key since the last call.
pub(super) fn put_changes(changes: &mut Vec<Change>, key: &str, key_state: &mut KeyState) {
    let row = |row| self::row(key, row);
    changes.extend(key_state.removed.drain(..).map(|removed| (row(removed), None)));
    for (pane_id, pane) in key_state.panes.iter_mut().filter(|(_, pane)| pane.dirty) {
        pane.dirty = false;
        changes.push((row(KeyRow::Pane(*pane_id)), Some(put_pane(pane))));
    }
    for (pane_id, chunk) in key_state.chunks.iter_mut().filter(|(_, chunk)| chunk.dirty) {
        chunk.dirty = false;
        changes.push((row(KeyRow::Chunk(*pane_id)), Some(put_pane(chunk))));
    }
    for (end, emitted) in key_state.emitted.iter_mut().filter(|(_, emitted)| emitted.dirty) {
        emitted.dirty = false;
        changes.push((row(KeyRow::EmittedWindow(*end)), Some(put_given(emitted))));
    }
    if std::mem::take(&mut key_state.dirty) {
        let says = (key_state.ended, key_state.newest, key_state.counted) != (0, None, 0);
        if says || key_state.stored {
            changes.push((row(KeyRow::Key), says.then(|| put_key(key_state))));
        }
        key_state.stored = says;
    }
}

/// Reads a key from its rows.
pub(super) fn key_state(
    config: &WindowConfig,
    rows: impl FnOnce(RowVisitor<'_>) -> Result<(), WindowError>,
) -> Result<KeyState, WindowError> {
    let mut key_state = KeyState::default();
    fill(&mut key_state, config, rows)?;
    Ok(key_state)
}

/// Reads a key from its rows, into one that holds nothing.
pub(super) fn fill(
    key_state: &mut KeyState,
    config: &WindowConfig,
    rows: impl FnOnce(RowVisitor<'_>) -> Result<(), WindowError>,
) -> Result<(), WindowError> {
    rows(&mut |tail, value| Ok(add(key_state, tail, value)?))?;
    key_state.due = super::due(config, key_state);
    Ok(())
}

/// Splits a row's own key into the key and the tail behind it.
pub(super) fn split(row: &[u8]) -> Option<(&str, &[u8])> {
    let at = row.len().checked_sub(TAIL_BYTES)?;
    let (key, tail) = row.split_at(at);
    (tail[0] == 0xFF).then_some(())?;
    Some((std::str::from_utf8(key).ok()?, tail))
}

/// Reads a window of version 1.
pub(super) fn renew(
    config: &WindowConfig,
    row: &[u8],
    value: &[u8],
) -> Result<(Arc<str>, KeyState), CodecError> {
    let mut reader = RowReader(row);
    let start = u64::from_be_bytes(reader.bytes()?);
    let key = std::str::from_utf8(reader.0).map_err(|_| CodecError("a key is not UTF-8"))?;
    let mut reader = RowReader(value);
    if reader.bytes()? != [1] {
        return Err(CodecError("a window has another version"));
    }
    let [count, late, rejected] = [reader.fixed()?, reader.fixed()?, reader.fixed()?];
    let revision = u32::from_le_bytes(reader.bytes()?);
    let (_, end) = config.kind.rules().window_at(Timestamp(start)).ok_or(KIND)?;
    let shown = EmittedResult { start, end, revision };
    let pane = PaneState {
        state: reader.0.to_vec(),
        count,
        late,
        rejected,
        taken: count + rejected,
        // In settled windows, exactly the open ones have readings that no result shows.
        changed: revision == 0 && count > 0,
        shown: if revision > 0 { vec![shown] } else { Vec::new() },
        ..PaneState::default()
    };
    let mut key_state = KeyState::default();
    key_state.insert(PaneId::at(start), pane);
    Ok((Arc::from(key), key_state))
}

/// Returns the value of a row with the migrated state in it; `None` for a row without a state. The inner error is
/// that of `migrate`.
pub fn with_state(
    row: &[u8],
    value: &[u8],
    migrate: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Option<Result<Vec<u8>, String>>, CodecError> {
    let Some((_, [0xFF, b'p' | b'c', ..])) = split(row) else { return Ok(None) };
    let mut pane = RowReader(value).pane()?;
    if pane.state.is_empty() {
        return Ok(None);
    }
    Ok(Some(migrate(&pane.state).map(|state| {
        pane.state = state;
        put_pane(&pane)
    })))
}

fn row(key: &str, row: KeyRow) -> Vec<u8> {
    let (kind, pane_id) = match row {
        KeyRow::Key => (b'k', PaneId::default()),
        KeyRow::Pane(pane_id) => (b'p', pane_id),
        KeyRow::Chunk(pane_id) => (b'c', pane_id),
        KeyRow::EmittedWindow(end) => (b'g', PaneId::at(end)),
    };
    [key.as_bytes(), &[0xFF, kind], &pane_id.at.to_be_bytes(), &pane_id.tie.to_be_bytes()].concat()
}

fn add(key_state: &mut KeyState, tail: &[u8], value: &[u8]) -> Result<(), CodecError> {
    let mut reader = RowReader(tail);
    let [0xFF, kind] = reader.bytes()? else { return Err(KIND) };
    let pane_id =
        PaneId { at: u64::from_be_bytes(reader.bytes()?), tie: u32::from_be_bytes(reader.bytes()?) };
    let mut reader = RowReader(value);
    match kind {
        b'p' => {
            let pane = reader.pane()?;
            key_state.bytes += pane.state.len();
            key_state.panes.insert(pane_id, pane);
        }
        b'c' => {
            let chunk = reader.pane()?;
            key_state.bytes += chunk.state.len();
            key_state.chunks.insert(pane_id, chunk);
        }
        b'g' => {
            reader.version(ROW_VERSION)?;
            let revision = reader.revision()?;
            let late = reader.number()?;
            let due = reader.number()?.checked_sub(1);
            key_state.emitted.insert(pane_id.at, EmittedWindow { revision, late, due, dirty: false });
        }
        b'k' => {
            reader.version(ROW_VERSION)?;
            key_state.ended = reader.number()?;
            key_state.newest = reader.number()?.checked_sub(1);
            key_state.counted = reader.number()?;
            key_state.stored = true;
        }
        _ => return Err(KIND),
    }
    Ok(())
}

fn put_key(key_state: &KeyState) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION];
    put(&mut bytes, key_state.ended);
    put(&mut bytes, key_state.newest.map_or(0, |newest| newest.saturating_add(1)));
    put(&mut bytes, key_state.counted);
    bytes
}

fn put_given(emitted: &EmittedWindow) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION];
    put(&mut bytes, emitted.revision.into());
    put(&mut bytes, emitted.late);
    put(&mut bytes, emitted.due.map_or(0, |due| due.saturating_add(1)));
    bytes
}

fn put_pane(pane: &PaneState) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + pane.state.len());
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags = flag(pane.changed, CHANGED)
        | flag(pane.provisional, PROVISIONAL)
        | flag(pane.full, FULL)
        | flag(pane.due.is_some(), DUE)
        | flag(pane.span.is_some(), SPAN)
        | flag(!pane.shown.is_empty(), SHOWN);
    bytes.extend([PANE_VERSION, flags]);
    for number in [pane.count, pane.late, pane.rejected, pane.taken, pane.taken_bytes] {
        put(&mut bytes, number);
    }
    if let Some(due) = pane.due {
        put(&mut bytes, due);
    }
    if let Some((first, last)) = pane.span {
        put(&mut bytes, first);
        put(&mut bytes, last);
    }
    if !pane.shown.is_empty() {
        put(&mut bytes, pane.shown.len() as u64);
    }
    for shown in &pane.shown {
        put(&mut bytes, shown.start);
        put(&mut bytes, shown.end);
        put(&mut bytes, shown.revision.into());
    }
    bytes.extend(&pane.state);
    bytes
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct RowReader<'a>(&'a [u8]);

impl RowReader<'_> {
    fn version(&mut self, expected: u8) -> Result<(), CodecError> {
        let [version] = self.bytes()?;
        if version == expected { Ok(()) } else { Err(CodecError("a window has another version")) }
    }

    fn pane(&mut self) -> Result<PaneState, CodecError> {
        self.version(PANE_VERSION)?;
        let [flags] = self.bytes()?;
        let is = |flag: u8| flags & flag != 0;
        let [count, late, rejected] = [self.number()?, self.number()?, self.number()?];
        let [taken, taken_bytes] = [self.number()?, self.number()?];
        let due = if is(DUE) { Some(self.number()?) } else { None };
        let span = if is(SPAN) { Some((self.number()?, self.number()?)) } else { None };
        let shown = if is(SHOWN) { self.number()? } else { 0 };
        let shown = (0..shown)
            .map(|_| {
                let start = self.number()?;
                let end = self.number()?;
                Ok(EmittedResult { start, end, revision: self.revision()? })
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(PaneState {
            state: self.0.to_vec(),
            count,
            late,
            rejected,
            taken,
            taken_bytes,
            span,
            changed: is(CHANGED),
            provisional: is(PROVISIONAL),
            full: is(FULL),
            due,
            shown,
            ..PaneState::default()
        })
    }

    fn revision(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.number()?).map_err(|_| CodecError("a revision is out of range"))
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CodecError("a number is too long"))
    }

    fn fixed(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(CodecError("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }
}
