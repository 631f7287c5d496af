//! Live results and the backlog that they overtake.

use super::*;
use std::collections::BTreeMap;

/// The numbers of an outbox that a request's key names, if it is that of live pipelines.
fn live_range(key: &str) -> Option<(Seq, Seq)> {
    let (first, last) = key.strip_prefix(&format!("gw-1/{LIVE_EPOCH}/"))?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn live_ranges(backend: &Backend) -> Vec<(Seq, Seq)> {
    backend.seen().iter().filter_map(|seen| live_range(seen.key())).collect()
}

/// Each result as often as it was in a batch that was answered with a receipt: once.
#[track_caller]
fn check_each_once(ranges: &[(Seq, Seq)], count: Seq) {
    let mut times = BTreeMap::new();
    ranges.iter().for_each(|(first, last)| {
        (*first..=*last).for_each(|seq| *times.entry(seq).or_insert(0) += 1);
    });
    assert_eq!(times.into_iter().collect::<Vec<_>>(), (0..count).map(|seq| (seq, 1)).collect::<Vec<_>>());
}

async fn all_arrived(running: &Running) {
    eventually("all arrived", || running.outbox.live_pending().iter().all(std::ops::Range::is_empty)).await;
}

#[tokio::test]
async fn the_newest_results_overtake_a_backlog_that_drains_beside_them() {
    let outbox = Memory::new([]).with_live(lines(0..1000));
    let growing = outbox.clone();
    let backend = Backend::start(move |n, _| {
        if n == 6 {
            growing.put_live(lines(1000..1003));
        }
        Reply::Receipt
    })
    .await;
    let mut config = quick(backend.url());
    config.results_max = 10;
    config.linger = Duration::ZERO;
    let running = Running::start(config, &outbox);
    eventually("the new ones are there", || live_ranges(&backend).len() >= 7).await;
    all_arrived(&running).await;
    let ranges = live_ranges(&backend);
    // The first batch shows that the destination lives; then the last of the backlog, and beside
    // it the rest.
    assert_eq!(ranges[..5], [(0, 9), (990, 999), (10, 19), (20, 29), (30, 39)]);
    let at = ranges.iter().position(|(first, _)| *first == 1000).unwrap();
    assert!(at <= 8, "made during request 6, they went out with request {at}");
    let backlog: Vec<_> = ranges.iter().filter(|(first, _)| (10..990).contains(first)).collect();
    assert!(backlog.is_sorted(), "the backlog drains in its order: {backlog:?}");
    check_each_once(&ranges, 1003);
    assert_eq!(running.outbox.live_pending().len(), 1, "what has wholly arrived is forgotten");
    eventually("counted", || running.metrics.delivered_results.get() == 1003).await;
    eventually("counted", || running.metrics.pending_results.get() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_backlog_is_not_overtaken_where_order_is_kept() {
    let backend = Backend::start(|_, _| Reply::Receipt).await;
    let outbox = Memory::new(lines(0..300)).with_live(lines(0..300));
    let mut config = quick(backend.url());
    config.results_max = 10;
    let running = Running::start(config, &outbox);
    running.until_done(300).await;
    all_arrived(&running).await;
    let ordered: Vec<_> =
        backend.seen().iter().filter(|seen| live_range(seen.key()).is_none()).cloned().collect();
    assert_eq!(ordered.iter().flat_map(backend::Seen::lines).collect::<Vec<_>>(), lines(0..300));
    check_each_once(&live_ranges(&backend), 300);
    running.stop().await;
}

/// The destination answers 500 to one batch for ever: that batch keeps its bytes and is tried on at
/// a slow pace, all else of live pipelines goes around it; where order is kept, nothing does.
#[tokio::test]
async fn a_batch_that_only_gets_500_is_gone_around_by_live_results_alone() {
    let backend = Backend::start(|_, seen| {
        let bad = |line: &String| line.contains("\"k25\"") || line.contains("\"k1025\"");
        if seen.lines().iter().any(bad) { Reply::Status(500, "oh") } else { Reply::Receipt }
    })
    .await;
    let outbox = Memory::new(lines(0..50)).with_live(lines(1000..1300));
    let mut config = quick(backend.url());
    config.results_max = 10;
    config.breaker_failures = 3;
    config.backoff_max = Duration::from_millis(200);
    let running = Running::start(config, &outbox);
    let stuck = [20..30, 300..300];
    eventually("all but one batch", || running.outbox.live_pending() == stuck).await;
    outbox.put_live(lines(1300..1305));
    let stuck = [20..30, 305..305];
    eventually("new ones too", || running.outbox.live_pending() == stuck).await;
    assert_eq!(outbox.confirmed(), 20, "no ordered result overtakes");
    let before = Instant::now();
    let tries =
        |from: usize| backend.seen()[from..].iter().filter(|seen| live_range(seen.key()).is_some()).count();
    let from = backend.seen().len();
    eventually("tried on", || tries(from) >= 3).await;
    assert!(before.elapsed() > Duration::from_millis(150), "at a slow pace: {:?}", before.elapsed());
    let tries: Vec<_> = backend.seen().into_iter().filter(|seen| seen.key().ends_with("/20-29")).collect();
    for key in [key(20, 29), format!("gw-1/{LIVE_EPOCH}/20-29")] {
        let same: Vec<_> = tries.iter().filter(|seen| seen.key() == key).cloned().collect();
        assert_same(&same, same.len());
        assert!(same.len() >= 3);
    }
    assert_eq!(outbox.dead(), [], "never dead-lettered for 5xx");
    running.stop().await;
}

/// In an outage all fail alike: it must not use up the stretches.
#[tokio::test]
async fn an_outage_leaves_room_to_overtake_its_backlog() {
    let backend = Backend::start(|n, _| if n < 60 { Reply::Status(503, "") } else { Reply::Receipt }).await;
    let outbox = Memory::new(lines(0..5)).with_live(lines(0..400));
    let mut config = quick(backend.url());
    config.results_max = 10;
    config.breaker_failures = 3;
    let running = Running::start(config, &outbox);
    eventually("in the outage", || backend.seen().len() >= 50).await;
    let stretches = running.outbox.live_pending();
    assert_eq!(stretches.len(), GONE_AROUND_MAX, "{stretches:?}");
    assert!(stretches[..3].iter().all(|it| it.end - it.start == 10), "{stretches:?}");
    running.until_done(5).await;
    all_arrived(&running).await;
    let answered: Vec<_> = backend.seen()[60..].iter().filter_map(|seen| live_range(seen.key())).collect();
    check_each_once(&answered, 400);
    running.stop().await;
}

/// Random crashes of the output, random trouble of the destination, new results all the time.
#[tokio::test]
async fn each_result_is_confirmed_once_over_any_number_of_crashes() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut trouble = random.fork();
        let backend = Backend::start(move |_, _| match trouble.u8(..) {
            0..60 => Reply::Status(503, ""),
            60..70 => Reply::Status(429, ""),
            _ => Reply::Receipt,
        })
        .await;
        let outbox = Memory::new(lines(0..100)).with_live(lines(0..100));
        let (mut ordered, mut live) = (100, 100);
        for _ in 0..25 {
            let mut config = quick(backend.url());
            config.backoff_max = Duration::from_millis(2);
            config.results_max = random.usize(1..20);
            config.breaker_failures = 2;
            let mut running = Running::start(config, &outbox);
            for _ in 0..random.u32(0..4) {
                outbox.put_live(lines(live..live + 20));
                outbox.put(lines(ordered..ordered + 5));
                (live, ordered) = (live + 20, ordered + 5);
                tokio::time::sleep(Duration::from_micros(random.u64(0..8_000))).await;
            }
            running.task.shutdown().await;
        }
        let running = Running::start(quick(backend.url()), &outbox);
        running.until_done(ordered.into()).await;
        all_arrived(&running).await;
        running.stop().await;
        check_keys(&backend, LIVE_EPOCH, live.into());
        check_keys(&backend, EPOCH, ordered.into());
    }
}

/// Whatever was sent, a key always came with the same lines, no two keys share a result, and there
/// is one for each: so a receiver that counts each key once counts each result once.
#[track_caller]
fn check_keys(backend: &Backend, epoch: crate::flow::Epoch, count: Seq) {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let prefix = format!("gw-1/{epoch}/");
    for seen in backend.seen().iter().filter(|seen| seen.key().starts_with(&prefix)) {
        let known = keys.entry(seen.key().to_owned()).or_insert_with(|| seen.lines());
        assert_eq!(*known, seen.lines(), "{}", seen.key());
    }
    let ranges: Vec<_> = keys.keys().map(|key| key[prefix.len()..].split_once('-').unwrap()).collect();
    let ranges: Vec<(Seq, Seq)> =
        ranges.iter().map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap())).collect();
    check_each_once(&ranges, count);
}
