//! A destination that gives the answers that a test has prepared, and keeps all requests.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response, StatusCode};
use headwater_wire::BatchKey;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// An answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptedAnswer {
    /// Stores the batch and confirms it as the own collector does.
    Accept,
    /// Answers with this status and body, and stores nothing.
    Refuse(u16, String),
    /// Stores the batch, but keeps the connection open this long before it confirms.
    Silence(Duration),
    /// Stores the batch, and ends the connection in the middle of the confirmation.
    HalfAnAnswer,
    /// Refuses with this status every batch with this text in one of its lines, and accepts the others.
    RefuseWith(u16, String),
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// The time at which it had arrived completely.
    pub at: Instant,
    /// The `Idempotency-Key`.
    pub key: BatchKey,
    /// The body as it was sent.
    pub raw: Bytes,
    /// The lines of the decoded body.
    pub lines: Vec<Value>,
    /// The answer given.
    pub answer: ScriptedAnswer,
    /// True if the answer was a success, as far as the agent can tell.
    pub confirmed: bool,
}

/// An HTTP server on a port of loopback, which it keeps while it does not listen.
#[derive(Debug)]
pub struct FakeDestination {
    port: u16,
    /// A bound socket that never listens, so that no other process gets the port.
    _reserved: TcpSocket,
    shared: Arc<DestinationState>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct DestinationState {
    script: Mutex<VecDeque<ScriptedAnswer>>,
    requests: Mutex<Vec<ReceivedRequest>>,
    /// The time that each answer takes.
    time: Mutex<Duration>,
}

impl FakeDestination {
    /// Starts a destination that gives these answers in turn and then accepts everything.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(script: impl IntoIterator<Item = ScriptedAnswer>) -> Self {
        let shared = Arc::<DestinationState>::default();
        lock(&shared.script).extend(script);
        let reserved = bound(0);
        let port = reserved.local_addr().expect("it is bound").port();
        let mut destination = Self { port, _reserved: reserved, shared, server: None };
        destination.listen_again().await;
        destination
    }

    /// Listens again on the same port.
    ///
    /// # Panics
    /// When it cannot listen.
    #[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
    pub async fn listen_again(&mut self) {
        let listener = bound(self.port).listen(1024).expect("it can listen");
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving on loopback does not end");
        }));
    }

    /// Stops listening, so that connections are refused.
    ///
    /// # Panics
    /// When it is gone already.
    pub async fn stop_listening(&mut self) {
        let server = self.server.take().expect("it listens");
        server.abort();
        server.await.ok();
    }

    /// Makes each answer take this long from now on.
    ///
    /// # Panics
    /// When a request handler has failed.
    pub fn set_delay(&self, time: Duration) {
        *lock(&self.shared.time) = time;
    }

    /// Adds answers to give before it accepts again.
    pub fn add_answers(&self, script: impl IntoIterator<Item = ScriptedAnswer>) {
        lock(&self.shared.script).extend(script);
    }

    /// Drops the answers still to give, so that it accepts everything from now on.
    pub fn accept_all(&self) {
        lock(&self.shared.script).clear();
    }

    /// The address for batches.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/batches", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns every request so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.shared.requests).clone()
    }

    /// Returns the lines of the confirmed batches, each key once. Checks the promises of every destination:
    /// the same key always comes with the same bytes, a confirmed key never comes again, and the ranges of
    /// confirmed keys follow each other without gap or overlap.
    ///
    /// # Panics
    /// When one of these does not hold.
    #[must_use]
    pub fn accepted_lines(&self) -> Vec<Value> {
        let requests = self.requests();
        let mut next = 0;
        let mut lines = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let BatchKey { epoch, first, last, .. } = request.key;
            assert_eq!(request.key.lines(), request.lines.len() as u64, "lines of {}", request.key);
            for before in &requests[..index] {
                assert_eq!(before.key.epoch, epoch, "one outbox has one epoch");
                if before.key == request.key {
                    assert_eq!(before.raw, request.raw, "bytes of {} changed", request.key);
                    assert!(!before.confirmed, "{} came again after it was confirmed", request.key);
                }
            }
            if request.confirmed {
                assert_eq!(first, next, "confirmed ranges follow each other");
                next = last + 1;
                lines.extend(request.lines.iter().cloned());
            }
        }
        lines
    }
}

impl Drop for FakeDestination {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// Binds a socket to a port of loopback, beside other sockets of this process there.
fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    socket.set_reuseport(true).expect("an option of sockets");
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("its port is its own");
    socket
}

async fn receive(
    State(shared): State<Arc<DestinationState>>,
    headers: HeaderMap,
    raw: Bytes,
) -> Response<Body> {
    let at = Instant::now();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let key = header("idempotency-key");
    let key = BatchKey::from_header(key).unwrap_or_else(|words| panic!("Idempotency-Key {key}: {words}"));
    let lines = decode(header("content-encoding"), &raw);
    let mut answer = lock(&shared.script).pop_front().unwrap_or(ScriptedAnswer::Accept);
    if let ScriptedAnswer::RefuseWith(status, text) = &answer {
        // This answer holds for every batch from now on.
        lock(&shared.script).push_front(answer.clone());
        let refused = lines.iter().any(|line| line.to_string().contains(text));
        answer = if refused {
            ScriptedAnswer::Refuse(*status, json!({ "error": "refused" }).to_string())
        } else {
            ScriptedAnswer::Accept
        };
    }
    let confirmed = answer == ScriptedAnswer::Accept;
    lock(&shared.requests).push(ReceivedRequest {
        at,
        key: key.clone(),
        raw,
        lines,
        answer: answer.clone(),
        confirmed,
    });
    let time = *lock(&shared.time);
    tokio::time::sleep(time).await;
    respond(&key, answer).await
}

async fn respond(key: &BatchKey, answer: ScriptedAnswer) -> Response<Body> {
    let receipt = json!({ "accepted": key.to_string(), "watermark": key.last }).to_string();
    let response = Response::builder().header("content-type", "application/json");
    let response = match answer {
        ScriptedAnswer::Accept | ScriptedAnswer::RefuseWith(..) => response.body(Body::from(receipt)),
        ScriptedAnswer::Refuse(status, body) => {
            let status = StatusCode::from_u16(status).expect("the test's status is one");
            response.status(status).body(Body::from(body))
        }
        ScriptedAnswer::Silence(duration) => {
            tokio::time::sleep(duration).await;
            response.body(Body::from(receipt))
        }
        ScriptedAnswer::HalfAnAnswer => {
            let half = Bytes::copy_from_slice(&receipt.as_bytes()[..receipt.len() / 2]);
            let body = http_body(half);
            response.header("content-length", receipt.len()).body(body)
        }
    };
    response.expect("these headers are valid")
}

/// Returns a body that ends too early: the server sees that there is less than announced, and ends the
/// connection.
fn http_body(half: Bytes) -> Body {
    Body::from_stream(SingleChunk(Some(half)))
}

struct SingleChunk(Option<Bytes>);

impl futures_core::Stream for SingleChunk {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(Ok))
    }
}

fn decode(encoding: &str, raw: &[u8]) -> Vec<Value> {
    let text = match encoding {
        "" | "identity" => raw.to_vec(),
        "zstd" => zstd::decode_all(raw).expect("zstd"),
        "gzip" => {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(raw), &mut text).expect("gzip");
            text
        }
        other => panic!("Content-Encoding {other}"),
    };
    let text = String::from_utf8(text).expect("lines are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a failed request handler is a failed test")
}
