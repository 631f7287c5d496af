//! The HTTP client of the tests: bounded in time, and without any proxy.

use std::sync::OnceLock;
use std::time::Duration;

/// Returns a client with a timeout for a whole exchange.
///
/// # Panics
/// When no TLS provider can be installed.
#[must_use]
pub fn client(timeout: Duration) -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // The call fails if another test of this process has installed a provider already.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client without certificates builds")
}

/// Sends a POST without a body, with the key that the agent asks for, and returns status and body.
///
/// # Errors
/// When there is no answer within a minute: modules may have to be compiled.
pub async fn post(url: &str, key: &str) -> anyhow::Result<(u16, String)> {
    let answer = client(Duration::from_mins(1)).post(url).bearer_auth(key).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Sends a GET and returns status and body.
///
/// # Errors
/// When there is no answer within five seconds.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let answer = client(Duration::from_secs(5)).get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
