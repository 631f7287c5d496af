//! A collector under test, and batches to send to it.

use std::sync::Once;
use std::time::Duration;

use headwater_collector::{Collector, CollectorConfig};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub(crate) const EPOCH: &str = "00112233445566778899aabbccddeeff";

/// A collector that serves from a temporary folder, in this process.
pub(crate) struct ServedCollector {
    pub(crate) url: String,
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    ended: JoinSet<()>,
    _folder: TempDir,
}

pub(crate) async fn serve() -> ServedCollector {
    serve_with(|_| {}).await
}

pub(crate) async fn serve_with(change: impl FnOnce(&mut CollectorConfig)) -> ServedCollector {
    let folder = tempfile::tempdir().unwrap();
    let mut config = CollectorConfig::new(folder.path().join("collector.db"));
    change(&mut config);
    let collector = Collector::open(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let mut ended = JoinSet::new();
    ended.spawn(async move {
        let shutdown = async { drop(stopped.await) };
        collector.serve(listener, shutdown).await.unwrap();
    });
    ServedCollector { url, client: client(), stop, ended, _folder: folder }
}

pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    // The client is built with TLS, which needs a provider even if no connection uses it.
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

impl ServedCollector {
    pub(crate) fn begin_stop(self) -> JoinSet<()> {
        self.stop.send(()).unwrap();
        self.ended
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub(crate) fn post(&self, first: u64, lines: &[String]) -> RequestBuilder {
        post(&self.client, &self.url, first, lines)
    }

    pub(crate) async fn accepted(&self, first: u64, lines: &[String]) -> Value {
        let response = self.post(first, lines).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }
}

pub(crate) fn post(client: &Client, url: &str, first: u64, lines: &[String]) -> RequestBuilder {
    let last = first + lines.len() as u64 - 1;
    client
        .post(format!("{url}/v1/batches"))
        .header("idempotency-key", format!("\"plant-7/{EPOCH}/{first}-{last}\""))
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"))
}

/// Returns the time that lies this many seconds after the beginning of 2026, as RFC 3339.
pub(crate) fn time(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    assert!((0..31).contains(&days));
    format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", days + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Returns the line of a result with a window of ten seconds.
pub(crate) fn window(key: &str, start: i64, revision: u32, count: u64) -> String {
    let from = time(start);
    let to = time(start + 10);
    format!(
        r#"{{"agent":"plant-7","pipeline":"temperature","key":"{key}","window":{{"start":"{from}","end":"{to}"}},"revision":{revision},"module":"sha256:{}","count":{count},"late":0,"rejected":0,"value":{{"mean":{count}.5}}}}"#,
        "ab".repeat(32)
    )
}

/// Returns the line of a result without a window.
pub(crate) fn event(key: &str, at: i64, value: &str) -> String {
    let at = time(at);
    format!(
        r#"{{"agent":"plant-7","pipeline":"raw","key":"{key}","time":"{at}","module":null,"value":{value}}}"#
    )
}
