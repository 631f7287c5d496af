//! The layout's version: a newer one is refused, an older one is migrated step by step.
//!
//! The steps up to [`REPAIRABLE`] rewrite small files. Each first copies these to `layout-N/`, whole or not at
//! all, and makes the new files from that copy; the new version is written last, in one step. **A crash here**
//! repeats the step. The step behind it, which reads databases, is in `layout/records.rs`: it is taken only by
//! an opening that finds the store whole, so that a repair never depends on it.

pub(crate) mod records;

use super::error::Error;
use super::folder::Folder;
use super::mark::Mark;
use super::marks::{self, Marks};
use super::room::Room;
use super::sync;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

pub(super) use records::Backups;

pub(super) const LAYOUT: u32 = 4;
/// The oldest layout of which a repair reads everything.
const REPAIRABLE: u32 = 3;
const WORDS: &str = "headwater state ";
/// The first layout whose version has a checksum.
const CHECKED: u32 = 3;

/// From one layout to the next.
struct Step {
    from: u32,
    /// The files of the store that it rewrites or removes.
    rewrites: &'static [&'static str],
    /// Makes the new files, durably, from the copies in the folder it is given.
    make: fn(&Folder, &Path) -> Result<(), Error>,
}

const STEPS: [Step; 2] = [
    Step { from: 1, rewrites: &["layout", "journal-mark", "meta-mark"], make: two_slots },
    // Nothing of 2 is written otherwise; what 3 has besides (`recent.rs`) an agent that knows only 2 would
    // not see.
    Step { from: 2, rewrites: &["layout"], make: |_, _| Ok(()) },
];

/// Brings the folder, which was found whole or never used, to this layout.
///
/// # Errors
/// [`Error::Full`] where there is no room for what is rewritten, and otherwise as [`check`].
pub(super) fn migrate(folder: &Folder, room: &Room) -> Result<(), Error> {
    if check(folder, true)? == REPAIRABLE {
        records::prepare(folder, room)?;
        headwater_fail::point("layout.prepared");
        write(folder, LAYOUT)?;
        tracing::info!(from = REPAIRABLE, "layout of the state folder migrated");
    }
    records::finish(folder)
}

/// Checks that the folder has a layout that a repair reads, this one or [`REPAIRABLE`], and returns it. With
/// `change` an older one is brought there, and a folder that was never used gets this one.
///
/// # Errors
/// [`Error::Newer`], and [`Error::Damaged`] where the version is gone or no version.
pub(super) fn check(folder: &Folder, change: bool) -> Result<u32, Error> {
    let path = folder.path().join("layout");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(used) = folder.used() {
                let detail = format!("it is missing, yet {} is there", used.display());
                return Err(Error::damaged(&path, detail));
            }
            return if change { write(folder, LAYOUT).map(|()| LAYOUT) } else { Ok(LAYOUT) };
        }
        Err(source) => return Err(Error::io("read", &path, source)),
    };
    let text = String::from_utf8_lossy(&text);
    match version(&text) {
        Some(LAYOUT) if change => records::finish(folder).map(|()| LAYOUT),
        Some(LAYOUT) if records::is_under_way(folder) => {
            Err(Error::Older { path, found: REPAIRABLE, known: LAYOUT })
        }
        Some(found @ (REPAIRABLE | LAYOUT)) => Ok(found),
        Some(found) if found > LAYOUT => Err(Error::Newer { path, found, known: LAYOUT }),
        Some(found) if change => migrate_files(folder, found).map(|()| REPAIRABLE),
        Some(found) => Err(Error::Older { path, found, known: LAYOUT }),
        None => Err(Error::damaged(&path, format!("it does not say \"{}\"", said(LAYOUT).trim_end()))),
    }
}

/// What the file says. Since layout 3 with a checksum: a digit that rotted is neither newer nor older.
pub(super) fn said(version: u32) -> String {
    let words = format!("{WORDS}{version}");
    let crc = crc32fast::hash(words.as_bytes());
    if version < CHECKED { format!("{words}\n") } else { format!("{words} {crc:08x}\n") }
}

fn version(text: &str) -> Option<u32> {
    let version = text.strip_prefix(WORDS)?.split_whitespace().next()?.parse().ok()?;
    (version > 0 && said(version).trim_end() == text.trim_end()).then_some(version)
}

/// Writes the version anew after it was lost: which one it was, the files that it alone has tell.
pub(super) fn mend(folder: &Folder) -> Result<(), Error> {
    let old = STEPS
        .iter()
        .find(|step| step.rewrites.iter().any(|name| *name != "layout" && folder.path().join(name).exists()));
    let known = if records::is_prepared(folder) { LAYOUT } else { REPAIRABLE };
    // Records that are of this layout already stay as they are.
    write(folder, old.map_or(known, |step| step.from))?;
    check(folder, true).map(drop)
}

fn migrate_files(folder: &Folder, found: u32) -> Result<(), Error> {
    for step in STEPS.iter().filter(|step| step.from >= found) {
        let backup = folder.path().join(format!("layout-{}", step.from));
        back_up(folder, step, &backup)?;
        (step.make)(folder, &backup)?;
        write(folder, step.from + 1)?;
        tracing::info!(from = step.from, backup = %backup.display(), "layout of the state folder migrated");
    }
    Ok(())
}

fn back_up(folder: &Folder, step: &Step, backup: &Path) -> Result<(), Error> {
    if backup.exists() {
        return Ok(());
    }
    let made = folder.path().join(format!("new-layout-{}", step.from));
    let copy = || {
        if made.exists() {
            fs::remove_dir_all(&made)?;
        }
        fs::create_dir(&made)?;
        for name in step.rewrites {
            let file = folder.path().join(name);
            if file.exists() {
                fs::copy(file, made.join(name))?;
            }
        }
        Ok(())
    };
    copy().map_err(|source| Error::io("back up to", &made, source))?;
    sync::sync_tree(&made)?;
    fs::rename(&made, backup).map_err(|source| Error::io("rename", &made, source))?;
    sync::sync_path(folder.path())
}

/// 1 to 2: the marks get two slots each, and new names. A mark that cannot be read is left out: what
/// it marked is then looked at as after any damage.
fn two_slots(folder: &Folder, backup: &Path) -> Result<(), Error> {
    if let Some(number) = old_mark(&backup.join("journal-mark")) {
        Mark::write(&folder.journal_marks(), number)?;
    }
    if let Some(batches) = old_mark(&backup.join("meta-mark")) {
        let (file, _) = marks::File::open(&folder.meta_marks())?;
        file.write(&Marks::alone(batches).encode(), batches)?;
        file.sync()?;
    }
    for old in ["journal-mark", "meta-mark"].map(|name| folder.path().join(name)) {
        if old.exists() {
            fs::remove_file(&old).map_err(|source| Error::io("remove", &old, source))?;
        }
    }
    Ok(())
}

/// A number of 8 bytes, little-endian, and its CRC-32.
fn old_mark(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    let (number, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32fast::hash(number).to_le_bytes()).then(|| u64::from_le_bytes(*number))
}

fn write(folder: &Folder, version: u32) -> Result<(), Error> {
    let (made, path) = (folder.path().join("new-layout"), folder.path().join("layout"));
    let write = || {
        let mut file = File::create(&made)?;
        file.write_all(said(version).as_bytes())?;
        file.sync_all()?;
        headwater_fail::point("layout.made");
        fs::rename(&made, &path)
    };
    write().map_err(|source| Error::io("write", &made, source))?;
    headwater_fail::point("layout.renamed");
    sync::sync_path(folder.path())
}
