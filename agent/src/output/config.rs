//! What an `[output.NAME]` may say, and what is wrong with what it says.

use std::net::IpAddr;
use std::time::Duration;
use url::{Host, Url};

use crate::secret::Secret;
use crate::store::Quota;
use crate::tls;

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
    pub token: Option<Secret>,
    /// Who vouches for the destination, and who we are. The files are read anew when they change
    /// and after a failed connection, so rotated certificates are taken without a restart. Default:
    /// whom the system trusts, and no certificate of ours.
    pub tls: Option<tls::Config>,
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
    /// How much of its results may wait; what happens at the quota is each pipeline's `when_full`.
    /// Default 1 GiB, and results of any age.
    pub outbox: Quota,
    /// How much of the late readings that go there may wait, beside its results; what happens at the quota
    /// is each pipeline's `late.when_full`. Default 64 MiB, and readings of any age.
    pub late: Quota,
    /// Wait for more results before a batch that would not be full. Default: 100 ms.
    pub linger: Duration,
    /// What an attempt under way may still take at shutdown. Default: 5 s. Then it is abandoned,
    /// and the same bytes are sent after the next start.
    pub drain: Duration,
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

impl Config {
    /// The defaults for a destination.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            token: None,
            tls: None,
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
            outbox: Quota::OUTBOX,
            late: Quota::LATE,
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
            Some(Secret::File(path)) if path.as_os_str().is_empty() => {
                faults.push("token.file is empty: name a file or leave token out".to_owned());
            }
            Some(Secret::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
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
            "http" if self.tls.is_some() => {
                faults.push("url is http, and tls is given: use https, or leave tls out".to_owned());
            }
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
        let mut config = Config::new(Url::parse("http://127.0.0.1/").unwrap());
        config.tls = Some(tls::Config::default());
        assert!(config.faults()[0].contains("tls is given"), "never plain text instead");
        check("https://user:secret@collect.example.com/", false, Some("password"));
    }

    #[test]
    fn reports_every_fault_at_once() {
        let mut config = Config::new(Url::parse("http://example.com/?key=hidden").unwrap());
        config.results_max = 0;
        config.timeout = Duration::ZERO;
        config.backoff_max = Duration::ZERO;
        config.token = Some(Secret::Env(String::new()));
        let faults = config.faults();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(!faults.concat().contains("hidden"));
    }
}
