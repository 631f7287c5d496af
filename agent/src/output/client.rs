//! The HTTP client: the one file that knows reqwest.
//!
//! Its defaults are not ours: no redirects, no proxy from the environment, no retries of its own,
//! no name but `localhost` taken for this machine, a limit to everything that waits.
//!
//! Whom to trust and who we are is read before an attempt when the files of `tls` are not what
//! they were, and after a connection that failed. While they cannot be used nothing is sent: never
//! with less, and never in plain text.

use super::config::{Compression, Config, is_loopback};
use super::judge::{Answer, Fault, Outcome};
use crate::error_text;
use crate::secret::Revealed;
use crate::wire::BatchKey;
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{redirect, retry};
use std::error::Error;
use std::fs;
use std::iter;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

const USER_AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));
/// Of an answer, this is read: a receipt has a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// An idle connection is kept so long: shorter than most servers and address translators do.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Posts to one destination.
#[derive(Debug)]
pub(super) struct Client {
    inner: reqwest::Client,
    config: Config,
    headers: HeaderMap,
    /// What the files of `tls` were when they were read; `None`: they are to be read anew.
    files: Option<Files>,
}

/// Tells a file from the one that it was: inode, size, and change in nanoseconds.
type Files = Vec<Option<(u64, u64, i64, i64)>>;

/// Why there is no client.
pub(super) type BuildError = Box<dyn Error + Send + Sync>;

impl Client {
    /// Reads the files of `tls`, or the system's CA certificates, when the destination is `https`;
    /// blocks on them.
    ///
    /// # Errors
    ///
    /// When they cannot be used, mostly.
    pub(super) fn build(config: &Config) -> Result<Self, BuildError> {
        // Fails only where somebody has installed one, which then serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
        let files = files(config);
        let inner = connector(config)?;
        let headers = headers(config.compression);
        Ok(Self { inner, config: config.clone(), headers, files: Some(files) })
    }

    /// One attempt, bounded by the time-outs it was built with. Dropping it abandons the request.
    pub(super) async fn post(&mut self, key: &BatchKey, body: Bytes, token: Option<&Revealed>) -> Outcome {
        if let Err(error) = self.renew().await {
            return Outcome::Failed(Fault::Trust(error_text::of(&*error)));
        }
        let mut request = self
            .inner
            .post(self.config.url.clone())
            .headers(self.headers.clone())
            .header(HeaderName::from_static("idempotency-key"), key.to_header())
            .body(body);
        if let Some(token) = token {
            // Marks the header as one that no log of the client may show.
            request = request.bearer_auth(token.reveal());
        }
        crate::fail::point("output.sending");
        match request.send().await {
            Ok(response) => {
                crate::fail::point("output.answered");
                Outcome::Answered(read(response).await)
            }
            Err(error) => {
                self.files = None;
                Outcome::Failed(fault(error))
            }
        }
    }

    /// Reads the files anew if they changed, or if the last attempt could not connect.
    async fn renew(&mut self) -> Result<(), BuildError> {
        if self.config.url.scheme() != "https" {
            return Ok(());
        }
        let (config, known) = (self.config.clone(), self.files.clone());
        let renew = move || {
            // Before they are read: what changes meanwhile is read once more.
            let files = files(&config);
            let inner = if known.as_ref() == Some(&files) { None } else { Some(connector(&config)?) };
            Ok::<_, BuildError>((files, inner))
        };
        let (files, inner) = tokio::task::spawn_blocking(renew).await??;
        self.files = Some(files);
        if let Some(inner) = inner {
            self.inner = inner;
        }
        Ok(())
    }
}

fn files(config: &Config) -> Files {
    let tls = config.tls.iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]).flatten();
    let file = |path| fs::metadata(path).ok();
    tls.map(|path| file(path).map(|it| (it.ino(), it.size(), it.ctime(), it.ctime_nsec()))).collect()
}

fn connector(config: &Config) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .timeout(config.timeout)
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE_MAX);
    if config.url.scheme() == "https" {
        let tls = config.tls.clone().unwrap_or_default().client()?;
        builder = builder.tls_backend_preconfigured(tls);
    } else {
        // Nothing to trust, so no need of certificates on the machine.
        builder = builder.tls_certs_only(iter::empty());
    }
    if is_loopback(&config.url) {
        let here = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        builder = builder.resolve_to_addrs("localhost", &here);
    }
    Ok(builder.build()?)
}

fn headers(compression: Compression) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let encoding = match compression {
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
        Compression::None => return headers,
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    headers
}

async fn read(mut response: reqwest::Response) -> Answer {
    let text = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: text(header::RETRY_AFTER),
        date: text(header::DATE),
        location: text(header::LOCATION),
        ..Answer::default()
    };
    while answer.body.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = ANSWER_BYTES_MAX - answer.body.len();
                answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(None) => break,
            Err(error) => {
                answer.broken = Some(fault(error));
                break;
            }
        }
    }
    answer
}

fn fault(error: reqwest::Error) -> Fault {
    let (connect, timeout) = (error.is_connect(), error.is_timeout());
    let words = error_text::of(&error.without_url());
    match (connect, timeout) {
        (true, _) => Fault::Unreachable(words),
        (_, true) => Fault::TimedOut(words),
        _ => Fault::Broken(words),
    }
}
