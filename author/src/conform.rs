//! Whether a module keeps what `wit/CONFORMANCE.md` says, whatever language it is written in.
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

use super::Kind;
use super::subject::{Module, Subject, checked};
use headwater_agent::flow::Event;
use headwater_agent::module::Group;
use std::path::Path;
use std::process::ExitCode;

pub(super) use number::equal;

/// Events of the check with many.
const MANY: usize = 10_000;

/// As the agent's.
const BATCH: usize = 256;

/// Characters of what is shown of a payload or an answer.
const SHOWN: usize = 300;

/// `headwater module conform`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    module: Module,
    /// It is the transform `celsius` or the aggregate `stats`: check that it does what these do, too.
    #[arg(long, conflicts_with = "settings")]
    reference: bool,
}

/// What one check is called, and what was wrong.
pub(super) type Check = (&'static str, Result<(), String>);

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let module = &options.module;
    let file = module.file()?;
    let mut subject = Subject::open(&file, checked(module.settings.as_deref())?)?;
    let samples = subject.samples(module.samples.as_deref())?;
    let checks = all(&mut subject, samples, options.reference)?;
    Ok(show(&file, checks.into_iter()))
}

/// A line for each, and whether all hold.
pub(super) fn show(file: &Path, checks: impl Iterator<Item = Check>) -> ExitCode {
    let (mut count, mut faults) = (0, 0);
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

/// Every check, with what came of it.
pub(super) fn all(
    subject: &mut Subject,
    mut samples: Vec<Event>,
    reference: bool,
) -> anyhow::Result<Vec<Check>> {
    if reference {
        let (settings, own) = match subject.kind {
            Kind::Transform => (celsius::SETTINGS, celsius::samples()),
            Kind::Aggregate => (stats::SETTINGS, stats::samples()),
        };
        settings.clone_into(&mut subject.settings);
        samples = own;
    }
    Ok(match subject.kind {
        Kind::Transform => {
            let mut checks = transform::checks(subject.transform()?, &subject.settings, &samples);
            if reference {
                checks.extend(celsius::checks(subject.transform()?));
            }
            checks
        }
        Kind::Aggregate => {
            let mut checks = aggregate::checks(subject.aggregate()?, &subject.settings, &samples);
            if reference {
                checks.extend(stats::checks(subject.aggregate()?));
            }
            checks
        }
    })
}

/// One group of what the events are to an aggregate.
pub(super) fn whole_group(events: &[Event]) -> Group {
    groups::group(&[], &groups::samples(events))
}

/// What can be shown of bytes on one line.
fn shown(bytes: &[u8]) -> String {
    clipped(&format!("`{}`", bytes.escape_ascii()))
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Settings that are not what any module expects: it has to answer, be it with an error.
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
