//! Loading: from a file to a module that is ready to be called, over digest, cache or compiler, and contract.

use super::aggregate::AggregateModule;
use super::cache::CodeCache;
use super::clock::DeadlineClock;
use super::code::trusted;
use super::compile_process::{self, CompileFailure};
use super::contract::{Init, PACKAGE, Started, VERSION, add_imports};
use super::fetch::{FetchedFiles, NetworkAccess};
use super::guest::GuestData;
use super::instance::{LinkedModule, ModuleCalls};
use super::metrics::{self, CallMetrics, HostMetrics};
use super::transform::TransformModule;
use super::trust::{self, ModuleDigest, ModuleOrigin};
use super::world::{ComponentExports, ModuleWorld};
use super::{HostConfig, ModuleCapability, ModuleError, ModuleLimits, precompiled, wasi};
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

/// The size of the largest file of a module: Python's are 18 MB. The compiler's work grows with it.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The size from which on compiling takes seconds, and a log line says so.
const SLOW_BYTES: usize = 1 << 20;

/// Compiles and loads modules; one per agent (the engine, the epoch clock and the cache). Cheap to
/// clone.
#[derive(Clone)]
pub struct ModuleHost {
    pub(super) engine: Engine,
    linker: Arc<Linker<GuestData>>,
    cache: Option<Arc<CodeCache>>,
    clock: Arc<DeadlineClock>,
    config: Arc<HostConfig>,
    /// Held while a process compiles, one at a time; `None` where the compiler is in this one.
    compile_process: Option<Arc<Mutex<()>>>,
    /// The fetched files; `None` where nothing is fetched.
    fetched: Option<Arc<FetchedFiles>>,
    metrics: metrics::CompileMetrics,
}

/// The size of the largest file of any kind.
pub(super) const BYTES_MAX: u64 = precompiled::FILE_BYTES_MAX;

impl ModuleHost {
    /// Makes a host for modules of one's own: it trusts any, and compiles in this process, without bounds. `cache` is the
    /// folder for compiled modules, made if need be; `None` for no cache.
    ///
    /// # Errors
    /// [`ModuleError::Engine`], [`ModuleError::Cache`].
    pub fn new(cache: Option<PathBuf>) -> Result<Self, ModuleError> {
        Self::open(cache, HostConfig::default(), None)
    }

    /// Makes a host for modules of others: it judges, fetches and compiles them as configured, in a process of its own,
    /// and keeps them in the state folder. For the program `headwater` alone, which starts itself to compile.
    ///
    /// # Errors
    /// As [`ModuleHost::new`].
    pub fn guarded(state: &Path, config: &HostConfig, metrics: &HostMetrics) -> Result<Self, ModuleError> {
        let host = Self::open(Some(state.join("modules")), config.clone(), Some(Arc::default()))?;
        let fetched = FetchedFiles::new(state, &config.fetch, &config.keys, metrics.fetch.clone());
        Ok(Self { fetched: Some(Arc::new(fetched)), metrics: metrics.compile.clone(), ..host })
    }

    /// Makes a host like [`ModuleHost::guarded`] that changes nothing in the state folder.
    ///
    /// # Errors
    /// As [`ModuleHost::new`].
    pub fn checking(state: &Path, config: &HostConfig) -> Result<Self, ModuleError> {
        let host = Self::open(None, config.clone(), Some(Arc::default()))?;
        let fetched = FetchedFiles::passing(state, &config.fetch, &config.keys);
        Ok(Self { fetched: Some(Arc::new(fetched)), ..host })
    }

    /// Returns a pipeline's origins with files in place of those that are fetched. An error comes with the index of the
    /// origin that it is about. Blocks.
    ///
    /// # Errors
    /// [`ModuleError::Fetch`]; [`ModuleError::WrongDigest`], when its digest and its manifest's differ.
    pub fn files(
        &self,
        owner: &str,
        origins: &[&ModuleOrigin],
        network: NetworkAccess<'_>,
    ) -> Result<Vec<ModuleOrigin>, (usize, ModuleError)> {
        match &self.fetched {
            Some(fetched) => fetched.files(owner, origins, network),
            None => Ok(origins.iter().map(|&origin| origin.clone()).collect()),
        }
    }

    /// Makes a host that judges as configured, and compiles in this process.
    #[cfg(any(test, feature = "testing"))]
    pub fn judging(config: HostConfig) -> Result<Self, ModuleError> {
        Self::open(None, config, None)
    }

    /// Lets the host fetch into that state folder.
    #[cfg(test)]
    pub(super) fn fetching(self, state: &Path, metrics: metrics::FetchMetrics) -> Self {
        let fetched = FetchedFiles::new(state, &self.config.fetch, &self.config.keys, metrics);
        Self { fetched: Some(Arc::new(fetched)), ..self }
    }

    fn open(
        cache: Option<PathBuf>,
        config: HostConfig,
        compile_process: Option<Arc<Mutex<()>>>,
    ) -> Result<Self, ModuleError> {
        let failed = |reason: String| ModuleError::Engine { reason };
        let engine = Engine::new(&settings()).map_err(|error| failed(format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        add_imports(&mut linker).map_err(|error| failed(format!("{error:#}")))?;
        let cache = cache.map(|folder| CodeCache::open(folder, &engine).map(Arc::new)).transpose()?;
        let clock = DeadlineClock::start(engine.clone()).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            cache,
            clock: Arc::new(clock),
            config: Arc::new(config),
            compile_process,
            fetched: None,
            metrics: metrics::CompileMetrics::default(),
        })
    }

    /// Returns the reason why the clock that stops calls no longer runs, if so: only a restart helps.
    #[must_use]
    pub fn fallen(&self) -> Option<String> {
        self.clock.fallen()
    }

    /// Loads a transform: compile or cache, link, instantiate, `init` with the settings (JSON).
    ///
    /// # Errors
    /// The cause that makes it unusable, for the operator to repair.
    pub fn transform(
        &self,
        origin: impl Into<ModuleOrigin>,
        settings: &str,
        limits: &ModuleLimits,
        metrics: &CallMetrics,
    ) -> Result<TransformModule, ModuleError> {
        self.load(origin.into(), settings, limits, metrics).map(TransformModule::new)
    }

    /// Loads an aggregate, like [`ModuleHost::transform`].
    ///
    /// # Errors
    /// Whatever makes it unusable, for the operator to repair.
    pub fn aggregate(
        &self,
        origin: impl Into<ModuleOrigin>,
        settings: &str,
        limits: &ModuleLimits,
        metrics: &CallMetrics,
    ) -> Result<AggregateModule, ModuleError> {
        let origin = origin.into();
        let file = origin.file.clone();
        let aggregate = self.load(origin, settings, limits, metrics).map(AggregateModule::new)?;
        aggregate.versioned().map_err(|reason| ModuleError::Start { file, reason })
    }

    fn load<W: ModuleWorld>(
        &self,
        origin: ModuleOrigin,
        settings: &str,
        limits: &ModuleLimits,
        metrics: &CallMetrics,
    ) -> Result<ModuleCalls<W>, ModuleError> {
        let file = &origin.file;
        let (digest, component) = self.judged(&origin)?;
        let linked = self.link::<W>(&component, limits, file)?;
        let module = LinkedModule {
            linked,
            clock: Arc::clone(&self.clock),
            digest: digest.to_string(),
            settings: settings.to_owned(),
            limits: limits.clone(),
            metrics: metrics.clone(),
        };
        ModuleCalls::start(module, origin.name().into(), file)
    }

    /// Returns the module of that origin, if it is the one, and trusted; and the digest that it is known by.
    fn judged(&self, origin: &ModuleOrigin) -> Result<(ModuleDigest, Component), ModuleError> {
        let file = &origin.file;
        let keys = &self.config.keys;
        let bytes = read(file)?;
        let digest = ModuleDigest::of(&bytes);
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

    pub(super) fn component(
        &self,
        wasm: &[u8],
        digest: ModuleDigest,
        file: &Path,
    ) -> Result<Component, ModuleError> {
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
        trusted(&self.engine, &code).map_err(|error| ModuleError::Compile {
            file: file.to_owned(),
            reason: format!("its code cannot be loaded: {error:#}"),
        })
    }

    fn compile(&self, wasm: &[u8], file: &Path) -> Result<Vec<u8>, ModuleError> {
        let _one =
            self.compile_process.as_ref().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner));
        let started = Instant::now();
        let compiled = match &self.compile_process {
            Some(_) => compile_process::compile(wasm, &self.config),
            None => {
                let compiled = self.engine.precompile_component(wasm);
                compiled.map_err(|error| CompileFailure::Refused(format!("{error:#}")))
            }
        };
        self.metrics.micros.inc_by(headwater_flow::micros(started.elapsed()));
        let counter = if compiled.is_ok() { &self.metrics.modules } else { &self.metrics.refused_modules };
        counter.inc();
        compiled.map_err(|failure| match failure {
            CompileFailure::Refused(words) => {
                let found = format!("a damaged one, or one that needs a newer agent: {words}");
                ModuleError::NotAComponent { file: file.to_owned(), found }
            }
            CompileFailure::Failed(reason) => ModuleError::Compile { file: file.to_owned(), reason },
        })
    }

    fn link<W: ModuleWorld>(
        &self,
        component: &Component,
        limits: &ModuleLimits,
        file: &Path,
    ) -> Result<InstancePre<GuestData>, ModuleError> {
        let exports = ComponentExports { engine: &self.engine, component: component.component_type() };
        for (import, _) in exports.component.imports(&self.engine) {
            check_import(import, &limits.granted, file)?;
        }
        let link = || {
            if !limits.granted.contains(&ModuleCapability::Wasi) {
                return self.linker.instantiate_pre(component);
            }
            let mut linker = Linker::clone(&self.linker);
            wasi::add_imports(&mut linker, component, &self.engine)?;
            linker.instantiate_pre(component)
        };
        W::check(&exports)
            .and_then(|()| exports.check::<Init<'_>, Started>("init"))
            .and_then(|()| link().map_err(|error| format!("{error:#}")))
            .map_err(|found| ModuleError::WrongWorld { file: file.to_owned(), expected: W::NAME, found })
    }
}

impl fmt::Debug for ModuleHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleHost").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Returns the engine's settings, on which compiled modules depend: a change here makes the cache start again.
pub(super) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        // A recomputation gives the same result on any processor.
        .relaxed_simd_deterministic(true);
    config
}

/// Returns `sha256:<hex>` of a module's file.
///
/// # Errors
/// [`ModuleError::Read`], [`ModuleError::TooLarge`].
pub fn digest(file: &Path) -> Result<String, ModuleError> {
    Ok(ModuleDigest::of(&read(file)?).to_string())
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, ModuleError> {
    let mut wasm = Vec::new();
    File::open(file)
        .and_then(|open| open.take(BYTES_MAX + 1).read_to_end(&mut wasm))
        .map_err(|source| ModuleError::Read { file: file.to_owned(), source })?;
    check_size(&wasm, file)?;
    Ok(wasm)
}

fn check_size(bytes: &[u8], file: &Path) -> Result<(), ModuleError> {
    let bytes_max = if precompiled::is(bytes) { BYTES_MAX } else { FILE_BYTES_MAX };
    match bytes.len() as u64 <= bytes_max {
        true => Ok(()),
        false => Err(ModuleError::TooLarge { file: file.to_owned(), bytes_max }),
    }
}

/// Refuses a file that is no component, and says what people put there by mistake.
pub fn check_preamble(wasm: &[u8], file: &Path) -> Result<(), ModuleError> {
    let found = match wasm {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => {
            "a core module: make a component of it (`headwater module wrap`)"
        }
        [] => "an empty file",
        _ if precompiled::is(wasm) => "a compiled module, which agents alone load",
        _ => "something that is not WebAssembly",
    };
    Err(ModuleError::NotAComponent { file: file.to_owned(), found: found.to_owned() })
}

const WITHOUT: &str = "build it without; no configuration grants it";
const GRANT_STATE: &str = "grant `capabilities = [\"state\"]`";
const WITHOUT_WASI: &str = "build it without WASI (for Rust: wasm32-unknown-unknown), or grant `capabilities = [\"wasi\"]`, which has nothing behind it";

/// Refuses an import that is not granted. Interfaces of types alone are imports, too; a version with the same 0.x is
/// understood.
fn check_import(import: &str, granted: &BTreeSet<ModuleCapability>, file: &Path) -> Result<(), ModuleError> {
    let track = VERSION.rsplit_once('.').map_or(VERSION, |(track, _)| track);
    let name = import.strip_prefix(PACKAGE).and_then(|name| name.strip_prefix('/'));
    match name.and_then(|name| name.split_once('@')) {
        Some((_, version)) if version.rsplit_once('.').is_none_or(|(found, _)| found != track) => {
            let found = version.to_owned();
            Err(ModuleError::WrongVersion { file: file.to_owned(), expected: VERSION, found })
        }
        Some(("logging" | "types", _)) => Ok(()),
        Some(("state", _)) if granted.contains(&ModuleCapability::State) => Ok(()),
        _ if import.starts_with(wasi::NAMESPACE) && granted.contains(&ModuleCapability::Wasi) => Ok(()),
        _ => {
            let remedy = match name.and_then(|name| name.split_once('@')) {
                Some(("state", _)) => GRANT_STATE,
                _ if import.starts_with(wasi::NAMESPACE) => WITHOUT_WASI,
                _ => WITHOUT,
            };
            Err(ModuleError::ForbiddenImport { file: file.to_owned(), import: import.to_owned(), remedy })
        }
    }
}
