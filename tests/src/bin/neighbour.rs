//! The costs of a hostile module: `cargo run --release -p headwater-tests --bin neighbour -- --help`.
//!
//! For each kind it measures the time until the module is stopped, the memory that the host has gained after
//! a hundred of them, and the delay of the readings in the pipeline beside it. Turns with a well-behaved
//! module alternate with those, so that the noise of the machine is in both. The bench runs as the agent
//! itself when a variable tells it to.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::module::{CallMetrics, ModuleHost, ModuleLimits};
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::plant::ConfigBuilder;
use headwater_tests::process::{eventually, memory};
use headwater_tests::publisher::TestPublisher;

/// The variable with the role of a child of the bench.
const ROLE: &str = "HEADWATER_BENCH_ROLE";
const LONG: Duration = Duration::from_secs(120);
/// The limits of the hostile module, here and in the configuration.
const DEADLINE: Duration = Duration::from_millis(100);
const MEMORY_BYTES_MAX: usize = 16 << 20;
const OUTPUT_BYTES_MAX: usize = 1 << 20;
const STOPS: usize = 100;

const KINDS: [&str; 10] =
    ["panic", "unreachable", "loop", "memory", "stack", "frames", "output", "many", "log", "log-loop"];

#[derive(Debug, Parser)]
struct NeighbourOptions {
    /// Readings a second, to both pipelines.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// The module misbehaves at one of this many readings.
    #[arg(long, default_value_t = 40)]
    bad_every: u64,
    /// Length of a turn in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Turns of each of the two; all their readings count together.
    #[arg(long, default_value_t = 2)]
    turns: usize,
    /// The kinds to measure.
    #[arg(long, value_delimiter = ',', default_values = KINDS)]
    kinds: Vec<String>,
}

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("agent") => return headwater::main(),
        _ if headwater_tests::agent::is_module_compiler() => return headwater::main(),
        _ => {}
    }
    let options = NeighbourOptions::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench(&options)));
    ended.map_or_else(
        |error: anyhow::Error| {
            eprintln!("neighbour: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

async fn bench(options: &NeighbourOptions) -> anyhow::Result<()> {
    println!(
        "{} readings a second, one of {} bad; deadline {DEADLINE:?}, memory {} MiB, output {} MiB",
        options.rate,
        options.bad_every,
        MEMORY_BYTES_MAX >> 20,
        OUTPUT_BYTES_MAX >> 20
    );
    println!(
        "{:<12} {:>19} {:>12} {:>25} {:>25} {:>6}",
        "kind", "stopped after (max)", "host memory", "neighbour p50, p99 beside", "and in peace", "p99"
    );
    for kind in &options.kinds {
        let stop = tokio::task::block_in_place(|| stop(kind))?;
        let mut beside = LatencySamples::default();
        let mut peace = LatencySamples::default();
        for _ in 0..options.turns {
            peace.extend(turn("", options).await?);
            beside.extend(turn(kind, options).await?);
        }
        let ratio = beside.quantile(0.99).as_secs_f64() / peace.quantile(0.99).as_secs_f64();
        println!(
            "{kind:<12} {:>8.1} ({:>5.1}) ms {:>+8.1} MiB {beside:>25} {peace:>25} {ratio:>5.2}x",
            stop.median.as_secs_f64() * 1e3,
            stop.longest.as_secs_f64() * 1e3,
            stop.grown / f64::from(1 << 20),
        );
    }
    Ok(())
}

struct StopCosts {
    median: Duration,
    longest: Duration,
    /// The memory gained, in bytes.
    grown: f64,
}

/// Runs the module by itself: it misbehaves on each reading, many times.
fn stop(kind: &str) -> anyhow::Result<StopCosts> {
    let host = ModuleHost::new(None)?;
    let limits = ModuleLimits {
        deadline: DEADLINE,
        memory_bytes_max: MEMORY_BYTES_MAX,
        output_bytes_max: OUTPUT_BYTES_MAX,
        ..ModuleLimits::default()
    };
    let config = format!(r#"{{"do":{kind:?}}}"#);
    let path = Path::new(headwater_bundle::HOSTILE_PATH);
    let mut module = host.transform(path, &config, &limits, &CallMetrics::default())?;
    let payload = br#"{"bad":true}"#.to_vec();
    let event = Event { topic: "plant".to_owned(), key: "k".to_owned(), time: Timestamp(0), payload };
    // The memory of the first calls stays with the host.
    module.process(std::slice::from_ref(&event));
    let before = memory(std::process::id(), "VmRSS")? as f64;
    let mut times = Vec::new();
    for _ in 0..STOPS {
        let began = Instant::now();
        let (events, rejected) = module.process(std::slice::from_ref(&event));
        times.push(began.elapsed());
        let floods = kind == "log";
        anyhow::ensure!(
            rejected.len() == usize::from(!floods) && events.is_empty(),
            "{kind} was not refused"
        );
    }
    times.sort();
    let grown = memory(std::process::id(), "VmRSS")? as f64 - before;
    Ok(StopCosts { median: times[STOPS / 2], longest: times[STOPS - 1], grown })
}

/// The times from publishing a reading until it is at the destination.
#[derive(Default)]
struct LatencySamples(Vec<Duration>);

impl LatencySamples {
    fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort();
    }

    fn quantile(&self, at: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * at) as usize]
    }
}

impl std::fmt::Display for LatencySamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most] = [0.5, 0.99].map(|at| self.quantile(at).as_secs_f64() * 1e3);
        f.pad(&format!("{half:.1}, {most:.1} ms"))
    }
}

/// Runs one agent with the two pipelines and returns the latency of the neighbour.
async fn turn(kind: &str, options: &NeighbourOptions) -> anyhow::Result<LatencySamples> {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let timed = "key = \"k\"\ntime = { field = \"ts\", unit = \"ms\" }\ncommit_every = \"20ms\"\n";
    let celsius =
        "transform = [{ module = \"modules/celsius.wasm\", settings = { field = \"temperature\" } }]";
    let hostile = format!(
        "transform = [{{ module = \"modules/hostile.wasm\", settings = {{ do = {kind:?} }}, deadline = {:?}, \
         memory_bytes_max = \"{} MiB\", output_bytes_max = \"{} MiB\" }}]",
        format!("{}ms", DEADLINE.as_millis()),
        MEMORY_BYTES_MAX >> 20,
        OUTPUT_BYTES_MAX >> 20
    );
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant"], "3.1.1")
        .output("central", &destination.url(), ", linger = \"10ms\"")
        .output("elsewhere", &destination.url(), "")
        .pipeline("neighbour", "plant", "central", &format!("{timed}{celsius}"))
        .pipeline("hostile", "plant", "elsewhere", &format!("{timed}{hostile}"));
    let mut agent = TestAgent::prepare(plan.toml()).run_as(std::env::current_exe()?, (ROLE, "agent"));
    agent.resume().await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut sent = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(options.rate)?);
    let start = Timestamp::now().0 / 1_000;
    for id in 0..options.rate * options.seconds {
        ticks.tick().await;
        let bad = id % options.bad_every == options.bad_every - 1;
        let time = start + id;
        let reading = format!(r#"{{"id":{id},"ts":{time},"temperature":68.0,"bad":{bad}}}"#);
        sent.insert(id, Instant::now());
        publisher.publish("plant", reading).await;
    }
    let latency = eventually("the neighbour's readings", LONG, async || {
        let arrived = arrivals(&destination);
        (arrived.len() == sent.len())
            .then(|| LatencySamples(sent.iter().map(|(id, at)| arrived[id].duration_since(*at)).collect()))
    })
    .await;
    Ok(latency)
}

/// Returns the arrival of each reading of the neighbour.
fn arrivals(destination: &FakeDestination) -> BTreeMap<u64, Instant> {
    let mut arrived = BTreeMap::new();
    for request in destination.requests().iter().filter(|request| request.confirmed) {
        for line in request.lines.iter().filter(|line| line["pipeline"] == "neighbour") {
            if let Some(id) = line["value"]["id"].as_u64() {
                arrived.insert(id, request.at);
            }
        }
    }
    arrived
}
