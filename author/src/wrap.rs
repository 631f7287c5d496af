//! `headwater module wrap`: from a compiler's core module to a component of the contract.
//!
//! A core module gets WASI preview 1 from `preview1.wat`, which becomes part of it and has nothing
//! behind it: the component imports what the contract has, and no more.

use super::WorldKind;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract.
pub(super) const CONTRACT: &str = include_str!("../../wit/headwater.wit");

/// WASI with nothing behind it.
const PREVIEW1: &str = include_str!("preview1.wat");

/// The name under which core modules import it.
const PREVIEW1_NAME: &str = "wasi_snapshot_preview1";

/// `headwater module wrap`.
#[derive(Debug, clap::Args)]
pub struct WrapOptions {
    /// The core module, whose exports are those of the canonical ABI (`init`, `process`, `cabi_realloc`, …).
    core: PathBuf,
    /// The world of the contract that it is for.
    #[arg(long, value_enum)]
    world: WorldKind,
    /// The module's file.
    #[arg(long, short)]
    output: PathBuf,
}

pub(super) fn run(options: &WrapOptions) -> anyhow::Result<()> {
    let WrapOptions { core, world, output } = options;
    let wasm = fs::read(core).with_context(|| format!("failed to read {}", core.display()))?;
    check_preamble(&wasm, core)?;
    let component = component(&wasm, *world).with_context(|| {
        format!("failed to make a module of {} for the world `{}`", core.display(), world.world())
    })?;
    fs::write(output, component).with_context(|| format!("failed to write {}", output.display()))
}

/// Makes a component of the world of a core module.
pub(crate) fn component(core: &[u8], world: WorldKind) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("headwater.wit", CONTRACT)?;
    let id = resolve.select_world(&[package], Some(world.world()))?;
    let mut core = core.to_vec();
    embed_component_metadata(&mut core, &resolve, id, StringEncoding::UTF8, false)?;
    let adapter = wat::parse_str(PREVIEW1)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&core)?
        .adapter(PREVIEW1_NAME, &adapter)?
        .encode()
        .context(
            "expected the exports of wit/headwater.wit under the names of the canonical ABI (those of the module's \
             language make them: see where a new project calls or exports them), and no imports but its own and \
             WASI preview 1",
        )
}

fn check_preamble(wasm: &[u8], core: &Path) -> anyhow::Result<()> {
    let found = match wasm {
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => "a component, which is wrapped already: use it as it is",
        [] => "an empty file",
        _ => "something that is not WebAssembly",
    };
    bail!("failed to wrap {}: expected a core module, found {found}", core.display())
}

#[cfg(test)]
mod tests;
