//! `headwater module check-determinism`: the checks of `conform` that the same input gives the same answer.

use super::conform::{self, Check};
use super::subject::{ModuleArguments, ModuleSubject, checked};
use anyhow::ensure;
use std::process::ExitCode;

pub(super) fn run(options: &ModuleArguments) -> anyhow::Result<ExitCode> {
    let file = options.file()?;
    let mut subject = ModuleSubject::open(&file, checked(options.settings.as_deref())?)?;
    let samples = subject.samples(options.samples.as_deref())?;
    ensure!(
        !samples.is_empty(),
        "failed to check {}: there are no samples: name a file with --samples",
        file.display()
    );
    let about = ["gives the same", "keeps nothing"];
    let of_it = |(name, _): &Check| about.iter().any(|about| name.starts_with(about));
    let checks = conform::all(&mut subject, samples, false)?;
    Ok(conform::show(&file, checks.into_iter().filter(of_it)))
}
