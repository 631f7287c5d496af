//! `headwater module inspect`: the facts about a module, without running it.

use super::subject::{ModuleSubject, file_of};
use headwater_agent::config::Project;
use headwater_agent::module::ModuleInspection;
use std::path::PathBuf;

/// The exports that a module may have beside its world's.
const OPTIONAL: [&str; 2] = ["state-version", "migrate"];

/// `headwater module inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectOptions {
    /// The module, or its project's folder.
    #[arg(default_value = ".")]
    file: PathBuf,
    /// Print the facts as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &InspectOptions) -> anyhow::Result<()> {
    let file = file_of(&options.file)?;
    let subject = ModuleSubject::open(&file, None)?;
    let found = &subject.inspection;
    let version = version(found);
    let (optional, exports): (Vec<&String>, Vec<&String>) =
        found.exports.iter().partition(|export| OPTIONAL.contains(&export.as_str()));
    if options.json {
        let imports = found.imports.iter().map(
            |import| serde_json::json!({ "name": import, "capability": capability(import).ok().flatten() }),
        );
        let whole = serde_json::json!({
            "file": file,
            "world": subject.kind.world(),
            "contract": version,
            "digest": found.digest,
            "bytes": found.bytes,
            "imports": imports.collect::<Vec<_>>(),
            "exports": exports,
            "optional": optional,
        });
        println!("{whole}");
        return Ok(());
    }
    println!("{}", file.display());
    println!("world     {} of {}", subject.kind.world(), version.as_deref().unwrap_or("an unknown version"));
    println!("digest    {}", found.digest);
    println!("size      {} bytes", found.bytes);
    for import in &found.imports {
        let needs = match capability(import) {
            Ok(None) => "every module has it".to_owned(),
            Ok(Some(name)) => format!("needs capabilities = [\"{name}\"]"),
            Err(refused) => refused.to_owned(),
        };
        println!("import    {import}: {needs}");
    }
    exports.iter().for_each(|export| println!("export    {export}"));
    optional.iter().for_each(|export| println!("optional  {export}"));
    if !optional.iter().any(|export| *export == "state-version") {
        println!("state     no version of its own");
    }
    if let Some(Project { name, .. }) = &subject.project {
        println!("project   {name}");
    }
    Ok(())
}

/// Returns the version of the contract, as the module names it.
fn version(found: &ModuleInspection) -> Option<String> {
    let own = found.imports.iter().find(|import| import.starts_with("headwater:module/"))?;
    own.split_once('@').map(|(_, version)| format!("headwater:module@{version}"))
}

/// Returns the capability that has to be granted for an import; an error where nothing grants it.
pub(super) fn capability(import: &str) -> Result<Option<&'static str>, &'static str> {
    let name = import.split_once('@').map_or(import, |(name, _)| name);
    match name {
        "headwater:module/logging" | "headwater:module/types" => Ok(None),
        "headwater:module/state" => Ok(Some("state")),
        "headwater:module/metrics" => Ok(Some("metrics")),
        _ if name.starts_with("wasi:") => Ok(Some("wasi")),
        _ => Err("refused: no configuration grants it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_an_import_needs() {
        assert_eq!(capability("headwater:module/logging@0.1.0"), Ok(None));
        assert_eq!(capability("headwater:module/state@0.1.0"), Ok(Some("state")));
        assert_eq!(capability("wasi:clocks/wall-clock@0.2.0"), Ok(Some("wasi")));
        assert!(capability("env").is_err());
    }
}
