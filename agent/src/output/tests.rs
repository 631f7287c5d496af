//! The way to a destination, against one that misbehaves.

mod backend;
mod drain;
mod live;
mod outbox;
mod store;
mod tls;
mod trouble;

use super::*;
use crate::metrics::Metrics;
use crate::roster::Roster;
use crate::secret::Secret;
use crate::wire::BatchKey;
use backend::{Backend, Reply, give_receipt, receipt};
use outbox::{EPOCH, LIVE_EPOCH, Memory};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// An output at work.
struct Running {
    outbox: Memory,
    metrics: metrics::Output,
    shutdown: watch::Sender<bool>,
    task: JoinSet<Result<(), Error>>,
}

impl Running {
    fn start(config: Config, outbox: &Memory) -> Self {
        let metrics = Metrics::new().output("central");
        let output = HttpOutput::build("central", "gw-1", config, outbox.clone(), metrics.clone()).unwrap();
        let (shutdown, stop) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(output.run(Roster::new(Arc::default()).reader(), stop));
        Self { outbox: outbox.clone(), metrics, shutdown, task }
    }

    async fn until_done(&self, seq: Seq) {
        let mut done = self.outbox.done.subscribe();
        let waited = timeout(PATIENCE, done.wait_for(|done| *done >= seq)).await;
        drop(waited.expect("the output makes progress").unwrap());
    }

    async fn stop(mut self) {
        self.shutdown.send(true).unwrap();
        timeout(PATIENCE, self.task.join_next()).await.expect("ends").unwrap().unwrap().unwrap();
    }
}

/// Fast enough for a test, and otherwise as by default.
fn quick(url: Url) -> Config {
    let mut config = Config::new(url);
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(20);
    config.linger = Duration::from_millis(1);
    config.drain = Duration::from_millis(50);
    config
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    let line =
        |n| format!(r#"{{"agent":"gw-1","pipeline":"p","key":"k{n}","module":"sha256:00","value":{n}}}"#);
    range.map(line).collect()
}

fn key(first: Seq, last: Seq) -> String {
    BatchKey::new("gw-1", EPOCH, &(first..last + 1)).to_string()
}

/// Any key at all.
fn batch_key() -> BatchKey {
    BatchKey::new("gw-1", EPOCH, &(0..1))
}

/// Every request was the same, in every byte that matters.
#[track_caller]
fn assert_same(requests: &[backend::Seen], count: usize) {
    assert_eq!(requests.len(), count);
    for request in requests {
        assert_eq!(request.key(), requests[0].key());
        assert_eq!(request, &requests[0]);
    }
}

/// For what nothing fires: metrics.
async fn eventually(what: &str, check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn delivers_all_in_order_whatever_the_compression() {
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let backend = Backend::start(|_, _| Reply::Receipt).await;
        let outbox = Memory::new(lines(0..10));
        let mut config = quick(backend.url());
        (config.compression, config.results_max) = (compression, 4);
        let running = Running::start(config, &outbox);
        running.until_done(10).await;
        outbox.put(lines(10..12));
        running.until_done(12).await;
        let seen = backend.seen();
        let keys: Vec<_> = seen.iter().map(backend::Seen::key).collect();
        assert_eq!(keys, [key(0, 3), key(4, 7), key(8, 9), key(10, 11)]);
        assert_eq!(seen.iter().flat_map(backend::Seen::lines).collect::<Vec<_>>(), lines(0..12));
        let first = &seen[0];
        assert_eq!(first.header("content-encoding"), backend::encoding(compression));
        assert_eq!(first.header("content-type"), "application/x-ndjson");
        assert_eq!(first.header("user-agent"), concat!("headwater/", env!("CARGO_PKG_VERSION")));
        assert_eq!(first.header("authorization"), "");
        let sent: usize = seen.iter().map(|seen| seen.body.len()).sum();
        let metrics = &running.metrics;
        eventually("counted", || metrics.delivered_bytes.get() == sent as u64).await;
        assert_eq!((metrics.delivered_results.get(), metrics.delivered_batches.get()), (12, 4));
        eventually("counted", || metrics.pending_results.get() == 0).await;
        assert_eq!(metrics.failed_attempts.get(), 0);
        running.stop().await;
    }
}

#[tokio::test]
async fn trouble_that_passes_is_met_with_the_same_bytes() {
    let backend = Backend::start(|n, _| match n {
        0 => Reply::Status(500, "oh"),
        1 => Reply::Status(503, ""),
        2 => Reply::Status(408, ""),
        3 => Reply::Status(425, ""),
        4 => Reply::With(429, "retry-after", "0".to_owned()),
        5 => Reply::Hang,
        6 => Reply::Status(200, "<html>Welcome to the Grand Hotel</html>"),
        7 => Reply::Status(200, r#"{"accepted":"gw-2/0/0-2"}"#),
        8 => Reply::Status(204, ""),
        9 => Reply::Status(511, ""),
        10 => Reply::Status(404, ""),
        11 => Reply::Status(415, ""),
        12 => Reply::Status(403, ""),
        _ => Reply::Receipt,
    })
    .await;
    let outbox = Memory::new(lines(0..3));
    let mut config = quick(backend.url());
    config.timeout = Duration::from_millis(300);
    let running = Running::start(config, &outbox);
    running.until_done(3).await;
    assert_same(&backend.seen(), 14);
    assert_eq!(running.metrics.failed_attempts.get(), 13);
    eventually("counted", || running.metrics.delivered_results.get() == 3).await;
    assert_eq!(outbox.dead(), []);
    running.stop().await;
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let login =
        Backend::start(|_, seen| Reply::Status(200, Box::leak(receipt(seen.key()).into_boxed_str()))).await;
    let location = login.url().to_string();
    let statuses = [301, 302, 303, 307, 308];
    let backend = Backend::start(move |n, _| match statuses.get(n) {
        Some(status) => Reply::With(*status, "location", location.clone()),
        None => Reply::Receipt,
    })
    .await;
    let outbox = Memory::new(lines(0..1));
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(1).await;
    assert_same(&backend.seen(), 6);
    assert_eq!(login.seen(), []);
    running.stop().await;
}

#[tokio::test]
async fn retry_after_is_waited_for_up_to_its_cap() {
    let backend = Backend::start(|n, _| match n {
        0 => Reply::With(429, "retry-after", "1".to_owned()),
        1 => Reply::With(503, "retry-after", "86400".to_owned()),
        _ => Reply::Receipt,
    })
    .await;
    let mut config = quick(backend.url());
    config.retry_after_max = Duration::from_millis(1200);
    let start = Instant::now();
    let running = Running::start(config, &Memory::new(lines(0..1)));
    running.until_done(1).await;
    assert!(start.elapsed() >= Duration::from_millis(2200), "{:?}", start.elapsed());
    assert_same(&backend.seen(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_rotated_token_is_used_at_once_and_nothing_is_dead_lettered_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let backend = Backend::start(|_, seen| match seen.header("authorization") {
        "Bearer new" => Reply::Receipt,
        "Bearer old" => Reply::Status(401, ""),
        other => panic!("{other}"),
    })
    .await;
    let mut config = quick(backend.url());
    config.token = Some(Secret::File(file.clone()));
    config.backoff_max = Duration::from_secs(4);
    let outbox = Memory::new(lines(0..2));
    let running = Running::start(config, &outbox);
    eventually("refused once", || running.metrics.failed_attempts.get() == 1).await;
    let rotated = Instant::now();
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    std::fs::write(&file, "new").unwrap();
    running.until_done(2).await;
    assert!(rotated.elapsed() < Duration::from_secs(2), "waited for the slow retry: {:?}", rotated.elapsed());
    assert_eq!(backend.seen().len(), 2);
    assert_eq!(running.metrics.breaker_open.get(), 0);
    assert_eq!(outbox.dead(), []);
    running.stop().await;
}

#[tokio::test]
async fn refused_content_is_narrowed_down_and_all_else_arrives() {
    for status in [400, 422] {
        let backend = Backend::start(move |_, seen| {
            let bad = |line: &String| line.contains("\"k37\"") || line.contains("\"k38\"");
            if seen.lines().iter().any(bad) {
                Reply::Status(status, r#"{"error":"what is this?"}"#)
            } else {
                Reply::Receipt
            }
        })
        .await;
        let outbox = Memory::new(lines(0..100));
        let running = Running::start(quick(backend.url()), &outbox);
        running.until_done(100).await;
        check_culprits(&backend, &outbox, &[37, 38], "what is this?");
        eventually("counted", || running.metrics.rejected_results.get() == 2).await;
        eventually("counted", || running.metrics.delivered_results.get() == 98).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_batch_too_large_is_halved_and_a_result_too_large_alone_is_dead_lettered() {
    let backend = Backend::start(|_, seen| {
        let size: usize = seen.lines().iter().map(String::len).sum();
        if size > 800 { Reply::Status(413, "too much") } else { Reply::Receipt }
    })
    .await;
    let mut all = lines(0..64);
    all[20] = format!(r#"{{"pipeline":"p","key":"k20","value":"{}"}}"#, "x".repeat(2_000));
    let outbox = Memory::new(all);
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(64).await;
    check_culprits(&backend, &outbox, &[20], "too much");
    running.stop().await;
}

/// Exactly these are dead letters, the rest was confirmed once, and keys fit their lines.
#[track_caller]
fn check_culprits(backend: &Backend, outbox: &Memory, culprits: &[Seq], words: &str) {
    let dead = outbox.dead();
    assert_eq!(dead.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), culprits);
    for (seq, letter) in dead {
        assert!(letter.reason.contains(words), "{}", letter.reason);
        assert_eq!((letter.pipeline.as_str(), letter.stage.as_str()), ("p", "output"));
        assert_eq!(letter.key, format!("k{seq}"));
        assert!(String::from_utf8(letter.payload).unwrap().contains(&letter.key));
    }
    for seen in backend.seen() {
        let (first, last) = seen.key().rsplit_once('/').unwrap().1.split_once('-').unwrap();
        let (first, last): (Seq, Seq) = (first.parse().unwrap(), last.parse().unwrap());
        let lines = seen.lines();
        assert_eq!(lines.len() as Seq, last - first + 1);
        assert!(lines[0].contains(&format!("\"k{first}\"")), "{}", lines[0]);
    }
}

#[tokio::test]
async fn a_destination_that_refuses_everything_is_not_fed_everything() {
    let backend = Backend::start(|_, _| Reply::Status(400, r#"{"error":"no"}"#)).await;
    let mut config = quick(backend.url());
    config.refused_in_row_max = 3;
    config.backoff_max = Duration::from_secs(60);
    let outbox = Memory::new(lines(0..20));
    let running = Running::start(config, &outbox);
    running.until_done(3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(outbox.dead().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_broken_answer_is_met_with_the_same_bytes() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let backend = Backend::raw(move |n, request, mut stream| {
        kept.lock().unwrap().push(request);
        async move {
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"accepted\":\"gw-1";
            match n {
                0 => drop(stream),
                1 => stream.write_all(b"HTTP/1.1 2").await.unwrap(),
                2 => stream.write_all(half).await.unwrap(),
                3 => stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap(),
                // One byte at a time, until the client has had enough of it.
                4 => {
                    while stream.write_all(&half[..1]).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                5 => {
                    for byte in half {
                        if stream.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(30)).await;
                    }
                }
                _ => give_receipt(&mut stream, &key(0, 2)).await,
            }
        }
    })
    .await;
    let mut config = quick(backend.url());
    config.timeout = Duration::from_millis(400);
    let running = Running::start(config, &Memory::new(lines(0..3)));
    running.until_done(3).await;
    let requests = requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 7);
    assert!(requests.iter().all(|request| request == &requests[0]), "every byte of every attempt");
    running.stop().await;
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_its_limit_only() {
    let backend = Backend::raw(|_, _, mut stream| async move {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
        while stream.write_all(&[b' '; 4096]).await.is_ok() {}
    })
    .await;
    let mut client = Client::build(&Config::new(backend.url())).unwrap();
    let answer = timeout(PATIENCE / 2, client.post(&batch_key(), "{}\n".into(), None)).await.expect("an end");
    let judge::Outcome::Answered(answer) = answer else { panic!("{answer:?}") };
    assert!(answer.body.len() == 64 * 1024 && answer.broken.is_none());
}

#[tokio::test]
async fn an_outage_opens_the_breaker_and_all_arrives_after_it() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = quick(Url::parse(&format!("http://{address}/")).unwrap());
    config.breaker_failures = 3;
    let outbox = Memory::new(lines(0..5));
    let running = Running::start(config, &outbox);
    eventually("open", || running.metrics.breaker_open.get() == 1).await;
    assert_eq!(running.metrics.failed_attempts.get(), 3);
    outbox.put(lines(5..9));
    eventually("pending counted", || running.metrics.pending_results.get() == 9).await;
    let backend = Backend::on(TcpListener::bind(address).await.unwrap(), |_, _| Reply::Receipt);
    running.until_done(9).await;
    assert_eq!(backend.seen()[0].key(), key(0, 4));
    eventually("closed", || running.metrics.breaker_open.get() == 0).await;
    backend.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn any_2xx_confirms_where_the_backend_gives_no_receipts() {
    let backend =
        Backend::start(|n, _| if n == 0 { Reply::Status(302, "") } else { Reply::Status(204, "") }).await;
    let mut config = quick(backend.url());
    config.expect = Expect::Status;
    let running = Running::start(config, &Memory::new(lines(0..1)));
    running.until_done(1).await;
    assert_same(&backend.seen(), 2);
    running.stop().await;
}

#[tokio::test]
async fn connecting_and_reading_have_bounds_of_their_own() {
    // The system takes connections for it, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (long, short) = (PATIENCE * 3, Duration::from_millis(200));
    for (scheme, connect_timeout, read_timeout) in [("https", short, long), ("http", long, short)] {
        let url = Url::parse(&format!("{scheme}://{}/", silent.local_addr().unwrap())).unwrap();
        let config = Config { timeout: long, connect_timeout, read_timeout, ..Config::new(url) };
        let mut client = Client::build(&config).unwrap();
        let ended =
            timeout(PATIENCE / 2, client.post(&batch_key(), "{}\n".into(), None)).await.expect("an end");
        assert!(matches!(ended, judge::Outcome::Failed(_)), "{scheme}: {ended:?}");
    }
}

#[tokio::test]
async fn https_never_becomes_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let outbox = Memory::new(["{\"secret\":1}".to_owned()]);
    let running = Running::start(quick(Url::parse(&url).unwrap()), &outbox);
    for _ in 0..3 {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut first = [0; 3];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(first[..2], [0x16, 0x03], "a TLS handshake record");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    }
    assert_eq!(outbox.confirmed(), 0);
    running.stop().await;
}

#[tokio::test]
async fn shutdown_lets_an_attempt_end_and_abandons_one_that_does_not() {
    let backend = Backend::start(|n, _| if n == 0 { Reply::Hang } else { Reply::Receipt }).await;
    let outbox = Memory::new(lines(0..1));
    let running = Running::start(quick(backend.url()), &outbox);
    eventually("under way", || backend.seen().len() == 1).await;
    let start = Instant::now();
    running.stop().await;
    assert!(start.elapsed() >= Duration::from_millis(50), "abandoned too early");
    assert!(start.elapsed() < Duration::from_secs(5), "waited for the time-out");
    assert_eq!(outbox.confirmed(), 0);
    let again = Running::start(quick(backend.url()), &outbox);
    again.until_done(1).await;
    assert_same(&backend.seen(), 2);
    again.stop().await;
}

#[tokio::test]
async fn shutdown_ends_a_long_pause_at_once() {
    let backend = Backend::start(|_, _| Reply::With(503, "retry-after", "200".to_owned())).await;
    let running = Running::start(quick(backend.url()), &Memory::new(lines(0..1)));
    eventually("put off", || running.metrics.failed_attempts.get() == 1).await;
    let start = Instant::now();
    running.stop().await;
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn refuses_what_it_cannot_work_with() {
    let build = |url: &str, agent: &str, token: Option<Secret>| {
        let mut config = Config::new(Url::parse(url).unwrap());
        config.token = token;
        let metrics = Metrics::new().output("central");
        HttpOutput::build("central", agent, config, Memory::new([]), metrics).map(drop).unwrap_err()
    };
    let error = build("http://collect.example.com/", "two\nlines", None);
    assert!(matches!(&error, Error::Config { faults, .. } if faults.len() == 2), "{error}");
    let missing = Some(Secret::File("/nowhere/token".into()));
    assert!(matches!(build("http://127.0.0.1:1/", "gw-1", missing), Error::Token { .. }));
}

/// The environment is the process's, so the test runs itself in a process of its own.
#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    const URL: &str = "HEADWATER_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        let running = Running::start(quick(Url::parse(&url).unwrap()), &Memory::new(lines(0..1)));
        running.until_done(1).await;
        return running.stop().await;
    }
    let backend = Backend::start(|_, _| Reply::Receipt).await;
    let proxy = Backend::start(|_, _| Reply::Status(502, "")).await;
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "output::tests::a_proxy_in_the_environment_is_not_used"]);
    child.env(URL, backend.url().as_str());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, format!("http://{}", proxy.address));
    }
    let output = timeout(PATIENCE * 2, child.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((backend.seen().len(), proxy.seen().len()), (1, 0));
}
