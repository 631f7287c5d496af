//! `headwater module build`: runs a project's `build.sh`, which alone knows its language.

use super::subject::ModuleSubject;
use anyhow::{Context, ensure};
use headwater_agent::config::Project;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `headwater module build`.
#[derive(Debug, clap::Args)]
pub struct BuildOptions {
    /// The project's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub(super) fn run(options: &BuildOptions) -> anyhow::Result<()> {
    let module = build(&options.folder)?;
    let subject = ModuleSubject::open(&module, None)?;
    let kib = subject.inspection.bytes.div_ceil(1024);
    println!("{}: {kib} KiB, for the world `{}`", module.display(), subject.kind.world());
    Ok(())
}

/// Builds a project, and returns the path of the module.
pub(super) fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let project = Project::load(folder)?;
    let script = folder.join("build.sh");
    ensure!(
        script.is_file(),
        "failed to build {}: there is no {}: see `headwater module new`",
        project.name,
        script.display()
    );
    let mut shell = Command::new("sh");
    shell.arg("build.sh").current_dir(folder).env("HEADWATER", env::current_exe()?);
    let status = shell.status().context("failed to run `sh`")?;
    ensure!(status.success(), "failed to build {}: build.sh ended with {status}: see above", project.name);
    let module = folder.join(format!("{}.wasm", project.name));
    ensure!(
        module.is_file(),
        "failed to build {}: expected build.sh to make {}, and it did not",
        project.name,
        module.display()
    );
    Ok(module)
}
