//! HTTP as the tests speak it: bounded in time, past any proxy.

use std::sync::OnceLock;
use std::time::Duration;

/// A client with a time-out for a whole exchange.
///
/// # Panics
/// When no TLS provider can be installed.
#[must_use]
pub fn client(timeout: Duration) -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // Another test of this process may have been first: then it is there, which is all we need.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client without certificates builds")
}

/// Status and body of a POST without a body, with the key that the agent asks for.
///
/// # Errors
/// When there is no answer within a minute: modules may have to be compiled.
pub async fn post(url: &str, key: &str) -> anyhow::Result<(u16, String)> {
    let answer = client(Duration::from_mins(1)).post(url).bearer_auth(key).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Status and body of a GET.
///
/// # Errors
/// When there is no answer within five seconds.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let answer = client(Duration::from_secs(5)).get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
