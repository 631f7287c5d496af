//! From a file to a module ready to be called: digest, cache or compiler, contract.

use super::aggregate::Aggregate;
use super::aside::{self, Failure};
use super::cache::Cache;
use super::clock::Clock;
use super::code::trusted;
use super::contract::{Init, PACKAGE, Started, VERSION, add_imports};
use super::fetch::{Network, Shelf};
use super::guest::Guest;
use super::instance::{Exports, Module, Running, World};
use super::metrics::{self, CallMetrics, HostMetrics};
use super::transform::Transform;
use super::trust::{self, Digest, Origin};
use super::{Capability, Config, Error, Limits, precompiled, wasi};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::info;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

/// Largest file of a module: Python's are 18 MB. What the compiler may have to do grows with it.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// From here on compiling takes seconds, and whoever waits is told.
const SLOW_BYTES: usize = 1 << 20;

/// Compiles and loads modules; one per agent (the engine, the epoch clock and the cache). Cheap to
/// clone.
#[derive(Clone)]
pub struct Host {
    pub(super) engine: Engine,
    linker: Arc<Linker<Guest>>,
    cache: Option<Arc<Cache>>,
    clock: Arc<Clock>,
    config: Arc<Config>,
    /// Held while a process compiles, one at a time; `None` where the compiler is in this one.
    aside: Option<Arc<Mutex<()>>>,
    /// What was fetched; `None` where nothing is.
    shelf: Option<Arc<Shelf>>,
    metrics: metrics::Compile,
}

/// The largest file of any kind.
pub(super) const BYTES_MAX: u64 = precompiled::FILE_BYTES_MAX;

impl Host {
    /// For modules of one's own: trusts any, and compiles in this process, without bounds. `cache`:
    /// folder for compiled modules, made if need be; `None` for no cache.
    ///
    /// # Errors
    /// [`Error::Engine`], [`Error::Cache`].
    pub fn new(cache: Option<PathBuf>) -> Result<Self, Error> {
        Self::open(cache, Config::default(), None)
    }

    /// For modules of others: judges, fetches and compiles them as configured, aside, and keeps them
    /// in the state folder. For the program `headwater` alone, which starts itself to compile.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn guarded(state: &Path, config: &Config, metrics: &HostMetrics) -> Result<Self, Error> {
        let host = Self::open(Some(state.join("modules")), config.clone(), Some(Arc::default()))?;
        let shelf = Shelf::new(state, &config.fetch, &config.keys, metrics.fetch.clone());
        Ok(Self { shelf: Some(Arc::new(shelf)), metrics: metrics.compile.clone(), ..host })
    }

    /// The same, and changes nothing in the state folder.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn checking(state: &Path, config: &Config) -> Result<Self, Error> {
        let host = Self::open(None, config.clone(), Some(Arc::default()))?;
        let shelf = Shelf::passing(state, &config.fetch, &config.keys);
        Ok(Self { shelf: Some(Arc::new(shelf)), ..host })
    }

    /// Files in place of what is fetched, for a pipeline; which of its modules an error is about. Blocks.
    ///
    /// # Errors
    /// [`Error::Fetch`]; [`Error::WrongDigest`], when what pins it contradicts itself.
    pub fn files(
        &self,
        owner: &str,
        origins: &[&Origin],
        network: Network<'_>,
    ) -> Result<Vec<Origin>, (usize, Error)> {
        match &self.shelf {
            Some(shelf) => shelf.files(owner, origins, network),
            None => Ok(origins.iter().map(|&origin| origin.clone()).collect()),
        }
    }

    /// Judges as configured, and compiles here.
    #[cfg(any(test, feature = "testing"))]
    pub fn judging(config: Config) -> Result<Self, Error> {
        Self::open(None, config, None)
    }

    /// Fetches into that state folder.
    #[cfg(test)]
    pub(super) fn fetching(self, state: &Path, metrics: metrics::Fetch) -> Self {
        let shelf = Shelf::new(state, &self.config.fetch, &self.config.keys, metrics);
        Self { shelf: Some(Arc::new(shelf)), ..self }
    }

    fn open(cache: Option<PathBuf>, config: Config, aside: Option<Arc<Mutex<()>>>) -> Result<Self, Error> {
        let failed = |reason: String| Error::Engine { reason };
        let engine = Engine::new(&settings()).map_err(|error| failed(format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        add_imports(&mut linker).map_err(|error| failed(format!("{error:#}")))?;
        let cache = cache.map(|folder| Cache::open(folder, &engine).map(Arc::new)).transpose()?;
        let clock = Clock::start(engine.clone()).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            cache,
            clock: Arc::new(clock),
            config: Arc::new(config),
            aside,
            shelf: None,
            metrics: metrics::Compile::default(),
        })
    }

    /// Why the clock that stops calls no longer runs, if so: only a restart helps.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.clock.fallen()
    }

    /// Loads a transform: compile or cache, link, instantiate, `init` with the settings (JSON).
    ///
    /// # Errors
    /// Whatever makes it unusable, for the operator to repair.
    pub fn transform(
        &self,
        origin: impl Into<Origin>,
        settings: &str,
        limits: &Limits,
        metrics: &CallMetrics,
    ) -> Result<Transform, Error> {
        self.load(origin.into(), settings, limits, metrics).map(Transform::new)
    }

    /// Loads an aggregate, like [`Host::transform`].
    ///
    /// # Errors
    /// Whatever makes it unusable, for the operator to repair.
    pub fn aggregate(
        &self,
        origin: impl Into<Origin>,
        settings: &str,
        limits: &Limits,
        metrics: &CallMetrics,
    ) -> Result<Aggregate, Error> {
        let origin = origin.into();
        let file = origin.file.clone();
        let aggregate = self.load(origin, settings, limits, metrics).map(Aggregate::new)?;
        aggregate.versioned().map_err(|reason| Error::Start { file, reason })
    }

    fn load<W: World>(
        &self,
        origin: Origin,
        settings: &str,
        limits: &Limits,
        metrics: &CallMetrics,
    ) -> Result<Running<W>, Error> {
        let file = &origin.file;
        let (digest, component) = self.judged(&origin)?;
        let linked = self.link::<W>(&component, limits, file)?;
        let module = Module {
            linked,
            clock: Arc::clone(&self.clock),
            digest: digest.to_string(),
            settings: settings.to_owned(),
            limits: limits.clone(),
            metrics: metrics.clone(),
        };
        Running::start(module, origin.name().into(), file)
    }

    /// The module of that origin, if it is the one, and trusted; and the digest that it is known by.
    fn judged(&self, origin: &Origin) -> Result<(Digest, Component), Error> {
        let (file, keys) = (&origin.file, &self.config.keys);
        let bytes = read(file)?;
        let digest = Digest::of(&bytes);
        trust::check_digest(origin, digest)?;
        if precompiled::is(&bytes) {
            let loaded = precompiled::load(&self.engine, file, &bytes, keys)?;
            self.metrics.precompiled_modules.inc();
            return Ok(loaded);
        }
        trust::check_signature(file, &bytes, keys)?;
        check_preamble(&bytes, file)?;
        Ok((digest, self.component(&bytes, digest, file)?))
    }

    pub(super) fn component(&self, wasm: &[u8], digest: Digest, file: &Path) -> Result<Component, Error> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(&digest.0, &self.engine)) {
            self.metrics.cached_modules.inc();
            return Ok(component);
        }
        if wasm.len() >= SLOW_BYTES {
            info!(module = %file.display(), bytes = wasm.len(), "compiling a module, which takes a while");
        }
        let code = self.compile(wasm, file)?;
        if let Some(cache) = &self.cache {
            cache.put(&digest.0, &code);
        }
        trusted(&self.engine, &code).map_err(|error| Error::Compile {
            file: file.to_owned(),
            reason: format!("its code cannot be loaded: {error:#}"),
        })
    }

    fn compile(&self, wasm: &[u8], file: &Path) -> Result<Vec<u8>, Error> {
        let _one = self.aside.as_ref().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner));
        let started = Instant::now();
        let compiled = match &self.aside {
            Some(_) => aside::compile(wasm, &self.config),
            None => {
                let compiled = self.engine.precompile_component(wasm);
                compiled.map_err(|error| Failure::Refused(format!("{error:#}")))
            }
        };
        self.metrics.micros.inc_by(headwater_flow::micros(started.elapsed()));
        let counter = if compiled.is_ok() { &self.metrics.modules } else { &self.metrics.refused_modules };
        counter.inc();
        compiled.map_err(|failure| match failure {
            Failure::Refused(words) => {
                let found = format!("a damaged one, or one that needs a newer agent: {words}");
                Error::NotAComponent { file: file.to_owned(), found }
            }
            Failure::Failed(reason) => Error::Compile { file: file.to_owned(), reason },
        })
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
pub(super) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
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
    Ok(Digest::of(&read(file)?).to_string())
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut wasm = Vec::new();
    File::open(file)
        .and_then(|open| open.take(BYTES_MAX + 1).read_to_end(&mut wasm))
        .map_err(|source| Error::Read { file: file.to_owned(), source })?;
    check_size(&wasm, file)?;
    Ok(wasm)
}

fn check_size(bytes: &[u8], file: &Path) -> Result<(), Error> {
    let bytes_max = if precompiled::is(bytes) { BYTES_MAX } else { FILE_BYTES_MAX };
    match bytes.len() as u64 <= bytes_max {
        true => Ok(()),
        false => Err(Error::TooLarge { file: file.to_owned(), bytes_max }),
    }
}

/// Tells apart what people put there by mistake.
pub fn check_preamble(wasm: &[u8], file: &Path) -> Result<(), Error> {
    let found = match wasm {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => {
            "a core module: make a component of it (`headwater module wrap`)"
        }
        [] => "an empty file",
        _ if precompiled::is(wasm) => "a compiled module, which agents alone load",
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
