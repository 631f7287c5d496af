//! Trust in modules: by digest, and by signature.
//!
//! A step may name its module's `digest`; `[modules]` may name `keys`, and then every module needs a
//! signature by one of them: Ed25519 over the file's bytes, as base64, in `<file>.sig` beside it.
//! Both are checked offline, on the bytes that are compiled, before anything looks into them.
//!
//! **Invariant**: with keys, a file that none of them signed is neither compiled nor loaded nor run; a file
//! that is changed between the check and its use is not used, as there is one read.

use super::ModuleError;
use super::fetch::RemoteAddress;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The size of a signature's file, with room for a line break or two.
pub(super) const SIGNATURE_BYTES_MAX: u64 = 256;

// The prefixes of the text forms.
const SHA256: &str = "sha256:";
const ED25519_KEY: &str = "ed25519:";

/// The SHA-256 of a module's file; as text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleDigest(pub(super) [u8; 32]);

/// The key of somebody whose signature counts; as text `ed25519:` and the base64 of 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub(super) [u8; 32]);

/// The place of a module, and the digest that it has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleOrigin {
    /// The file; for a module that is fetched, the text of the configuration until it is here.
    pub file: PathBuf,
    /// The address that it is fetched from. Default: it is a file.
    pub remote: Option<Box<RemoteAddress>>,
    /// The digest of the file. Default: any.
    pub digest: Option<ModuleDigest>,
}

impl From<&Path> for ModuleOrigin {
    fn from(file: &Path) -> Self {
        Self { file: file.to_owned(), remote: None, digest: None }
    }
}

impl From<&PathBuf> for ModuleOrigin {
    fn from(file: &PathBuf) -> Self {
        file.as_path().into()
    }
}

impl From<&Self> for ModuleOrigin {
    fn from(origin: &Self) -> Self {
        origin.clone()
    }
}

impl ModuleDigest {
    /// Returns the digest of the bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHA256}{}", super::cache::hex(&self.0))
    }
}

impl fmt::Debug for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ModuleDigest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "write \"sha256:\" and 64 hexadecimal digits, as `sha256sum` prints them";
        let hex = text.strip_prefix(SHA256).filter(|hex| hex.len() == 64 && hex.is_ascii()).ok_or(WANTED)?;
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            let pair = &hex[2 * index..2 * index + 2];
            // It would take a sign.
            let digits = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten().ok_or(WANTED)?;
        }
        Ok(Self(digest))
    }
}

impl PublicKey {
    /// Returns the key of these bytes.
    #[cfg(feature = "author")]
    pub fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns true if the signature over the message is this key's.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ED25519_KEY}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str =
            "write \"ed25519:\" and the base64 of 32 bytes, as `headwater module keygen` prints it";
        let base64 = text.strip_prefix(ED25519_KEY).ok_or(WANTED)?;
        let bytes = BASE64.decode(base64).map_err(|_| WANTED)?;
        bytes.try_into().map(Self).map_err(|_| WANTED)
    }
}

impl ModuleOrigin {
    /// Returns the module's name, for people.
    pub(super) fn name(&self) -> String {
        let stem = || self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.remote.as_ref().map_or_else(stem, |remote| remote.name().to_owned())
    }
}

/// Refuses a file that is not the one named.
pub(super) fn check_digest(origin: &ModuleOrigin, found: ModuleDigest) -> Result<(), ModuleError> {
    match origin.digest {
        Some(expected) if expected != found => {
            Err(ModuleError::WrongDigest { file: origin.file.clone(), expected, found })
        }
        _ => Ok(()),
    }
}

/// Refuses a file that none of the keys signed, if there are any.
pub(super) fn check_signature(file: &Path, bytes: &[u8], keys: &[PublicKey]) -> Result<(), ModuleError> {
    if keys.is_empty() || is_signed(file, bytes, keys) {
        return Ok(());
    }
    let beside = signature_file(file);
    let reason = match read_signature(&beside) {
        Err(reason) => format!("no signature can be read from {}: {reason}", beside.display()),
        Ok(_) => format!("the signature in {} is by none of the keys, or of another file", beside.display()),
    };
    Err(ModuleError::Unsigned { file: file.to_owned(), reason })
}

/// Returns true if the signature beside the file is by one of the keys.
pub(super) fn is_signed(file: &Path, bytes: &[u8], keys: &[PublicKey]) -> bool {
    let signature = read_signature(&signature_file(file));
    signature.is_ok_and(|signature| keys.iter().any(|key| key.signed(bytes, &signature)))
}

/// Returns the path of a module's signature: `x.wasm.sig` for `x.wasm`.
pub fn signature_file(module: &Path) -> PathBuf {
    let mut name = module.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

fn read_signature(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(SIGNATURE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    BASE64.decode(text.trim()).map_err(|_| "it is no base64".to_owned())
}

#[cfg(test)]
mod tests;
