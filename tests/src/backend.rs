//! A destination that does what a test tells it to, and remembers every byte it was sent.

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

/// What it does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Takes the batch and says so as the own collector does.
    Accept,
    /// This status and body; nothing is taken.
    Refuse(u16, String),
    /// Takes the batch, and never says so: the connection stays open this long.
    Silence(Duration),
    /// Takes the batch, and ends the connection in the middle of saying so.
    HalfAnAnswer,
    /// Refuses with this status every batch with this text in one of its lines; accepts others.
    RefuseWith(u16, String),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it had come whole.
    pub at: Instant,
    /// The `Idempotency-Key`.
    pub key: BatchKey,
    /// The body, as sent.
    pub raw: Bytes,
    /// The body's lines, decoded.
    pub lines: Vec<Value>,
    /// What was answered.
    pub answer: Answer,
    /// Whether it was answered with success, as far as the agent can tell.
    pub confirmed: bool,
}

/// Listens on a port of loopback that it keeps while it is gone.
#[derive(Debug)]
pub struct Backend {
    port: u16,
    /// Bound and never listening, so that nobody else gets the port.
    _reserved: TcpSocket,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    attempts: Mutex<Vec<Attempt>>,
    /// What each answer takes.
    time: Mutex<Duration>,
}

impl Backend {
    /// Starts one that gives these answers in turn, and then accepts.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let shared = Arc::<Shared>::default();
        lock(&shared.script).extend(script);
        let reserved = bound(0);
        let port = reserved.local_addr().expect("it is bound").port();
        let mut backend = Self { port, _reserved: reserved, shared, server: None };
        backend.back().await;
        backend
    }

    /// Listens again after it was gone.
    ///
    /// # Panics
    /// When it cannot listen.
    #[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
    pub async fn back(&mut self) {
        let listener = bound(self.port).listen(1024).expect("it can listen");
        let router = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving on loopback does not end");
        }));
    }

    /// Stops listening: connections are refused.
    ///
    /// # Panics
    /// When it is gone already.
    pub async fn gone(&mut self) {
        let server = self.server.take().expect("it listens");
        server.abort();
        server.await.ok();
    }

    /// Forgets the answers it was still to give: from now on it accepts.
    ///
    /// # Panics
    /// When a request handler has failed.
    pub fn well(&self) {
        lock(&self.shared.script).clear();
    }

    /// From now on each answer takes so long.
    ///
    /// # Panics
    /// When a request handler has failed.
    pub fn takes(&self, time: Duration) {
        *lock(&self.shared.time) = time;
    }

    /// Answers to give before it accepts again.
    pub fn then(&self, script: impl IntoIterator<Item = Answer>) {
        lock(&self.shared.script).extend(script);
    }

    /// Accepts everything from now on.
    pub fn mend(&self) {
        lock(&self.shared.script).clear();
    }

    /// Where batches go.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/batches", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.shared.attempts).clone()
    }

    /// Lines of the batches that the agent was told were accepted, each key once, and a check of
    /// what every destination may rely on: the same key always comes with the same bytes, confirmed
    /// keys never come again, and their ranges follow each other without gap or overlap.
    ///
    /// # Panics
    /// When one of these does not hold.
    #[must_use]
    pub fn accepted(&self) -> Vec<Value> {
        let attempts = self.attempts();
        let mut next = 0;
        let mut lines = Vec::new();
        for (index, attempt) in attempts.iter().enumerate() {
            let BatchKey { epoch, first, last, .. } = attempt.key;
            assert_eq!(attempt.key.lines(), attempt.lines.len() as u64, "lines of {}", attempt.key);
            for before in &attempts[..index] {
                assert_eq!(before.key.epoch, epoch, "one outbox has one epoch");
                if before.key == attempt.key {
                    assert_eq!(before.raw, attempt.raw, "bytes of {} changed", attempt.key);
                    assert!(!before.confirmed, "{} came again after it was confirmed", attempt.key);
                }
            }
            if attempt.confirmed {
                assert_eq!(first, next, "confirmed ranges follow each other");
                next = last + 1;
                lines.extend(attempt.lines.iter().cloned());
            }
        }
        lines
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// A socket on that port of loopback, beside others of ours there.
fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    socket.set_reuseport(true).expect("an option of sockets");
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("its port is its own");
    socket
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, raw: Bytes) -> Response<Body> {
    let at = Instant::now();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let key = header("idempotency-key");
    let key = BatchKey::from_header(key).unwrap_or_else(|words| panic!("Idempotency-Key {key}: {words}"));
    let lines = decode(header("content-encoding"), &raw);
    let mut answer = lock(&shared.script).pop_front().unwrap_or(Answer::Accept);
    if let Answer::RefuseWith(status, text) = &answer {
        // It holds for every batch from now on.
        lock(&shared.script).push_front(answer.clone());
        let refused = lines.iter().any(|line| line.to_string().contains(text));
        answer = if refused {
            Answer::Refuse(*status, json!({ "error": "refused" }).to_string())
        } else {
            Answer::Accept
        };
    }
    let confirmed = answer == Answer::Accept;
    lock(&shared.attempts).push(Attempt {
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

async fn respond(key: &BatchKey, answer: Answer) -> Response<Body> {
    let receipt = json!({ "accepted": key.to_string(), "watermark": key.last }).to_string();
    let response = Response::builder().header("content-type", "application/json");
    let response = match answer {
        Answer::Accept | Answer::RefuseWith(..) => response.body(Body::from(receipt)),
        Answer::Refuse(status, body) => {
            let status = StatusCode::from_u16(status).expect("the test's status is one");
            response.status(status).body(Body::from(body))
        }
        Answer::Silence(duration) => {
            tokio::time::sleep(duration).await;
            response.body(Body::from(receipt))
        }
        Answer::HalfAnAnswer => {
            let half = Bytes::copy_from_slice(&receipt.as_bytes()[..receipt.len() / 2]);
            let body = http_body(half);
            response.header("content-length", receipt.len()).body(body)
        }
    };
    response.expect("these headers are valid")
}

/// A body that ends too early: the server notices that less came than it announced, and ends the
/// connection.
fn http_body(half: Bytes) -> Body {
    Body::from_stream(Once(Some(half)))
}

struct Once(Option<Bytes>);

impl futures_core::Stream for Once {
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
