//! The versions of one pipeline's modules on disk: the one that runs, the one before, and one that was
//! taken back.
//!
//! ```text
//! <state>/versions/<pipeline>/
//!     versions.json     which they are; written whole
//!     <sha256>.wasm     copies of the modules of the first two, by their digests; with .sig, if there is one
//! ```
//!
//! **Invariant:** a version that was taken back does not run again because of a restart: until the
//! configuration says something else, the one before runs.
//!
//! Bounds: two copies for each step; what no version needs is removed. Without room for a copy the
//! pipeline goes on, and there is nothing to go back to. A crash in here leaves the old file or the new.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::modules::{Version, copy_name, steps};
use super::{Config, Error};
use crate::module::{self, signature_file};

const FILE: &str = "versions.json";

/// What is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    running: Version,
    before: Option<Version>,
    /// It has run without a trip for the time of its trial.
    proven: bool,
    refused: Option<(Version, String)>,
}

/// One pipeline's.
#[derive(Debug, Default)]
pub struct Versions {
    /// None in tests of other things.
    folder: Option<PathBuf>,
    record: Record,
    /// The version that is about to start.
    configured: Option<Version>,
}

impl Versions {
    /// Which configuration is to run: the one given, or the version before if this one was taken back.
    ///
    /// # Errors
    /// When a module cannot be read.
    pub fn open(state: &Path, name: &str, config: &Config) -> Result<(Self, Config), Error> {
        let folder = state.join("versions").join(name);
        let configured = Version::of(name, config)?;
        let record = read(&folder.join(FILE));
        let (record, folder) = (record.unwrap_or_default(), Some(folder));
        let mut versions = Self { folder, record, configured: None };
        if let Some((refused, reason)) = &versions.record.refused
            && *refused == configured
            && let Some(before) = versions.copies(&versions.record.running, config)
        {
            error!(pipeline = name, reason, "the configured modules were taken back: the ones before run");
            return Ok((versions, before));
        }
        versions.configured = Some(configured);
        Ok((versions, config.clone()))
    }

    /// What was opened has started.
    pub(super) fn started(&mut self, config: &Config) {
        match self.configured.take() {
            // Who changes the file and starts the agent looks on: what trips then is a matter of the policy.
            Some(configured) if configured != self.record.running => self.take(configured, true, config),
            Some(_) => self.save(config),
            None => {}
        }
    }

    /// The version that runs.
    pub(super) fn running(&self) -> &Version {
        &self.record.running
    }

    /// Whether any trip takes it back.
    pub(super) fn is_on_trial(&self) -> bool {
        !self.record.proven && self.record.before.is_some()
    }

    /// Why that version does not run again.
    pub(super) fn refusal(&self, version: &Version) -> Option<&str> {
        let (refused, reason) = self.record.refused.as_ref()?;
        (refused == version).then_some(reason)
    }

    /// The version before, and how to run it.
    pub(super) fn before(&self, config: &Config) -> Option<(Version, Config)> {
        let before = self.record.before.clone()?;
        let config = self.copies(&before, config)?;
        Some((before, config))
    }

    /// Another version runs from here on; `config` is where its modules are.
    pub(super) fn switched(&mut self, version: Version, config: &Config) {
        self.take(version, false, config);
    }

    fn take(&mut self, version: Version, proven: bool, config: &Config) {
        let before = std::mem::replace(&mut self.record.running, version);
        // At a start for the first time there is none.
        self.record.before = (!before.steps.is_empty()).then_some(before);
        self.record.proven = proven || self.record.before.is_none();
        self.save(config);
    }

    /// The version before runs again, and this one not.
    pub(super) fn taken_back(&mut self, reason: String, config: &Config) {
        let Some(before) = self.record.before.take() else { return };
        let refused = std::mem::replace(&mut self.record.running, before);
        (self.record.refused, self.record.proven) = (Some((refused, reason)), true);
        self.save(config);
    }

    /// The trial is over.
    pub(super) fn proven(&mut self, config: &Config) {
        self.record.proven = true;
        self.save(config);
    }

    /// What was taken back may be tried again.
    pub(super) fn pardon(&mut self, config: &Config) {
        if self.record.refused.take().is_some() {
            self.save(config);
        }
    }

    /// How to run a version from its copies, if they are there.
    fn copies(&self, version: &Version, config: &Config) -> Option<Config> {
        let config = version.config(config, self.folder.as_deref()?)?;
        let there = steps(&config).iter().zip(&version.steps).all(|((_, module), step)| {
            module::digest(&module.origin.file).is_ok_and(|digest| digest == step.digest)
        });
        there.then_some(config)
    }

    fn save(&self, config: &Config) {
        let Some(folder) = self.folder.as_ref().filter(|_| !self.record.running.steps.is_empty()) else {
            return;
        };
        if let Err(error) = self.write(folder, config) {
            warn!(%error, folder = %folder.display(), "failed to keep a copy of the modules: there is no way back to them");
        }
    }

    fn write(&self, folder: &Path, config: &Config) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for ((_, module), step) in steps(config).into_iter().zip(&self.record.running.steps) {
            let copy = folder.join(copy_name(&step.digest));
            let file = &module.origin.file;
            if *file == copy {
                continue;
            }
            if !copy.exists() {
                write_whole(&copy, &std::fs::read(file)?)?;
            }
            // Who goes back to it asks for its signature again.
            if let Ok(signature) = std::fs::read(signature_file(file)) {
                write_whole(&signature_file(&copy), &signature)?;
            }
        }
        let json = serde_json::to_vec_pretty(&self.record).map_err(std::io::Error::other)?;
        write_whole(&folder.join(FILE), &json)?;
        self.sweep(folder)
    }

    /// Removes what neither the version that runs nor the one before needs.
    fn sweep(&self, folder: &Path) -> std::io::Result<()> {
        let kept = [Some(&self.record.running), self.record.before.as_ref()].into_iter().flatten();
        let kept: Vec<_> = kept.flat_map(|version| &version.steps).map(|it| copy_name(&it.digest)).collect();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != FILE && !kept.iter().any(|kept| kept == name.trim_end_matches(".sig")) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What cannot be read is as if it were not there: the configured modules run, without a way back.
fn read(file: &Path) -> Option<Record> {
    let bytes = std::fs::read(file).ok()?;
    let read = serde_json::from_slice(&bytes);
    read.inspect_err(|error| warn!(%error, file = %file.display(), "failed to read the versions")).ok()
}

/// The file has all of it or is as before.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = file.with_extension("new");
    let mut open = std::fs::File::create(&unfinished)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    std::fs::rename(&unfinished, file)?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
