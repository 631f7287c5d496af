//! Where a secret is kept: in a file or a variable, never in the configuration.
//!
//! It is read anew at each use, so that a rotated one is taken without a restart. The place may be
//! printed; the secret itself prints as `***`.
//!
//! **Bound**: of a file, [`SECRET_BYTES_MAX`] are read.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

/// A secret's file may be this long; a secret is some hundred bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file; one line feed at its end is not part of the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A secret, which prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Revealed(String);

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, is no file, or is not ours to read.
    #[error("failed to read the secret from {}: make the file readable for the agent", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The variable is not set, or not in UTF-8.
    #[error("failed to read the secret from the environment variable {name}: set it in the agent's unit")]
    Env {
        /// Which variable.
        name: String,
        /// What the system said.
        source: std::env::VarError,
    },
    /// No HTTP header can carry it.
    #[error("failed to use the token from {from}: it must be one non-empty line of visible ASCII")]
    Token {
        /// Where it was read from.
        from: String,
    },
}

impl Secret {
    /// Reads it beside the async runtime.
    pub async fn read_aside(&self) -> Result<Revealed, Error> {
        self.aside(Self::read).await
    }

    /// Reads it as a token beside the async runtime.
    pub async fn read_token_aside(&self) -> Result<Revealed, Error> {
        self.aside(Self::read_token).await
    }

    /// Reads it; blocks on the file.
    pub fn read(&self) -> Result<Revealed, Error> {
        match self {
            Self::File(path) => {
                let read = || {
                    let mut text = String::new();
                    std::fs::File::open(path)?.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
                    let line = text.strip_suffix('\n').unwrap_or(&text);
                    Ok(Revealed(line.strip_suffix('\r').unwrap_or(line).to_owned()))
                };
                read().map_err(|source| Error::File { path: path.clone(), source })
            }
            Self::Env(name) => {
                let read = std::env::var(name).map(Revealed);
                read.map_err(|source| Error::Env { name: name.clone(), source })
            }
        }
    }

    /// Reads it for an HTTP header: without the white space around it. Blocks on the file.
    pub fn read_token(&self) -> Result<Revealed, Error> {
        let Revealed(text) = self.read()?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Token { from: self.to_string() });
        }
        Ok(Revealed(token.to_owned()))
    }

    async fn aside(&self, read: fn(&Self) -> Result<Revealed, Error>) -> Result<Revealed, Error> {
        match self {
            Self::Env(_) => read(self),
            Self::File(path) => {
                let secret = self.clone();
                let done = tokio::task::spawn_blocking(move || read(&secret)).await;
                done.unwrap_or_else(|error| Err(Error::File { path: path.clone(), source: error.into() }))
            }
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the environment variable {name}"),
        }
    }
}

impl Revealed {
    /// One that a server gave.
    pub fn of(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    /// The secret itself: for the packet or header that carries it alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_token_without_the_white_space_around_it_and_never_prints_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Secret::File(path.clone());
        assert!(matches!(token.read_token(), Err(Error::File { .. })));
        for bad in ["", " \n", "two words", "two\nlines", "caf\u{e9}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(token.read_token(), Err(Error::Token { .. })), "{bad:?}");
        }
        std::fs::write(&path, "s3cret\n").unwrap();
        let secret = token.read_token().unwrap();
        assert_eq!(secret.reveal(), "s3cret");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(matches!(Secret::Env("HEADWATER_NO_SUCH".to_owned()).read_token(), Err(Error::Env { .. })));
    }

    #[test]
    fn a_password_keeps_all_but_one_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (file, password) in [("p w \r\n", "p w "), ("p\n\n", "p\n"), ("", ""), ("é", "é")] {
            std::fs::write(&path, file).unwrap();
            assert_eq!(Secret::File(path.clone()).read().unwrap().reveal(), password, "{file:?}");
        }
    }
}
