//! Compiled modules on disk: compiling takes seconds on a small device, loading milliseconds.
//!
//! One folder, 0700; in it one file for each module and engine, named by the SHA-256 of both:
//!
//! ```text
//! key          32 random bytes, 0600, made with the folder
//! <sha256>     32 bytes HMAC-SHA256(key, name, code), then the code
//! new-<…>      a file being written; swept away once its process is gone
//! ```
//!
//! Compiled code is trusted without a look inside, so only what carries the agent's own seal is
//! loaded. The seal keeps out damage and files from elsewhere, not somebody who is the agent's
//! user: to them the agent itself is open. **Invariant**: a file that is cut, changed, renamed or
//! sealed with another key counts as absent.
//!
//! Several processes may use one folder: each writes under a name of its own, and what is finished takes its
//! place at once. **Invariant**: there is one key; who makes another one at the same time takes the first.
//!
//! Bounded in files and bytes; the oldest go first. Whatever fails here costs a compilation, never
//! the module. A crash leaves whole files and at most some `new-…`.

use super::ModuleError;
use super::code::trusted;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The number of compiled modules kept, used or not.
const FILES_MAX: usize = 32;

/// The bytes of compiled modules kept, unless a single one is larger.
const BYTES_MAX: u64 = 512 << 20;

const KEY_FILE: &str = "key";
/// The beginning of the names of files that are being written.
pub(super) const UNFINISHED: &str = "new-";

#[derive(Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
    key: SealKey,
    /// A hash of wasmtime's version, its settings and the processor.
    engine: [u8; 32],
}

struct SealKey([u8; 32]);

impl CodeCache {
    pub(super) fn open(folder: PathBuf, engine: &Engine) -> Result<Self, ModuleError> {
        let mut hasher = EngineHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        match prepare(&folder) {
            Ok(key) => Ok(Self { folder, key, engine: hasher.0.finalize().into() }),
            Err(source) => Err(ModuleError::Cache { folder, source }),
        }
    }

    /// Returns the module of that digest, if it was compiled for this engine by this agent.
    pub(super) fn get(&self, digest: &[u8; 32], engine: &Engine) -> Option<Component> {
        let name = self.name(digest);
        let sealed = fs::read(self.folder.join(&name)).ok()?;
        let code = sealed
            .split_first_chunk()
            .and_then(|(seal, code)| (self.key.seal(&[name.as_bytes(), code]) == *seal).then_some(code));
        let Some(code) = code else {
            warn!(file = name, "compiled module is damaged, compiling it again");
            return None;
        };
        trusted(engine, code).inspect_err(|error| warn!(%error, "failed to load a compiled module")).ok()
    }

    pub(super) fn put(&self, digest: &[u8; 32], code: &[u8]) {
        let name = self.name(digest);
        let seal = self.key.seal(&[name.as_bytes(), code]);
        let written = write_whole(&self.folder, &name, &[&seal, code])
            .and_then(|()| trim(&self.folder, &name, FILES_MAX, BYTES_MAX));
        if let Err(error) = written {
            warn!(%error, folder = %self.folder.display(), "failed to keep a compiled module");
        }
    }

    fn name(&self, digest: &[u8; 32]) -> String {
        hex(&Sha256::new().chain_update(digest).chain_update(self.engine).finalize())
    }
}

fn prepare(folder: &Path) -> io::Result<SealKey> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    sweep(folder)?;
    let file = folder.join(KEY_FILE);
    match fs::read(&file).map(<[u8; 32]>::try_from) {
        Ok(Ok(key)) => return Ok(SealKey(key)),
        // A damaged one; another process may have removed it by now.
        Ok(Err(_)) => drop(fs::remove_file(&file)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut unfinished = UnfinishedFile::create(folder, KEY_FILE)?;
    unfinished.write(&key)?;
    if unfinished.finish_first()? {
        return Ok(SealKey(key));
    }
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "the key is damaged: remove it");
    fs::read(&file)?.try_into().map(SealKey).map_err(damaged)
}

/// Removes the oldest until the rest is within the bounds; `kept` stays.
fn trim(folder: &Path, kept: &str, files_max: usize, bytes_max: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != KEY_FILE && name != kept && !name.to_string_lossy().starts_with(UNFINISHED) {
            // Another process may have made room meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut bytes = fs::metadata(folder.join(kept))?.len();
    for (rank, (_, len, path)) in files.into_iter().enumerate() {
        bytes += len;
        if rank + 2 > files_max || bytes > bytes_max {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Removes the unfinished files of processes that are gone.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(writer) = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED)) else { continue };
        let id = writer.split('-').next().filter(|id| id.parse::<u32>().is_ok());
        let id_is_ours = id == Some(std::process::id().to_string().as_str());
        let is_ours = writer.starts_with(&writer_name());
        let is_alive = id.is_some_and(|id| Path::new("/proc").join(id).exists());
        // A process before may have had our number, as in a container all have the same.
        if is_ours || (is_alive && !id_is_ours) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the prefix of the names of this process's unfinished files, which no other process has.
fn writer_name() -> String {
    static CHANCE: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));
    format!("{}-{:08x}-", std::process::id(), *CHANCE)
}

/// A file that gets its name when it is whole; dropped before, it is removed.
pub(super) struct UnfinishedFile {
    file: File,
    path: PathBuf,
    folder: PathBuf,
    name: String,
}

impl UnfinishedFile {
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{UNFINISHED}{}{count}-{name}", writer_name()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, folder: folder.to_owned(), name: name.to_owned() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives the file its name, in place of whatever has it.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, self.folder.join(&self.name))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Gives the file its name, unless something has it; returns true if the file has it now.
    fn finish_first(self) -> io::Result<bool> {
        self.file.sync_all()?;
        match fs::hard_link(&self.path, self.folder.join(&self.name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // Finished, it is not there.
        drop(fs::remove_file(&self.path));
    }
}

/// The file has all of it or does not exist.
fn write_whole(folder: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let mut unfinished = UnfinishedFile::create(folder, name)?;
    parts.iter().try_for_each(|part| unfinished.write(part))?;
    unfinished.finish()
}

impl SealKey {
    /// HMAC-SHA256 of the parts, one after the other (RFC 2104).
    fn seal(&self, parts: &[&[u8]]) -> [u8; 32] {
        let padded = |pad: u8| {
            let mut block = [pad; 64];
            block.iter_mut().zip(self.0).for_each(|(byte, key)| *byte ^= key);
            Sha256::new().chain_update(block)
        };
        let inner = parts.iter().fold(padded(0x36), |hash, part| hash.chain_update(part));
        padded(0x5c).chain_update(inner.finalize()).finalize().into()
    }
}

/// Prints as `***`.
impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Takes in what is hashed with a hash that outlives a Rust version.
struct EngineHasher(Sha256);

impl Hasher for EngineHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_bundle::{CELSIUS, STATS};
    use std::time::Duration;

    struct Fixture {
        folder: tempfile::TempDir,
        engine: Engine,
        code: Vec<u8>,
        digest: [u8; 32],
    }

    impl Fixture {
        fn new() -> Self {
            let engine = Engine::default();
            let code = engine.precompile_component(CELSIUS).unwrap();
            let digest = Sha256::digest(CELSIUS).into();
            Self { folder: tempfile::tempdir().unwrap(), engine, code, digest }
        }

        fn open(&self) -> CodeCache {
            CodeCache::open(self.folder.path().join("modules"), &self.engine).unwrap()
        }
    }

    /// RFC 4231, test case 2: a key padded with zeros to the block is the same key.
    #[test]
    fn seals_with_hmac_sha256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let seal = SealKey(key).seal(&[b"what do ya want ", b"for nothing?"]);
        let known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&seal), known);
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_and_nobody_elses() {
        let fixture = Fixture::new();
        let cache = fixture.open();
        assert!(cache.get(&fixture.digest, &fixture.engine).is_none());
        cache.put(&fixture.digest, &fixture.code);
        let cache = fixture.open();
        assert!(cache.get(&fixture.digest, &fixture.engine).is_some());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.folder), 0o700);
        for name in [KEY_FILE, &cache.name(&fixture.digest)] {
            assert_eq!(mode(&cache.folder.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_changed_entry_counts_as_absent() {
        let fixture = Fixture::new();
        let cache = fixture.open();
        cache.put(&fixture.digest, &fixture.code);
        let file = cache.folder.join(cache.name(&fixture.digest));
        let whole = fs::read(&file).unwrap();
        let absent = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            cache.get(&fixture.digest, &fixture.engine).is_none()
        };
        assert!(!absent(&whole));
        for at in [0, 31, 32, 100, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(absent(&changed), "byte {at}");
        }
        for len in [0, 31, 32, whole.len() - 1] {
            assert!(absent(&whole[..len]), "cut to {len}");
        }
        // A sound entry under another module's name.
        let other = Sha256::digest(STATS).into();
        fs::write(cache.folder.join(cache.name(&other)), &whole).unwrap();
        assert!(cache.get(&other, &fixture.engine).is_none());
        // And one that another agent sealed.
        fs::remove_file(cache.folder.join(KEY_FILE)).unwrap();
        let cache = fixture.open();
        fs::write(&file, &whole).unwrap();
        assert!(cache.get(&fixture.digest, &fixture.engine).is_none());
    }

    #[test]
    fn a_damaged_entry_is_compiled_again_and_replaced() {
        use crate::CallMetrics;
        use crate::{ModuleHost, ModuleLimits};
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("modules");
        let load = || {
            let host = ModuleHost::new(Some(modules.clone())).unwrap();
            let path = Path::new(headwater_bundle::CELSIUS_PATH);
            let config = r#"{"field":"t"}"#;
            drop(host.transform(path, config, &ModuleLimits::default(), &CallMetrics::default()).unwrap());
        };
        load();
        let is_entry = |path: &PathBuf| !path.ends_with(KEY_FILE);
        let files = fs::read_dir(&modules).unwrap().map(|entry| entry.unwrap().path());
        let entries: Vec<_> = files.filter(is_entry).collect();
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        let whole = fs::read(entry).unwrap();
        fs::write(entry, &whole[..whole.len() / 2]).unwrap();
        load();
        assert_eq!(fs::read(entry).unwrap().len(), whole.len());
    }

    #[test]
    fn another_engine_has_entries_of_its_own() {
        let fixture = Fixture::new();
        let cache = fixture.open();
        cache.put(&fixture.digest, &fixture.code);
        let engine = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let other = CodeCache::open(cache.folder.clone(), &engine).unwrap();
        assert!(other.get(&fixture.digest, &engine).is_none());
    }

    #[test]
    fn the_oldest_make_room_and_leftovers_go() {
        let fixture = Fixture::new();
        let cache = fixture.open();
        let time = |age| headwater_flow::Timestamp::now().before(Duration::from_secs(age)).0;
        for age in 1..=40 {
            let file = File::create(cache.folder.join(format!("{age}"))).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_micros(time(age))).unwrap();
        }
        cache.put(&fixture.digest, &fixture.code);
        let left = fs::read_dir(&cache.folder).unwrap().count();
        assert_eq!(left, FILES_MAX + 1, "and the key");
        assert!(cache.folder.join("1").exists() && !cache.folder.join("40").exists());
        assert!(cache.get(&fixture.digest, &fixture.engine).is_some());

        // No process has the first number, and none of ours this chance.
        let gone = ["new-4294967295-00000000-0-x".to_owned(), format!("new-{}-x-0-x", std::process::id())];
        let leftovers = gone.map(|name| cache.folder.join(name));
        for leftover in &leftovers {
            fs::write(leftover, b"half").unwrap();
        }
        let unfinished = UnfinishedFile::create(&cache.folder, "x").unwrap();
        assert!(fixture.open().get(&fixture.digest, &fixture.engine).is_some());
        assert!(!leftovers.iter().any(|leftover| leftover.exists()));
        assert!(unfinished.path.exists(), "somebody is writing it");
    }

    #[test]
    fn several_at_once_take_one_key_and_leave_whole_files() {
        let fixture = Fixture::new();
        for round in 0..20 {
            let folder = fixture.folder.path().join(round.to_string());
            let caches = std::thread::scope(|scope| {
                let open = || {
                    let cache = CodeCache::open(folder.clone(), &fixture.engine).unwrap();
                    cache.put(&fixture.digest, &fixture.code);
                    assert!(cache.get(&fixture.digest, &fixture.engine).is_some(), "round {round}");
                    cache
                };
                let threads = [(); 4].map(|()| scope.spawn(open));
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(caches.iter().all(|cache| cache.key.0 == caches[0].key.0), "round {round}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "the key and the module");
        }
    }
}
