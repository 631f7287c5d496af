//! How fast a backlog drains.

use super::*;

/// One batch at a time, and each answer takes 50 ms: the batches must be as large as they may.
#[tokio::test]
async fn a_slow_answer_is_outweighed_by_full_batches() {
    let backend = Backend::start(|_, _| Reply::After(Duration::from_millis(50))).await;
    let outbox = Memory::new(lines(0..20_000));
    let config = Config { linger: Duration::from_millis(100), ..quick(backend.url()) };
    assert_eq!(config.results_max, 1000, "as by default");
    let start = Instant::now();
    let running = Running::start(config, &outbox);
    running.until_done(20_000).await;
    let (batches, took) = (backend.seen().len(), start.elapsed());
    assert_eq!(batches, 20, "every batch is full");
    // 20 answers are 1 s: what the rest may cost is generous. 4,000 results/s are then the floor.
    assert!(took < Duration::from_secs(5), "{took:?}");
    eprintln!("20,000 results in {took:?} with answers after 50 ms");
    running.stop().await;
}

/// After trouble with size or content the batches grow again while the backlog drains.
#[tokio::test]
async fn batches_grow_again_after_a_culprit() {
    let backend = Backend::start(|_, seen| {
        let is_bad = seen.lines().iter().any(|line| line.contains("\"k7\""));
        if is_bad { Reply::Status(422, r#"{"error":"no"}"#) } else { Reply::Receipt }
    })
    .await;
    let outbox = Memory::new(lines(0..10_000));
    let running = Running::start(quick(backend.url()), &outbox);
    running.until_done(10_000).await;
    let sizes: Vec<_> = backend.seen().iter().map(|seen| seen.lines().len()).collect();
    assert!(
        sizes.ends_with(&[1000, 1000, 1000, 1000]) || sizes.iter().filter(|it| **it == 1000).count() >= 8
    );
    assert!(sizes.len() <= 40, "{sizes:?}");
    assert_eq!(outbox.dead().len(), 1);
    running.stop().await;
}
