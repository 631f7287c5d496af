//! A destination that answers by a script.

use crate::output::Compression;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use std::future::pending;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// One request, as it came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The idempotency key, without its quotes.
    pub(super) fn key(&self) -> &str {
        let quoted = self.header("idempotency-key");
        quoted.strip_prefix('"').and_then(|key| key.strip_suffix('"')).expect(quoted)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let body = &self.body[..];
        match self.header("content-encoding") {
            "" => text = String::from_utf8(body.to_vec()).unwrap(),
            "gzip" => _ = flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap(),
            "zstd" => text = String::from_utf8(zstd::decode_all(body).unwrap()).unwrap(),
            other => panic!("{other}"),
        }
        text.strip_suffix('\n').expect("a last line feed").split('\n').map(str::to_owned).collect()
    }
}

/// What it does to a request.
pub(super) enum Reply {
    /// The receipt that the collector gives.
    Receipt,
    Status(u16, &'static str),
    With(u16, &'static str, String),
    /// The receipt, after a while.
    After(Duration),
    /// Nothing, for ever.
    Hang,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: JoinSet<()>,
}

type Script = Box<dyn FnMut(usize, &Seen) -> Reply + Send>;

#[derive(Clone)]
struct Stage {
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Backend {
    /// `script` gets the number of the request, from 0, and the request.
    pub(super) async fn start(script: impl FnMut(usize, &Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub(super) fn on(
        listener: TcpListener,
        script: impl FnMut(usize, &Seen) -> Reply + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let stage = Stage { script: Arc::new(Mutex::new(Box::new(script))), seen: Arc::clone(&seen) };
        let app = Router::new().fallback(answer).with_state(stage);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, tasks }
    }

    /// Speaks bytes instead of HTTP: `script` gets the number of the request, the request's whole
    /// text, and the connection, which it may keep or drop.
    pub(super) async fn raw<F>(script: impl Fn(usize, Vec<u8>, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await.expect("request cut off");
                script(n, request, stream).await;
            }
        });
        Self { address, seen: Arc::default(), tasks }
    }

    pub(super) fn url(&self) -> Url {
        Url::parse(&format!("http://{}/v1/batches", self.address)).unwrap()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

pub(super) fn encoding(compression: Compression) -> &'static str {
    match compression {
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
        Compression::None => "",
    }
}

/// The collector's answer, as raw HTTP.
pub(super) async fn give_receipt(stream: &mut TcpStream, key: &str) {
    let body = receipt(key);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

pub(super) fn receipt(key: &str) -> String {
    format!(r#"{{"accepted":"{key}","watermark":1}}"#)
}

async fn answer(State(stage): State<Stage>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let seen = Seen { headers, body };
    let reply = {
        let mut all = stage.seen.lock().unwrap();
        all.push(seen.clone());
        (stage.script.lock().unwrap())(all.len() - 1, &seen)
    };
    let response = Response::builder();
    match reply {
        Reply::Receipt => response.body(receipt(seen.key()).into()),
        Reply::Status(status, body) => response.status(status).body(body.into()),
        Reply::With(status, name, value) => response.status(status).header(name, value).body(Body::empty()),
        Reply::After(wait) => {
            tokio::time::sleep(wait).await;
            response.body(receipt(seen.key()).into())
        }
        Reply::Hang => pending().await,
    }
    .unwrap()
}

/// One whole request; `None` where the connection ended first.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let (_, length) = head.split_once("content-length: ").unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4 + length == request.len() {
                return Some(request);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
