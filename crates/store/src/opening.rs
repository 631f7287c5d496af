//! Opens the store: as it is where it is whole, else after a repair.
//!
//! **A crash here** is counted: an opening that did not end [`ATTEMPTS_MAX`] times, because the engine
//! hangs or takes the process with it, is followed by a repair, which finds out on what.

use super::codec::{self, Row};
use super::error::{Error, Health};
use super::folder::{Folder, output_of};
use super::given_up::GivenUp;
use super::letters::Letters;
use super::log::{End, Log, SEGMENT, Shared, Size};
use super::mark::Mark;
use super::meta::Meta;
use super::metrics::StoreMetrics;
use super::prepare::Preparer;
use super::repair::{self, Finding, Mode, harmed};
use super::room::Room;
use super::{Config, Inner, Store, Tail, layout, lock, sync, thin};
use headwater_flow::{Seq, Timestamp};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Openings in a row that may be killed.
const ATTEMPTS_MAX: u32 = 3;

impl Store {
    /// Opens or creates the folder. One agent per folder (lock). What is damaged is mended first, and
    /// what is lost by it will be reported.
    ///
    /// # Errors
    /// When the folder is locked, not writable, newer or full, or damaged beyond repair: each names
    /// what and where.
    pub fn open(config: &Config, metrics: &StoreMetrics) -> Result<Self, Error> {
        let folder = Arc::new(Folder::open(&config.path)?);
        let attempt = Attempt::begin(&folder)?;
        if attempt.number > ATTEMPTS_MAX {
            harmed::note(folder.path(), &format!("{ATTEMPTS_MAX} openings did not end"));
        }
        // Without room nothing is opened, nor mended: nothing is touched.
        let room = Arc::new(Room::open(folder.path(), config.ballast_bytes, metrics.disk.clone())?);
        let mut mended = false;
        let store = loop {
            if harmed::is_harmed(folder.path()) {
                count(&repair::run(&folder, Mode::Mend, Timestamp::now())?, metrics);
                mended = true;
            }
            match open_whole(config, &folder, &room, metrics) {
                Err(error @ (Error::Damaged { .. } | Error::Io { .. })) => {
                    harmed::note(folder.path(), &error.to_string());
                    if mended {
                        return Err(error);
                    }
                }
                outcome => break outcome?,
            }
        };
        drop(attempt);
        Ok(store)
    }

    /// Verifies every part of a store that nobody has open, and changes nothing.
    ///
    /// # Errors
    /// When the folder is locked, or the disk does not let it.
    pub fn verify(path: &Path) -> Result<Vec<Finding>, Error> {
        repair::run(&existing(path)?, Mode::Look, Timestamp::now())
    }

    /// Verifies every part of a store that nobody has open, and mends what is damaged.
    ///
    /// # Errors
    /// When the folder is locked, or the disk does not let it.
    pub fn repair(path: &Path) -> Result<Vec<Finding>, Error> {
        repair::run(&existing(path)?, Mode::Mend, Timestamp::now())
    }
}

/// A folder that is there: to look for damage makes none.
fn existing(path: &Path) -> Result<Folder, Error> {
    if !path.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::Io { action: "open", path: path.to_owned(), source });
    }
    Folder::open(path)
}

fn open_whole(
    config: &Config,
    folder: &Arc<Folder>,
    room: &Arc<Room>,
    metrics: &StoreMetrics,
) -> Result<Store, Error> {
    layout::migrate(folder, room)?;
    let health = Health::of(folder.path());
    let preparer = Preparer::start();
    if !folder.meta().exists() {
        create_meta(folder)?;
    }
    let meta = Meta::open(&folder.meta(), &folder.meta_marks(), health.clone(), metrics.log("meta"))?;
    let size = Size { bytes: config.segment_bytes, ..SEGMENT };
    let shared = Shared { preparer: &preparer, health: &health, size };
    if !folder.journal_marks().exists() && folder.journal().exists() {
        return Err(Error::damaged(&folder.journal_marks(), "it is missing"));
    }
    let (mark, marked) = Mark::open(&folder.journal_marks())?;
    let end = End::Held { mark, marked, used: last_position(&meta, folder)? };
    let journal = Log::open(&folder.journal(), end, shared, metrics.log("journal"))?;
    let dead_letters_end = meta.number(&Row::dead_letters())?;
    let end = End::Committed(dead_letters_end);
    let dead_letters = Log::open(&folder.dead_letters(), end, shared, metrics.log("dead-letters"))?;
    let given_up = GivenUp::of(meta.number(&Row::letters_below())?, meta.all(b'u'));
    sync::create_folder(&folder.outboxes())?;
    thin::recover(&meta, folder)?;
    room.tend()?;
    let store = Store(Arc::new(Inner {
        tail: Mutex::new(Tail { end: journal.end(), closing: false, nudges: 0 }),
        grown: Condvar::new(),
        journal,
        outboxes: Mutex::default(),
        dead_letters,
        letters: Mutex::new(Letters::new(dead_letters_end, given_up)),
        meta,
        preparer,
        changed: Mutex::default(),
        health,
        logs: metrics.logs.clone(),
        redelivery_window: config.redelivery_window,
        quotas: config.quotas.clone(),
        size,
        readers: Mutex::default(),
        newest: AtomicU64::new(0),
        room: Arc::clone(room),
        recent: Mutex::default(),
        window_memory_max: config.window_memory_max,
        told: Mutex::default(),
        backups: Mutex::default(),
        folder: Arc::clone(folder),
    }));
    store.open_outboxes()?;
    *lock(&store.0.backups) = layout::Backups::find(&store)?;
    // Where the last message cannot be read nothing is known, and whoever reads it will say why.
    let last = store.read(store.journal_end().saturating_sub(1), 1).unwrap_or_default();
    let newest = last.first().map_or(0, |(_, message)| message.received.0);
    store.0.newest.store(newest, Ordering::Release);
    Ok(store)
}

impl Store {
    /// All that have a row, so that damage is found now; a folder without a row is damage too.
    fn open_outboxes(&self) -> Result<(), Error> {
        for (row, _) in self.0.meta.all(b'o') {
            if let Some((_, output)) = row.parts() {
                self.outbox(output)?;
            }
        }
        let folder = self.0.folder.outboxes();
        let list = |source| Error::io("list", &folder, source);
        for entry in fs::read_dir(&folder).map_err(list)? {
            let path = entry.map_err(list)?.path();
            let output = path.file_name().and_then(|name| name.to_str()).and_then(output_of);
            if !output.is_some_and(|output| lock(&self.0.outboxes).contains_key(&output)) {
                return Err(Error::damaged(&path, "its row is missing from `meta`"));
            }
        }
        Ok(())
    }
}

/// Only for a folder that never held anything: `meta` is made before all else.
fn create_meta(folder: &Folder) -> Result<(), Error> {
    if let Some(used) = folder.used() {
        let detail = format!("it is missing, yet {} is there", used.display());
        return Err(Error::damaged(&folder.meta(), detail));
    }
    Meta::create(&folder.meta(), &folder.meta_made())
}

/// The furthest position of any pipeline: numbers below it are used up.
fn last_position(meta: &Meta, folder: &Folder) -> Result<Seq, Error> {
    let mut last = 0;
    for (_, value) in meta.all(b'p') {
        let row = codec::pipeline(&value);
        let (position, _) =
            row.map_err(|garbled| Error::garbled(&folder.meta(), "row of a pipeline", garbled))?;
        last = last.max(position);
    }
    Ok(last)
}

fn count(findings: &[Finding], metrics: &StoreMetrics) {
    for finding in findings {
        let part = finding.place.split('/').next().unwrap_or_default();
        let stage = ["journal", "outbox", "dead-letters"].into_iter().find(|stage| *stage == part);
        let log = metrics.log(stage.unwrap_or("meta"));
        log.repairs.inc();
        log.lost_records.inc_by(finding.lost.iter().filter_map(|loss| loss.count).sum());
    }
}

/// The file `opening`: how many openings in a row did not end. Not synced: it is about the process.
struct Attempt<'a> {
    folder: &'a Folder,
    number: u32,
}

impl<'a> Attempt<'a> {
    fn begin(folder: &'a Folder) -> Result<Self, Error> {
        let path = folder.path().join("opening");
        let before = fs::read_to_string(&path).ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        let number = before.saturating_add(1);
        fs::write(&path, number.to_string()).map_err(|source| Error::io("write", &path, source))?;
        Ok(Self { folder, number })
    }
}

/// Also when the opening failed in good order.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let path = self.folder.path().join("opening");
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "file not removed");
        }
    }
}
