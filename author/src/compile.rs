//! `headwater module compile`: compiles a module here, for a device that is too small for it.

use super::sign;
use anyhow::Context;
use headwater_agent::module;
use std::fs;
use std::path::PathBuf;

/// `headwater module compile`.
#[derive(Debug, clap::Args)]
pub struct CompileOptions {
    /// The module.
    file: PathBuf,
    /// The machine that it is for: aarch64-, x86_64- or riscv64gc-unknown-linux-musl. Default: a machine like this one.
    #[arg(long)]
    target: Option<String>,
    /// The compiled module's file. Default: FILE with `.cwasm` in place of its ending.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// The private key's file: agents load compiled modules only with its public key in `keys`.
    #[arg(long)]
    key: PathBuf,
}

pub(super) fn run(options: &CompileOptions) -> anyhow::Result<()> {
    let CompileOptions { file, target, key, .. } = options;
    let output = options.output.clone().unwrap_or_else(|| file.with_extension("cwasm"));
    let pair = sign::private(key)?;
    let seal = |message: &[u8]| pair.sign(message).as_ref().try_into().expect("Ed25519's have 64 bytes");
    let compiled = module::precompile(file, target.as_deref(), seal)?;
    fs::write(&output, &compiled).with_context(|| format!("failed to write {}", output.display()))?;
    println!("{}: {} bytes, signed by {}", output.display(), compiled.len(), sign::public(&pair));
    Ok(())
}
