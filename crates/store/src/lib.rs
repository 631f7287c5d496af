//! The state folder: what the agent remembers, behind one handle.
//!
//! Three kinds of segmented logs (the journal, an outbox for each output, the dead letters) and
//! one small database of rows, `meta`. The engine is sled, behind `engine.rs` alone; what
//! lies in the folder is drawn in `folder.rs`, the bytes in `codec.rs` and
//! `frame.rs`.
//!
//! **Invariants.** [`Store::append`] returns only after the messages survive a power cut. A
//! [`Store::commit`] first appends and syncs results and dead letters, then makes one synced
//! batch in `meta` with the position, the window state and the committed ends of these logs: rows
//! beyond a committed end do not exist, so that batch is the atomic step. After a failed write
//! or sync nothing is written any more: every later call says so until the agent is restarted.
//!
//! Window state that changed lately is in memory too (`recent.rs`), up to a share of
//! [`Config::window_memory_max`] a pipeline; the rest of that is for those who use it.
//!
//! **Limits.** Nothing is appended to the journal below [`JOURNAL_FREE_BYTES_MIN`] of free disk,
//! nothing committed below [`COMMIT_FREE_BYTES_MIN`]: these calls fail with [`Error::Full`]
//! before they write, and work again once there is room. Confirming and trimming go on; should
//! others fill the disk to its end, `room.rs` has some held back. Below
//! [`OPEN_FREE_BYTES_MIN`] the folder is not opened. Each log has a quota besides (`quota.rs`): at
//! the journal's appends fail with [`Error::Quota`], at an outbox's the commits that hold records
//! for it.
//!
//! **Damage** is noticed at open or by a read that fails; either way the next open verifies all,
//! mends it part by part (`repair.rs`), and leaves reports of what is lost.
//!
//! **A crash here** at any instant leaves each call done or not done; the next open tidies up.

mod codec;
mod deliver;
mod dump;
mod engine;
mod error;
mod folder;
mod frame;
mod given_up;
mod layout;
mod letters;
mod log;
mod mark;
mod marks;
mod meta;
pub mod metrics;
mod opening;
mod outbox;
mod prepare;
mod quota;
mod recent;
mod repair;
mod room;
mod salvage;
mod segment;
mod segments;
mod sending;
mod session;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod thin;
mod told;
mod windows;

pub use deliver::{BatchBounds, late, live};
pub use error::Error;
pub use given_up::Sum;
pub use letters::{QUEUE_MAX, Refusal, Wish};
pub use metrics::StoreMetrics;
pub use quota::{CLOCK_SET, MARGIN_BYTES, QUOTA_BYTES_MIN, Quota, Quotas};
pub use repair::{Finding, Loss};
pub use sending::{EncoderMark, STRETCHES_MAX, Sending};
pub use session::{Delivered, Filter, Session};
pub use thin::{PendingRecord, Replacement, ThinOutcome};
pub use told::Harm;

use codec::Row;
use error::Health;
use folder::{Folder, check_name};
use frame::Group;
pub use headwater_flow::rows::{Change, EachOf, WINDOW_TAIL_BYTES};
use headwater_flow::{DeadLetter, Message, Seq, Timestamp};
use letters::Letters;
use log::{Log, Page, SEGMENT, Size};
use meta::Meta;
use outbox::Outbox;
use prepare::Preparer;
use recent::Recent;
use room::Room;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Free disk below which no message is appended: what the engine needs to go on and to reopen.
pub const JOURNAL_FREE_BYTES_MIN: u64 = 16 << 20;
/// Segments, of 4 MiB and a message each, that are kept only to recognise redeliveries.
const REDELIVERY_SEGMENTS_MAX: usize = 16;
/// Free disk below which nothing is committed; less, so that the journal drains first.
pub const COMMIT_FREE_BYTES_MIN: u64 = 8 << 20;

/// Free disk below which nothing is opened: what sled needs to write while it does.
pub const OPEN_FREE_BYTES_MIN: u64 = 4 << 20;

/// Memory for a pipeline's window state by default: that of 100,000 keys with a few numbers each.
pub const WINDOW_MEMORY_MAX: usize = 32 << 20;
/// Of this a part for the keys that are at hand, decoded; the others are for what changed lately.
const WINDOW_MEMORY_PARTS: usize = 8;

/// Most disk that the engine takes to write so many bytes: measured 2.3 times, and some reserve.
fn written_for(bytes: u64) -> u64 {
    bytes.saturating_mul(3)
}

/// Where state lives and how much of it there may be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state folder.
    pub path: PathBuf,
    /// Messages behind the end of the journal kept to recognise redeliveries.
    pub redelivery_window: u64,
    /// Disk held back for the day it is full.
    pub ballast_bytes: u64,
    /// How much the logs may hold.
    pub quotas: Quotas,
    /// Bytes after which a log goes on in another segment: much less than a quota.
    pub segment_bytes: u64,
    /// Memory of each pipeline for window state, at hand and lately changed; beyond it readings of a key
    /// that was not heard for long cost more.
    pub window_memory_max: usize,
}

impl Config {
    /// The defaults for a folder: as many messages as there are packet identifiers, since a broker
    /// that comes back may send again nearly all that it ever had under way.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            redelivery_window: 65_535,
            ballast_bytes: 16 << 20,
            quotas: Quotas::default(),
            segment_bytes: SEGMENT.bytes,
            window_memory_max: WINDOW_MEMORY_MAX,
        }
    }
}

/// The open state folder. Cheap to clone; every method blocks.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

/// One pipeline's step, made durable as a whole or not at all.
#[derive(Debug, Default)]
pub struct Commit<'a> {
    /// Name of the pipeline.
    pub pipeline: &'a str,
    /// The next message to read.
    pub position: Seq,
    /// Watermark and counts, in the pipeline's own encoding.
    pub progress: Vec<u8>,
    /// Changed window state, in the pipeline's own encoding; `None` removes. Values of any size.
    pub windows: Vec<Change>,
    /// Its results.
    pub results: Outgoing<'a>,
    /// Readings that came too late for it; to an outbox of this kind only.
    pub late: Outgoing<'a>,
    /// The host's clock.
    pub now: Timestamp,
    /// What was refused in this step.
    pub dead_letters: Vec<DeadLetter>,
    /// How many of the letters that were to be replayed were.
    pub replayed: usize,
}

/// What a commit puts into an outbox.
#[derive(Debug, Default)]
pub struct Outgoing<'a> {
    /// The outbox: an output's name, [`live`] or [`late`] of it.
    pub outbox: &'a str,
    /// The records, as their maker encodes them: the store does not look into them.
    pub records: Vec<Vec<u8>>,
    /// What each of the records can be merged by later; records beyond the last of these cannot.
    pub states: Vec<Vec<u8>>,
    /// What became of the pipeline's records there, in its own encoding; `None` leaves it.
    pub tally: Option<Vec<u8>>,
}

impl<'a> Outgoing<'a> {
    /// Returns records that cannot be merged.
    #[must_use]
    pub fn new(outbox: &'a str, records: Vec<Vec<u8>>) -> Self {
        Self { outbox, records, ..Self::default() }
    }
}

/// What a pipeline goes on from.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The next message to read; `None` for a pipeline the store has never seen.
    pub position: Option<Seq>,
    /// As last committed; empty for a new pipeline.
    pub progress: Vec<u8>,
    /// What became of its results, as last committed; empty for a new pipeline.
    pub tally: Vec<u8>,
    /// What became of its late readings.
    pub late_tally: Vec<u8>,
    /// What a repair took of it; its next commit is taken as having told that.
    pub harm: Option<Harm>,
}

/// A batch of an outbox whose bounds never change until it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// First and last + 1 result.
    pub range: Range<Seq>,
    /// The records, in order.
    pub records: Vec<Vec<u8>>,
    /// The encoder that it was begun with, where that is known.
    pub encoder: Option<EncoderMark>,
}

/// Fields are dropped in this order: the lock last.
#[derive(Debug)]
struct Inner {
    journal: Log,
    outboxes: Mutex<HashMap<String, Arc<Outbox>>>,
    dead_letters: Log,
    /// Held from the append of dead letters to the commit's end.
    letters: Mutex<Letters>,
    meta: Meta,
    preparer: Preparer,
    tail: Mutex<Tail>,
    grown: Condvar,
    changed: Mutex<HashMap<String, watch::Sender<Seq>>>,
    health: Health,
    logs: metrics::Logs,
    redelivery_window: u64,
    quotas: Quotas,
    size: Size,
    /// The pipelines that read the journal; `None` until somebody said.
    readers: Mutex<Option<Vec<String>>>,
    /// When the newest message arrived.
    newest: AtomicU64,
    room: Arc<Room>,
    /// Of each pipeline that was asked for.
    recent: Mutex<HashMap<String, Arc<Mutex<Recent>>>>,
    window_memory_max: usize,
    /// Pipelines that know what a repair took from them, and have not committed since.
    told: Mutex<HashSet<String>>,
    /// What a migration of the layout left.
    backups: Mutex<layout::Backups>,
    folder: Arc<Folder>,
}

/// What waiting readers of the journal watch.
#[derive(Debug)]
struct Tail {
    end: Seq,
    closing: bool,
    /// Times that letters were put into a queue.
    nudges: u64,
}

impl Store {
    /// Appends in order and returns their numbers once they survive a power cut.
    ///
    /// # Errors
    /// [`Error::Full`] when the disk is nearly full, [`Error::Quota`] when the journal is: nothing was
    /// written, try again later. Otherwise the store writes no more.
    pub fn append(&self, messages: &[Message]) -> Result<Range<Seq>, Error> {
        let (mut group, mut record) = (Group::default(), Vec::new());
        for message in messages {
            record.clear();
            codec::put_message(&mut record, message);
            group.push(&record);
        }
        let room = self.0.room.check_append(written_for(group.bytes()));
        self.0.logs.named("journal").waiting.set(room.is_err().into());
        room?;
        self.check_journal(group.bytes())?;
        let newest = messages.iter().map(|message| message.received.0).max().unwrap_or(0);
        self.0.newest.fetch_max(newest, Ordering::AcqRel);
        let range = self.0.journal.append(group)?;
        headwater_fail::point("journal.appended");
        let mut tail = lock(&self.0.tail);
        tail.end = tail.end.max(range.end);
        self.0.grown.notify_all();
        Ok(range)
    }

    /// Messages from `from` on, at least one if there is one, about `bytes_max` of them. Below
    /// the journal's start it begins there, and it steps over gaps: the numbers tell.
    pub fn read(&self, from: Seq, bytes_max: usize) -> Result<Vec<(Seq, Message)>, Error> {
        let page = Page { records_max: usize::MAX, bytes_max };
        let (mut messages, mut input) = (Vec::new(), Arc::from(""));
        self.0.journal.read(from..Seq::MAX, page, |seq, record| {
            messages.push((seq, self.message(record, &mut input)?));
            Ok(())
        })?;
        Ok(messages)
    }

    /// The first message still kept; the end when there is none.
    #[must_use]
    pub fn journal_start(&self) -> Seq {
        self.0.journal.start()
    }

    /// One past the last durable message.
    #[must_use]
    pub fn journal_end(&self) -> Seq {
        self.0.journal.end()
    }

    /// How much the logs may hold.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.0.quotas
    }

    /// The share of [`Config::window_memory_max`] for the keys that a pipeline's windows have at hand.
    #[must_use]
    pub fn at_hand_bytes_max(&self) -> usize {
        self.0.window_memory_max / WINDOW_MEMORY_PARTS
    }

    /// When the newest message arrived, by the clock of then: a clock that is behind it is wrong.
    #[must_use]
    pub fn newest_message(&self) -> Timestamp {
        Timestamp(self.0.newest.load(Ordering::Acquire))
    }

    /// Blocks until the journal's end is past `from`, letters are to be replayed, `timeout` passed, or
    /// `wake_all` was called; returns the end.
    #[must_use]
    pub fn wait(&self, from: Seq, timeout: Duration) -> Seq {
        let deadline = Instant::now() + timeout;
        let mut tail = lock(&self.0.tail);
        let nudges = tail.nudges;
        while tail.end <= from && !tail.closing && tail.nudges == nudges {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.0.grown.wait_timeout(tail, left);
            tail = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        tail.end
    }

    /// Wakes everybody blocked in `wait`, now and from here on (shutdown).
    pub fn wake_all(&self) {
        lock(&self.0.tail).closing = true;
        self.0.grown.notify_all();
    }

    /// Shows the input's messages among the last `redelivery_window` of the journal, oldest first
    /// (at start, to recognise redeliveries); one is in memory at a time.
    pub fn recent(&self, input: &str, each: &mut dyn FnMut(&Message)) -> Result<(), Error> {
        let from = self.journal_end().saturating_sub(self.0.redelivery_window).max(self.folded()?);
        let page = Page { records_max: usize::MAX, bytes_max: usize::MAX };
        let mut name = Arc::from("");
        self.0.journal.read(from..Seq::MAX, page, |_, record| {
            let message = self.message(record, &mut name)?;
            if &*message.input == input {
                each(&message);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Where the pipeline goes on.
    pub fn checkpoint(&self, pipeline: &str) -> Result<Checkpoint, Error> {
        check_name(pipeline)?;
        let harm = self.harm(pipeline)?;
        let Some((position, progress)) = self.position(pipeline)? else {
            return Ok(Checkpoint { harm, ..Checkpoint::default() });
        };
        let tally = |writer: &str| Ok::<_, Error>(self.0.meta.get(&Row::tally(writer))?.unwrap_or_default());
        let (tally, late_tally) = (tally(pipeline)?, tally(&late(pipeline))?);
        Ok(Checkpoint { position: Some(position), progress, tally, late_tally, harm })
    }

    /// The atomic step. A new pipeline's first commit may have an empty change.
    ///
    /// # Errors
    /// [`Error::Full`] when the disk is nearly full, [`Error::Quota`] when the outbox is: nothing was
    /// written, try again later. Otherwise the store writes no more.
    pub fn commit(&self, commit: &Commit<'_>) -> Result<(), Error> {
        check_name(commit.pipeline)?;
        let windows: usize =
            commit.windows.iter().filter_map(|(_, state)| state.as_ref()).map(Vec::len).sum();
        let letters = commit.dead_letters.iter().map(|letter| letter.payload.len());
        let records = commit.results.records.iter().chain(&commit.late.records).map(Vec::len);
        let bytes = windows + letters.chain(records).sum::<usize>();
        // With window state goes some that is there already.
        let written = bytes + recent::PACE * windows;
        let room = self.0.room.check_commit(written_for(written as u64));
        self.0.logs.named("meta").waiting.set(room.is_err().into());
        room?;
        if !commit.dead_letters.is_empty() {
            self.bound_letters(bytes as u64, commit.now)?;
        }
        let letters = (commit.pipeline, commit.replayed);
        let mut changes = Vec::new();
        let position = codec::put_pipeline(commit.position, &commit.progress);
        changes.push((Row::pipeline(commit.pipeline), Some(position)));
        changes.extend(self.told(commit.pipeline));
        // In this order, so that no two commits wait for each other's outbox.
        let late = late(commit.pipeline);
        let ways = [(commit.pipeline, &commit.results), (late.as_str(), &commit.late)];
        for (writer, Outgoing { tally, .. }) in ways {
            changes.extend(tally.as_ref().map(|tally| (Row::tally(writer), Some(tally.clone()))));
        }
        let filled = ways.into_iter().filter(|(_, outgoing)| !outgoing.records.is_empty());
        let filled: Vec<_> = filled
            .map(|(writer, outgoing)| Ok((writer, outgoing, self.outbox(outgoing.outbox)?)))
            .collect::<Result<_, Error>>()?;
        let _appending: Vec<_> = filled.iter().map(|(.., outbox)| lock(&outbox.appending)).collect();
        let mut groups = Vec::with_capacity(filled.len());
        for (writer, outgoing, outbox) in &filled {
            let group = group(writer, outgoing, outbox.stamp(commit.now));
            self.check_outbox(outbox, group.bytes())?;
            groups.push(group);
        }
        let mut ends = Vec::with_capacity(filled.len());
        for ((.., outbox), group) in filled.iter().zip(groups) {
            let appended = outbox.log.append(group);
            let appended = if ends.is_empty() { appended } else { self.0.health.judge(appended) };
            let end = appended?.end;
            headwater_fail::point("commit.results-appended");
            changes.push(outbox.commit_change(end));
            ends.push(end);
        }
        let done = self.commit_letters(&commit.dead_letters, letters, |letters| {
            changes.extend(letters);
            self.apply(commit, changes)
        });
        // What was appended and not committed would be taken for committed by the next commit.
        if filled.is_empty() { done } else { self.0.health.judge(done) }?;
        headwater_fail::point("commit.done");
        self.has_told(commit.pipeline);
        for ((_, outgoing, outbox), end) in filled.iter().zip(ends) {
            outbox.set_committed(end);
            self.changed(outgoing.outbox).send_replace(end);
        }
        Ok(())
    }

    /// Why the thread that makes segments no longer runs, if so: only a restart helps.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.0.preparer.fallen()
    }

    /// Whether the last append found no room on the disk or under the quota: it is tried again, and
    /// meanwhile nothing is acknowledged.
    #[must_use]
    pub fn append_waits(&self) -> bool {
        let journal = self.0.logs.named("journal");
        journal.waiting.get() != 0 || journal.blocked.get() != 0
    }

    /// Whether the last commit found no room on the disk: it is tried again.
    #[must_use]
    pub fn commit_waits(&self) -> bool {
        self.0.logs.named("meta").waiting.get() != 0
    }

    /// Forgets what nobody needs: the journal below the slowest of the `pipelines`' positions
    /// (and the redelivery window, of which each input keeps its share), outboxes below what was
    /// confirmed. A pipeline that never committed holds the whole journal.
    pub fn trim(&self, pipelines: &[&str]) -> Result<(), Error> {
        let window = self.journal_end().saturating_sub(self.0.redelivery_window);
        // Large messages must not fill the disk only to be recognised if they come again.
        let mut below = window.max(self.0.journal.start_of_last(REDELIVERY_SEGMENTS_MAX));
        below = below.min(self.fold(below)?);
        for pipeline in pipelines {
            check_name(pipeline)?;
            below = below.min(self.position(pipeline)?.map_or(0, |(position, _)| position));
        }
        self.0.journal.trim(below)?;
        *lock(&self.0.readers) = Some(pipelines.iter().map(|&pipeline| pipeline.to_owned()).collect());
        headwater_fail::point("journal.trimmed");
        let outboxes: Vec<_> = lock(&self.0.outboxes).values().cloned().collect();
        for outbox in outboxes {
            outbox.trim()?;
            headwater_fail::point("outbox.trimmed");
        }
        lock(&self.0.backups).trim(self)?;
        self.0.room.tend()?;
        self.bound_letters(0, Timestamp::now())?;
        self.gauge_quotas()?;
        self.0.meta.check_blobs()
    }

    fn position(&self, pipeline: &str) -> Result<Option<(Seq, Vec<u8>)>, Error> {
        let row = self.0.meta.get(&Row::pipeline(pipeline))?;
        row.map(|row| codec::pipeline(&row)).transpose().map_err(|garbled| self.garbled(garbled))
    }

    fn message(&self, record: &[u8], input: &mut Arc<str>) -> Result<Message, Error> {
        codec::message(record, input)
            .map_err(|garbled| Error::garbled(&self.0.folder.journal(), "a message", garbled))
    }

    fn garbled(&self, garbled: codec::Garbled) -> Error {
        self.0.meta.garbled("row of a pipeline", garbled)
    }
}

/// Returns the records of a commit as the log takes them.
fn group(writer: &str, outgoing: &Outgoing<'_>, made: Timestamp) -> Group {
    let (mut group, mut record) = (Group::default(), Vec::new());
    let states = outgoing.states.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
    for (body, state) in outgoing.records.iter().zip(states) {
        record.clear();
        codec::put_record(&mut record, writer, made, state, body);
        group.push(&record);
    }
    group
}

/// What the lock guards is valid after a panic elsewhere: it is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
