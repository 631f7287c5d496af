//! Modules from elsewhere: over HTTPS, or from an OCI registry; fetched once, and kept.
//!
//! A pipeline names all its modules and gets files for them: `fetched/<sha256>` in the state folder, and
//! `<sha256>.sig` where signatures are asked for. From there on they are modules like others, and judged like
//! them at each load.
//!
//! **Invariants.** What is fetched is pinned: by the digest of the file, or of the OCI manifest, which has that
//! of its layer. So whoever serves it can withhold it and not change it, and a redirection is followed. Nothing
//! is asked for that is here. Nothing goes out but over TLS.
//!
//! **Bounds**: [`Config::deadline`] for a module, with up to [`TRIES_MAX`] tries of each request, spaced by
//! chance; [`Config::bytes_max`] for its size, [`Config::kept_bytes_max`] for all that are kept. To make room, what no pipeline names goes, the longest unused first; what one names never goes, and
//! what has no room beside it is refused.
//!
//! A crash leaves whole files, and some `new-…`, which the next start removes.

mod http;
mod registry;
mod round;

use super::cache::{UNFINISHED, Unfinished, hex, sweep};
use super::trust::{Digest, PublicKey};
use super::{Error, Origin};
use crate::metrics;
use headwater_access::secret::Secret;
pub use registry::Remote;
use round::Round;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};
use tracing::warn;

const REDIRECTIONS_MAX: usize = 5;
/// Tries of one request, while what is wrong may pass.
const TRIES_MAX: u32 = 4;
/// Longest wait before the second try; twice that before the third.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often it is looked whether to stop, or whether somebody else has fetched the same.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `[modules.fetch]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest that fetching a module may take, all tries together; past it, it is not there. Default 1 min.
    pub deadline: Duration,
    /// Largest module that is fetched. Default 64 MiB.
    pub bytes_max: u64,
    /// Disk for what was fetched. Default 512 MiB.
    pub kept_bytes_max: u64,
    /// Who vouches for the servers, in PEM. Default: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// What servers are shown that ask for it, by `host` or `host:port`. Default none.
    pub credentials: BTreeMap<String, Credentials>,
}

/// Of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Whose.
    pub username: String,
    /// Read anew at each use.
    pub password: Secret,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Duration::from_mins(1),
            bytes_max: 64 << 20,
            kept_bytes_max: 512 << 20,
            ca: None,
            credentials: BTreeMap::new(),
        }
    }
}

/// Whether others are asked for what is not here.
#[derive(Clone, Copy)]
pub enum Network<'a> {
    /// They are not.
    Off,
    /// They are, until this says to stop, which is asked every 50 ms.
    Until(&'a dyn Fn() -> bool),
}

/// Why something is not here.
#[derive(Debug)]
enum Failure {
    /// It may be had a moment later.
    MayPass(String),
    Lasts(String),
    /// It says by itself that it is another one.
    Wrong(Digest),
}

/// What was fetched, and is kept.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    /// Whether it goes with this, and what is looked into, too.
    beside: Option<PathBuf>,
    config: Config,
    /// With any, signatures are fetched.
    keys: Vec<PublicKey>,
    metrics: metrics::Fetch,
    /// The files that each pipeline names.
    named: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// The files that somebody is fetching.
    busy: Mutex<BTreeSet<String>>,
}

impl Shelf {
    /// In the state folder.
    pub(super) fn new(state: &Path, config: &Config, keys: &[PublicKey], metrics: metrics::Fetch) -> Self {
        let shelf = Self::of(state.join("fetched"), None, config, keys, metrics);
        if let Err(error) = sweep(&shelf.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, folder = %shelf.folder.display(), "failed to clear away half fetched modules");
        }
        shelf.metrics.kept_bytes_max.set(i64::try_from(config.kept_bytes_max).unwrap_or(i64::MAX));
        shelf.gauge(shelf.kept().iter().map(|(_, bytes, _)| bytes).sum());
        shelf
    }

    /// Uses what is in the state folder, and changes nothing there: what it fetches goes with it.
    pub(super) fn passing(state: &Path, config: &Config, keys: &[PublicKey]) -> Self {
        let own = format!("headwater-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(own);
        Self::of(folder, Some(state.join("fetched")), config, keys, metrics::Fetch::default())
    }

    fn of(
        folder: PathBuf,
        beside: Option<PathBuf>,
        config: &Config,
        keys: &[PublicKey],
        metrics: metrics::Fetch,
    ) -> Self {
        let (config, keys) = (config.clone(), keys.to_vec());
        Self { folder, beside, config, keys, metrics, named: Mutex::default(), busy: Mutex::default() }
    }

    /// Files in place of what is fetched; with the error, which of the origins it is about. Blocks.
    pub(super) fn files(
        &self,
        owner: &str,
        origins: &[&Origin],
        network: Network<'_>,
    ) -> Result<Vec<Origin>, (usize, Error)> {
        if origins.iter().all(|origin| origin.remote.is_none()) {
            lock(&self.named).remove(owner);
            return Ok(origins.iter().map(|&origin| origin.clone()).collect());
        }
        let (stop, is_online) = (AtomicBool::new(false), matches!(network, Network::Until(_)));
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| (0, failed(origins[0], &error.to_string())))?;
            runtime.block_on(Round::new(self, owner, is_online, &stop).files(origins))
        };
        // On a thread of its own, as the caller's may be one of another runtime.
        thread::scope(|scope| {
            let work = scope.spawn(work);
            while let Network::Until(is_over) = network
                && !work.is_finished()
            {
                if is_over() {
                    stop.store(true, Ordering::Relaxed);
                }
                thread::sleep(LOOK_EVERY);
            }
            work.join().unwrap_or_else(|_| Err((0, failed(origins[0], "it panicked"))))
        })
    }

    /// The file of that digest, if it is here and whole.
    fn find(&self, name: &str, digest: Digest) -> Option<PathBuf> {
        let folders = [Some(&self.folder), self.beside.as_ref()].into_iter().flatten();
        let mut files = folders.map(|folder| folder.join(name));
        let file = files.find(|file| File::open(file).and_then(digest_of).is_ok_and(|it| it == digest))?;
        if file.starts_with(&self.folder) {
            #[expect(clippy::disallowed_methods, reason = "a file's time is the edge's")]
            let now = SystemTime::now();
            // So that it is not the longest unused.
            if let Err(error) = File::options().append(true).open(&file).and_then(|it| it.set_modified(now)) {
                warn!(%error, file = %file.display(), "failed to mark a fetched module as used");
            }
        }
        Some(file)
    }

    /// Whether nobody else is fetching it; then the caller is, until the turn is dropped.
    fn turn(&self, name: &str) -> Option<Turn<'_>> {
        let is_mine = lock(&self.busy).insert(name.to_owned());
        is_mine.then(|| Turn { shelf: self, name: name.to_owned() })
    }

    /// A file that is to be fetched.
    fn begin(&self, name: &str) -> io::Result<Unfinished> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        Unfinished::create(&self.folder, name)
    }

    /// Makes room for so many bytes, which are here and have no name yet.
    fn make_room(&self, bytes: u64) -> Result<(), Failure> {
        if self.beside.is_some() {
            return Ok(());
        }
        let (named, max) = (lock(&self.named), self.config.kept_bytes_max);
        let mut kept = self.kept();
        let mut total = kept.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        kept.sort_unstable();
        for (_, bytes, name) in kept {
            let is_named = named.values().any(|names| names.contains(name.trim_end_matches(".sig")));
            if total <= max || is_named || name.starts_with(UNFINISHED) {
                continue;
            }
            match fs::remove_file(self.folder.join(&name)) {
                Ok(()) => {
                    total -= bytes;
                    self.metrics.evicted_files.inc();
                }
                Err(error) => {
                    warn!(%error, file = name, "failed to remove a fetched module that no pipeline names");
                }
            }
        }
        self.gauge(total);
        if total > max {
            return Err(Failure::Lasts(format!(
                "there is no room for its {bytes} bytes: what pipelines name takes {} of {max}: raise \
                 `kept_bytes_max` in [modules.fetch]",
                total.saturating_sub(bytes)
            )));
        }
        Ok(())
    }

    /// When each file was last used, its bytes and its name.
    fn kept(&self) -> Vec<(SystemTime, u64, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let kept = entries.filter_map(|entry| {
            let (name, metadata) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?);
            Some((metadata.modified().ok()?, metadata.len(), name))
        });
        kept.collect()
    }

    fn gauge(&self, bytes: u64) {
        self.metrics.kept_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if self.beside.is_some()
            && let Err(error) = fs::remove_dir_all(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, folder = %self.folder.display(), "failed to remove modules that were fetched for once");
        }
    }
}

/// While it lives nobody else fetches the file.
struct Turn<'a> {
    shelf: &'a Shelf,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.shelf.busy).remove(&self.name);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(origin: &Origin, reason: &str) -> Error {
    Error::Fetch { file: origin.file.clone(), reason: reason.to_owned() }
}

/// Of all that it holds.
fn digest_of(mut file: File) -> io::Result<Digest> {
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => hash.update(&bytes[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
