//! Answers and ways that are absurd.

use super::*;

/// Seconds below zero, no time at all, a date long past or far ahead: none of it may stop the
/// output for longer than its cap, and none of it loses the batch.
#[tokio::test]
async fn an_absurd_retry_after_is_waited_for_no_longer_than_its_cap() {
    let absurd = [
        ("-5", 0),
        ("soon", 0),
        ("", 0),
        ("1e9", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 99 Foo 1994 08:49:37 GMT", 0),
        ("Wed, 31 Dec 9998 23:59:59 GMT", 1),
        ("99999999999999999999999", 1),
        ("31536000", 1),
    ];
    let at = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&at);
    let backend = Backend::start(move |n, _| {
        times.lock().unwrap().push(Instant::now());
        let status = [503, 429, 408][n % 3];
        absurd
            .get(n)
            .map_or(Reply::Receipt, |(value, _)| Reply::With(status, "retry-after", (*value).to_owned()))
    })
    .await;
    let mut config = quick(backend.url());
    let cap = Duration::from_millis(400);
    config.retry_after_max = cap;
    config.breaker_failures = 100;
    let running = Running::start(config, &Memory::new(lines(0..3)));
    running.until_done(3).await;
    assert_same(&backend.seen(), absurd.len() + 1);
    let at = at.lock().unwrap().clone();
    for ((value, waits), pair) in absurd.iter().zip(at.windows(2)) {
        let waited = pair[1] - pair[0];
        match waits {
            0 => assert!(waited < cap, "{value:?}: {waited:?}"),
            _ => assert!(waited >= cap && waited < cap * 4, "{value:?}: {waited:?}"),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_asked_for_again() {
    let mut config = quick(Url::parse("http://collector.invalid:9/v1/batches").unwrap());
    config.allow_plaintext = true;
    config.connect_timeout = Duration::from_secs(2);
    let outbox = Memory::new(lines(0..3));
    let running = Running::start(config, &outbox);
    eventually("asked for again", || running.metrics.failed_attempts.get() >= 3).await;
    assert_eq!((outbox.confirmed(), outbox.dead()), (0, Vec::new()));
    running.stop().await;
    // Once it leads somewhere, the same batch goes there.
    let backend = Backend::start(|_, _| Reply::Receipt).await;
    outbox.put(lines(3..5));
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(5).await;
    assert_eq!(backend.seen()[0].key(), key(0, 2));
    running.stop().await;
}

/// The destination has stored the batch, and its answer is a reset: the receiver sees the same
/// bytes and key again, and can count them once.
#[tokio::test]
async fn a_reset_after_the_commit_is_met_with_the_same_bytes() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let backend = Backend::raw(move |n, request, mut stream| {
        kept.lock().unwrap().push(request);
        async move {
            match n {
                0..3 => {
                    if n > 0 {
                        drop(stream.write_all(&b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n"[..n * 18]).await);
                    }
                    // Closing with bytes unsent, or none to send, is then a reset.
                    stream.set_zero_linger().unwrap();
                }
                _ => give_receipt(&mut stream, &key(0, 2)).await,
            }
        }
    })
    .await;
    let outbox = Memory::new(lines(0..3));
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(3).await;
    let requests = requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request == &requests[0]), "every byte of every attempt");
    assert_eq!(outbox.dead(), []);
    running.stop().await;
}

/// nginx before the collector wants a certificate and says 400 in HTML: that is not the batch's fault.
#[tokio::test]
async fn a_proxys_400_dead_letters_nothing() {
    let page = "<html><head><title>400 No required SSL certificate was sent</title></head></html>";
    let backend = Backend::start(move |n, _| match n {
        0 => Reply::Status(400, page),
        1 => Reply::Status(400, "<html>Bad Request</html>"),
        2 => Reply::Status(422, ""),
        _ => Reply::Receipt,
    })
    .await;
    let outbox = Memory::new(lines(0..3));
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(3).await;
    assert_same(&backend.seen(), 4);
    assert_eq!(outbox.dead(), []);
    running.stop().await;
}
