//! A log's segments on disk: their names, and the few of them that are open.
//!
//! A segment is a folder `j-<number of its first record, 20 digits>`, so names alone tell where
//! a record is. `new-…` is a segment being made, `dead-…` one being removed: leftovers of a
//! crash, gone at the next open. A segment is replaced by exchanging the two folders' names.
//!
//! **Invariant.** All handles are cloned under the lock of the map, so one that is alone in it
//! stays alone: a database still in use elsewhere could not be opened again.

use super::error::Error;
use super::prepare::Prepared;
use super::segment::Segment;
use super::{lock, sync};
use headwater_flow::Seq;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Segments that stay open when another is opened for reading, the last one among them. Opening
/// costs a sync, so pipelines that read far apart should not take turns with one handle.
const OPEN_MAX: usize = 3;

type Handles = BTreeMap<Seq, Option<Arc<Segment>>>;

/// The segments of one log.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    handles: Mutex<Handles>,
    /// Disk that each takes, the last one excepted: measured once.
    measured: Mutex<BTreeMap<Seq, u64>>,
}

impl Segments {
    /// Finds them, after removing what a crash left; none is opened.
    pub(super) fn find(folder: &Path) -> Result<Self, Error> {
        sync::create_folder(folder)?;
        let io = |source| Error::io("list", folder, source);
        let mut handles = Handles::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name else { continue };
            if let Some(digits) = name.strip_prefix("j-") {
                let first = digits.parse();
                let first = first.map_err(|_| Error::damaged(&path, "not a segment's name"))?;
                handles.insert(first, None);
            } else if name.starts_with("new-") || name.starts_with("dead-") {
                fs::remove_dir_all(&path).map_err(|source| Error::io("remove", &path, source))?;
                headwater_fail::point("segment.tidied");
            }
        }
        let (folder, handles) = (folder.to_owned(), Mutex::new(handles));
        Ok(Self { folder, handles, measured: Mutex::default() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.handles).len()
    }

    /// The first record of all.
    pub(super) fn start(&self) -> Seq {
        lock(&self.handles).first_key_value().map_or(0, |(&first, _)| first)
    }

    /// The first record of the last `count` segments.
    pub(super) fn start_of_last(&self, count: usize) -> Seq {
        let handles = lock(&self.handles);
        handles.keys().rev().take(count).next_back().copied().unwrap_or(0)
    }

    /// Disk that all of them take.
    pub(super) fn bytes(&self) -> Result<u64, Error> {
        let firsts: Vec<Seq> = lock(&self.handles).keys().copied().collect();
        let Some((last, closed)) = firsts.split_last() else { return Ok(0) };
        let mut bytes = self.measure(*last)?;
        for first in closed {
            let measured = lock(&self.measured).get(first).copied();
            bytes += match measured {
                Some(measured) => measured,
                None => {
                    let now = self.measure(*first)?;
                    lock(&self.measured).insert(*first, now);
                    now
                }
            };
        }
        Ok(bytes)
    }

    /// All but the last, with the numbers of their records.
    pub(super) fn closed(&self) -> Vec<Range<Seq>> {
        let firsts: Vec<Seq> = lock(&self.handles).keys().copied().collect();
        firsts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// Disk that one takes; none where it is gone already.
    pub(super) fn measure(&self, first: Seq) -> Result<u64, Error> {
        sync::disk_bytes(&self.path(first))
    }

    /// The last segment, if there is any, just found: it must reach up to number `least`.
    pub(super) fn last(&self, least: Seq) -> Result<Option<(Seq, Arc<Segment>)>, Error> {
        let mut handles = lock(&self.handles);
        let Some((&first, _)) = handles.last_key_value() else { return Ok(None) };
        self.open(&mut handles, first, Some(least)).map(Some)
    }

    /// The segment where the record is, or would be.
    pub(super) fn of(&self, seq: Seq) -> Result<Option<(Seq, Arc<Segment>)>, Error> {
        let mut handles = lock(&self.handles);
        let Some((&first, held)) = handles.range(..=seq).next_back() else {
            return Ok(None);
        };
        if let Some(segment) = held {
            return Ok(Some((first, Arc::clone(segment))));
        }
        close_idle(&mut handles, OPEN_MAX);
        let next = handles.range(first + 1..).next().map(|(&next, _)| next);
        self.open(&mut handles, first, next).map(Some)
    }

    /// Gives the prepared segment its name: from here on it is the last.
    pub(super) fn begin(&self, first: Seq, prepared: &Prepared) -> Result<(Seq, Arc<Segment>), Error> {
        let (made, path) = (prepared.take()?, self.path(first));
        fs::rename(&made, &path).map_err(|source| Error::io("rename", &made, source))?;
        headwater_fail::point("segment.renamed");
        sync::sync_path(&self.folder)?;
        headwater_fail::point("segment.begun");
        self.open(&mut lock(&self.handles), first, None)
    }

    /// Closes all that nobody reads: an open one costs some 16 MB of memory (measured).
    pub(super) fn close_all_idle(&self) {
        close_idle(&mut lock(&self.handles), 0);
    }

    /// Removes the first segment if it ends at or below `below` and is not the last; the numbers
    /// of its records. One that is being read stays: its files must keep their names.
    pub(super) fn remove_first(&self, below: Seq) -> Result<Option<Range<Seq>>, Error> {
        let gone = {
            let mut handles = lock(&self.handles);
            let mut entries = handles.iter();
            let (Some((&first, held)), Some((&next, _))) = (entries.next(), entries.next()) else {
                return Ok(None);
            };
            if next > below || held.as_ref().is_some_and(|held| Arc::strong_count(held) > 1) {
                return Ok(None);
            }
            handles.remove(&first);
            first..next
        };
        lock(&self.measured).remove(&gone.start);
        self.remove(gone.start)?;
        Ok(Some(gone))
    }

    /// Puts the segment made at `made` in the place of all that begin in `range`, which one of them
    /// begins: of that one in one step, the others are removed after it. `false`, and nothing done,
    /// while one of them is read.
    pub(super) fn replace(&self, range: Range<Seq>, made: &Path) -> Result<bool, Error> {
        let mut handles = lock(&self.handles);
        let read =
            |held: &Option<Arc<Segment>>| held.as_ref().is_some_and(|held| Arc::strong_count(held) > 1);
        if handles.range(range.clone()).any(|(_, held)| read(held)) {
            return Ok(false);
        }
        handles.range_mut(range.clone()).for_each(|(_, held)| *held = None);
        let first = range.start;
        let (path, dead) = (self.path(first), self.folder.join(format!("dead-{first:020}")));
        let io = |source: rustix::io::Errno| Error::io("replace", &path, source.into());
        let here = rustix::fs::CWD;
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(here, made, here, &path, exchange).map_err(io)?;
        sync::sync_path(&self.folder)?;
        fs::rename(made, &dead).map_err(|source| Error::io("rename", made, source))?;
        fs::remove_dir_all(&dead).map_err(|source| Error::io("remove", &dead, source))?;
        lock(&self.measured).remove(&first);
        self.remove_within(&mut handles, range)?;
        Ok(true)
    }

    /// Removes those that begin in `range`, but for the one that begins it.
    pub(super) fn remove_others(&self, range: Range<Seq>) -> Result<(), Error> {
        self.remove_within(&mut lock(&self.handles), range)
    }

    fn remove_within(&self, handles: &mut Handles, range: Range<Seq>) -> Result<(), Error> {
        let others: Vec<Seq> = handles.range(range.start + 1..range.end).map(|(&first, _)| first).collect();
        for first in others {
            handles.remove(&first);
            lock(&self.measured).remove(&first);
            self.remove(first)?;
        }
        sync::sync_path(&self.folder)
    }

    /// Removes the segments that begin at or after `end`, but for one; only while none is read.
    pub(super) fn discard(&self, end: Seq) -> Result<(), Error> {
        let mut handles = lock(&self.handles);
        while let Some((&first, _)) = handles.last_key_value()
            && first >= end
            && handles.len() > 1
        {
            handles.remove(&first);
            self.remove(first)?;
            headwater_fail::point("segment.discarded");
        }
        Ok(())
    }

    /// `least` is how far it must reach, where that is known.
    fn open(
        &self,
        handles: &mut Handles,
        first: Seq,
        least: Option<Seq>,
    ) -> Result<(Seq, Arc<Segment>), Error> {
        let path = self.path(first);
        let segment = match least {
            Some(least) => Segment::open_reaching(&path, first, least)?,
            None => Segment::open(&path, first)?,
        };
        let segment = Arc::new(segment);
        handles.insert(first, Some(Arc::clone(&segment)));
        Ok((first, segment))
    }

    /// Takes the segment's name away at once, then its files.
    fn remove(&self, first: Seq) -> Result<(), Error> {
        let path = self.path(first);
        let dead = self.folder.join(format!("dead-{first:020}"));
        fs::rename(&path, &dead).map_err(|source| Error::io("rename", &path, source))?;
        headwater_fail::point("segment.dying");
        fs::remove_dir_all(&dead).map_err(|source| Error::io("remove", &dead, source))
    }

    fn path(&self, first: Seq) -> PathBuf {
        self.folder.join(format!("j-{first:020}"))
    }
}

/// Closes segments that nobody reads, oldest first, until no more than `open_max` are open.
fn close_idle(handles: &mut Handles, open_max: usize) {
    let open = handles.values().flatten().count();
    let mut excess = open.saturating_sub(open_max);
    for held in handles.values_mut() {
        if excess == 0 {
            return;
        }
        if held.as_ref().is_some_and(|held| Arc::strong_count(held) == 1) {
            *held = None;
            excess -= 1;
        }
    }
}
