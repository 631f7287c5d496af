//! The quarantine: damaged parts as they were found, for people to look at.
//!
//! `quarantine/<UTC time>-<n>/` holds the parts of one repair under their own names, and `report.json`.
//! **Limits.** [`KEPT_MAX`] repairs and [`BYTES_MAX`] bytes are kept: the oldest are removed, and of one
//! repair that is larger alone what does not fit.

use super::Finding;
use crate::error::Error;
use crate::sync;
use headwater_flow::Timestamp;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Repairs kept.
const KEPT_MAX: usize = 8;
/// Bytes kept.
const BYTES_MAX: u64 = 64 << 20;
const NAME: &str = "quarantine";

/// The quarantine of one repair.
#[derive(Debug)]
pub(super) struct Quarantine {
    all: PathBuf,
    own: PathBuf,
}

/// A name for a repair that begins now.
pub(super) fn name(folder: &Path, now: Timestamp) -> String {
    let time: String = now.to_string().chars().take(19).filter(|it| !"-:".contains(*it)).collect();
    let free = |number: &u32| !folder.join(NAME).join(format!("{time}Z-{number}")).exists();
    let number = (1..).find(free).unwrap_or(1);
    format!("{time}Z-{number}")
}

impl Quarantine {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let all = folder.join(NAME);
        Self { own: all.join(name), all }
    }

    /// Moves a folder or file here; one that does not fit any more is removed.
    pub(super) fn take(&self, path: &Path, place: &str) -> Result<(), Error> {
        if !path.exists() {
            return Ok(());
        }
        let remove = |source| Error::io("remove", path, source);
        if bytes_of(&self.own) + bytes_of(path) > BYTES_MAX {
            tracing::warn!(place, "damaged part removed: the quarantine is full");
            return if path.is_dir() {
                fs::remove_dir_all(path).map_err(remove)
            } else {
                fs::remove_file(path).map_err(remove)
            };
        }
        let mut kept = self.own.join(place);
        while kept.exists() {
            kept.set_file_name(format!("{}+", kept.file_name().unwrap_or_default().to_string_lossy()));
        }
        if let Some(parent) = kept.parent() {
            sync::create_folder(parent)?;
        }
        fs::rename(path, &kept).map_err(|source| Error::io("rename", path, source))
    }

    /// Writes down what was found.
    pub(super) fn report(
        &self,
        now: Timestamp,
        causes: &[String],
        findings: &[Finding],
    ) -> Result<(), Error> {
        sync::create_folder(&self.own)?;
        let path = self.own.join("report.json");
        let report = serde_json::json!({ "time": now, "causes": causes, "findings": findings });
        let write = || {
            let mut file = fs::File::create(&path)?;
            writeln!(file, "{report:#}")?;
            file.sync_all()
        };
        write().map_err(|source| Error::io("write", &path, source))?;
        sync::sync_path(&self.own)
    }

    /// Removes the oldest until the rest is within the bounds.
    pub(super) fn tidy(&self) -> Result<(), Error> {
        if !self.all.is_dir() {
            return Ok(());
        }
        let list = |source| Error::io("list", &self.all, source);
        let entries = fs::read_dir(&self.all).map_err(list)?;
        let mut kept: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(list)?;
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|path| bytes_of(path)).sum();
        let mut number = kept.len();
        for oldest in kept.iter().filter(|path| **path != self.own) {
            if number <= KEPT_MAX && bytes <= BYTES_MAX {
                break;
            }
            bytes -= bytes_of(oldest);
            number -= 1;
            fs::remove_dir_all(oldest).map_err(|source| Error::io("remove", oldest, source))?;
        }
        Ok(())
    }
}

/// Bytes of all files below.
fn bytes_of(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_of(&entry.path())).sum()
}
