//! Keys and signatures, for agents with `keys` in `[modules]`.
//!
//! A private key is a file in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` makes them too; it is
//! read here and nowhere else: no agent has one.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use headwater_agent::module::{self, PublicKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The bytes before the 32 of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// `headwater module keygen`.
#[derive(Debug, clap::Args)]
pub struct KeyOptions {
    /// The private key's file, which must not be there yet.
    file: PathBuf,
}

/// `headwater module sign`.
#[derive(Debug, clap::Args)]
pub struct SignOptions {
    /// The module; its signature goes beside it, into FILE.sig.
    file: PathBuf,
    /// The private key's file.
    #[arg(long)]
    key: PathBuf,
}

pub(super) fn make_key(options: &KeyOptions) -> anyhow::Result<()> {
    let file = &options.file;
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).ok().context("failed to get random bytes of the system")?;
    let base64 = BASE64.encode([&PKCS8_HEAD[..], &secret].concat());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| writeln!(open, "{BEGIN}\n{base64}\n{END}"))
        .with_context(|| format!("failed to write {}", file.display()))?;
    println!("{}", public(&private(file)?));
    Ok(())
}

pub(super) fn run(options: &SignOptions) -> anyhow::Result<()> {
    let SignOptions { file, key } = options;
    let pair = private(key)?;
    let wasm = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    // A signature of anything else could be taken for something that was never meant.
    module::check_preamble(&wasm, file)?;
    let signature = module::signature_file(file);
    fs::write(&signature, BASE64.encode(pair.sign(&wasm)) + "\n")
        .with_context(|| format!("failed to write {}", signature.display()))?;
    println!("{} by {}", signature.display(), public(&pair));
    Ok(())
}

/// Reads the private key in a file.
pub(super) fn private(file: &Path) -> anyhow::Result<Ed25519KeyPair> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let wanted = || {
        format!(
            "failed to use {}: expected an Ed25519 private key in PEM, as `headwater module keygen` and \
             `openssl genpkey -algorithm ed25519` make them",
            file.display()
        )
    };
    let (_, rest) = text.split_once(BEGIN).with_context(wanted)?;
    let (base64, _) = rest.split_once(END).with_context(wanted)?;
    let base64: String = base64.split_whitespace().collect();
    let key = BASE64.decode(base64).ok().with_context(wanted)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).ok().with_context(wanted)
}

/// Returns the public key of a private one.
pub(super) fn public(pair: &Ed25519KeyPair) -> PublicKey {
    PublicKey::of(pair.public_key().as_ref().try_into().expect("Ed25519's have 32 bytes"))
}

#[cfg(test)]
mod tests;
