//! The module at hand: its file, its facts, and the agent's host that runs it.

use super::WorldKind;
use super::samples;
use anyhow::{Context, bail, ensure};
use headwater_agent::config::Project;
use headwater_agent::flow::Event;
use headwater_agent::module::CallMetrics;
use headwater_agent::module::{AggregateModule, ModuleHost, ModuleInspection, ModuleLimits, TransformModule};
use std::env;
use std::path::{Path, PathBuf};

/// The file of a project's samples.
pub(super) const SAMPLES: &str = "samples/input.ndjson";

/// The arguments that the commands on a module's file have in common.
#[derive(Debug, clap::Args)]
pub struct ModuleArguments {
    /// The module: a component of the contract, or its project's folder.
    #[arg(default_value = ".")]
    file: PathBuf,
    /// The module's settings, as JSON. Default: `settings` in the `module.toml` beside it, or `{}`.
    #[arg(long)]
    pub(super) settings: Option<String>,
    /// The events for it, one a line. Default: `samples/input.ndjson` beside it, if there is one.
    #[arg(long)]
    pub(super) samples: Option<PathBuf>,
}

impl ModuleArguments {
    /// Returns the path of the module.
    pub(super) fn file(&self) -> anyhow::Result<PathBuf> {
        file_of(&self.file)
    }
}

/// Returns the path of a module's file: the one named, or in a folder the one that its project's build makes.
pub(super) fn file_of(named: &Path) -> anyhow::Result<PathBuf> {
    if !named.is_dir() {
        return Ok(named.to_owned());
    }
    let file = named.join(format!("{}.wasm", Project::load(named)?.name));
    ensure!(
        file.is_file(),
        "failed to read {}: it is not there: run `headwater module build`",
        file.display()
    );
    Ok(file)
}

/// A module, with all that it takes to run it.
#[derive(Debug)]
pub(super) struct ModuleSubject {
    pub(super) host: ModuleHost,
    pub(super) file: PathBuf,
    pub(super) kind: WorldKind,
    pub(super) settings: String,
    pub(super) limits: ModuleLimits,
    pub(super) inspection: ModuleInspection,
    /// The module's project, for what the options do not say.
    pub(super) project: Option<Project>,
}

impl ModuleSubject {
    /// Reads and compiles the module; nothing runs yet.
    pub(super) fn open(file: &Path, settings: Option<&str>) -> anyhow::Result<Self> {
        Self::open_in(ModuleHost::new(cache())?, file, settings)
    }

    /// Opens the module in a host of the caller's.
    pub(super) fn open_in(host: ModuleHost, file: &Path, settings: Option<&str>) -> anyhow::Result<Self> {
        let inspection = host.inspect(file)?;
        let kind = kind(&inspection, file)?;
        let project = Project::beside(file)?;
        let settings = settings.map(str::to_owned);
        let settings = settings.or_else(|| Some(project.as_ref()?.settings.clone()));
        Ok(Self {
            host,
            file: file.to_owned(),
            kind,
            settings: settings.unwrap_or_else(|| "{}".to_owned()),
            limits: project.as_ref().map_or_else(ModuleLimits::default, |project| project.limits.clone()),
            inspection,
            project,
        })
    }

    pub(super) fn transform(&self) -> Result<TransformModule, headwater_agent::module::ModuleError> {
        self.host.transform(&self.file, &self.settings, &self.limits, &CallMetrics::default())
    }

    pub(super) fn aggregate(&self) -> Result<AggregateModule, headwater_agent::module::ModuleError> {
        self.host.aggregate(&self.file, &self.settings, &self.limits, &CallMetrics::default())
    }

    /// Reads the events of the file named, or of the one that the project has.
    pub(super) fn samples(&self, named: Option<&Path>) -> anyhow::Result<Vec<Event>> {
        let own = self.file.parent().unwrap_or(Path::new("")).join(SAMPLES);
        match named {
            Some(file) => samples::read(file),
            None if own.is_file() => samples::read(&own),
            None => Ok(Vec::new()),
        }
    }
}

/// Returns the world of a module by its exports; the host checks their types.
fn kind(inspection: &ModuleInspection, file: &Path) -> anyhow::Result<WorldKind> {
    let has = |name: &str| inspection.exports.iter().any(|export| export == name);
    match (has("process"), has("update")) {
        (true, false) => Ok(WorldKind::Transform),
        (false, true) => Ok(WorldKind::Aggregate),
        _ => bail!(
            "failed to load the module {}: expected the export `process` of the world `transform` or `update` of \
             the world `aggregate`, found {:?}: build it for one of the worlds of wit/headwater.wit",
            file.display(),
            inspection.exports
        ),
    }
}

/// Returns the folder of the author's compiled modules: a large one takes half a minute to compile.
pub(super) fn cache() -> Option<PathBuf> {
    let caches = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let caches = caches.or_else(|| Some(env::home_dir()?.join(".cache")))?;
    let folder = caches.join("headwater");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("modules"))
}

/// Checks that settings are JSON, so that a typing error is not taken for the module's.
pub(super) fn checked(settings: Option<&str>) -> anyhow::Result<Option<&str>> {
    if let Some(settings) = settings {
        serde_json::from_str::<serde_json::Value>(settings)
            .with_context(|| format!("failed to read --settings {settings:?} as JSON"))?;
    }
    Ok(settings)
}
