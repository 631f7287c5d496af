//! Requests beyond the limits: they are refused, and other requests do not suffer.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{EPOCH, ServedCollector, serve_with, window};

/// Sends the head of a batch, without its body.
async fn begin(served: &ServedCollector, length: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.address()).await.unwrap();
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n\
         idempotency-key: \"plant-7/{EPOCH}/0-0\"\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 12];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_decompression_bomb_is_refused() {
    let served = serve_with(|config| config.decoded_bytes_max = 1 << 20).await;
    let bomb = vec![b' '; 64 << 20];
    let packed = zstd::encode_all(&bomb[..], 1).unwrap();
    assert!(packed.len() < 64 << 10);
    let request = served.post(0, &[window("a", 0, 0, 1)]).header("content-encoding", "zstd").body(packed);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    served.accepted(0, &[window("a", 0, 0, 1)]).await;
}

#[tokio::test]
async fn a_gigabyte_is_refused_before_it_is_sent() {
    let served = serve_with(|_| {}).await;
    let mut stream = begin(&served, "content-length: 1073741824").await;
    assert_eq!(status(&mut stream).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_without_length_is_refused_at_the_limit() {
    let served = serve_with(|config| config.encoded_bytes_max = 10_000).await;
    let mut stream = begin(&served, "transfer-encoding: chunked").await;
    for _ in 0..11 {
        let chunk = [b"3e8\r\n", &[b' '; 1000][..], b"\r\n"].concat();
        stream.write_all(&chunk).await.unwrap();
    }
    assert_eq!(status(&mut stream).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_in_a_timeout() {
    let served = serve_with(|config| config.body_timeout = Duration::from_millis(100)).await;
    let mut stream = begin(&served, "content-length: 100").await;
    assert_eq!(status(&mut stream).await, "HTTP/1.1 408");
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_until_later() {
    let served = serve_with(|config| {
        config.bodies_max = 1;
        config.body_timeout = Duration::from_secs(2);
    })
    .await;
    let mut slow = begin(&served, "content-length: 100").await;
    slow.write_all(b"x").await.unwrap();
    loop {
        let metrics = served.get("/metrics").await.text().await.unwrap();
        if metrics.contains("headwater_collector_bodies_in_work 1\n") {
            break;
        }
    }
    let response = served.post(0, &[window("a", 0, 0, 1)]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(status(&mut slow).await, "HTTP/1.1 408");
    served.accepted(0, &[window("a", 0, 0, 1)]).await;
    let metrics = served.get("/metrics").await.text().await.unwrap();
    for line in ["refused_batches_total{status=\"503\"} 1", "stored_batches_total 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn idle_connections_make_room_for_others() {
    let served = serve_with(|config| {
        config.connections_max = 2;
        config.head_timeout = Duration::from_millis(300);
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(served.address()).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        idle.push(stream);
    }
    served.accepted(0, &[window("a", 0, 0, 1)]).await;
    let mut rest = Vec::new();
    idle[0].read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_disconnected() {
    let served = serve_with(|config| {
        config.connections_max = 1;
        config.write_timeout = Duration::from_millis(200);
    })
    .await;
    let big = format!("{{\"text\":\"{}\"}}", "x".repeat(3 << 20));
    served.accepted(0, &[crate::harness::event("a", 0, &big)]).await;
    drop(served.client.get(&served.url).header("connection", "close").send().await.unwrap());
    let mut stream = TcpStream::connect(served.address()).await.unwrap();
    // Many answers of 3 MB each: more than any socket's buffers take.
    for _ in 0..8 {
        stream.write_all(b"GET /v1/results HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    assert_eq!(served.get("/live").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_query_past_its_deadline_is_interrupted() {
    let served = serve_with(|config| config.query_timeout = Duration::ZERO).await;
    let lines: Vec<_> = (0..2000).map(|i| window("a", i * 10, 0, 1)).collect();
    served.accepted(0, &lines).await;
    // No row matches, so the query has to look at all of them.
    let response = served.get("/v1/results?pipeline=other").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.text().await.unwrap().contains("deadline"));
}

#[tokio::test]
async fn requests_in_work_are_answered_before_the_end() {
    let served = serve_with(|_| {}).await;
    let line = window("a", 0, 0, 1);
    let mut stream = begin(&served, &format!("content-length: {}", line.len())).await;
    stream.write_all(&line.as_bytes()[..10]).await.unwrap();
    loop {
        let metrics = served.get("/metrics").await.text().await.unwrap();
        if metrics.contains("headwater_collector_bodies_in_work 1\n") {
            break;
        }
    }
    let address = served.address().to_owned();
    let ended = served.begin_stop();
    while TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(&line.as_bytes()[10..]).await.unwrap();
    assert_eq!(status(&mut stream).await, "HTTP/1.1 200");
    tokio::time::timeout(Duration::from_secs(10), ended.join_all()).await.unwrap();
}
