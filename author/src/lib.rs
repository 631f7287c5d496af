//! The tools of a module's author: `headwater module …`.
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
use headwater_agent::config::WorldKind;
use headwater_agent::flow::StoredLetter;

/// The commands of `headwater module`.
#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// Begin a module: a folder that builds at once, with samples and the output expected of them.
    #[command(name = "new")]
    Begin(new::NewOptions),
    /// Build the module in a folder, with the build.sh that is there.
    Build(build::BuildOptions),
    /// Give a module its samples, and show where its output is not as expected.
    Test(golden::TestOptions),
    /// Show a module's world, digest, imports with the capabilities that they need, and exports.
    Inspect(inspect::InspectOptions),
    /// Check that a module keeps the contract, whatever language it is written in (wit/CONFORMANCE.md).
    Conform(conform::ConformOptions),
    /// Check that the same samples always give the same: again, on fresh instances, in other batches.
    CheckDeterminism(subject::ModuleArguments),
    /// Measure a module: events a second, memory, time to compile and to start.
    Bench(bench::BenchOptions),
    /// Show a module's output for live messages, or for dead letters; nothing is sent, nothing is changed.
    Try(attempt::TryOptions),
    /// Make a module of the core module that a compiler has made: for the builds of languages.
    Wrap(wrap::WrapOptions),
    /// Compile a module for a device that is too small for it, and sign the compiled code.
    Compile(compile::CompileOptions),
    /// Make a pair of keys: the private one goes into a file, the public one, for `keys`, is printed.
    Keygen(sign::KeyOptions),
    /// Sign a module, for agents that have the public key in `keys` in [modules].
    Sign(sign::SignOptions),
}

/// Gives the dead letters of the agent of a configuration file to a function, until that has enough.
pub type DeadLetters<'a> = &'a dyn Fn(&Path, &mut LetterTaker<'_>) -> anyhow::Result<()>;

/// Takes one dead letter, and says whether it wants more.
pub type LetterTaker<'a> = dyn FnMut(StoredLetter) -> anyhow::Result<ControlFlow<()>> + 'a;

/// Runs the command that the arguments name; `try` gets dead letters from `letters`.
///
/// # Errors
/// The fault in words for the author: the file, the export, what was expected and what was found.
pub fn run(command: &ModuleCommand, letters: DeadLetters<'_>) -> anyhow::Result<ExitCode> {
    let done = match command {
        ModuleCommand::Begin(options) => new::run(options),
        ModuleCommand::Build(options) => build::run(options),
        ModuleCommand::Inspect(options) => inspect::run(options),
        ModuleCommand::Bench(options) => bench::run(options),
        ModuleCommand::Try(options) => attempt::run(options, letters),
        ModuleCommand::Wrap(options) => wrap::run(options),
        ModuleCommand::Compile(options) => compile::run(options),
        ModuleCommand::Keygen(options) => sign::make_key(options),
        ModuleCommand::Sign(options) => sign::run(options),
        ModuleCommand::Test(options) => return golden::run(options),
        ModuleCommand::Conform(options) => return conform::run(options),
        ModuleCommand::CheckDeterminism(options) => return determinism::run(options),
    };
    done.map(|()| ExitCode::SUCCESS)
}
