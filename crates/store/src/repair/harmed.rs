//! The file `harmed`: why the store is not to be trusted, and how far its repair has come.
//!
//! Lines of JSON. Who notices harm writes the cause; the repair adds its name, each database before and
//! after it is opened, and what it finds. A database whose opening was never finished made the engine
//! hang or end the process: it is not opened again, and only its bytes are searched.

use super::{Finding, Mode};
use crate::error::Error;
use crate::sync;
use headwater_flow::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = "harmed";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Cause(String),
    Repair(String),
    Opening(String),
    Opened(String),
    Finding(Finding),
}

/// The file, open for the repair.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
    /// `None` where nothing is to be written.
    file: Option<File>,
    name: String,
    pub(super) causes: Vec<String>,
    /// Places that cannot be opened.
    pub(super) suspects: BTreeSet<String>,
    /// What an earlier attempt of this repair found.
    pub(super) findings: Vec<Finding>,
}

/// Whether the store is to be verified before it is used.
pub(crate) fn is_harmed(folder: &Path) -> bool {
    folder.join(NAME).exists()
}

/// Notes why the store is to be verified at its next opening: as well as can be, since the disk may be
/// what failed.
pub(crate) fn note(folder: &Path, cause: &str) {
    let path = folder.join(NAME);
    let write = || {
        let mut file = File::options().create(true).append(true).open(&path)?;
        put(&mut file, &Line::Cause(cause.to_owned()))?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    if let Err(error) = write() {
        tracing::error!(%error, path = %path.display(), "cause of the harm not written");
    }
}

impl Notes {
    pub(super) fn open(folder: &Path, mode: Mode, now: Timestamp) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let text = fs::read(&path).unwrap_or_default();
        let (mut name, mut causes, mut findings) = (None, Vec::new(), Vec::<Finding>::new());
        let mut suspects = BTreeSet::new();
        // The last line may be torn.
        for line in String::from_utf8_lossy(&text).lines() {
            match serde_json::from_str(line) {
                Ok(Line::Cause(cause)) => causes.push(cause),
                Ok(Line::Repair(repair)) => name = Some(repair),
                Ok(Line::Opening(place)) => drop(suspects.insert(place)),
                Ok(Line::Opened(place)) => drop(suspects.remove(&place)),
                Ok(Line::Finding(finding)) => {
                    findings.retain(|known| known.place != finding.place);
                    findings.push(finding);
                }
                Err(_) => {}
            }
        }
        let io = |source| Error::io("write", &path, source);
        let file = match mode {
            Mode::Look => None,
            Mode::Mend => Some(File::options().create(true).append(true).open(&path).map_err(io)?),
        };
        let known = name.is_some();
        let name = name.unwrap_or_else(|| super::quarantine::name(folder, now));
        let mut notes = Self { path, file, name, causes, suspects, findings };
        if !known {
            notes.put(&Line::Repair(notes.name.clone()))?;
            notes.sync()?;
        }
        Ok(notes)
    }

    /// What the repair is called, also if it takes several attempts.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn opening(&mut self, place: &str) -> Result<(), Error> {
        self.put(&Line::Opening(place.to_owned()))
    }

    pub(super) fn opened(&mut self, place: &str) -> Result<(), Error> {
        self.put(&Line::Opened(place.to_owned()))
    }

    pub(super) fn finding(&mut self, finding: &Finding) -> Result<(), Error> {
        self.put(&Line::Finding(finding.clone()))?;
        self.sync()
    }

    /// The store is whole again.
    pub(super) fn done(&mut self) -> Result<(), Error> {
        self.file = None;
        fs::remove_file(&self.path).map_err(|source| Error::io("remove", &self.path, source))?;
        self.path.parent().map_or(Ok(()), sync::sync_path)
    }

    fn put(&mut self, line: &Line) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        put(file, line).map_err(|source| Error::io("write", &self.path, source))
    }

    fn sync(&self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_all().map_err(|source| Error::io("sync", &self.path, source))
    }
}

/// In one write, after a line feed: what is before it may be torn.
fn put(file: &mut File, line: &Line) -> std::io::Result<()> {
    let line = serde_json::to_string(line).map_err(std::io::Error::other)?;
    file.write_all(format!("\n{line}\n").as_bytes())
}
