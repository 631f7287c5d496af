//! The HTTP client that modules are fetched with: beside `output/client.rs` the one file that knows reqwest.
//!
//! Only TLS, redirections included; no proxy from the environment; an answer has as many bytes as its asker
//! takes. What may pass ([`FetchFailure::MayPass`]) is for the asker to repeat.

use super::{FetchFailure, REDIRECTIONS_MAX};
use headwater_flow::error_text;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{StatusCode, redirect, retry};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// The longest that connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The credentials that a server is shown.
#[derive(Clone, Debug)]
pub(super) enum ServerPass {
    None,
    Basic(String, headwater_access::secret::Revealed),
    Bearer(headwater_access::secret::Revealed),
}

/// A client for any server that `ca` vouches for.
pub(super) struct HttpsClient(reqwest::Client);

/// An answer, before its body is read.
pub(super) enum ServerAnswer {
    Body(AnswerBody),
    /// The server asks for credentials, in its own words.
    Challenge(String),
}

pub(super) struct AnswerBody(reqwest::Response);

impl HttpsClient {
    pub(super) fn new(ca: Option<PathBuf>) -> Result<Self, FetchFailure> {
        let tls = headwater_access::tls::Config { ca, ..Default::default() };
        let tls = tls.client().map_err(|error| FetchFailure::Lasts(error.to_string()))?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::limited(REDIRECTIONS_MAX))
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            .https_only(true)
            .tls_backend_preconfigured(tls)
            .build();
        client.map(Self).map_err(|error| FetchFailure::Lasts(error_text::of(&error)))
    }

    pub(super) async fn get(
        &self,
        url: &Url,
        accept: &str,
        pass: &ServerPass,
    ) -> Result<ServerAnswer, FetchFailure> {
        let request = self.0.get(url.clone()).header(ACCEPT, accept);
        // The client keeps them back from another host that it is redirected to.
        let request = match pass {
            ServerPass::None => request,
            ServerPass::Basic(username, password) => request.basic_auth(username, Some(password.reveal())),
            ServerPass::Bearer(token) => request.bearer_auth(token.reveal()),
        };
        let response = request.send().await.map_err(|error| failure(url, &error))?;
        let status = response.status();
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
        match challenge {
            Some(challenge) if status == StatusCode::UNAUTHORIZED => {
                Ok(ServerAnswer::Challenge(challenge.to_owned()))
            }
            _ if status.is_success() => Ok(ServerAnswer::Body(AnswerBody(response))),
            _ => {
                let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
                let words = format!("{url}: the answer is {status}");
                Err(if passes { FetchFailure::MayPass(words) } else { FetchFailure::Lasts(words) })
            }
        }
    }
}

impl AnswerBody {
    /// Hands the body over piece by piece; `setting` names the bound.
    pub(super) async fn read(
        mut self,
        bytes_max: u64,
        setting: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), FetchFailure> {
        let url = self.0.url().clone();
        let too_long =
            || FetchFailure::Lasts(format!("{url}: the answer is longer than {bytes_max} bytes{setting}"));
        if self.0.content_length().is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_long());
        }
        let mut bytes = 0;
        while let Some(chunk) = self.0.chunk().await.map_err(|error| failure(&url, &error))? {
            bytes += chunk.len() as u64;
            if bytes > bytes_max {
                return Err(too_long());
            }
            take(&chunk).map_err(|error| FetchFailure::Lasts(format!("failed to keep it: {error}")))?;
        }
        Ok(())
    }
}

fn failure(url: &Url, error: &reqwest::Error) -> FetchFailure {
    let words = format!("{url}: {}", error_text::of(error));
    let lasts = error.is_redirect() || error.is_builder();
    if lasts { FetchFailure::Lasts(words) } else { FetchFailure::MayPass(words) }
}
