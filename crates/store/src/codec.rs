//! The bytes of every key and value, as plain functions over bytes.
//!
//! A varint is LEB128, at most ten bytes; a text is a varint length and UTF-8.
//!
//! **Records of the logs** (how they are framed: `frame.rs`), each beginning with a version, 1
//! where none is said. What has a `?` follows a byte that says whether it is there:
//!
//! ```text
//! message      version  qos + 128 if retained  received  session  packet  input  topic  payload…
//!                 1              1              varint    varint   varint  text   text   the rest
//!              version, 2: the same, and between topic and payload  properties
//! dead letter  version, 2  time, received  pipeline, stage, reason, input, topic, key
//!                 1           varints         texts
//!              module?  event time?  replay of?  window?                                payload…
//!                text     varint       varint    start end count late rejected revision  the rest
//!              version, 3: the same, and before the payload  properties
//! properties   how many (varint), for each: name, value (texts); a record without any is of the version before
//! record       version, 2  made    writer  state                    as its maker encodes it (`headwater-wire`)…
//!                 1        varint   text   length (varint), bytes              the rest
//!              version, 1: of layout 3, the same with a line of NDJSON at its end
//! ```
//!
//! **Rows of `meta`.** A key is a kind, the length of a name (1), the name, for a window the
//! first 16 bytes of the SHA-256 of its key, and the number of the chunk (2, big-endian).
//!
//! ```text
//! kind  name      value
//! p     pipeline  position (varint), progress…
//! w     pipeline  length of the window's key (varint), the key, its state…
//! y     pipeline  a block of what changed lately of these (`recent.rs`); its slot (4, big-endian) is in the key:
//!                 version, 1 (1), number (varint), for each: length of the key without the tail (varint), the
//!                 key, length of the tail (varint), the tail, length of its state + 1 or 0 (varint), its state
//! o     output    epoch (16), committed end of its outbox (varint)
//! b     output    confirmed (varint), end of the begun batch (varint; = confirmed: none); where
//!                 its outbox was cut, the stretch's end and the same of the next, up to 8 stretches.
//!                 Where the encoder of a begun batch is known, before these a 2 and a 0, with which no other
//!                 row begins since no batch ends before it begins, the number of stretches, and for each the
//!                 encoder: 0, or 1, its name (text) and its version (varint)
//! g     output    numbers of its outbox that are neither confirmed nor hold a record (varint)
//! t     pipeline  what became of its results, in the pipeline's own encoding
//! x     output    an exchange of segments under way: `thin.rs`
//! s     input     session (varint)  sure (1)  broker (text), for each filter: qos (1)  topic (text)
//! f     input     for each: session (varint)  packet (varint)  digest (8)
//! f     ""        first message that is not in these (varint)
//! d     ""        committed end of the dead letters (varint)
//! q     pipeline  numbers of the dead letters it is to replay (varints), in order
//! r     block     a bit for each of 4,096 dead letters: given to a replay; the name is the first one's
//!                 number / 4,096 in 16 hexadecimal digits
//! u     pipeline  its dead letters given up and not told yet: at the quota, and because of their age;
//!                 of each count, first, last, from, to (varints)
//! v     ""        the first dead letter that is not given up (varint)
//! n     ""        batches ever applied (varint)
//! l     output    reports for its outbox, as JSON: a repair leaves them, the next start sends them
//! h     pipeline  what a repair took from it (1: windows 1, position 2), why…; "" is all it does not name
//! a     ""        the last repair whose outcome is in these rows, by its name
//! ```
//!
//! A row's value is cut into chunks of at most 4 KiB. Each: version, 1 (1), number of chunks of
//! the row (2), bytes of the value, CRC-32 of the key and all before (4).

use super::WINDOW_TAIL_BYTES;
use super::engine::VALUE_BYTES_MAX;
use super::sending::{EncoderMark, STRETCHES_MAX, Sending};
use super::session::{Delivered, Filter, Session};
use super::thin::Exchange;
use headwater_flow::{
    DeadLetter, Epoch, Message, MqttDelivery, Seq, Timestamp, UnfinishedWindow, UserProperties,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const VERSION: u8 = 1;
const MESSAGE_WITH_PROPERTIES: u8 = 2;
const OUTBOX_RECORD: u8 = 2;
/// Begins a row of begun batches whose encoders are known: as numbers, these would be a batch that ends before it begins.
const WITH_ENCODERS: [u8; 2] = [2, 0];
const LETTER_VERSION: u8 = 2;
const LETTER_WITH_PROPERTIES: u8 = 3;
const RETAIN: u8 = 0x80;
const CHUNK_HEAD: usize = 3;
const CHUNK_TAIL: usize = 4;
pub(super) const CHUNK_BODY_MAX: usize = VALUE_BYTES_MAX - CHUNK_HEAD - CHUNK_TAIL;
/// Largest value of a row.
pub(super) const ROW_BYTES_MAX: usize = CHUNK_BODY_MAX * u16::MAX as usize;
/// Longest name of a pipeline, input or output: thrice as long it is still a file name.
pub(super) const NAME_BYTES_MAX: usize = 80;

/// Bytes that no version of the agent wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled(pub(super) &'static str);

/// Appends the message's record to `out`.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    let delivery = &message.delivery;
    let retain = if delivery.retain { RETAIN } else { 0 };
    let version = if message.properties.is_empty() { VERSION } else { MESSAGE_WITH_PROPERTIES };
    out.extend_from_slice(&[version, (delivery.qos & !RETAIN) | retain]);
    put_varint(out, message.received.0);
    put_varint(out, delivery.session);
    put_varint(out, u64::from(delivery.packet));
    put_text(out, &message.input);
    put_text(out, &message.topic);
    put_properties(out, &message.properties);
    out.extend_from_slice(&message.payload);
}

/// Reads a message's record. `input` is the name last read: neighbours share it.
pub(super) fn message(record: &[u8], input: &mut Arc<str>) -> Result<Message, Garbled> {
    let mut rest = Rest(record);
    let with_properties = rest.is_either(VERSION, MESSAGE_WITH_PROPERTIES)?;
    let flags = rest.byte()?;
    let received = Timestamp(rest.varint()?);
    let session = rest.varint()?;
    let packet = u16::try_from(rest.varint()?).map_err(|_| Garbled("packet over 65,535"))?;
    let name = rest.text()?;
    if **input != *name {
        *input = Arc::from(name);
    }
    let topic = rest.text()?.to_owned();
    let delivery = MqttDelivery { qos: flags & !RETAIN, retain: flags & RETAIN != 0, session, packet };
    let properties = if with_properties { rest.properties()? } else { UserProperties::new() };
    let payload = bytes::Bytes::copy_from_slice(rest.0);
    Ok(Message { input: Arc::clone(input), topic, payload, properties, received, delivery })
}

/// Appends the form in which an outbox's log holds a record.
pub(super) fn put_record(out: &mut Vec<u8>, writer: &str, made: Timestamp, state: &[u8], body: &[u8]) {
    out.push(OUTBOX_RECORD);
    put_varint(out, made.0);
    put_text(out, writer);
    put_varint(out, state.len() as u64);
    out.extend_from_slice(state);
    out.extend_from_slice(body);
}

/// A record of an outbox's log, read back.
pub(super) struct OutboxRecord<'a> {
    /// The name under which its pipeline wrote it; empty for a report of no pipeline.
    pub(super) writer: &'a str,
    pub(super) made: Timestamp,
    pub(super) state: &'a [u8],
    /// The record as its maker encoded it; in layout 3 a line.
    pub(super) body: &'a [u8],
}

/// Reads a record of an outbox's log.
pub(super) fn record(record: &[u8]) -> Result<OutboxRecord<'_>, Garbled> {
    record_of(record, OUTBOX_RECORD)
}

/// Reads the record of a line, as outboxes of layout 3 hold it.
pub(super) fn line(record: &[u8]) -> Result<OutboxRecord<'_>, Garbled> {
    record_of(record, VERSION)
}

fn record_of(record: &[u8], version: u8) -> Result<OutboxRecord<'_>, Garbled> {
    let mut rest = Rest(record);
    rest.is_version(version)?;
    let made = Timestamp(rest.varint()?);
    let writer = rest.text()?;
    let state = rest.counted()?;
    Ok(OutboxRecord { writer, made, state, body: rest.0 })
}

/// The row of an exchange under way.
pub(super) fn put_exchange(exchange: &Exchange) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, &exchange.output);
    put_text(&mut out, &exchange.pipeline);
    for number in [exchange.range.start, exchange.range.end, exchange.missing] {
        put_varint(&mut out, number);
    }
    out.extend_from_slice(&exchange.digest);
    out.extend_from_slice(&exchange.tally);
    out
}

/// Reads that row.
pub(super) fn exchange(value: &[u8]) -> Result<Exchange, Garbled> {
    let mut rest = Rest(value);
    let (output, pipeline) = (rest.text()?.to_owned(), rest.text()?.to_owned());
    let (start, end, missing) = (rest.varint()?, rest.varint()?, rest.varint()?);
    let (digest, tally) = rest.0.split_first_chunk().ok_or(Garbled("no digest"))?;
    let (digest, tally) = (*digest, tally.to_vec());
    Ok(Exchange { output, pipeline, range: start..end, missing, digest, tally })
}

/// The dead letter's record.
pub(super) fn put_dead_letter(letter: &DeadLetter) -> Vec<u8> {
    let with_properties = !letter.properties.is_empty();
    let mut out = vec![if with_properties { LETTER_WITH_PROPERTIES } else { LETTER_VERSION }];
    put_varint(&mut out, letter.time);
    put_varint(&mut out, letter.received.0);
    for text in [&letter.pipeline, &letter.stage, &letter.reason, &letter.input, &letter.topic, &letter.key] {
        put_text(&mut out, text);
    }
    put_optional(&mut out, letter.module.as_ref(), |out, module| put_text(out, module));
    put_optional(&mut out, letter.event_time.as_ref(), |out, time| put_varint(out, time.0));
    put_optional(&mut out, letter.replay_of.as_ref(), |out, number| put_varint(out, *number));
    put_optional(&mut out, letter.window.as_ref(), |out, window| {
        let numbers = [window.start.0, window.end.0, window.count, window.late, window.rejected];
        numbers.into_iter().for_each(|number| put_varint(out, number));
        put_varint(out, u64::from(window.part) << 32 | u64::from(window.revision));
    });
    put_properties(&mut out, &letter.properties);
    out.extend_from_slice(&letter.payload);
    out
}

/// Reads a dead letter's record.
pub(super) fn dead_letter(record: &[u8]) -> Result<DeadLetter, Garbled> {
    let mut rest = Rest(record);
    let with_properties = rest.is_either(LETTER_VERSION, LETTER_WITH_PROPERTIES)?;
    let (time, received) = (rest.varint()?, Timestamp(rest.varint()?));
    let mut text = || rest.text().map(str::to_owned);
    let (pipeline, stage, reason) = (text()?, text()?, text()?);
    let (input, topic, key) = (text()?, text()?, text()?);
    Ok(DeadLetter {
        pipeline,
        stage,
        reason,
        input,
        topic,
        key,
        time,
        received,
        module: rest.optional(|rest| rest.text().map(str::to_owned))?,
        event_time: rest.optional(|rest| rest.varint().map(Timestamp))?,
        replay_of: rest.optional(Rest::varint)?,
        window: rest.optional(window_of)?,
        properties: if with_properties { rest.properties()? } else { UserProperties::new() },
        payload: rest.0.to_vec(),
    })
}

fn halves(both: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = both.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

fn window_of(rest: &mut Rest<'_>) -> Result<UnfinishedWindow, Garbled> {
    let (start, end) = (Timestamp(rest.varint()?), Timestamp(rest.varint()?));
    let (count, late, rejected) = (rest.varint()?, rest.varint()?, rest.varint()?);
    let (part, revision) = halves(rest.varint()?);
    Ok(UnfinishedWindow { start, end, part, revision, count, late, rejected })
}

const WINDOW_TAIL: u8 = 0xFF;

/// The key of a window without what tells it apart from others, and that.
pub(super) fn window_tail(key: &[u8]) -> Option<(&[u8], &[u8; WINDOW_TAIL_BYTES])> {
    key.split_last_chunk().filter(|(_, tail)| tail[0] == WINDOW_TAIL)
}

/// A row of `meta`, named by its key without the number of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Row(Vec<u8>);

impl Row {
    pub(super) fn pipeline(name: &str) -> Self {
        Self::named(b'p', name)
    }

    /// What the keys of all windows of the pipeline begin with.
    pub(super) fn windows(pipeline: &str) -> Self {
        Self::named(b'w', pipeline)
    }

    pub(super) fn window(pipeline: &str, key: &[u8]) -> Self {
        match window_tail(key) {
            Some((shelf, tail)) => {
                let Self(mut bytes) = Self::shelf(pipeline, shelf);
                bytes.extend_from_slice(&tail[1..]);
                Self(bytes)
            }
            None => Self::shelf(pipeline, key),
        }
    }

    /// A block of what changed lately of them.
    pub(super) fn recent(pipeline: &str, slot: u32) -> Self {
        let Self(mut bytes) = Self::recents(pipeline);
        bytes.extend_from_slice(&slot.to_be_bytes());
        Self(bytes)
    }

    /// What the keys of all these begin with.
    pub(super) fn recents(pipeline: &str) -> Self {
        Self::named(b'y', pipeline)
    }

    /// The slot of such a block.
    pub(super) fn slot(&self) -> Option<u32> {
        self.0.last_chunk().map(|slot| u32::from_be_bytes(*slot))
    }

    /// What the keys of the rows begin with that a pipeline keeps together.
    pub(super) fn shelf(pipeline: &str, shelf: &[u8]) -> Self {
        let Self(mut bytes) = Self::windows(pipeline);
        bytes.extend_from_slice(&Sha256::digest(shelf)[..16]);
        Self(bytes)
    }

    pub(super) fn outbox(output: &str) -> Self {
        Self::named(b'o', output)
    }

    pub(super) fn batch(output: &str) -> Self {
        Self::named(b'b', output)
    }

    pub(super) fn missing(output: &str) -> Self {
        Self::named(b'g', output)
    }

    pub(super) fn tally(pipeline: &str) -> Self {
        Self::named(b't', pipeline)
    }

    pub(super) fn exchange(output: &str) -> Self {
        Self::named(b'x', output)
    }

    /// What the keys of all rows of that kind begin with.
    pub(super) fn exchanges() -> Self {
        Self(vec![b'x'])
    }

    pub(super) fn session(input: &str) -> Self {
        Self::named(b's', input)
    }

    /// What the keys of all sessions begin with.
    pub(super) fn sessions() -> Self {
        Self(vec![b's'])
    }

    pub(super) fn delivered(input: &str) -> Self {
        Self::named(b'f', input)
    }

    pub(super) fn dead_letters() -> Self {
        Self::named(b'd', "")
    }

    pub(super) fn letter_queue(pipeline: &str) -> Self {
        Self::named(b'q', pipeline)
    }

    pub(super) fn letter_marks(block: u64) -> Self {
        Self::named(b'r', &format!("{block:016x}"))
    }

    pub(super) fn given_up(pipeline: &str) -> Self {
        Self::named(b'u', pipeline)
    }

    pub(super) fn letters_below() -> Self {
        Self::named(b'v', "")
    }

    pub(super) fn batches() -> Self {
        Self::named(b'n', "")
    }

    pub(super) fn reports(output: &str) -> Self {
        Self::named(b'l', output)
    }

    pub(super) fn harm(pipeline: &str) -> Self {
        Self::named(b'h', pipeline)
    }

    pub(super) fn repair() -> Self {
        Self::named(b'a', "")
    }

    /// A row read back, of whatever kind.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Its kind, and its name where that is text.
    pub(super) fn parts(&self) -> Option<(u8, &str)> {
        let (&kind, rest) = self.0.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let name = rest.get(..usize::from(length))?;
        std::str::from_utf8(name).ok().map(|name| (kind, name))
    }

    /// Its name, where that is text.
    pub(super) fn name(&self) -> Option<String> {
        self.parts().map(|(_, name)| name.to_owned())
    }

    /// Whether it is too large to be copied with each batch: the state of a window, or what an input
    /// remembers beside its messages. All others are small.
    pub(super) fn is_large(&self) -> bool {
        matches!(self.parts(), Some((b'f', name)) if !name.is_empty()) || self.is_of_windows()
    }

    /// Whether it holds state of windows.
    pub(super) fn is_of_windows(&self) -> bool {
        matches!(self.0.first(), Some(b'w' | b'y'))
    }

    /// Whether it is a block of what changed lately of them.
    pub(super) fn is_recent(&self) -> bool {
        self.0.first() == Some(&b'y')
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of one of its chunks.
    pub(super) fn chunk(&self, number: u16) -> Vec<u8> {
        let mut key = self.0.clone();
        key.extend_from_slice(&number.to_be_bytes());
        key
    }

    fn named(kind: u8, name: &str) -> Self {
        debug_assert!(name.len() <= NAME_BYTES_MAX, "names are checked at the store's door");
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![kind, length];
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes)
    }
}

/// The chunks of a row: keys and values. `None` for a value over 65,535 chunks (268 MB).
pub(super) fn chunks(row: &Row, value: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let total = u16::try_from(value.len().div_ceil(CHUNK_BODY_MAX).max(1)).ok()?;
    let mut pieces = value.chunks(CHUNK_BODY_MAX);
    let chunk = |number| {
        let key = row.chunk(number);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&total.to_le_bytes());
        bytes.extend_from_slice(pieces.next().unwrap_or_default());
        let crc = chunk_crc(&key, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        (key, bytes)
    };
    Some((0..total).map(chunk).collect())
}

/// A chunk read back, its checksum verified: the number of chunks of its row, and its bytes.
pub(super) fn chunk<'a>(key: &[u8], chunk: &'a [u8]) -> Result<(u16, &'a [u8]), Garbled> {
    if chunk.len() < CHUNK_HEAD + CHUNK_TAIL {
        return Err(Garbled("chunk too short"));
    }
    let (checked, crc) = chunk.split_at(chunk.len() - CHUNK_TAIL);
    if crc != chunk_crc(key, checked).to_le_bytes() {
        return Err(Garbled("checksum does not match"));
    }
    if checked[0] != VERSION {
        return Err(Garbled("unknown version of chunk"));
    }
    Ok((u16::from_le_bytes([checked[1], checked[2]]), &checked[CHUNK_HEAD..]))
}

fn chunk_crc(key: &[u8], checked: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(checked);
    hasher.finalize()
}

pub(super) fn put_pipeline(position: Seq, progress: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(progress.len() + 10);
    put_varint(&mut out, position);
    out.extend_from_slice(progress);
    out
}

pub(super) fn pipeline(value: &[u8]) -> Result<(Seq, Vec<u8>), Garbled> {
    let mut rest = Rest(value);
    Ok((rest.varint()?, rest.0.to_vec()))
}

pub(super) fn put_window(key: &[u8], state: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + state.len() + 10);
    put_varint(&mut out, key.len() as u64);
    out.extend_from_slice(key);
    out.extend_from_slice(state);
    out
}

pub(super) fn window(value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Garbled> {
    let mut rest = Rest(value);
    let key = rest.counted()?.to_vec();
    Ok((key, rest.0.to_vec()))
}

/// Begins a block of windows.
pub(super) fn put_block(out: &mut Vec<u8>, number: u64) {
    out.push(VERSION);
    put_varint(out, number);
}

/// Adds one to it: what its key begins with, the key's tail, and its state; `None` where it was removed.
pub(super) fn put_entry(out: &mut Vec<u8>, shelf: &[u8], tail: &[u8], state: Option<&[u8]>) {
    for bytes in [shelf, tail] {
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
    put_varint(out, state.map_or(0, |state| state.len() as u64 + 1));
    out.extend_from_slice(state.unwrap_or_default());
}

/// A window in a block, as [`put_entry`] takes it.
pub(super) type Entry<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>);

/// The number of a block.
pub(super) fn block_number(value: &[u8]) -> Result<u64, Garbled> {
    block(value).map(|(number, _)| number)
}

/// The number of a block, and what is in it.
pub(super) fn block(
    value: &[u8],
) -> Result<(u64, impl Iterator<Item = Result<Entry<'_>, Garbled>>), Garbled> {
    let mut rest = Rest(value);
    rest.version()?;
    let number = rest.varint()?;
    let entries = std::iter::from_fn(move || (!rest.0.is_empty()).then(|| entry(&mut rest)));
    Ok((number, entries))
}

fn entry<'a>(rest: &mut Rest<'a>) -> Result<Entry<'a>, Garbled> {
    let (shelf, tail, length) = (rest.counted()?, rest.counted()?, rest.varint()?);
    let Some(length) = length.checked_sub(1) else { return Ok((shelf, tail, None)) };
    let length = usize::try_from(length).map_err(|_| Garbled("length too great"))?;
    let (state, after) = rest.0.split_at_checked(length).ok_or(Garbled("ends too early"))?;
    rest.0 = after;
    Ok((shelf, tail, Some(state)))
}

pub(super) fn put_outbox(epoch: Epoch, end: Seq) -> Vec<u8> {
    let mut out = epoch.0.to_le_bytes().to_vec();
    put_varint(&mut out, end);
    out
}

pub(super) fn outbox(value: &[u8]) -> Result<(Epoch, Seq), Garbled> {
    let (epoch, rest) = value.split_first_chunk().ok_or(Garbled("no epoch"))?;
    Ok((Epoch(u128::from_le_bytes(*epoch)), number(rest)?))
}

pub(super) fn put_batch(sending: &Sending) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    let encoders = sending.encoders();
    if encoders.iter().any(Option::is_some) {
        out.extend_from_slice(&WITH_ENCODERS);
        put_varint(&mut out, encoders.len() as u64);
        for encoder in encoders {
            put_optional(&mut out, encoder, |out, encoder| {
                put_text(out, &encoder.name);
                put_varint(out, encoder.version.into());
            });
        }
    }
    sending.numbers().into_iter().for_each(|number| put_varint(&mut out, number));
    out
}

pub(super) fn batch(value: &[u8]) -> Result<Sending, Garbled> {
    let mut rest = Rest(value);
    let mut encoders = Vec::new();
    if let Some(marked) = value.strip_prefix(&WITH_ENCODERS) {
        rest = Rest(marked);
        for _ in 0..rest.varint()?.min(STRETCHES_MAX as u64) {
            encoders.push(rest.optional(encoder)?);
        }
    }
    let mut numbers = Vec::new();
    while !rest.0.is_empty() {
        numbers.push(rest.varint()?);
    }
    let sending = Sending::of(&numbers).ok_or(Garbled("batches that do not follow each other"))?;
    if encoders.is_empty() {
        return Ok(sending);
    }
    sending.with_encoders(encoders).ok_or(Garbled("encoders of other batches"))
}

fn encoder(rest: &mut Rest<'_>) -> Result<EncoderMark, Garbled> {
    let name = rest.text()?.to_owned();
    let version = u32::try_from(rest.varint()?).map_err(|_| Garbled("version over 32 bits"))?;
    Ok(EncoderMark { name, version })
}

/// A repair took the state of its windows.
pub(super) const HARM_WINDOWS: u8 = 1;
/// A repair took its position.
pub(super) const HARM_POSITION: u8 = 2;
/// How far the journal went is not known.
pub(super) const HARM_END: u8 = 4;

pub(super) fn put_harm(what: u8, reason: &str) -> Vec<u8> {
    let mut out = vec![what];
    out.extend_from_slice(reason.as_bytes());
    out
}

pub(super) fn harm(value: &[u8]) -> Result<(u8, String), Garbled> {
    let (what, reason) = value.split_first().ok_or(Garbled("no harm named"))?;
    Ok((*what, String::from_utf8_lossy(reason).into_owned()))
}

pub(super) fn put_session(session: &Session) -> Vec<u8> {
    let mut out = put_number(session.number);
    out.push(u8::from(session.sure));
    put_text(&mut out, &session.broker);
    for filter in &session.granted {
        out.push(filter.qos);
        put_text(&mut out, &filter.topic);
    }
    out
}

pub(super) fn session(value: &[u8]) -> Result<Session, Garbled> {
    let mut rest = Rest(value);
    let (number, sure, broker) = (rest.varint()?, rest.byte()? != 0, rest.text()?.to_owned());
    let mut granted = Vec::new();
    while !rest.0.is_empty() {
        granted.push(Filter { qos: rest.byte()?, topic: rest.text()?.to_owned() });
    }
    Ok(Session { number, broker, sure, granted })
}

pub(super) fn put_delivered<'a>(delivered: impl IntoIterator<Item = &'a Delivered>) -> Vec<u8> {
    let mut out = Vec::new();
    for Delivered { session, packet, digest } in delivered {
        put_varint(&mut out, *session);
        put_varint(&mut out, u64::from(*packet));
        out.extend_from_slice(&digest.to_le_bytes());
    }
    out
}

pub(super) fn delivered(value: &[u8]) -> Result<Vec<Delivered>, Garbled> {
    let (mut rest, mut delivered) = (Rest(value), Vec::new());
    while !rest.0.is_empty() {
        let session = rest.varint()?;
        let packet = u16::try_from(rest.varint()?).map_err(|_| Garbled("packet over 65,535"))?;
        let (digest, after) = rest.0.split_first_chunk().ok_or(Garbled("digest too short"))?;
        let digest = u64::from_le_bytes(*digest);
        rest.0 = after;
        delivered.push(Delivered { session, packet, digest });
    }
    Ok(delivered)
}

pub(super) fn put_number(number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    put_varint(&mut out, number);
    out
}

pub(super) fn number(value: &[u8]) -> Result<u64, Garbled> {
    let mut rest = Rest(value);
    let number = rest.varint()?;
    if !rest.0.is_empty() {
        return Err(Garbled("bytes after the number"));
    }
    Ok(number)
}

pub(super) fn put_numbers(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut out = Vec::new();
    numbers.for_each(|number| put_varint(&mut out, number));
    out
}

pub(super) fn numbers(value: &[u8]) -> Result<Vec<u64>, Garbled> {
    let (mut rest, mut numbers) = (Rest(value), Vec::new());
    while !rest.0.is_empty() {
        numbers.push(rest.varint()?);
    }
    Ok(numbers)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Nothing where there are none: the version says so.
fn put_properties(out: &mut Vec<u8>, properties: &UserProperties) {
    if properties.is_empty() {
        return;
    }
    put_varint(out, properties.len() as u64);
    for (name, value) in properties {
        put_text(out, name);
        put_text(out, value);
    }
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put(out, value);
    }
}

/// What is not read yet.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn version(&mut self) -> Result<(), Garbled> {
        self.is_version(VERSION)
    }

    fn is_version(&mut self, version: u8) -> Result<(), Garbled> {
        self.is_either(version, version).map(drop)
    }

    /// Whether it is the second of two versions.
    fn is_either(&mut self, one: u8, other: u8) -> Result<bool, Garbled> {
        let version = self.byte()?;
        let known = version == one || version == other;
        if known { Ok(version == other) } else { Err(Garbled("unknown version of record")) }
    }

    fn properties(&mut self) -> Result<UserProperties, Garbled> {
        let mut properties = UserProperties::new();
        for _ in 0..self.varint()? {
            properties.push((self.text()?.to_owned(), self.text()?.to_owned()));
        }
        Ok(properties)
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Garbled>,
    ) -> Result<Option<T>, Garbled> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Garbled("neither there nor not")),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Garbled> {
        let (&byte, rest) = self.0.split_first().ok_or(Garbled("ends too early"))?;
        self.0 = rest;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Garbled> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Garbled("number over 64 bits"))
    }

    pub(super) fn counted(&mut self) -> Result<&'a [u8], Garbled> {
        let length = usize::try_from(self.varint()?).map_err(|_| Garbled("length too great"))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Garbled("ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Garbled> {
        std::str::from_utf8(self.counted()?).map_err(|_| Garbled("text is not UTF-8"))
    }
}
