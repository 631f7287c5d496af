//! `headwater module new`: a project from the template of a language, `transforms/languages/<language>`, in this binary.
//!
//! A project is the language's files and those of its folder `transform` or `aggregate`, with the name in place of the
//! example's, and the contract. The project does what the example does until its author changes it.

use super::WorldKind;
use super::wrap::CONTRACT;
use anyhow::{Context, ensure};
use clap::builder::PossibleValuesParser;
use headwater_agent::config::{NAME_REMEDY, plain_name};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The templates' files: names, by language and kind as in `transforms/languages`, and bytes.
const TEMPLATES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The name of the files of a project that are not its author's.
const OURS: &str = "headwater";

/// The files that a build leaves behind.
const GITIGNORE: &str = "/.tools/\n/*.wasm\n";

/// `headwater module new`.
#[derive(Debug, clap::Args)]
pub struct NewOptions {
    /// The module's name, and that of its folder.
    name: String,
    /// The language that it is written in.
    #[arg(long, short, value_parser = PossibleValuesParser::new(languages()))]
    lang: String,
    /// The kind: works on events one by one, or on windows.
    #[arg(long, short, value_enum, default_value = "transform")]
    kind: WorldKind,
    /// The folder to make. Default: the name.
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(super) fn run(options: &NewOptions) -> anyhow::Result<()> {
    let NewOptions { name, lang, kind, folder } = options;
    let folder = folder.clone().unwrap_or_else(|| PathBuf::from(name));
    make(&folder, name, lang, *kind)?;
    println!("{}: {} in {lang}; README.md says what the files are. Then:", folder.display(), kind.world());
    println!("    cd {}", folder.display());
    println!("    headwater module build     # into {name}.wasm");
    println!("    headwater module test      # samples/input.ndjson against samples/expected.ndjson");
    Ok(())
}

/// Returns the languages that there is a template of.
fn languages() -> Vec<&'static str> {
    let builds = TEMPLATES.iter().filter_map(|(path, _)| path.strip_suffix("/build.sh"));
    builds.filter(|language| !language.contains('/')).collect()
}

/// Writes the project into a folder that is not there, or empty.
pub(super) fn make(folder: &Path, name: &str, language: &str, kind: WorldKind) -> anyhow::Result<()> {
    ensure!(plain_name(name), "failed to make a module {name:?}: {NAME_REMEDY}");
    ensure!(
        name != OURS,
        "failed to make a module {name:?}: files that come with a project are called so: choose another name"
    );
    let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(empty, "failed to make {}: the folder is there, and not empty: choose another", folder.display());
    let files = files(name, language, kind);
    let whole = files.iter().any(|(path, _)| path == Path::new("build.sh"))
        && files.iter().any(|(path, _)| path == Path::new("module.toml"));
    ensure!(
        whole,
        "failed to make {name}: there is no template of {language} for the world `{}`",
        kind.world()
    );
    for (path, bytes) in files {
        let path = folder.join(path);
        let written =
            fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| fs::write(&path, bytes));
        written.with_context(|| format!("failed to write {}", path.display()))?;
        if path.extension().is_some_and(|extension| extension == "sh") {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Returns the project's files: paths and bytes.
fn files(name: &str, language: &str, kind: WorldKind) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![
        (PathBuf::from(".gitignore"), GITIGNORE.into()),
        (PathBuf::from("wit/headwater.wit"), CONTRACT.into()),
    ];
    for (path, bytes) in TEMPLATES {
        let Some(path) = path.strip_prefix(language).and_then(|path| path.strip_prefix('/')) else {
            continue;
        };
        let path = match path.split_once('/') {
            Some((folder, path)) if folder == kind.world() => path,
            Some(("transform" | "aggregate", _)) => continue,
            _ => path,
        };
        let path = PathBuf::from(renamed_path(path, name, kind));
        files.retain(|(known, _)| *known != path);
        files.push((path, renamed(bytes, name, kind)));
    }
    files
}

/// Returns the example's name.
fn example(kind: WorldKind) -> &'static str {
    match kind {
        WorldKind::Transform => "celsius",
        WorldKind::Aggregate => "stats",
    }
}

/// Returns the path with the name in place of the example's: `celsius.py` becomes `<name>.py`.
fn renamed_path(path: &str, name: &str, kind: WorldKind) -> String {
    let (folder, file) = path.rsplit_once('/').map_or(("", path), |(folder, file)| (folder, file));
    match file.strip_prefix(example(kind)) {
        Some(rest) if rest.starts_with('.') && folder.is_empty() => format!("{name}{rest}"),
        _ => path.to_owned(),
    }
}

/// Returns the file with the name where it says the module's: in module.toml, Cargo.toml, package.json, go.mod. Nowhere
/// else, since `celsius` is also a unit.
fn renamed(bytes: &[u8], name: &str, kind: WorldKind) -> Vec<u8> {
    let Ok(text) = str::from_utf8(bytes) else { return bytes.to_vec() };
    let example = example(kind);
    let mut text = text.to_owned();
    for (before, after) in [("name = \"", "\""), ("\"name\": \"", "\""), ("\nmodule ", "\n")] {
        text = text.replace(&format!("{before}{example}{after}"), &format!("{before}{name}{after}"));
    }
    if let Some(rest) = text.strip_prefix(&format!("module {example}\n")) {
        text = format!("module {name}\n{rest}");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
