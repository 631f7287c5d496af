//! Modules from elsewhere: over HTTPS, or from an OCI registry; fetched once, and kept.
//!
//! A pipeline names all its modules and gets files for them: `fetched/<sha256>` in the state folder, and
//! `<sha256>.sig` where signatures are asked for. From there on they are modules like others, and judged like
//! them at each load.
//!
//! **Invariants.** Every fetched file is pinned: by its digest, or by that of the OCI manifest, which has the digest
//! of its layer. So a server can withhold it and not change it, and a redirection is followed. Nothing that is here
//! is asked for. Nothing goes out but over TLS.
//!
//! **Bounds**: [`FetchConfig::deadline`] for a module, with up to [`TRIES_MAX`] tries of each request, spaced by
//! chance; [`FetchConfig::bytes_max`] for its size, [`FetchConfig::kept_bytes_max`] for all that are kept. To make
//! room, files that no pipeline names are removed, the longest unused first; a file that one names is never removed,
//! and a file that has no room beside those is refused.
//!
//! A crash leaves whole files, and some `new-…`, which the next start removes.

mod http;
mod registry;
mod round;

use super::cache::{UNFINISHED, UnfinishedFile, hex, sweep};
use super::trust::{ModuleDigest, PublicKey};
use super::{ModuleError, ModuleOrigin};
use crate::metrics;
use headwater_access::secret::Secret;
pub use registry::RemoteAddress;
use round::FetchRound;
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
/// The tries of one request, while the fault may pass.
const TRIES_MAX: u32 = 4;
/// The longest wait before the second try; twice that before the third.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The interval of looking at whether to stop, and whether somebody else has fetched the same.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The section `[modules.fetch]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// The longest that fetching a module may take, all tries together; past it, it is not there. Default 1 min.
    pub deadline: Duration,
    /// The size of the largest module that is fetched. Default 64 MiB.
    pub bytes_max: u64,
    /// The disk space for fetched modules. Default 512 MiB.
    pub kept_bytes_max: u64,
    /// The certificates that vouch for the servers, in PEM. Default: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The credentials for servers that ask for them, by `host` or `host:port`. Default none.
    pub credentials: BTreeMap<String, ServerCredentials>,
}

/// The credentials for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCredentials {
    /// The name of the user.
    pub username: String,
    /// The password, read anew at each use.
    pub password: Secret,
}

impl Default for FetchConfig {
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

/// The permission to ask servers for modules that are not here.
#[derive(Clone, Copy)]
pub enum NetworkAccess<'a> {
    /// None is asked.
    Off,
    /// They are asked until this function says to stop, which is called every 50 ms.
    Until(&'a dyn Fn() -> bool),
}

/// The reason why a file is not here.
#[derive(Debug)]
enum FetchFailure {
    /// The fault may pass in a moment.
    MayPass(String),
    /// The fault lasts.
    Lasts(String),
    /// The manifest names another file.
    Wrong(ModuleDigest),
}

/// The fetched files, which are kept.
#[derive(Debug)]
pub(super) struct FetchedFiles {
    folder: PathBuf,
    /// A second folder to look into; with one, the first is removed with this.
    beside: Option<PathBuf>,
    config: FetchConfig,
    /// The keys; with any, signatures are fetched.
    keys: Vec<PublicKey>,
    metrics: metrics::FetchMetrics,
    /// The files that each pipeline names.
    named: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// The files that somebody is fetching.
    busy: Mutex<BTreeSet<String>>,
}

impl FetchedFiles {
    /// Opens the files in the state folder.
    pub(super) fn new(
        state: &Path,
        config: &FetchConfig,
        keys: &[PublicKey],
        metrics: metrics::FetchMetrics,
    ) -> Self {
        let fetched = Self::of(state.join("fetched"), None, config, keys, metrics);
        if let Err(error) = sweep(&fetched.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, folder = %fetched.folder.display(), "failed to clear away half fetched modules");
        }
        fetched.metrics.kept_bytes_max.set(i64::try_from(config.kept_bytes_max).unwrap_or(i64::MAX));
        fetched.gauge(fetched.kept().iter().map(|(_, bytes, _)| bytes).sum());
        fetched
    }

    /// Uses the files in the state folder, and changes nothing there: files that it fetches are removed with it.
    pub(super) fn passing(state: &Path, config: &FetchConfig, keys: &[PublicKey]) -> Self {
        let own = format!("headwater-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(own);
        Self::of(folder, Some(state.join("fetched")), config, keys, metrics::FetchMetrics::default())
    }

    fn of(
        folder: PathBuf,
        beside: Option<PathBuf>,
        config: &FetchConfig,
        keys: &[PublicKey],
        metrics: metrics::FetchMetrics,
    ) -> Self {
        Self {
            folder,
            beside,
            config: config.clone(),
            keys: keys.to_vec(),
            metrics,
            named: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    /// Returns the origins with files in place of those that are fetched. An error comes with the index of the origin
    /// that it is about. Blocks.
    pub(super) fn files(
        &self,
        owner: &str,
        origins: &[&ModuleOrigin],
        network: NetworkAccess<'_>,
    ) -> Result<Vec<ModuleOrigin>, (usize, ModuleError)> {
        if origins.iter().all(|origin| origin.remote.is_none()) {
            lock(&self.named).remove(owner);
            return Ok(origins.iter().map(|&origin| origin.clone()).collect());
        }
        let stop = AtomicBool::new(false);
        let is_online = matches!(network, NetworkAccess::Until(_));
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| (0, failed(origins[0], &error.to_string())))?;
            runtime.block_on(FetchRound::new(self, owner, is_online, &stop).files(origins))
        };
        // On a thread of its own, as the caller's may be one of another runtime.
        thread::scope(|scope| {
            let work = scope.spawn(work);
            while let NetworkAccess::Until(is_over) = network
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

    /// Returns the file of that digest, if it is here and whole.
    fn find(&self, name: &str, digest: ModuleDigest) -> Option<PathBuf> {
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

    /// Takes the turn to fetch a file, if nobody else has it; it is held until it is dropped.
    fn turn(&self, name: &str) -> Option<FetchTurn<'_>> {
        let is_mine = lock(&self.busy).insert(name.to_owned());
        is_mine.then(|| FetchTurn { fetched: self, name: name.to_owned() })
    }

    /// Begins a file that is to be fetched.
    fn begin(&self, name: &str) -> io::Result<UnfinishedFile> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        UnfinishedFile::create(&self.folder, name)
    }

    /// Makes room for so many bytes, which are here and have no name yet.
    fn make_room(&self, bytes: u64) -> Result<(), FetchFailure> {
        if self.beside.is_some() {
            return Ok(());
        }
        let named = lock(&self.named);
        let max = self.config.kept_bytes_max;
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
            return Err(FetchFailure::Lasts(format!(
                "there is no room for its {bytes} bytes: what pipelines name takes {} of {max}: raise \
                 `kept_bytes_max` in [modules.fetch]",
                total.saturating_sub(bytes)
            )));
        }
        Ok(())
    }

    /// Returns the time at which each file was last used, its bytes and its name.
    fn kept(&self) -> Vec<(SystemTime, u64, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let kept = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), name))
        });
        kept.collect()
    }

    fn gauge(&self, bytes: u64) {
        self.metrics.kept_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for FetchedFiles {
    fn drop(&mut self) {
        if self.beside.is_some()
            && let Err(error) = fs::remove_dir_all(&self.folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, folder = %self.folder.display(), "failed to remove modules that were fetched for once");
        }
    }
}

/// The turn to fetch a file: while it lives nobody else does.
struct FetchTurn<'a> {
    fetched: &'a FetchedFiles,
    name: String,
}

impl Drop for FetchTurn<'_> {
    fn drop(&mut self) {
        lock(&self.fetched.busy).remove(&self.name);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(origin: &ModuleOrigin, reason: &str) -> ModuleError {
    ModuleError::Fetch { file: origin.file.clone(), reason: reason.to_owned() }
}

/// Returns the digest of a file.
fn digest_of(mut file: File) -> io::Result<ModuleDigest> {
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(ModuleDigest(hash.finalize().into())),
            read => hash.update(&bytes[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
