//! What the author of a module works with: `headwater module …`.
//!
//! Modules run here in the agent's own host ([`headwater_agent::module`]), with the same limits: there is no second one. A
//! device's build leaves this out (the feature `author`).

mod attempt;
mod bench;
mod build;
mod compile;
mod conform;
mod determinism;
mod golden;
mod inspect;
mod new;
mod outcome;
mod samples;
mod sign;
mod subject;
mod wrap;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use headwater_agent::config::Kind;
use headwater_agent::flow::StoredLetter;

/// The commands of `headwater module`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Begin a module: a folder that builds at once, with samples and what has to come of them.
    #[command(name = "new")]
    Begin(new::Options),
    /// Build the module in a folder, with the build.sh that is there.
    Build(build::Options),
    /// Give a module its samples, and show where what comes of them is not as expected.
    Test(golden::Options),
    /// Show what a module is: world, digest, imports and what they need, exports.
    Inspect(inspect::Options),
    /// Check that a module keeps the contract, whatever language it is written in (wit/CONFORMANCE.md).
    Conform(conform::Options),
    /// Check that the same samples always give the same: again, on fresh instances, in other batches.
    CheckDeterminism(subject::Module),
    /// Measure a module: events a second, memory, time to compile and to start.
    Bench(bench::Options),
    /// Show what a module makes of live messages, or of dead letters; nothing is sent, nothing is changed.
    Try(attempt::Options),
    /// Make a module of the core module that a compiler has made: for the builds of languages.
    Wrap(wrap::Options),
    /// Compile a module for a device that is too small for it, and sign what comes of it.
    Compile(compile::Options),
    /// Make a pair of keys: the private one goes into a file, the public one, for `keys`, is printed.
    Keygen(sign::KeyOptions),
    /// Sign a module, for agents that have the public key in `keys` in [modules].
    Sign(sign::Options),
}

/// Gives the dead letters of the agent of a configuration file to a function, until that has enough.
pub type DeadLetters<'a> = &'a dyn Fn(&Path, &mut LetterTaker<'_>) -> anyhow::Result<()>;

/// Takes one dead letter, and says whether it wants more.
pub type LetterTaker<'a> = dyn FnMut(StoredLetter) -> anyhow::Result<ControlFlow<()>> + 'a;

/// Runs the command that the arguments name; `letters` is where `try` gets dead letters from.
///
/// # Errors
/// In words for the author: the file, the export, what was expected and what was found.
pub fn run(command: &Command, letters: DeadLetters<'_>) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Begin(options) => new::run(options),
        Command::Build(options) => build::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Try(options) => attempt::run(options, letters),
        Command::Wrap(options) => wrap::run(options),
        Command::Compile(options) => compile::run(options),
        Command::Keygen(options) => sign::make_key(options),
        Command::Sign(options) => sign::run(options),
        Command::Test(options) => return golden::run(options),
        Command::Conform(options) => return conform::run(options),
        Command::CheckDeterminism(options) => return determinism::run(options),
    };
    done.map(|()| ExitCode::SUCCESS)
}
