//! `module.toml`: what the author's commands know of a module.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use super::pipeline::{capabilities, limits, settings};
use super::read::{Section, duration, text, word};
use super::{Error, parse_with};
use crate::module::ModuleLimits;

/// The file's name.
const FILE: &str = "module.toml";

/// A module on its author's machine.
#[derive(Clone, Debug)]
pub struct Project {
    /// The module's name: its file is `<name>.wasm`.
    pub name: String,
    /// The world that it is for.
    pub kind: WorldKind,
    /// What its settings are in tests, as JSON. Default `{}`.
    pub settings: String,
    /// The tumbling windows that an aggregate's samples are put in. Default 1 min.
    pub window: Duration,
    /// `[limits]` and `capabilities`, each as in a pipeline's step.
    pub limits: ModuleLimits,
}

/// The two worlds of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WorldKind {
    /// Map, filter, flat-map, enrich, re-key, re-time.
    Transform,
    /// Keyed window aggregation.
    Aggregate,
}

impl WorldKind {
    /// As the contract calls it.
    #[must_use]
    pub fn world(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Aggregate => "aggregate",
        }
    }
}

impl Project {
    /// Reads the folder's `module.toml`.
    ///
    /// # Errors
    /// When it cannot be read, or with every fault that it has.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(parse_with(&file, &text, |root, _| project(root))?),
            Err(said) => Err(Error::Project { file, said }),
        }
    }

    /// Reads the `module.toml` of the folder that the module's file is in, if there is one.
    ///
    /// # Errors
    /// As [`Project::load`].
    pub fn beside(module: &Path) -> Result<Option<Self>, Error> {
        let folder = module.parent().unwrap_or(Path::new(""));
        if !folder.join(FILE).is_file() {
            return Ok(None);
        }
        Self::load(folder).map(Some)
    }
}

fn project(mut root: Section<'_>) -> Option<Project> {
    const KINDS: &[(&str, WorldKind)] =
        &[("transform", WorldKind::Transform), ("aggregate", WorldKind::Aggregate)];
    const MINUTE: Duration = Duration::from_mins(1);
    let name = root.required("name", |value| {
        let name = text(value)?;
        match plain_name(&name) {
            true => Ok(name),
            false => Err((format!("is {name:?}"), NAME_REMEDY.into())),
        }
    });
    let kind = root.required("kind", word(KINDS));
    // Of no use to the program: for the reader, and for tools.
    let _ = root.required("language", text);
    root.renamed("config", "settings");
    let settings = root.or("settings", "{}".to_owned(), settings);
    let window = root.or("window", MINUTE, duration(Duration::from_millis(1), 365 * 24 * 60 * MINUTE));
    let granted = root.or("capabilities", BTreeSet::new(), capabilities);
    let mut limits = root.optional_section("limits").map_or_else(ModuleLimits::default, |mut section| {
        let limits = limits(&mut section);
        section.finish();
        limits
    });
    limits.granted = granted;
    root.finish();
    Some(Project { name: name?, kind: kind?, settings, window, limits })
}

/// What a name has to be.
pub const NAME_REMEDY: &str =
    "name it with lower-case letters, digits and `_`, a letter first, 64 at most, such as \"scale\"";

/// Whether it can be a file's name, a package's and part of an identifier in every language.
#[must_use]
pub fn plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(plain)
}
