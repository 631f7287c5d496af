//! The store as lines of JSON, for people and tools: read part by part, of a store nobody has open.
//!
//! Nothing is repaired and nothing is written but what the engine itself tidies up when it opens a
//! database. A damaged part ends the dump with its name.

use super::Store;
use super::codec::{self, Row};
use super::engine::{Churn, Engine};
use super::error::Error;
use super::folder::Folder;
use super::meta;
use super::segments::Segments;
use headwater_flow::Seq;
use headwater_wire::Record;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Takes a line; `false` ends the dump.
type Put<'a> = &'a mut dyn FnMut(Value) -> bool;

impl Store {
    /// Messages from a number on.
    pub fn dump_journal(store: &Path, from: Seq, max: usize, put: Put<'_>) -> Result<(), Error> {
        let folder = Folder::open(store)?;
        let (path, mut input) = (folder.journal(), Arc::from(""));
        dump(&path, from..Seq::MAX, max, |seq, record| {
            let message = codec::message(record, &mut input)
                .map_err(|garbled| Error::garbled(&path, "a message", garbled))?;
            let (text, hex) = text_or_hex(&message.payload);
            Ok(put(json!({
                "number": seq, "input": &*message.input, "topic": message.topic, "received": message.received,
                "qos": message.delivery.qos, "session": message.delivery.session, "packet": message.delivery.packet,
                "payload": text, "payload_hex": hex,
            })))
        })
    }

    /// Committed results of an output from a number on, the confirmed ones that are still there too.
    pub fn dump_outbox(store: &Path, output: &str, from: Seq, max: usize, put: Put<'_>) -> Result<(), Error> {
        let folder = Folder::open(store)?;
        let end = match rows(&folder)?.get(Row::outbox(output).bytes()) {
            Some(row) => codec::outbox(row).map_or(0, |(_, end)| end),
            None => 0,
        };
        let path = folder.outbox(output);
        dump(&path, from..end, max, |seq, record| {
            let stored =
                codec::record(record).map_err(|garbled| Error::garbled(&path, "a record", garbled))?;
            // As its line, which people read; a record that this version does not know, as its bytes.
            let line =
                Record::from_bytes(stored.body).map_or_else(|_| stored.body.to_vec(), |it| it.to_line());
            let (text, hex) = text_or_hex(&line);
            Ok(put(json!({
                "number": seq, "pipeline": stored.writer, "made": stored.made, "line": text, "line_hex": hex,
            })))
        })
    }

    /// Dead letters from a number on.
    pub fn dump_dead_letters(store: &Path, from: Seq, max: usize, put: Put<'_>) -> Result<(), Error> {
        let folder = Folder::open(store)?;
        let end = rows(&folder)?.get(Row::dead_letters().bytes()).and_then(|row| codec::number(row).ok());
        let path = folder.dead_letters();
        dump(&path, from..end.unwrap_or(0), max, |seq, record| {
            let letter = codec::dead_letter(record)
                .map_err(|garbled| Error::garbled(&path, "a dead letter", garbled))?;
            let (text, hex) = text_or_hex(&letter.payload);
            Ok(put(json!({
                "number": seq, "pipeline": letter.pipeline, "stage": letter.stage, "reason": letter.reason,
                "topic": letter.topic, "key": letter.key, "payload": text, "payload_hex": hex,
            })))
        })
    }

    /// All rows but the windows' state: kind, name, value in hexadecimal.
    pub fn dump_rows(store: &Path, max: usize, put: Put<'_>) -> Result<(), Error> {
        let folder = Folder::open(store)?;
        for (key, value) in rows(&folder)?.into_iter().take(max) {
            let row = Row::of(&key);
            let (kind, name) = row.parts().unwrap_or((b'?', ""));
            let kind = char::from(kind).to_string();
            if !put(json!({ "kind": kind, "name": name, "value_hex": hex(&value) })) {
                break;
            }
        }
        Ok(())
    }
}

fn rows(folder: &Folder) -> Result<super::marks::Rows, Error> {
    meta::small_rows(&Engine::open(&folder.meta(), Churn::Once)?)
}

/// Hands records to `each` until it says `false`.
fn dump(
    folder: &Path,
    mut range: std::ops::Range<Seq>,
    mut max: usize,
    mut each: impl FnMut(Seq, &[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    if !folder.is_dir() {
        return Ok(());
    }
    let segments = Segments::find(folder)?;
    range.start = range.start.max(segments.start());
    while range.start < range.end && max > 0 {
        let Some((first, segment)) = segments.of(range.start)? else { break };
        let (next, flow) = segment.read(range.start, range.end, |seq, record| {
            max -= 1;
            let goes_on = each(seq, record)? && max > 0;
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        let has_more = segments.of(next)?.is_some_and(|(later, _)| later > first);
        if flow.is_break() || !has_more {
            break;
        }
        range.start = next;
    }
    Ok(())
}

/// Bytes that are no text are in hexadecimal.
fn text_or_hex(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    let text = std::str::from_utf8(bytes).ok();
    (text, text.is_none().then(|| hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
