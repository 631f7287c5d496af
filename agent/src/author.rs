//! What the author of a module works with: `headwater module …`.
//!
//! Modules run here in the agent's own host ([`crate::module`]), with the same limits: there is no second one. A
//! device's build leaves this out (the feature `author`).

mod wrap;

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

/// The commands of `headwater module`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a module of the core module that a compiler has made: for the builds of languages.
    Wrap(wrap::Options),
}

/// The two worlds of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Map, filter, flat-map, enrich, re-key, re-time.
    Transform,
    /// Keyed window aggregation.
    Aggregate,
}

impl Kind {
    /// As the contract calls it.
    fn world(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Aggregate => "aggregate",
        }
    }
}

/// Runs the command that the arguments name.
///
/// # Errors
/// In words for the author: the file, the export, what was expected and what was found.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Wrap(options) => wrap::run(options).map(|()| ExitCode::SUCCESS),
    }
}
