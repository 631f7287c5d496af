//! Compiled modules on disk: compiling takes seconds on a small device, loading milliseconds.
//!
//! One folder, 0700; in it one file for each module and engine, named by the SHA-256 of both:
//!
//! ```text
//! key          32 random bytes, 0600, made with the folder
//! <sha256>     32 bytes HMAC-SHA256(key, name, code), then the code
//! new-<…>      a file being written; swept away at the next start
//! ```
//!
//! Compiled code is trusted without a look inside, so only what carries the agent's own seal is
//! loaded. The seal keeps out damage and files from elsewhere, not somebody who is the agent's
//! user: to them the agent itself is open. **Invariant**: a file that is cut, changed, renamed or
//! sealed with another key counts as absent.
//!
//! Bounded in files and bytes; the oldest go first. Whatever fails here costs a compilation, never
//! the module. A crash leaves whole files and at most some `new-…`.

use super::Error;
use super::code::trusted;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiled modules kept, used or not.
const FILES_MAX: usize = 32;

/// Bytes of compiled modules kept, unless a single one is larger.
const BYTES_MAX: u64 = 512 << 20;

const KEY_FILE: &str = "key";
const UNFINISHED: &str = "new-";

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    key: Key,
    /// Stands for wasmtime's version, its settings and the processor.
    engine: [u8; 32],
}

struct Key([u8; 32]);

impl Cache {
    pub(super) fn open(folder: PathBuf, engine: &Engine) -> Result<Self, Error> {
        let mut hasher = EngineHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        match prepare(&folder) {
            Ok(key) => Ok(Self { folder, key, engine: hasher.0.finalize().into() }),
            Err(source) => Err(Error::Cache { folder, source }),
        }
    }

    /// The module of that digest, if it was compiled for this engine by this agent.
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
        let written = write_whole(&self.folder, &name, &[&seal, code]).and_then(|()| self.trim(&name));
        if let Err(error) = written {
            warn!(%error, folder = %self.folder.display(), "failed to keep a compiled module");
        }
    }

    fn name(&self, digest: &[u8; 32]) -> String {
        hex(&Sha256::new().chain_update(digest).chain_update(self.engine).finalize())
    }

    /// Removes the oldest until the rest is within the bounds; `kept` stays.
    fn trim(&self, kept: &str) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != KEY_FILE && name != kept {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = fs::metadata(self.folder.join(kept))?.len();
        for (rank, (_, len, path)) in files.into_iter().enumerate() {
            bytes += len;
            if rank + 2 > FILES_MAX || bytes > BYTES_MAX {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn prepare(folder: &Path) -> io::Result<Key> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::read(folder.join(KEY_FILE)).map(<[u8; 32]>::try_from) {
        Ok(Ok(key)) => return Ok(Key(key)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    write_whole(folder, KEY_FILE, &[&key])?;
    Ok(Key(key))
}

/// The file has all of it or does not exist.
fn write_whole(folder: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = folder.join(format!("{UNFINISHED}{name}"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}

impl Key {
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
impl std::fmt::Debug for Key {
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

        fn open(&self) -> Cache {
            Cache::open(self.folder.path().join("modules"), &self.engine).unwrap()
        }
    }

    /// RFC 4231, test case 2: a key padded with zeros to the block is the same key.
    #[test]
    fn seals_with_hmac_sha256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let seal = Key(key).seal(&[b"what do ya want ", b"for nothing?"]);
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
        use crate::metrics::Pipeline;
        use crate::module::{Host, Limits};
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("modules");
        let load = || {
            let host = Host::new(Some(modules.clone())).unwrap();
            let (path, config) = (Path::new(headwater_bundle::CELSIUS_PATH), r#"{"field":"t"}"#);
            drop(host.transform(path, config, &Limits::default(), &Pipeline::default()).unwrap());
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
        let other = Cache::open(cache.folder.clone(), &engine).unwrap();
        assert!(other.get(&fixture.digest, &engine).is_none());
    }

    #[test]
    fn the_oldest_make_room_and_leftovers_go() {
        let fixture = Fixture::new();
        let cache = fixture.open();
        let time = |age| crate::flow::Timestamp::now().before(Duration::from_secs(age)).0;
        for age in 1..=40 {
            let file = File::create(cache.folder.join(format!("{age}"))).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_micros(time(age))).unwrap();
        }
        cache.put(&fixture.digest, &fixture.code);
        let left = fs::read_dir(&cache.folder).unwrap().count();
        assert_eq!(left, FILES_MAX + 1, "and the key");
        assert!(cache.folder.join("1").exists() && !cache.folder.join("40").exists());
        assert!(cache.get(&fixture.digest, &fixture.engine).is_some());

        let leftover = cache.folder.join("new-0123");
        fs::write(&leftover, b"half").unwrap();
        assert!(fixture.open().get(&fixture.digest, &fixture.engine).is_some());
        assert!(!leftover.exists());
    }
}
