//! Mends a log segment by segment.
//!
//! A segment's numbers reach to the first of the next one, so a missing segment is a missing tail of
//! the one before it. What is lost becomes a gap: numbers go on where they were.

use super::{Loss, Mode, REPORTS_MAX, Repair};
use crate::error::Error;
use crate::salvage::{Found, Salvaged};
use crate::segment::{FOUND, Segment};
use crate::sync;
use headwater_flow::Seq;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How far a log must reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// So far, and no further.
    Committed(Seq),
    /// At least so far.
    Held(Seq),
    /// As far as its records go, and at least so far: what was committed is not known.
    Found(Seq),
    /// The same where a record is written once: what lies in the bytes is one, also where the engine ends
    /// before it.
    Written(Seq),
}

/// Whose log it is, and what of it is still wanted.
#[derive(Debug)]
pub(super) struct Of<'a> {
    pub(super) stage: &'static str,
    pub(super) output: Option<&'a str>,
    /// Numbers that are not done with.
    pub(super) pending: Vec<Range<Seq>>,
}

impl Of<'_> {
    /// One whose numbers are all wanted.
    pub(super) fn all(stage: &'static str) -> Self {
        let all = 0..Seq::MAX;
        Self { stage, output: None, pending: vec![all] }
    }

    /// What of the ranges is wanted.
    fn wanted(&self, ranges: &[Range<Seq>]) -> Vec<Range<Seq>> {
        let within = |range: &Range<Seq>| {
            let (start, end) = (range.start, range.end);
            self.pending.iter().map(move |it| it.start.max(start)..it.end.min(end)).collect::<Vec<_>>()
        };
        ranges.iter().flat_map(within).filter(|range| !range.is_empty()).collect()
    }

    /// A loss for each range; one for all where there are many.
    fn losses(&self, ranges: &[Range<Seq>]) -> Vec<Loss> {
        let loss = |first: Seq, end: Seq, count: u64| Loss {
            stage: self.stage.to_owned(),
            of: self.output.map(str::to_owned),
            first: Some(first),
            last: Some(end - 1),
            count: Some(count),
        };
        match ranges {
            [first, .., last] if ranges.len() > REPORTS_MAX => {
                let count = ranges.iter().map(|range| range.end - range.start).sum();
                vec![loss(first.start, last.end, count)]
            }
            _ => ranges.iter().map(|range| loss(range.start, range.end, range.end - range.start)).collect(),
        }
    }
}

/// A log that is whole again.
#[derive(Debug)]
pub(super) struct Mended {
    pub(super) end: Seq,
    /// Numbers at and above the start whose records are lost.
    pub(super) lost: Vec<Range<Seq>>,
}

/// One segment, and the numbers it must have.
struct Part {
    path: PathBuf,
    place: String,
    first: Seq,
    /// The first of the next segment.
    until: Option<Seq>,
    end: End,
}

impl End {
    fn least(self) -> Seq {
        match self {
            Self::Committed(end) | Self::Held(end) | Self::Found(end) | Self::Written(end) => end,
        }
    }
}

impl Repair<'_> {
    /// Checks and mends the log in `folder`.
    pub(super) fn log(&mut self, folder: &Path, of: &Of<'_>, end: End) -> Result<Mended, Error> {
        let mut segments = self.segments(folder)?;
        if let End::Committed(end) = end {
            // Nothing of them was committed: opening the log discards them.
            while segments.len() > 1 && segments.last().is_some_and(|(first, _)| *first >= end) {
                segments.pop();
            }
        }
        let mut mended = Mended { end: end.least(), lost: Vec::new() };
        if segments.is_empty() {
            return self.no_segments(folder, of, mended);
        }
        let firsts: Vec<Seq> = segments.iter().map(|(first, _)| *first).collect();
        let mut reached = 0;
        for (index, (first, path)) in segments.into_iter().enumerate() {
            // One made of several, and those not removed yet: opening the outbox does that.
            if first < reached {
                continue;
            }
            let until = firsts.get(index + 1).copied();
            let part = Part { place: self.place(&path), path, first, until, end };
            let lost;
            (reached, lost) = self.part(&part, of, &firsts)?;
            mended.end = reached;
            mended.lost.extend(lost);
        }
        // What the destination confirmed is known: an outbox that begins above it lost its beginning.
        if matches!(end, End::Committed(_)) && of.output.is_some() {
            let before = 0..firsts[0].min(mended.end);
            let lost = of.wanted(std::slice::from_ref(&before));
            if !lost.is_empty() {
                self.find(&self.place(folder), "its first segments are missing", of.losses(&lost))?;
                mended.lost.extend(lost);
            }
        }
        Ok(mended)
    }

    /// The segments of a log in order. What bears no segment's name is none of the log's.
    fn segments(&mut self, folder: &Path) -> Result<Vec<(Seq, PathBuf)>, Error> {
        let mut found = Vec::new();
        if !folder.is_dir() {
            if folder.exists() {
                let place = self.place(folder);
                self.find(&place, "it is no folder", Vec::new())?;
                if self.mode == Mode::Mend {
                    self.quarantine.take(folder, &place)?;
                }
            }
            return Ok(found);
        }
        let list = |source| Error::io("list", folder, source);
        for entry in fs::read_dir(folder).map_err(list)? {
            let path = entry.map_err(list)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(digits) = name.strip_prefix("j-") else { continue };
            match digits.parse().ok().filter(|first| name == segment_name(*first)) {
                Some(first) => found.push((first, path)),
                None => {
                    let place = self.place(&path);
                    self.find(&place, "not a segment's name", Vec::new())?;
                    if self.mode == Mode::Mend {
                        self.quarantine.take(&path, &place)?;
                    }
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// A log of which nothing is left, or that never was.
    fn no_segments(&mut self, folder: &Path, of: &Of<'_>, mut mended: Mended) -> Result<Mended, Error> {
        if mended.end == 0 {
            return Ok(mended);
        }
        // Where the journal began nobody knows but the pipelines, which tell what they miss.
        let start = if of.stage == "journal" { mended.end } else { 0 };
        let gone = start..mended.end;
        mended.lost = of.wanted(std::slice::from_ref(&gone));
        self.find(&self.place(folder), "all its segments are missing", of.losses(&mended.lost))?;
        if self.mode == Mode::Mend {
            sync::create_folder(folder)?;
            let first = mended.lost.first().map_or(mended.end, |lost| lost.start);
            self.put_gap(folder, first..mended.end)?;
        }
        Ok(mended)
    }

    /// Checks one segment, and mends it; how far it reaches now, and what is lost of it.
    fn part(&mut self, part: &Part, of: &Of<'_>, firsts: &[Seq]) -> Result<(Seq, Vec<Range<Seq>>), Error> {
        // Before the engine opens it: on some damage it writes over what it does not understand.
        let found = part.path.join(FOUND);
        let bytes = read_hard(&if found.exists() { found.clone() } else { part.path.join("db") })?;
        let fault = match self.check(part)? {
            Ok(next) if part.hides_more(next, &bytes) => format!("it has records behind its end, {next}"),
            Ok(next) if part.is_reached(next) => {
                return Ok((part.until.unwrap_or(part.goes_to(next)), Vec::new()));
            }
            Ok(next) if part.until.is_some_and(|until| until < next) && firsts.contains(&next) => {
                return Ok((next, Vec::new()));
            }
            Ok(next) => format!("it ends at {next}, not at {}", part.until.unwrap_or(part.end.least())),
            Err(fault) => fault,
        };
        let salvaged = self.salvage(part, &bytes)?;
        let until = part.until.unwrap_or_else(|| part.goes_to(salvaged.end().unwrap_or(0)).max(part.first));
        let lost = of.wanted(&salvaged.lost(&(part.first..until)));
        self.find(&part.place, &fault, of.losses(&lost))?;
        if self.mode == Mode::Mend {
            self.replace(part, until, &salvaged)?;
        }
        Ok((until, lost))
    }

    /// Where its records end, or what is wrong with it.
    fn check(&mut self, part: &Part) -> Result<Result<Seq, String>, Error> {
        if self.notes.suspects.contains(&part.place) {
            return Ok(Err("the engine did not survive its opening".to_owned()));
        }
        if !part.path.is_dir() {
            return Ok(Err("it is no folder".to_owned()));
        }
        let path = self.openable(&part.path)?;
        self.notes.opening(&part.place)?;
        let scanned = within_patience(path, part.first);
        self.notes.opened(&part.place)?;
        match scanned {
            Ok(next) => Ok(Ok(next)),
            Err(Error::Damaged { detail, .. }) => Ok(Err(detail)),
            Err(Error::Io { source, .. }) if is_of_the_data(&source) => Ok(Err(source.to_string())),
            Err(error) => Err(error),
        }
    }

    fn salvage(&mut self, part: &Part, bytes: &[u8]) -> Result<Salvaged, Error> {
        let until = match (part.until, part.end) {
            (Some(until), _) | (None, End::Committed(until)) => until,
            (None, _) => Seq::MAX,
        };
        let mut found = Found::new(part.first..until);
        found.by_bytes(bytes);
        if !self.notes.suspects.contains(&part.place) && part.path.is_dir() {
            let path = self.openable(&part.path)?;
            self.notes.opening(&part.place)?;
            if let Err(error) = found.by_engine(&path) {
                tracing::debug!(%error, place = part.place, "the engine gives no more");
            }
            self.notes.opened(&part.place)?;
        }
        Ok(found.finish())
    }

    /// Puts what was salvaged in the segment's place.
    fn replace(&self, part: &Part, until: Seq, salvaged: &Salvaged) -> Result<(), Error> {
        let Some(folder) = part.path.parent() else { return Ok(()) };
        let made = new_segment(folder)?;
        Segment::compose(&made, part.first..until, &salvaged.records)?;
        let io = |source: rustix::io::Errno| Error::io("replace", &part.path, source.into());
        let (here, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
        rustix::fs::renameat_with(here, &made, here, &part.path, exchange).map_err(io)?;
        sync::sync_path(folder)?;
        self.quarantine.take(&made, &part.place)
    }

    /// A new segment that is a gap: after one whose records end before.
    fn put_gap(&self, folder: &Path, numbers: Range<Seq>) -> Result<(), Error> {
        let (made, path) = (new_segment(folder)?, folder.join(segment_name(numbers.start)));
        Segment::compose(&made, numbers, &[])?;
        fs::rename(&made, &path).map_err(|source| Error::io("rename", &made, source))?;
        sync::sync_path(folder)
    }
}

impl Part {
    fn is_reached(&self, next: Seq) -> bool {
        self.until.map_or(next >= self.end.least(), |until| next == until)
    }

    /// Where the last segment ends whose records end at `next`.
    fn goes_to(&self, next: Seq) -> Seq {
        match self.end {
            End::Committed(end) => end,
            End::Held(least) | End::Found(least) | End::Written(least) => next.max(least),
        }
    }

    /// Whether the engine gave up before the last record that lies in the bytes: it takes an entry that is
    /// not whole for the end of what it has written.
    fn hides_more(&self, next: Seq, bytes: &[u8]) -> bool {
        if self.until.is_some() || !matches!(self.end, End::Written(_)) {
            return false;
        }
        let mut found = Found::new(next..Seq::MAX);
        found.by_bytes(bytes);
        found.finish().end().is_some()
    }
}

/// Scans a segment on a thread of its own: the engine may hang.
fn within_patience(path: PathBuf, first: Seq) -> Result<Seq, Error> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let folder = path.clone();
    let scan = move || {
        let scanned = Segment::open(&path, first).and_then(|segment| segment.scan());
        // Nobody waits any more: it hung.
        drop(send.send(scanned.map(|tail| tail.next)));
    };
    let thread = std::thread::Builder::new().name("store-verify".to_owned());
    let thread = thread.spawn(scan).map_err(|source| Error::io("start a thread for", &folder, source))?;
    match receive.recv_timeout(crate::salvage::ENGINE_PATIENCE) {
        Ok(scanned) => {
            drop(thread.join());
            scanned
        }
        Err(_) => Err(Error::damaged(&folder, "the engine hangs or panicked at its opening")),
    }
}

fn new_segment(folder: &Path) -> Result<PathBuf, Error> {
    let made = folder.join("new-mended");
    if made.exists() {
        fs::remove_dir_all(&made).map_err(|source| Error::io("remove", &made, source))?;
    }
    Ok(made)
}

fn segment_name(first: Seq) -> String {
    format!("j-{first:020}")
}

/// All bytes of a file; zeros where the disk does not give them, none where there is no file.
fn read_hard(path: &Path) -> Result<Vec<u8>, Error> {
    const BLOCK: usize = 4096;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if is_of_the_data(&error) => return Ok(Vec::new()),
        Err(source) => return Err(Error::io("open", path, source)),
    };
    let failed = |source| Error::io("read", path, source);
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    if file.read_exact_at(&mut bytes, 0).is_ok() {
        return Ok(bytes);
    }
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        match file.read_exact_at(block, (index * BLOCK) as u64) {
            Err(error) if is_of_the_data(&error) => block.fill(0),
            read => read.map_err(failed)?,
        }
    }
    Ok(bytes)
}

/// Whether the error says that the data is not there or not right; anything else, such as too many
/// open files, says nothing about it, and the repair must not go on.
pub(super) fn is_of_the_data(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    const EIO: i32 = 5;
    match error.kind() {
        Kind::NotFound
        | Kind::InvalidData
        | Kind::InvalidInput
        | Kind::UnexpectedEof
        | Kind::NotADirectory
        | Kind::IsADirectory => true,
        Kind::Other => !error.to_string().contains("lock"),
        _ => error.raw_os_error() == Some(EIO),
    }
}
