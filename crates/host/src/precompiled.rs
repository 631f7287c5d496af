//! A module compiled elsewhere: for devices that are too small to compile it.
//!
//! ```text
//! 16 bytes   MAGIC
//! 64 bytes   Ed25519 signature over MAGIC, the next two, and the SHA-256 of the code
//! 32 bytes   SHA-256 of the module that it was made of
//! 64 bytes   the machine that it is for, as text: processor, agent, engine; zeros behind it
//! then       the code
//! ```
//!
//! Compiled code can do whatever the agent can. **Invariant**: none is handed to the engine that no key of the
//! configuration signed, for a machine like this one; without keys none is loaded at all. The engine
//! compares its exact version, settings and processor once more.

use super::ModuleError;
use super::code::trusted;
use super::trust::{ModuleDigest, PublicKey};
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The first bytes of a file, of which the last is the version of the layout.
const MAGIC: &[u8; 16] = b"headwater-code\0\x01";
/// The engine's name and major version, which decides on the code that it can load.
const ENGINE: &str = "wasmtime-48";

const SIGNATURE_BYTES: usize = 64;
const MACHINE_BYTES: usize = 64;
const HEAD_BYTES: usize = MAGIC.len() + SIGNATURE_BYTES + 32 + MACHINE_BYTES;

/// The size of the largest file: machine code is some three times as large as the module.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;

/// Returns true if the file begins as one.
pub(super) fn is(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// Loads the module, with the digest of the one that it was made of.
pub(super) fn load(
    engine: &Engine,
    file: &Path,
    bytes: &[u8],
    keys: &[PublicKey],
) -> Result<(ModuleDigest, Component), ModuleError> {
    let refused = |reason: String| ModuleError::Precompiled { file: file.to_owned(), reason };
    let (head, code) =
        bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| refused("it is cut short".to_owned()))?;
    let (signature, signed) = head[MAGIC.len()..].split_at(SIGNATURE_BYTES);
    if !keys.iter().any(|key| key.signed(&message(signed, code), signature)) {
        let reason = match keys {
            [] => "it is machine code, which is loaded only with its maker's key in `keys` in [modules]",
            _ => "it is changed, or signed with none of `keys` in [modules]",
        };
        return Err(refused(reason.to_owned()));
    }
    let (digest, machine) = signed.split_at(32);
    let own = machine_of(std::env::consts::ARCH);
    let found = String::from_utf8_lossy(machine);
    let found = found.trim_end_matches('\0');
    let remedy = format!(
        "compile it for this one, with the same version of the agent: `headwater module compile --target {}-unknown-linux-musl`",
        std::env::consts::ARCH
    );
    if found != own {
        return Err(refused(format!("it is for another machine, {found}, and this is {own}: {remedy}")));
    }
    let component = trusted(engine, code)
        .map_err(|error| refused(format!("its code is for another machine: {error:#}: {remedy}")))?;
    Ok((ModuleDigest(digest.try_into().expect("it was split so")), component))
}

/// Returns the machine as a file names it: `aarch64-linux headwater-0.1.0 wasmtime-48`.
fn machine_of(processor: &str) -> String {
    let os = std::env::consts::OS;
    format!("{processor}-{os} headwater-{} {ENGINE}", env!("CARGO_PKG_VERSION"))
}

/// Returns the message that is signed.
fn message(signed: &[u8], code: &[u8]) -> Vec<u8> {
    [MAGIC, signed, &ModuleDigest::of(code).0].concat()
}

/// Compiles a component for a processor, and seals it.
///
/// # Errors
/// [`ModuleError::NotAComponent`], [`ModuleError::Target`].
#[cfg(feature = "author")]
pub fn make(
    file: &Path,
    target: Option<&str>,
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES],
) -> Result<Vec<u8>, ModuleError> {
    let wasm = super::load::read(file)?;
    super::load::check_preamble(&wasm, file)?;
    let own = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let target = target.unwrap_or(&own);
    let code = engine(target)?.precompile_component(&wasm).map_err(|error| {
        let found = format!("a damaged one, or one that needs a newer agent: {error:#}");
        ModuleError::NotAComponent { file: file.to_owned(), found }
    })?;
    // As the agent's own program names it there.
    let processor = match target.split_once('-').map_or(target, |(processor, _)| processor) {
        riscv64 if riscv64.starts_with("riscv64") => "riscv64",
        processor => processor,
    };
    let mut machine = machine_of(processor).into_bytes();
    machine.resize(MACHINE_BYTES, 0);
    let signed = [&ModuleDigest::of(&wasm).0[..], &machine].concat();
    let signature = sign(&message(&signed, &code));
    Ok([MAGIC, &signature[..], &signed, &code].concat())
}

#[cfg(feature = "author")]
fn engine(target: &str) -> Result<Engine, ModuleError> {
    let refused = |reason: String| ModuleError::Target { target: target.to_owned(), reason };
    // The code has no call into the system, but its maker's rules for calls are the system's.
    if !target.contains("-linux-") {
        return Err(refused("it is no Linux".to_owned()));
    }
    let mut settings = super::load::settings();
    settings.target(target).map_err(|error| refused(format!("{error:#}")))?;
    Engine::new(&settings).map_err(|error| refused(format!("{error:#}")))
}

#[cfg(test)]
mod tests;
