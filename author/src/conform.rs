//! `headwater module conform`: the checks of `wit/CONFORMANCE.md` on a module, whatever language it is written in.
//!
//! Each check is a line, `ok` or `FAILED` with what was expected and what was found. The module is called as the agent
//! calls it, but for one thing: a trap, or an answer that breaks the contract, is a fault here, where a pipeline
//! would go on without the input that causes it.

mod aggregate;
mod celsius;
mod groups;
mod inputs;
mod number;
mod stats;
mod transform;

use super::WorldKind;
use super::subject::{ModuleArguments, ModuleSubject, checked};
use headwater_agent::flow::Event;
use headwater_agent::module::Group;
use std::path::Path;
use std::process::ExitCode;

pub(super) use number::equal;

/// The number of events of the check with many.
const MANY: usize = 10_000;

/// The inputs of one call, as many as the agent's.
const BATCH: usize = 256;

/// The characters shown of a payload or an answer.
const SHOWN: usize = 300;

/// `headwater module conform`.
#[derive(Debug, clap::Args)]
pub struct ConformOptions {
    #[command(flatten)]
    module: ModuleArguments,
    /// Check also that the module does what the transform `celsius` or the aggregate `stats` does.
    #[arg(long, conflicts_with = "settings")]
    reference: bool,
}

/// The name of a check, and the fault that it found.
pub(super) type Check = (&'static str, Result<(), String>);

pub(super) fn run(options: &ConformOptions) -> anyhow::Result<ExitCode> {
    let module = &options.module;
    let file = module.file()?;
    let mut subject = ModuleSubject::open(&file, checked(module.settings.as_deref())?)?;
    let samples = subject.samples(module.samples.as_deref())?;
    let checks = all(&mut subject, samples, options.reference)?;
    Ok(show(&file, checks.into_iter()))
}

/// Prints a line for each check; success if all hold.
pub(super) fn show(file: &Path, checks: impl Iterator<Item = Check>) -> ExitCode {
    let mut count = 0;
    let mut faults = 0;
    for (name, result) in checks {
        count += 1;
        match result {
            Ok(()) => println!("ok      {name}"),
            Err(found) => {
                faults += 1;
                println!("FAILED  {name}: {found}");
            }
        }
    }
    println!("{}: {} of {count} checks hold", file.display(), count - faults);
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all checks, and returns them with their results.
pub(super) fn all(
    subject: &mut ModuleSubject,
    mut samples: Vec<Event>,
    reference: bool,
) -> anyhow::Result<Vec<Check>> {
    if reference {
        let (settings, own) = match subject.kind {
            WorldKind::Transform => (celsius::SETTINGS, celsius::samples()),
            WorldKind::Aggregate => (stats::SETTINGS, stats::samples()),
        };
        settings.clone_into(&mut subject.settings);
        samples = own;
    }
    Ok(match subject.kind {
        WorldKind::Transform => {
            let mut checks = transform::checks(subject.transform()?, &subject.settings, &samples);
            if reference {
                checks.extend(celsius::checks(subject.transform()?));
            }
            checks
        }
        WorldKind::Aggregate => {
            let mut checks = aggregate::checks(subject.aggregate()?, &subject.settings, &samples);
            if reference {
                checks.extend(stats::checks(subject.aggregate()?));
            }
            checks
        }
    })
}

/// Returns one group of the events as an aggregate's samples.
pub(super) fn whole_group(events: &[Event]) -> Group {
    groups::group(&[], &groups::samples(events))
}

/// Returns the bytes as they can be shown on one line.
fn shown(bytes: &[u8]) -> String {
    clipped(&format!("`{}`", bytes.escape_ascii()))
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Checks that a module answers settings that no module expects, be it with an error.
fn answers_bad_settings(mut renew: impl FnMut(&str) -> (Result<(), String>, bool)) -> Result<(), String> {
    for config in ["", "{", "not JSON", "[]", "7", "null", "\"text\"", "{\"\":{\"\":[null]}}", "\u{fffd}\0"] {
        if let (Err(reason), true) = renew(config) {
            let config = shown(config.as_bytes());
            return Err(format!("expected `init` to answer the settings {config}, found a trap: {reason}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
