//! From layout 3 to 4: the lines in the outboxes become records.
//!
//! ```text
//! new-layout-4/outbox/NAME/j-…   the outboxes as they are to be, made of those that are there
//! new-layout-4/layout            written last: they are all there
//! layout                         says 4 from here on
//! outbox/ -> layout-3/outbox/, new-layout-4/outbox/ -> outbox/
//! ```
//!
//! **Invariants.** Until the version is written nothing of layout 3 is changed but what every opening tidies up,
//! so that an older agent goes on with it; from then on it refuses the folder, and every opening here first ends the two renames. A record gives
//! the same line as before, byte for byte; numbers, gaps, epochs and begun batches stay.
//!
//! **Limits.** As much disk again as the outboxes take; without it nothing is done. A segment at a time is in
//! memory. An outbox stays in `layout-3/` until all that was in it has arrived.
//!
//! **A crash here** repeats the first part, or goes on with the second.

use crate::codec::{self, Garbled};
use crate::error::{Error, Health};
use crate::folder::{Folder, output_of};
use crate::meta::Meta;
use crate::outbox::EPOCH;
use crate::room::Room;
use crate::segment::Segment;
use crate::segments::Segments;
use crate::{Store, lock, metrics, sync, thin};
use headwater_flow::Seq;
use headwater_wire::Record;
use std::fs;
use std::io::Write as _;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// The suffix of the name under which a pipeline writes late readings.
const LATE: &str = ".late";

/// The outboxes of layout 3 that are kept, each until all that was in it has arrived.
#[derive(Debug, Default)]
pub(crate) struct Backups(Vec<OutboxBackup>);

#[derive(Debug)]
struct OutboxBackup {
    output: String,
    path: PathBuf,
    /// Everything in it is below.
    end: Seq,
}

impl Backups {
    /// Finds those that there are, once the outboxes are open.
    pub(crate) fn find(store: &Store) -> Result<Self, Error> {
        let mut found = Vec::new();
        for (output, path) in outboxes(&kept(&store.0.folder).join("outbox"))? {
            let outbox = lock(&store.0.outboxes).get(&output).cloned();
            let end = outbox.map_or(0, |outbox| outbox.committed());
            found.push(OutboxBackup { output, path, end });
        }
        Ok(Self(found))
    }

    /// Removes those of which everything has arrived.
    pub(crate) fn trim(&mut self, store: &Store) -> Result<(), Error> {
        let mut left = Vec::new();
        for backup in std::mem::take(&mut self.0) {
            let outbox = lock(&store.0.outboxes).get(&backup.output).cloned();
            if outbox.is_some_and(|outbox| outbox.confirmed() < backup.end) {
                left.push(backup);
                continue;
            }
            let path = &backup.path;
            fs::remove_dir_all(path).map_err(|source| Error::io("remove", path, source))?;
        }
        self.0 = left;
        Ok(())
    }
}

/// Makes the outboxes as they are to be beside those that are there.
pub(crate) fn prepare(folder: &Folder, room: &Room) -> Result<(), Error> {
    let made = made(folder);
    remove(&made)?;
    let outboxes = outboxes(&folder.outboxes())?;
    if outboxes.is_empty() {
        return Ok(());
    }
    // Another migration's, which somebody took back.
    remove(&kept(folder))?;
    let mut bytes = 0;
    for (_, path) in &outboxes {
        for (_, segment) in sub_folders(path)? {
            bytes += sync::disk_bytes(&segment)?;
        }
    }
    room.check_commit(bytes)?;
    tracing::info!(bytes, "outboxes of layout 3 are rewritten");
    let ends = ends(folder)?;
    for (output, path) in &outboxes {
        let Some((_, end)) = ends.iter().find(|(name, _)| name == output) else {
            return Err(Error::damaged(path, "its row is missing from `meta`"));
        };
        let name = path.file_name().unwrap_or_default();
        convert(path, &made.join("outbox").join(name), *end)?;
    }
    sync::sync_path(&made.join("outbox"))?;
    write_version(&made)?;
    sync::sync_path(&made)?;
    sync::sync_path(folder.path())
}

/// Puts the outboxes that were made in the place of those that are there, if the version says so and it was not
/// done yet.
pub(super) fn finish(folder: &Folder) -> Result<(), Error> {
    let made = made(folder);
    if !made.exists() {
        return Ok(());
    }
    let kept = kept(folder);
    let ready = made.join("outbox");
    let before = kept.join("outbox");
    sync::create_folder(&kept)?;
    if ready.exists() && !before.exists() {
        rename(&folder.outboxes(), &before)?;
        sync::sync_path(&kept)?;
        sync::sync_path(folder.path())?;
        headwater_fail::point("layout.moved");
    }
    if ready.exists() {
        rename(&ready, &folder.outboxes())?;
        sync::sync_path(folder.path())?;
        headwater_fail::point("layout.switched");
    }
    remove(&made)?;
    sync::sync_path(folder.path())
}

/// Returns whether there is something for [`finish`] to do.
pub(super) fn is_under_way(folder: &Folder) -> bool {
    made(folder).exists()
}

/// Returns whether all that [`finish`] needs is there.
pub(super) fn is_prepared(folder: &Folder) -> bool {
    let text = fs::read_to_string(made(folder).join("layout"));
    text.is_ok_and(|text| super::version(&text) == Some(super::LAYOUT))
}

fn made(folder: &Folder) -> PathBuf {
    folder.path().join("new-layout-4")
}

fn kept(folder: &Folder) -> PathBuf {
    folder.path().join("layout-3")
}

/// Returns the committed end of each outbox. An exchange of segments that was cut short is ended before.
fn ends(folder: &Folder) -> Result<Vec<(String, Seq)>, Error> {
    let path = folder.meta();
    if !path.exists() {
        return Err(Error::damaged(&path, "it is missing"));
    }
    let health = Health::of(folder.path());
    let meta = Meta::open(&path, &folder.meta_marks(), health, metrics::Log::default())?;
    thin::recover(&meta, folder)?;
    let mut ends = Vec::new();
    for (row, value) in meta.all(b'o') {
        let row_of = |garbled| Error::garbled(&path, "row of an output", garbled);
        let (_, end) = codec::outbox(&value).map_err(row_of)?;
        if let Some(output) = row.name() {
            ends.push((output, end));
        }
    }
    Ok(ends)
}

/// Makes an outbox of records of one of lines.
fn convert(from: &Path, to: &Path, end: Seq) -> Result<(), Error> {
    sync::create_folder(to)?;
    let epoch = from.join(EPOCH);
    if epoch.exists() {
        let copy = to.join(EPOCH);
        fs::copy(&epoch, &copy).map_err(|source| Error::io("copy", &epoch, source))?;
        sync::sync_path(&copy)?;
    }
    let segments = Segments::find(from)?;
    // What is behind the end was never committed.
    segments.discard(end)?;
    for numbers in numbers(&segments, end) {
        let segment = to.join(format!("j-{:020}", numbers.start));
        Segment::compose(&segment, numbers.clone(), &records(&segments, &numbers)?)?;
        headwater_fail::point("layout.converted");
    }
    sync::sync_path(to)
}

/// Returns the numbers of each segment, up to the end.
fn numbers(segments: &Segments, end: Seq) -> Vec<Range<Seq>> {
    let mut numbers = segments.closed();
    if segments.len() > 0 {
        let last = numbers.last().map_or(segments.start(), |closed| closed.end);
        numbers.push(last..end.max(last));
    }
    numbers
}

/// Returns the records of one segment, with their numbers.
fn records(segments: &Segments, numbers: &Range<Seq>) -> Result<Vec<(Seq, Vec<u8>)>, Error> {
    let mut records = Vec::new();
    let Some((_, segment)) = segments.of(numbers.start)? else {
        return Err(Error::damaged(segments.folder(), "a segment is missing"));
    };
    let garbled = |garbled| Error::garbled(segments.folder(), "a result", garbled);
    let (reached, _) = segment.read(numbers.start, numbers.end, |seq, line| {
        records.push((seq, record_of(line).map_err(garbled)?));
        Ok(ControlFlow::Continue(()))
    })?;
    if reached < numbers.end {
        let detail = format!("it ends at {reached}, {} was committed", numbers.end);
        return Err(Error::damaged(segments.folder(), detail));
    }
    Ok(records)
}

/// Returns the record that gives the same line. One that is a record already stays as it is.
pub(crate) fn record_of(stored: &[u8]) -> Result<Vec<u8>, Garbled> {
    if codec::record(stored).is_ok() {
        return Ok(stored.to_vec());
    }
    let line = codec::line(stored)?;
    let pipeline = line.writer.strip_suffix(LATE).unwrap_or(line.writer);
    let mut record = Vec::with_capacity(stored.len());
    let body = Record::of_line(line.body, pipeline).to_bytes();
    codec::put_record(&mut record, line.writer, line.made, line.state, &body);
    Ok(record)
}

fn write_version(made: &Path) -> Result<(), Error> {
    let path = made.join("layout");
    let write = || {
        let mut file = fs::File::create(&path)?;
        file.write_all(super::said(super::LAYOUT).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| Error::io("write", &path, source))
}

/// Returns the outboxes in a folder, with their names; none where there is no folder.
fn outboxes(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let named = |(name, path): (String, PathBuf)| Some((output_of(&name)?, path));
    Ok(sub_folders(folder)?.into_iter().filter_map(named).collect())
}

fn sub_folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let list = |source| Error::io("list", folder, source);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(list)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(list)?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.file_type().map_err(list)?.is_dir()
        {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::io("rename", from, source))
}

fn remove(path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    fs::remove_dir_all(path).map_err(|source| Error::io("remove", path, source))
}
