//! The HTTP client: the one file that knows reqwest.
//!
//! Its defaults are not ours: no redirects, no proxy from the environment, no retries of its own,
//! no name but `localhost` taken for this machine, a limit to everything that waits. Trust is the
//! system's, read once at start: a changed set of CA certificates needs a restart.

use super::config::{Compression, Config, is_loopback};
use super::judge::{Answer, Fault, Outcome};
use crate::secret::Revealed;
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{redirect, retry};
use std::error::Error;
use std::iter;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use url::Url;

const USER_AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));
/// Of an answer, this is read: a receipt has a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// An idle connection is kept so long: shorter than most servers and address translators do.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Posts to one destination.
#[derive(Debug)]
pub(super) struct Client {
    inner: reqwest::Client,
    url: Url,
    headers: HeaderMap,
}

/// Why there is no client.
pub(super) type BuildError = Box<dyn Error + Send + Sync>;

impl Client {
    /// Reads the system's CA certificates when the destination is `https`.
    ///
    /// # Errors
    ///
    /// When there are none, mostly.
    pub(super) fn build(config: &Config) -> Result<Self, BuildError> {
        // Fails only where somebody has installed one, which then serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
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
            builder = builder.https_only(true);
        } else {
            // Nothing to trust, so no need of certificates on the machine.
            builder = builder.tls_certs_only(iter::empty());
        }
        if is_loopback(&config.url) {
            let here =
                [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
            builder = builder.resolve_to_addrs("localhost", &here);
        }
        Ok(Self { inner: builder.build()?, url: config.url.clone(), headers: headers(config.compression) })
    }

    /// One attempt, bounded by the time-outs it was built with. Dropping it abandons the request.
    pub(super) async fn post(&self, key: &str, body: Bytes, token: Option<&Revealed>) -> Outcome {
        let mut request = self
            .inner
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(HeaderName::from_static("idempotency-key"), format!("\"{key}\""))
            .body(body);
        if let Some(token) = token {
            // Marks the header as one that no log of the client may show.
            request = request.bearer_auth(token.reveal());
        }
        crate::fail::point("forward.sending");
        match request.send().await {
            Ok(response) => {
                crate::fail::point("forward.answered");
                Outcome::Answered(read(response).await)
            }
            Err(error) => Outcome::Failed(fault(error)),
        }
    }
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
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    match (connect, timeout) {
        (true, _) => Fault::Unreachable(words),
        (_, true) => Fault::TimedOut(words),
        _ => Fault::Broken(words),
    }
}
