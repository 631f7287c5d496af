//! A headless browser, controlled over W3C WebDriver.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::client;
use crate::process::{ChildProcess, eventually, free_port, installed_program, signal};

/// A session of chromium. Driver and browser end when this is dropped.
#[derive(Debug)]
pub struct HeadlessBrowser {
    session: String,
    browser: u32,
    _driver: ChildProcess,
    _home: tempfile::TempDir,
}

/// Kills the browser, because the driver leaves it running when it is killed itself.
impl Drop for HeadlessBrowser {
    fn drop(&mut self) {
        signal(self.browser, Signal::KILL).ok();
    }
}

impl HeadlessBrowser {
    /// Starts driver and browser.
    ///
    /// # Errors
    /// When the browser does not start.
    ///
    /// # Panics
    /// When one of them is not installed.
    pub async fn start() -> anyhow::Result<Self> {
        let chromium = installed_program("chromium", "chromium");
        let home = tempfile::tempdir()?;
        let port = free_port();
        let mut command = Command::new(installed_program("chromedriver", "chromium-driver"));
        command.arg(format!("--port={port}"));
        let driver = ChildProcess::spawn(&mut command, &home.path().join("driver.log"))?;
        let server = format!("http://127.0.0.1:{port}");
        eventually("chromedriver to answer", Duration::from_secs(20), async || {
            call("GET", &format!("{server}/status"), None).await.ok()
        })
        .await;
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = call("POST", &format!("{server}/session"), Some(wanted)).await?;
        let id = made["sessionId"].as_str().context("a session has an id")?;
        let browser =
            made["capabilities"]["goog:processID"].as_u64().context("the browser has a process id")?;
        let session = format!("{server}/session/{id}");
        Ok(Self { session, browser: browser.try_into()?, _driver: driver, _home: home })
    }

    /// Opens a page and waits until it has loaded.
    ///
    /// # Errors
    /// When it does not load.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", json!({ "url": url })).await?;
        Ok(())
    }

    /// Runs the body of a function in the page and returns its result.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Returns the messages on the console since the last call.
    ///
    /// # Errors
    /// When the browser has ended.
    pub async fn console(&self) -> anyhow::Result<Vec<Value>> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }

    /// Returns a screenshot of the page, as PNG in base64.
    ///
    /// # Errors
    /// When the browser has ended.
    pub async fn screenshot(&self) -> anyhow::Result<String> {
        let picture = call("GET", &format!("{}/screenshot", self.session), None).await?;
        Ok(picture.as_str().context("a picture is text")?.to_owned())
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        call("POST", &format!("{}/{path}", self.session), Some(body)).await
    }
}

async fn call(method: &str, url: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let client = client(Duration::from_secs(60));
    let method = reqwest::Method::from_bytes(method.as_bytes())?;
    let mut request = client.request(method, url);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let mut answer: Value = request.send().await?.json().await?;
    let value = answer["value"].take();
    if let Some(error) = value.get("error").filter(|error| error.is_string()) {
        bail!("{url}: {error}: {}", value["message"]);
    }
    Ok(value)
}

/// Decodes base64 (RFC 4648, section 4); other characters are skipped.
#[must_use]
pub fn decode(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0;
    let mut held = 0_u32;
    for value in text.bytes().filter_map(|it| LETTERS.iter().position(|letter| *letter == it)) {
        held = (held << 6) | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_decoded() {
        assert_eq!(super::decode("aGVhZHdhdGVy"), b"headwater");
        assert_eq!(super::decode("aGVhZA=="), b"head");
    }
}
