//! What the rows of `meta` are, where `meta` itself may not tell.

use super::Repair;
use crate::codec::{self, Row};
use crate::engine::Engine;
use crate::error::{Error, Health};
use crate::marks::{self, Copied, Marks, Rows};
use crate::meta::{self, Meta};
use crate::metrics;
use crate::recent;
use crate::salvage::ENGINE_PATIENCE;
use crate::sending::Sending;
use crate::sync;
use headwater_flow::{Epoch, LossReport, Seq};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::mpsc;

/// Bytes written as one batch of the engine.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Sessions that may have been counted since an old copy: none of their numbers is given again.
const SESSIONS_SKIPPED: u64 = 1_000_000;

/// How far the small rows can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// They are those of the last batch.
    Exact,
    /// They are those of some batch before.
    Stale,
    /// There are none.
    Lost,
}

/// The rows as they are to be.
#[derive(Debug)]
pub(super) struct State {
    pub(super) trust: Trust,
    pub(super) small: Rows,
    /// The large rows where `meta` is to be made anew; `None` where it stays.
    windows: Option<Vec<(Row, Vec<u8>)>>,
    /// Small rows that were changed.
    changed: BTreeSet<Vec<u8>>,
    batches: u64,
    /// The copy of the small rows is to be made anew.
    copy_spoilt: bool,
}

/// What can still be read of `meta`.
#[derive(Debug, Default)]
struct Read {
    small: Rows,
    windows: Vec<(Row, Vec<u8>)>,
    /// Rows that are there and cannot be read.
    bad: Vec<Row>,
    /// Why there may be more than these.
    fault: Option<String>,
}

impl Repair<'_> {
    /// The rows, from wherever they are to be had.
    pub(super) fn rows(&mut self) -> Result<State, Error> {
        let copied = Copied::read(&self.folder.meta_marks())?;
        let used = self.folder.used().is_some();
        if !used {
            return Ok(State::new(Trust::Exact, Rows::new(), None));
        }
        let read = self.read_meta()?;
        let batches = batches(&read.small);
        let differs = meta::differs(&read.small, batches.unwrap_or(0), &copied);
        let whole = read.fault.is_none() && read.bad.is_empty();
        let copy_spoilt =
            matches!(copied, Copied::Spoilt) || matches!(copied, Copied::Nothing) && batches.unwrap_or(0) > 0;
        if whole && (differs.is_none() || copy_spoilt) {
            if copy_spoilt {
                let place = self.place(&self.folder.meta_marks());
                self.find(&place, "the copy of the small rows cannot be read", Vec::new())?;
            }
            let mut state = State::new(Trust::Exact, read.small, None);
            state.batches = batches.unwrap_or(0);
            state.copy_spoilt = copy_spoilt;
            return Ok(state);
        }
        let bad = read.bad.first().map(|row| format!("row {:?} cannot be read", row.parts()));
        let fault = read.fault.clone().or(bad).or(differs).unwrap_or_default();
        let state = judge(read, batches, copied);
        self.find("meta", &fault, state.losses())?;
        Ok(state)
    }

    fn read_meta(&mut self) -> Result<Read, Error> {
        let path = self.folder.meta();
        if !path.join("db").is_file() {
            return Ok(Read { fault: Some("its file `db` is missing".to_owned()), ..Read::default() });
        }
        if self.notes.suspects.contains("meta") {
            let fault = Some("the engine did not survive its opening".to_owned());
            return Ok(Read { fault, ..Read::default() });
        }
        let path = self.openable(&path)?;
        self.notes.opening("meta")?;
        let (send, receive) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("store-rows".to_owned());
        let folder = path.clone();
        // The engine may hang on a damaged database: then nobody waits any more.
        let thread = thread.spawn(move || drop(send.send(read_all(&folder))));
        let thread = thread.map_err(|source| Error::io("start a thread for", &path, source))?;
        let read = receive.recv_timeout(ENGINE_PATIENCE).unwrap_or_else(|_| Read {
            fault: Some("the engine hangs or panicked at its opening".to_owned()),
            ..Read::default()
        });
        if thread.is_finished() || read.fault.is_none() {
            drop(thread.join());
        }
        self.notes.opened("meta")?;
        Ok(read)
    }

    /// Makes the rows durable: in `meta` where it stays, else in a new one in its place.
    pub(super) fn store_rows(&self, mut state: State) -> Result<(), Error> {
        if self.folder.used().is_none() {
            return Ok(());
        }
        let (path, marks) = (self.folder.meta(), self.folder.meta_marks());
        if state.copy_spoilt {
            fs::remove_file(&marks).or_else(missing).map_err(|source| Error::io("remove", &marks, source))?;
            let (file, _) = marks::File::open(&marks)?;
            file.write(&Marks::alone(state.batches).encode(), state.batches)?;
            file.sync()?;
            sync::sync_path(self.folder.path())?;
        }
        let Some(windows) = state.windows.take() else {
            let meta = Meta::open(&path, &marks, Health::default(), metrics::Log::default())?;
            let changed = state.changed.iter();
            let changes: Vec<_> = changed.map(|key| (Row::of(key), state.small.get(key).cloned())).collect();
            return if changes.is_empty() { Ok(()) } else { meta.apply(&changes) };
        };
        state.put(Row::batches(), codec::put_number(state.batches + 1));
        let made = self.folder.path().join("new-mended-meta");
        if made.exists() {
            fs::remove_dir_all(&made).map_err(|source| Error::io("remove", &made, source))?;
        }
        write_all(&made, windows.iter().map(|(row, value)| (row.clone(), value)).chain(state.rows()))?;
        if path.is_dir() {
            let io = |source: rustix::io::Errno| Error::io("replace", &path, source.into());
            let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            rustix::fs::renameat_with(here, &made, here, &path, exchange).map_err(io)?;
            sync::sync_path(self.folder.path())?;
            self.quarantine.take(&made, "meta")?;
        } else {
            self.quarantine.take(&path, "meta")?;
            fs::rename(&made, &path).map_err(|source| Error::io("rename", &made, source))?;
            sync::sync_path(self.folder.path())?;
        }
        let (file, _) = marks::File::open(&marks)?;
        file.write(&marks::encode(false, state.batches + 1, &state.small), state.batches + 1)?;
        file.sync()
    }
}

/// Which rows to go on with, and what that costs.
fn judge(read: Read, batches: Option<u64>, copied: Copied) -> State {
    let whole = read.fault.is_none() && read.bad.iter().all(Row::is_large);
    let exact = matches!(&copied, Copied::Marks(Marks { rows: Some(_), batches: copied, .. })
        if batches.is_none_or(|batches| batches <= *copied))
        && matches!(&copied, Copied::Marks(marks) if marks.is_exact());
    let newer = match &copied {
        Copied::Marks(marks) => {
            batches.is_some_and(|batches| batches > marks.batches || marks.rows.is_none())
        }
        _ => true,
    };
    let (trust, small) = match copied {
        Copied::Marks(Marks { rows: Some(rows), .. }) if exact => (Trust::Exact, rows),
        _ if whole && newer => (Trust::Exact, read.small.clone()),
        Copied::Marks(Marks { rows: Some(rows), .. }) => (Trust::Stale, rows),
        _ if read
            .small
            .keys()
            .any(|key| Row::of(key).parts().is_some_and(|(kind, _)| b"po".contains(&kind))) =>
        {
            (Trust::Stale, read.small.clone())
        }
        _ => (Trust::Lost, Rows::new()),
    };
    let of_one_batch = batches.is_some()
        && batches == self::batches(&small)
        && read.small.iter().all(|(key, value)| small.get(key) == Some(value));
    let trusted = trust == Trust::Exact && of_one_batch;
    let mut windows = if trusted { read.windows } else { Vec::new() };
    // Without a block of what changed lately, what it would have replaced is not to be told from the newest.
    let outdated: BTreeSet<_> = read.bad.iter().filter(|row| row.is_recent()).map(Row::name).collect();
    windows.retain(|(row, _)| !(row.is_of_windows() && outdated.contains(&row.name())));
    if read.fault.is_some() {
        windows.retain(|(row, _)| !row.is_of_windows());
    }
    let mut state = State::new(trust, small, Some(windows));
    state.batches = batches.max(self::batches(&state.small)).unwrap_or(0);
    let doubtful: BTreeSet<String> = if trusted && read.fault.is_none() {
        read.bad.iter().filter(|row| row.is_of_windows()).filter_map(Row::name).collect()
    } else {
        state.names(b'p').into_iter().collect()
    };
    for pipeline in doubtful {
        state.add_harm(&pipeline, codec::HARM_WINDOWS, "the state of its windows was lost with `meta`");
    }
    state
}

impl State {
    fn new(trust: Trust, small: Rows, windows: Option<Vec<(Row, Vec<u8>)>>) -> Self {
        Self { trust, small, windows, changed: BTreeSet::new(), batches: 0, copy_spoilt: false }
    }

    pub(super) fn put(&mut self, row: Row, value: Vec<u8>) {
        self.changed.insert(row.bytes().to_vec());
        self.small.insert(row.bytes().to_vec(), value);
    }

    pub(super) fn remove(&mut self, row: &Row) {
        if self.small.remove(row.bytes()).is_some() {
            self.changed.insert(row.bytes().to_vec());
        }
    }

    /// The names of all rows of a kind.
    pub(super) fn names(&self, kind: u8) -> Vec<String> {
        let rows = self.small.keys().filter_map(|key| {
            let row = Row::of(key);
            row.parts().filter(|(found, _)| *found == kind).map(|(_, name)| name.to_owned())
        });
        rows.collect()
    }

    pub(super) fn number(&self, row: &Row) -> u64 {
        self.get(row).and_then(|value| codec::number(value).ok()).unwrap_or(0)
    }

    pub(super) fn outbox(&self, output: &str) -> Option<(Epoch, Seq)> {
        self.get(&Row::outbox(output)).and_then(|value| codec::outbox(value).ok())
    }

    /// What of the output's results has arrived and what is under way.
    pub(super) fn sending(&self, output: &str) -> Sending {
        self.get(&Row::batch(output)).and_then(|value| codec::batch(value).ok()).unwrap_or_default()
    }

    /// The furthest position of any pipeline.
    pub(super) fn last_position(&self) -> Seq {
        let positions = self.names(b'p').into_iter().filter_map(|name| self.pipeline(&name));
        positions.map(|(position, _)| position).max().unwrap_or(0)
    }

    pub(super) fn progress(&self, pipeline: &str) -> Vec<u8> {
        self.pipeline(pipeline).map(|(_, progress)| progress).unwrap_or_default()
    }

    /// Notes for the pipeline what it is to tell.
    pub(super) fn add_harm(&mut self, pipeline: &str, what: u8, reason: &str) {
        let known = self.get(&Row::harm(pipeline)).and_then(|value| codec::harm(value).ok());
        let what = what | known.map_or(0, |(what, _)| what);
        self.put(Row::harm(pipeline), codec::put_harm(what, reason));
    }

    /// Notes a report for the output's outbox.
    pub(super) fn add_report(&mut self, output: &str, report: &LossReport) {
        let row = Row::reports(output);
        let mut reports: Vec<serde_json::Value> =
            self.get(&row).and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
        reports.push(serde_json::json!(report));
        self.put(row, serde_json::Value::from(reports).to_string().into_bytes());
    }

    pub(super) fn raise_sessions(&mut self) {
        for input in self.names(b's') {
            let row = Row::session(&input);
            let Some(mut session) = self.get(&row).and_then(|value| codec::session(value).ok()) else {
                continue;
            };
            session.number += SESSIONS_SKIPPED;
            session.sure = false;
            self.put(row, codec::put_session(&session));
        }
    }

    /// What the loss of `meta` itself took.
    fn losses(&self) -> Vec<super::Loss> {
        let harmed = self.names(b'h').into_iter().map(|pipeline| super::Loss {
            stage: "windows".to_owned(),
            of: Some(pipeline),
            first: None,
            last: None,
            count: None,
        });
        harmed.collect()
    }

    fn pipeline(&self, name: &str) -> Option<(Seq, Vec<u8>)> {
        self.get(&Row::pipeline(name)).and_then(|value| codec::pipeline(value).ok())
    }

    fn get(&self, row: &Row) -> Option<&[u8]> {
        self.small.get(row.bytes()).map(Vec::as_slice)
    }

    fn rows(&self) -> impl Iterator<Item = (Row, &Vec<u8>)> {
        self.small.iter().map(|(key, value)| (Row::of(key), value))
    }
}

/// Reads chunk by chunk, stepping over what is garbled.
fn read_all(folder: &Path) -> Read {
    let mut read = Read::default();
    let engine = match Engine::open_damaged(folder) {
        Ok(engine) => engine,
        Err(error) => return Read { fault: Some(error.to_string()), ..read },
    };
    let mut rows: BTreeMap<Row, BTreeMap<u16, (u16, Vec<u8>)>> = BTreeMap::new();
    let scanned = engine.scan(&[], |key, bytes| {
        if let Some((row, number)) = key.split_last_chunk() {
            let chunks = rows.entry(Row::of(row)).or_default();
            if let Ok((total, bytes)) = codec::chunk(key, bytes) {
                chunks.insert(u16::from_be_bytes(*number), (total, bytes.to_vec()));
            }
        }
        Ok(())
    });
    read.fault = scanned.and_then(|()| engine.check_blobs()).err().map(|error| error.to_string());
    for (row, chunks) in rows {
        let total = chunks.first_key_value().map_or(0, |(_, (total, _))| *total);
        let whole: Option<Vec<_>> = (0..total)
            .map(|number| chunks.get(&number).filter(|(of, _)| *of == total).map(|(_, bytes)| bytes.clone()))
            .collect();
        match whole.filter(|whole| !whole.is_empty() && whole.len() == chunks.len()) {
            None => read.bad.push(row),
            Some(whole) if row.is_large() => read.windows.push((row, whole.concat())),
            Some(whole) => drop(read.small.insert(row.bytes().to_vec(), whole.concat())),
        }
    }
    let blocks = read.windows.iter().filter(|(row, _)| row.is_recent());
    let blocks = blocks.map(|(row, value)| (codec::block_number(value).ok(), row.clone())).collect();
    read.bad.extend(recent::incomplete(blocks));
    read
}

/// Makes a database of rows, durable but for its name.
fn write_all<'a>(folder: &Path, rows: impl Iterator<Item = (Row, &'a Vec<u8>)>) -> Result<(), Error> {
    let engine = Engine::create(folder)?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (row, value) in rows {
        let chunks = codec::chunks(&row, value).unwrap_or_default();
        bytes += value.len();
        batch.extend(chunks.into_iter().map(|(key, chunk)| (key, Some(chunk))));
        if bytes > BATCH_BYTES_MAX {
            engine.apply(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    engine.apply(batch)?;
    engine.finish()
}

fn batches(rows: &Rows) -> Option<u64> {
    rows.get(Row::batches().bytes()).and_then(|value| codec::number(value).ok())
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
