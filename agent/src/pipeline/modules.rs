//! The modules of one pipeline: loaded together, switched together.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::{AggregateConfig, Config, Error, ModuleConfig};
use crate::builtin::BuiltinAggregate;
use crate::metrics::CallMetrics;
use crate::module::{self, ModuleHost, ModuleLimits, ModuleOrigin, NetworkAccess, TripCount};

/// The configuration with files in place of the modules that are fetched; all else works on these.
///
/// # Errors
/// The first that is not here, and cannot be had.
pub fn at_hand(
    name: &str,
    config: &Config,
    host: &ModuleHost,
    network: NetworkAccess<'_>,
) -> Result<Config, Error> {
    let steps = steps(config);
    let origins: Vec<_> = steps.iter().map(|(_, module)| &module.origin).collect();
    let files = host.files(name, &origins, network).map_err(|(index, source)| {
        let place = steps.get(index).map_or("?", |(place, _)| place);
        Error::Module { place: format!("{place} of pipeline `{name}`"), source }
    })?;
    let mut config = config.clone();
    for (module, file) in steps_mut(&mut config).into_iter().zip(files) {
        module.origin = file;
    }
    Ok(config)
}

/// Loaded, and their settings accepted.
#[derive(Debug, Default)]
pub struct Modules {
    pub(super) transforms: Vec<module::TransformModule>,
    /// Where there are windows.
    pub(super) aggregate: Option<Aggregate>,
}

impl Modules {
    /// Compiles what is not in the cache: it may take long.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(name: &str, config: &Config, host: &ModuleHost, calls: &CallMetrics) -> Result<Self, Error> {
        let transforms = load_transforms(name, config, host, calls).collect::<Result<_, _>>()?;
        let aggregate = load_aggregate(name, config, host, calls).transpose()?;
        Ok(Self { transforms, aggregate })
    }
}

/// Loads all modules of a pipeline and drops them: what is wrong with each that cannot be used.
pub fn load_modules(name: &str, config: &Config, host: &ModuleHost, calls: &CallMetrics) -> Vec<Error> {
    let transforms = load_transforms(name, config, host, calls).filter_map(Result::err);
    let aggregate = load_aggregate(name, config, host, calls).and_then(Result::err);
    transforms.chain(aggregate).collect()
}

fn load_transforms(
    name: &str,
    config: &Config,
    host: &ModuleHost,
    calls: &CallMetrics,
) -> impl Iterator<Item = Result<module::TransformModule, Error>> {
    config.transforms.iter().enumerate().map(move |(index, module)| {
        let loaded = host.transform(&module.origin, &module.settings, &module.limits, calls);
        let place = || format!("transform[{index}] of pipeline `{name}`{}", whence(module));
        loaded.map_err(|source| Error::Module { place: place(), source })
    })
}

fn load_aggregate(
    name: &str,
    config: &Config,
    host: &ModuleHost,
    calls: &CallMetrics,
) -> Option<Result<Aggregate, Error>> {
    let module = match &config.windowed.as_ref()?.1 {
        AggregateConfig::Module(module) => module,
        AggregateConfig::Builtin(config) => {
            return Some(Ok(Aggregate::Builtin(BuiltinAggregate::new(config))));
        }
    };
    let loaded = host.aggregate(&module.origin, &module.settings, &module.limits, calls);
    let place = || format!("the aggregate of pipeline `{name}`{}", whence(module));
    Some(loaded.map(Aggregate::Module).map_err(|source| Error::Module { place: place(), source }))
}

/// Which modules, with which settings: two pipelines of one version do the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Transforms in order, then the aggregate, if that is a module.
    pub steps: Vec<StepVersion>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepVersion {
    /// `sha256:<hex>` of the file.
    pub digest: String,
    /// JSON, as its `init` gets it.
    pub settings: String,
    /// Bounds and capabilities.
    pub limits: ModuleLimits,
}

impl Version {
    /// What the configuration says, with the files as they are; all are at hand.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(name: &str, config: &Config) -> Result<Self, Error> {
        let step = |(place, module): (String, &ModuleConfig)| {
            let digest = module::digest(&module.origin.file);
            let digest = digest
                .map_err(|source| Error::Module { place: format!("{place} of pipeline `{name}`"), source })?;
            let (settings, limits) = (module.settings.clone(), module.limits.clone());
            Ok(StepVersion { digest, settings, limits })
        };
        Ok(Self { steps: steps(config).into_iter().map(step).collect::<Result<_, Error>>()? })
    }

    /// The configuration with the modules of this version, of which there are copies in the folder.
    #[must_use]
    pub fn config(&self, config: &Config, folder: &Path) -> Option<Config> {
        let mut config = config.clone();
        if steps(&config).len() != self.steps.len() {
            return None;
        }
        let mut rest = self.steps.iter().map(|step| ModuleConfig {
            origin: ModuleOrigin {
                file: folder.join(copy_name(&step.digest)),
                remote: None,
                digest: step.digest.parse().ok(),
            },
            settings: step.settings.clone(),
            limits: step.limits.clone(),
        });
        for module in steps_mut(&mut config) {
            *module = rest.next()?;
        }
        Some(config)
    }
}

/// A copy's name in its folder.
pub(super) fn copy_name(digest: &str) -> String {
    format!("{}.wasm", digest.trim_start_matches("sha256:"))
}

impl Config {
    /// Its modules.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleConfig> {
        steps(self).into_iter().map(|(_, module)| module)
    }
}

/// The modules of a configuration, by their places.
pub(super) fn steps(config: &Config) -> Vec<(String, &ModuleConfig)> {
    let transforms = config.transforms.iter().enumerate();
    let transforms = transforms.map(|(index, module)| (format!("transform[{index}]"), module));
    let aggregate = match &config.windowed {
        Some((_, AggregateConfig::Module(module))) => Some(("aggregate".to_owned(), module)),
        _ => None,
    };
    transforms.chain(aggregate).collect()
}

fn steps_mut(config: &mut Config) -> Vec<&mut ModuleConfig> {
    let aggregate = match &mut config.windowed {
        Some((_, AggregateConfig::Module(module))) => Some(module),
        _ => None,
    };
    config.transforms.iter_mut().chain(aggregate).collect()
}

/// ", which is https://…", for what was fetched.
fn whence(module: &ModuleConfig) -> String {
    let remote = module.origin.remote.as_ref();
    remote.map_or_else(String::new, |remote| format!(", which is {}", remote.text()))
}

/// Where a module tripped, and what it ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// `transform[0]` or `aggregate`.
    pub place: String,
    /// `sha256:<hex>` of the module.
    pub digest: String,
    /// The reason of the latest.
    pub trips: TripCount,
}

impl Blame {
    /// None where there were no trips.
    pub(super) fn of(place: fmt::Arguments<'_>, digest: &str, trips: TripCount) -> Option<Self> {
        (trips.count > 0).then(|| Self { place: place.to_string(), digest: digest.to_owned(), trips })
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tripped: {}", self.place, self.trips.reason)
    }
}
