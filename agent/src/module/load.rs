//! From a file to a module ready to be called: digest, cache or compiler, contract.

use super::aggregate::Aggregate;
use super::cache::{Cache, hex};
use super::clock::Clock;
use super::contract::{Init, PACKAGE, Started, VERSION, add_imports};
use super::guest::Guest;
use super::instance::{Exports, Module, Running, World};
use super::transform::Transform;
use super::{Capability, Error, Limits, wasi};
use crate::metrics::Pipeline;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, Engine};

/// Largest file of a module: Python's are 18 MB. What the compiler may have to do grows with it.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Compiles and loads modules; one per agent (the engine, the epoch clock and the cache). Cheap to
/// clone.
#[derive(Clone)]
pub struct Host {
    pub(super) engine: Engine,
    linker: Arc<Linker<Guest>>,
    cache: Option<Arc<Cache>>,
    clock: Arc<Clock>,
}

impl Host {
    /// `cache`: folder for compiled modules, made if need be; `None` for no cache.
    ///
    /// # Errors
    /// [`Error::Engine`], [`Error::Cache`].
    pub fn new(cache: Option<PathBuf>) -> Result<Self, Error> {
        let failed = |reason: String| Error::Engine { reason };
        let engine = Engine::new(&settings()).map_err(|error| failed(format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        add_imports(&mut linker).map_err(|error| failed(format!("{error:#}")))?;
        let cache = cache.map(|folder| Cache::open(folder, &engine).map(Arc::new)).transpose()?;
        let clock = Clock::start(engine.clone()).map_err(|error| failed(error.to_string()))?;
        Ok(Self { engine, linker: Arc::new(linker), cache, clock: Arc::new(clock) })
    }

    /// Why the clock that stops calls no longer runs, if so: only a restart helps.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.clock.fallen()
    }

    /// Loads a transform: compile or cache, link, instantiate, `init` with the config (JSON).
    ///
    /// # Errors
    /// Whatever makes it unusable, for the operator to repair.
    pub fn transform(
        &self,
        file: &Path,
        config: &str,
        limits: &Limits,
        metrics: &Pipeline,
    ) -> Result<Transform, Error> {
        self.load(file, config, limits, metrics).map(Transform::new)
    }

    /// Loads an aggregate, like [`Host::transform`].
    ///
    /// # Errors
    /// Whatever makes it unusable, for the operator to repair.
    pub fn aggregate(
        &self,
        file: &Path,
        config: &str,
        limits: &Limits,
        metrics: &Pipeline,
    ) -> Result<Aggregate, Error> {
        let aggregate = self.load(file, config, limits, metrics).map(Aggregate::new)?;
        aggregate.versioned().map_err(|reason| Error::Start { file: file.to_owned(), reason })
    }

    fn load<W: World>(
        &self,
        file: &Path,
        config: &str,
        limits: &Limits,
        metrics: &Pipeline,
    ) -> Result<Running<W>, Error> {
        let wasm = read(file)?;
        let digest: [u8; 32] = Sha256::digest(&wasm).into();
        check_preamble(&wasm, file)?;
        let component = self.component(&wasm, &digest, file)?;
        let linked = self.link::<W>(&component, limits, file)?;
        let module = Module {
            linked,
            clock: Arc::clone(&self.clock),
            digest: format!("sha256:{}", hex(&digest)),
            config: config.to_owned(),
            limits: limits.clone(),
            metrics: metrics.clone(),
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Running::start(module, name.into(), file)
    }

    pub(super) fn component(&self, wasm: &[u8], digest: &[u8; 32], file: &Path) -> Result<Component, Error> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(digest, &self.engine)) {
            return Ok(component);
        }
        let component = Component::from_binary(&self.engine, wasm).map_err(|error| {
            let found = format!("a damaged one, or one that needs a newer agent: {error:#}");
            Error::NotAComponent { file: file.to_owned(), found }
        })?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &component);
        }
        Ok(component)
    }

    fn link<W: World>(
        &self,
        component: &Component,
        limits: &Limits,
        file: &Path,
    ) -> Result<InstancePre<Guest>, Error> {
        let exports = Exports { engine: &self.engine, component: component.component_type() };
        for (import, _) in exports.component.imports(&self.engine) {
            check_import(import, &limits.granted, file)?;
        }
        let link = || {
            if !limits.granted.contains(&Capability::Wasi) {
                return self.linker.instantiate_pre(component);
            }
            let mut linker = Linker::clone(&self.linker);
            wasi::add_imports(&mut linker, component, &self.engine)?;
            linker.instantiate_pre(component)
        };
        W::check(&exports)
            .and_then(|()| exports.check::<Init<'_>, Started>("init"))
            .and_then(|()| link().map_err(|error| format!("{error:#}")))
            .map_err(|found| Error::WrongWorld { file: file.to_owned(), expected: W::NAME, found })
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// What compiled modules depend on: a change here makes the cache start again.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        // A recomputation gives the same result on any processor.
        .relaxed_simd_deterministic(true);
    config
}

/// `sha256:<hex>` of a module's file.
///
/// # Errors
/// [`Error::Read`], [`Error::TooLarge`].
pub fn digest(file: &Path) -> Result<String, Error> {
    Ok(format!("sha256:{}", hex(&Sha256::digest(read(file)?))))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut wasm = Vec::new();
    File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut wasm))
        .map_err(|source| Error::Read { file: file.to_owned(), source })?;
    if wasm.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { file: file.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(wasm)
}

/// Tells apart what people put there by mistake.
pub(super) fn check_preamble(wasm: &[u8], file: &Path) -> Result<(), Error> {
    let found = match wasm {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => {
            "a core module: make a component of it (`headwater module wrap`)"
        }
        [] => "an empty file",
        _ => "something that is not WebAssembly",
    };
    Err(Error::NotAComponent { file: file.to_owned(), found: found.to_owned() })
}

const WITHOUT: &str = "build it without; no configuration grants it";
const GRANT_STATE: &str = "grant `capabilities = [\"state\"]`";
const WITHOUT_WASI: &str = "build it without WASI (for Rust: wasm32-unknown-unknown), or grant `capabilities = [\"wasi\"]`, which has nothing behind it";

/// Interfaces of types alone are imports, too. A version with the same 0.x is understood.
fn check_import(import: &str, granted: &BTreeSet<Capability>, file: &Path) -> Result<(), Error> {
    let track = VERSION.rsplit_once('.').map_or(VERSION, |(track, _)| track);
    let name = import.strip_prefix(PACKAGE).and_then(|name| name.strip_prefix('/'));
    match name.and_then(|name| name.split_once('@')) {
        Some((_, version)) if version.rsplit_once('.').is_none_or(|(found, _)| found != track) => {
            let found = version.to_owned();
            Err(Error::WrongVersion { file: file.to_owned(), expected: VERSION, found })
        }
        Some(("logging" | "types", _)) => Ok(()),
        Some(("state", _)) if granted.contains(&Capability::State) => Ok(()),
        _ if import.starts_with(wasi::NAMESPACE) && granted.contains(&Capability::Wasi) => Ok(()),
        _ => {
            let remedy = match name.and_then(|name| name.split_once('@')) {
                Some(("state", _)) => GRANT_STATE,
                _ if import.starts_with(wasi::NAMESPACE) => WITHOUT_WASI,
                _ => WITHOUT,
            };
            Err(Error::ForbiddenImport { file: file.to_owned(), import: import.to_owned(), remedy })
        }
    }
}
