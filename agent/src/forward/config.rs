//! What an `[output.NAME]` may say, and what is wrong with what it says.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::{Host, Url};

/// A token's file may be this long; a token is some hundred bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// No wait may be longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// One `[output.NAME]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where batches are posted. `https`, or `http` where [`Config::faults`] allows it; no user
    /// name or password in it, and no secret in its query, since it is shown in logs.
    pub url: Url,
    /// Sent as `Authorization: Bearer`. Read anew before every attempt, so a rotated one is used
    /// without a restart. Default: none.
    pub token: Option<Token>,
    /// What confirms a batch. Default: [`Expect::Receipt`].
    pub expect: Expect,
    /// How bodies are compressed. Default: [`Compression::Zstd`].
    pub compression: Compression,
    /// Results in a batch, at most. Default: 1000. One batch is in memory at a time.
    pub results_max: usize,
    /// Bytes of a batch's lines before compression, at most; a single longer result travels
    /// alone. Default: 1 MiB. The slowest link must carry it within `timeout`, or it never will.
    pub bytes_max: usize,
    /// An attempt from its first byte to the end of the answer. Default: 30 s. Then it counts as
    /// failed, and the same bytes are sent again.
    pub timeout: Duration,
    /// Name resolution, TCP and TLS handshake of an attempt. Default: 10 s.
    pub connect_timeout: Duration,
    /// Silence in an answer, and the wait for its beginning (the upload included). Default: 30 s.
    pub read_timeout: Duration,
    /// The first retry comes within this. Default: 250 ms.
    pub backoff_min: Duration,
    /// Retries come within this however long the destination is away, and half of it is the pace
    /// of slow retries. Default: 60 s.
    pub backoff_max: Duration,
    /// A longer `Retry-After` counts as this. Default: 5 min.
    pub retry_after_max: Duration,
    /// Failures in a row after which nothing is sent for at least half of `backoff_max`, then one
    /// probe at a time until one succeeds. Default: 5.
    pub breaker_failures: u32,
    /// Results dead-lettered in a row, with none accepted between, after which the next ones go
    /// only at the pace of slow retries: a destination that refuses everything is more likely
    /// wrong than all results are. Default: 100.
    pub refused_in_row_max: u32,
    /// Whether `http` may leave this machine: anybody on the way can then read results and token.
    /// Default: false.
    pub allow_plaintext: bool,
    /// Wait for more results before a batch that would not be full. Default: 100 ms.
    pub linger: Duration,
    /// What an attempt under way may still take at shutdown. Default: 5 s. Then it is abandoned,
    /// and the same bytes are sent after the next start.
    pub drain: Duration,
}

/// Where a token is kept: never in the configuration itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A file; white space around its content does not count.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// What confirms a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// `{"accepted":"<key>"}` in a 2xx answer: nothing between here and the collector can give
    /// it by chance.
    #[default]
    Receipt,
    /// Any 2xx answer, for backends that know no receipt. A captive portal's 200 confirms too.
    Status,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// `Content-Encoding: zstd` (RFC 8878).
    #[default]
    Zstd,
    /// `Content-Encoding: gzip` (RFC 1952).
    Gzip,
    /// As it is.
    None,
}

/// A secret that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is missing, is no file, or is not ours to read.
    #[error("failed to read the token from {}: make the file readable for the agent", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The variable is not set, or not in UTF-8.
    #[error("failed to read the token from the environment variable {name}: set it in the agent's unit")]
    Env {
        /// Which variable.
        name: String,
        /// What the system said.
        source: std::env::VarError,
    },
    /// No header can carry it.
    #[error("failed to use the token from {from}: it must be one non-empty line of visible ASCII")]
    Content {
        /// Where it was read from.
        from: String,
    },
}

impl Config {
    /// The defaults for a destination.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            token: None,
            expect: Expect::default(),
            compression: Compression::default(),
            results_max: 1000,
            bytes_max: 1024 * 1024,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(300),
            breaker_failures: 5,
            refused_in_row_max: 100,
            allow_plaintext: false,
            linger: Duration::from_millis(100),
            drain: Duration::from_secs(5),
        }
    }

    /// Everything that is wrong with it, each with its remedy; empty when it can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        self.url_faults(&mut faults);
        let sizes = [
            ("results_max", self.results_max),
            ("bytes_max", self.bytes_max),
            ("breaker_failures", self.breaker_failures as usize),
            ("refused_in_row_max", self.refused_in_row_max as usize),
        ];
        for (name, _) in sizes.iter().filter(|(_, size)| *size == 0) {
            faults.push(format!("{name} is 0: it must be at least 1"));
        }
        let times = [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
            ("backoff_min", self.backoff_min),
        ];
        for (name, _) in times.iter().filter(|(_, time)| time.is_zero()) {
            faults.push(format!("{name} is 0: it must be longer"));
        }
        let waits = [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
            ("backoff_max", self.backoff_max),
            ("retry_after_max", self.retry_after_max),
            ("linger", self.linger),
            ("drain", self.drain),
        ];
        for (name, _) in waits.iter().filter(|(_, wait)| *wait > WAIT_MAX) {
            faults.push(format!("{name} is over a day: it must be shorter"));
        }
        if self.backoff_max < self.backoff_min {
            faults.push("backoff_max is less than backoff_min: raise it".to_owned());
        }
        match &self.token {
            Some(Token::File(path)) if path.as_os_str().is_empty() => {
                faults.push("token.file is empty: name a file or leave token out".to_owned());
            }
            Some(Token::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                faults.push("token.env is no name of a variable: correct it or leave token out".to_owned());
            }
            _ => {}
        }
        faults
    }

    /// The destination as logs name it: without its query, which may hold what is nobody's business.
    #[must_use]
    pub fn destination(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    fn url_faults(&self, faults: &mut Vec<String>) {
        match self.url.scheme() {
            "https" => {}
            "http" if self.allow_plaintext || is_loopback(&self.url) => {}
            "http" => faults.push(format!(
                "url {} would send results in plain text over the network: use https, or set \
                 allow_plaintext = true",
                self.destination()
            )),
            scheme => faults.push(format!("url has the scheme {scheme}: use https")),
        }
        if !self.url.has_host() {
            faults.push("url has no host: use https://host/path".to_owned());
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            faults.push("url holds a user name or password: use token = { file = .. }".to_owned());
        }
    }
}

impl Token {
    /// Reads it beside the async runtime.
    pub(crate) async fn read_aside(&self) -> Result<Secret, TokenError> {
        match self {
            Self::Env(_) => self.read(),
            Self::File(path) => {
                let token = self.clone();
                let read = tokio::task::spawn_blocking(move || token.read()).await;
                read.unwrap_or_else(|error| {
                    Err(TokenError::File { path: path.clone(), source: error.into() })
                })
            }
        }
    }

    /// Reads it; blocks on the file.
    pub(crate) fn read(&self) -> Result<Secret, TokenError> {
        let text = match self {
            Self::File(path) => {
                let read = || {
                    let mut text = String::new();
                    std::fs::File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
                    Ok(text)
                };
                read().map_err(|source| TokenError::File { path: path.clone(), source })?
            }
            Self::Env(name) => {
                std::env::var(name).map_err(|source| TokenError::Env { name: name.clone(), source })?
            }
        };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Content { from: self.to_string() });
        }
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "the environment variable {name}"),
        }
    }
}

impl Secret {
    /// The secret itself: for the header that carries it alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether its host is this machine by its very name: a literal loopback address, or
/// `localhost`, which the client resolves to loopback without asking anybody.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, allow_plaintext: bool, fault: Option<&str>) {
        let mut config = Config::new(Url::parse(url).unwrap());
        config.allow_plaintext = allow_plaintext;
        let faults = config.faults();
        match fault {
            None => assert_eq!(faults, [""; 0], "{url}"),
            Some(words) => assert!(faults.len() == 1 && faults[0].contains(words), "{url}: {faults:?}"),
        }
    }

    #[test]
    fn plain_text_never_leaves_the_machine_unasked() {
        check("https://collect.example.com/v1/batches", false, None);
        check("http://collect.example.com/v1/batches", false, Some("plain text"));
        check("http://collect.example.com/v1/batches", true, None);
        check("http://127.0.0.1:9/", false, None);
        check("http://127.9.9.9/", false, None);
        check("http://[::1]/", false, None);
        check("http://[::ffff:127.0.0.1]/", false, None);
        check("http://localhost:8080/", false, None);
        check("http://localhost.example.com/", false, Some("plain text"));
        check("http://127.0.0.1.example.com/", false, Some("plain text"));
        check("http://0.0.0.0/", false, Some("plain text"));
        check("http://10.0.0.1/", false, Some("plain text"));
        check("ftp://127.0.0.1/", true, Some("scheme"));
        check("https://user:secret@collect.example.com/", false, Some("password"));
    }

    #[test]
    fn reports_every_fault_at_once() {
        let mut config = Config::new(Url::parse("http://example.com/?key=hidden").unwrap());
        config.results_max = 0;
        config.timeout = Duration::ZERO;
        config.backoff_max = Duration::ZERO;
        config.token = Some(Token::Env(String::new()));
        let faults = config.faults();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(!faults.concat().contains("hidden"));
    }

    #[test]
    fn reads_a_token_without_the_white_space_around_it_and_never_prints_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::File(path.clone());
        assert!(matches!(token.read(), Err(TokenError::File { .. })));
        for bad in ["", " \n", "two words", "two\nlines", "caf\u{e9}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(token.read(), Err(TokenError::Content { .. })), "{bad:?}");
        }
        std::fs::write(&path, "s3cret\n").unwrap();
        let secret = token.read().unwrap();
        assert_eq!(secret.reveal(), "s3cret");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(matches!(Token::Env("HEADWATER_NO_SUCH".to_owned()).read(), Err(TokenError::Env { .. })));
    }
}
