//! The costs of a backlog: `cargo run --release -p headwater-tests --bin backlog -- --help`.
//!
//! A week without an uplink, or a pipeline that fell behind, leaves gigabytes in the state folder. This
//! measures the time from a start until new messages are acknowledged, the rate at which the backlog drains
//! beside live traffic, the acknowledgements of live messages meanwhile, and the memory used. Each is
//! compared with the same agent without a backlog, in the same run. The homes are made below `TMPDIR`, which
//! must be on the disk to measure.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use axum::routing::post;
use clap::Parser;
use headwater_agent::flow::{Message, MqttDelivery, Timestamp};
use headwater_agent::store::{Commit, Config, Outgoing, Quota, Store};
use headwater_tests::agent::TestAgent;
use headwater_tests::feeder::{FeedPlan, FeedSubscriber, FeedingBroker};
use headwater_tests::plant::{ConfigBuilder, TOPICS};
use headwater_tests::process::memory;
use headwater_wire::{BatchKey, EventResult, JsonText, Record};

/// The variable that tells a child to run as the agent.
const ROLE: (&str, &str) = ("HEADWATER_BACKLOG_ROLE", "agent");
/// The environment that deploy/headwater.service sets.
const UNIT: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "65536")];
/// A quota that no backlog reaches.
const QUOTA_GIB: u64 = 64;
const PIPELINE: &str = "bench";
const OUTPUT: &str = "sink";

#[derive(Debug, Parser)]
struct BacklogOptions {
    /// Bytes of the backlog, as readings or results.
    #[arg(long, default_value_t = 1_000_000_000)]
    bytes: u64,
    /// Bytes of a reading.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Live readings a second beside the drain.
    #[arg(long, default_value_t = 1_000)]
    live: u32,
    /// Readings of the burst whose acknowledgements are timed.
    #[arg(long, default_value_t = 100_000)]
    burst: u64,
}

fn main() -> ExitCode {
    if std::env::var(ROLE.0).is_ok() || headwater_tests::agent::is_module_compiler() {
        return headwater::main();
    }
    let options = BacklogOptions::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("backlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: &BacklogOptions) -> anyhow::Result<()> {
    acknowledgements(options).await?;
    let none = run(options, BacklogKind::None).await?;
    let journal = run(options, BacklogKind::Journal).await?;
    let outbox = run(options, BacklogKind::Outbox).await?;
    for (name, with) in [("journal", &journal), ("outbox", &outbox)] {
        println!(
            "{name}: first acknowledgement {:.1} times as late, live p99 {:.1} times, drain {:.0} times the live rate",
            with.first.as_secs_f64() / none.first.as_secs_f64(),
            with.live.p99.as_secs_f64() / none.live.p99.as_secs_f64(),
            with.drained_per_second / f64::from(options.live),
        );
    }
    Ok(())
}

/// Measures acknowledgements under the heaviest load that the agent takes, beside a plain sync of the same
/// disk.
async fn acknowledgements(options: &BacklogOptions) -> anyhow::Result<()> {
    let mut plant = BacklogPlant::new(BacklogKind::None).await?;
    let mut subscriber = plant.start().await?;
    let feed = FeedPlan { messages: options.burst, rate: None, in_flight_max: 1_000 };
    let begun = Instant::now();
    let times = LatencySummary::of(subscriber.feed(feed, |id| reading(id, options.size)).await?);
    let rate = options.burst as f64 / begun.elapsed().as_secs_f64();
    let bare = bare_syncs(plant.agent.home(), options.size)?;
    println!(
        "burst of {} with 1,000 in flight: {rate:.0} messages/s, acknowledged in {times}",
        options.burst
    );
    println!("bare fdatasync of 1,000 readings on the same disk: {bare}");
    println!(
        "p99 of an acknowledgement: {:.1} bare syncs' p99\n",
        times.p99.as_secs_f64() / bare.p99.as_secs_f64()
    );
    plant.agent.stop().await;
    Ok(())
}

fn bare_syncs(folder: &std::path::Path, size: usize) -> anyhow::Result<LatencySummary> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("bare"))?;
    let group = vec![b'x'; size * 1_000];
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        file.write_all(&group)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(LatencySummary::of(times))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BacklogKind {
    None,
    Journal,
    Outbox,
}

struct BacklogCosts {
    first: Duration,
    live: LatencySummary,
    drained_per_second: f64,
}

/// Starts an agent on the backlog and sends live traffic until the backlog has drained.
async fn run(options: &BacklogOptions, backlog: BacklogKind) -> anyhow::Result<BacklogCosts> {
    let mut plant = BacklogPlant::new(backlog).await?;
    let owed = plant.fill(options, backlog).await?;
    let begun = Instant::now();
    plant.agent.spawn();
    let mut subscriber = plant.feeder.subscriber().await?;
    let one = FeedPlan { messages: 1, rate: None, in_flight_max: 1 };
    subscriber.feed(one, |id| reading(id, options.size)).await?;
    let first = begun.elapsed();
    println!(
        "{backlog:?} backlog of {owed} records: {:.0} ms from start to the first acknowledgement",
        first.as_secs_f64() * 1e3
    );

    let id = plant.agent.id().context("it runs")?;
    let mut live = Vec::new();
    let mut resident_max = 0.0_f64;
    let draining = Instant::now();
    let drained = loop {
        let second =
            FeedPlan { messages: options.live.into(), rate: Some(options.live), in_flight_max: 1_000 };
        live.extend(subscriber.feed(second, |id| reading(id, options.size)).await?);
        resident_max = resident_max.max(memory(id, "VmRSS")? as f64 / 1e6);
        let left = plant.left(backlog).await?;
        if left <= u64::from(options.live) || draining.elapsed() > Duration::from_secs(600) {
            break owed.saturating_sub(left);
        }
    };
    let elapsed = draining.elapsed();
    let live = LatencySummary::of(live);
    let drained_per_second = drained as f64 / elapsed.as_secs_f64();
    println!(
        "  drained {drained} in {elapsed:.1?}, {drained_per_second:.0} records/s beside {} live readings/s",
        options.live
    );
    println!("  live readings acknowledged in {live}; at most {resident_max:.1} MB resident\n");
    plant.agent.stop().await;
    Ok(BacklogCosts { first, live, drained_per_second })
}

/// An agent between a feeding broker and a destination.
struct BacklogPlant {
    agent: TestAgent,
    feeder: FeedingBroker,
}

impl BacklogPlant {
    async fn new(backlog: BacklogKind) -> anyhow::Result<Self> {
        let feeder = FeedingBroker::start().await?;
        let sink = sink().await?;
        let body = match backlog {
            BacklogKind::Outbox => "key = \"{topic[2]}\"\n",
            _ => {
                "key = \"{topic[2]}\"\ntime = { field = \"ts\", unit = \"ms\" }\n\
                 window = { tumbling = \"1m\", lateness = \"1s\", idle = \"1s\" }\n\
                 aggregate = { module = \"modules/stats.wasm\", settings = { fields = [\"temperature\"] } }\n"
            }
        };
        let plan = ConfigBuilder::default()
            .input("plant", feeder.port()?, &[TOPICS], "3.1.1")
            .pipeline(PIPELINE, "plant", OUTPUT, body)
            .output(OUTPUT, &sink, "");
        let quota = format!("bytes_max = \"{QUOTA_GIB} GiB\"");
        let config = format!("journal = {{ {quota} }}\n{}outbox = {{ {quota} }}\n", plan.toml());
        let mut agent = TestAgent::prepare(&config).run_as(std::env::current_exe()?, ROLE);
        agent.environment(UNIT.map(|(name, value)| (name, value.to_owned())));
        Ok(Self { agent, feeder })
    }

    async fn start(&mut self) -> anyhow::Result<FeedSubscriber> {
        self.agent.spawn();
        self.feeder.subscriber().await
    }

    /// Leaves a backlog behind, as an agent that was stopped would have.
    async fn fill(&mut self, options: &BacklogOptions, backlog: BacklogKind) -> anyhow::Result<u64> {
        let subscriber = self.start().await?;
        self.agent.ready().await;
        self.agent.stop().await;
        drop(subscriber);
        let mut config = Config::new(self.agent.state().join("store"));
        let bytes_max = QUOTA_GIB << 30;
        config.quotas.journal.bytes_max = bytes_max;
        config.quotas.outboxes.insert(OUTPUT.to_owned(), Quota { bytes_max, age_max: None });
        let store = Store::open(&config, &Default::default())?;
        let records = options.bytes / options.size as u64;
        match backlog {
            BacklogKind::None => return Ok(0),
            BacklogKind::Journal => fill_journal(&store, records, options.size)?,
            BacklogKind::Outbox => fill_outbox(&store, records, options.size)?,
        }
        Ok(records)
    }

    /// Returns the number of records of the backlog that still wait.
    async fn left(&self, backlog: BacklogKind) -> anyhow::Result<u64> {
        let metrics = self.agent.metrics().await?;
        Ok(match backlog {
            BacklogKind::None => 0,
            BacklogKind::Journal => metrics.of("pipeline_lag_messages", PIPELINE),
            BacklogKind::Outbox => metrics.of("output_pending_results", OUTPUT),
        })
    }
}

/// Starts a destination that costs next to nothing: it confirms every batch.
#[expect(clippy::disallowed_methods, reason = "a bench has no wiring of its own")]
async fn sink() -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let take = async |headers: HeaderMap, _body: Bytes| {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        let key = BatchKey::from_header(key).map(|key| key.to_string()).unwrap_or_default();
        axum::Json(serde_json::json!({ "accepted": key, "watermark": null }))
    };
    let router = axum::Router::new().route("/", post(take)).layer(DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

fn fill_journal(store: &Store, records: u64, size: usize) -> anyhow::Result<()> {
    let input: Arc<str> = Arc::from("plant");
    let message = |id| {
        let (topic, payload) = reading(id, size);
        let delivery = MqttDelivery { qos: 1, packet: (id % 65_535) as u16 + 1, session: 1, retain: false };
        let input = Arc::clone(&input);
        let payload = payload.into();
        Message { input, topic, payload, properties: Vec::new(), received: Timestamp::now(), delivery }
    };
    for first in (0..records).step_by(1_000) {
        let group: Vec<_> = (first..records.min(first + 1_000)).map(message).collect();
        store.append(&group)?;
    }
    Ok(())
}

fn fill_outbox(store: &Store, records: u64, size: usize) -> anyhow::Result<()> {
    let checkpoint = store.checkpoint(PIPELINE)?;
    let position = checkpoint.position.context("the pipeline was started once")?;
    let line = |id| {
        let value = |pad| format!(r#"{{"id":{id},"pad":"{}"}}"#, "x".repeat(pad));
        let line = |value: String| {
            let value = JsonText::checked(value.as_bytes()).expect("it is JSON");
            let key = format!("dev-{}", id % 100).into();
            let time = Timestamp(1_767_225_600_000_000);
            let event = EventResult {
                agent: "edge-1".into(),
                pipeline: PIPELINE.into(),
                key,
                time,
                module: None,
                value,
            };
            Record::Event(event).to_line()
        };
        line(value(size.saturating_sub(line(value(0)).len())))
    };
    for first in (0..records).step_by(1_000) {
        store.commit(&Commit {
            pipeline: PIPELINE,
            position,
            progress: checkpoint.progress.clone(),
            results: Outgoing::new(OUTPUT, (first..records.min(first + 1_000)).map(line).collect()),
            ..Commit::default()
        })?;
    }
    Ok(())
}

fn reading(id: u64, size: usize) -> (String, Vec<u8>) {
    let head =
        format!(r#"{{"id":{id},"ts":{},"temperature":{},"pad":""#, Timestamp::now().0 / 1_000, id % 40);
    let payload = format!(r#"{head}{}"}}"#, "x".repeat(size.saturating_sub(head.len() + 2)));
    (format!("plant/line/dev-{}/telemetry", id % 100), payload.into_bytes())
}

/// A summary of many durations.
struct LatencySummary {
    median: Duration,
    p99: Duration,
    worst: Duration,
}

impl LatencySummary {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
        Self { median: at(0.5), p99: at(0.99), worst: times.last().copied().unwrap_or_default() }
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, p99, worst } = self;
        write!(f, "{median:.1?} (median), {p99:.1?} (p99), {worst:.1?} (worst)")
    }
}
