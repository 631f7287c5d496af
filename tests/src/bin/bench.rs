//! The costs of the agent, end to end: `cargo run --release -p headwater-tests --bin bench -- --help`.
//!
//! The same load goes in turn to a bare rumqttc subscriber that acknowledges by itself and to the agent with
//! a JSON transform, a keyed window of one second in WASM, and acknowledgement after the durable append. Both
//! are processes of their own, so that the kernel can tell the CPU time of each; the bench runs as either of
//! them when a variable tells it to. Only ratios count: every other number depends on the machine.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use headwater_agent::flow::Timestamp;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::{MosquittoBroker, RumqttdBroker};
use headwater_tests::destination::FakeDestination;
use headwater_tests::plant::{ConfigBuilder, TOPICS};
use headwater_tests::process::{eventually, memory};
use headwater_tests::publisher::TestPublisher;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

/// The variable with the role of a child of the bench.
const ROLE: &str = "HEADWATER_BENCH_ROLE";
const LONG: Duration = Duration::from_secs(600);

#[derive(Debug, Parser)]
struct BenchOptions {
    /// Readings of one turn.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Devices that they come from.
    #[arg(long, default_value_t = 100)]
    keys: u64,
    /// Bytes of a reading.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Turns; the median ratio is the result.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// The brokers: `mosquitto`, `rumqttd`, or both.
    #[arg(long, value_delimiter = ',', default_value = "mosquitto,rumqttd")]
    brokers: Vec<String>,
    /// Devices at which memory is measured.
    #[arg(long, default_value_t = 10_000)]
    memory_keys: u64,
    /// A stripped release build of the agent, for its size.
    #[arg(long)]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("agent") => return headwater::main(),
        Ok("subscriber") => return done(subscribe()),
        _ if headwater_tests::agent::is_module_compiler() => return headwater::main(),
        _ => {}
    }
    let options = BenchOptions::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    done(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench(&options))))
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: &BenchOptions) -> anyhow::Result<()> {
    let BenchOptions { messages, keys, size, .. } = options;
    println!("{messages} readings of {size} bytes from {keys} devices, QoS 1, each turn\n");
    for name in &options.brokers {
        compare(name, options).await?;
    }
    memory_and_start(options).await?;
    if let Some(binary) = &options.binary {
        let bytes = std::fs::metadata(binary).with_context(|| binary.display().to_string())?.len();
        println!("binary {:.1} MB", bytes as f64 / 1e6);
    }
    Ok(())
}

/// Compares the two, turn by turn.
async fn compare(name: &str, options: &BenchOptions) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    for turn in 0..options.turns {
        let bare = bare(&FreshBroker::start(name).await?, options).await?;
        println!("{name} {turn} bare subscriber  {bare}");
        let agent = agent(&FreshBroker::start(name).await?, options).await?;
        println!("{name} {turn} agent            {agent}");
        ratios.push(agent.rate() / bare.rate());
    }
    ratios.sort_by(f64::total_cmp);
    println!("{name} ratio of the rates, median of {}: {:.2}\n", ratios.len(), ratios[ratios.len() / 2]);
    Ok(())
}

/// A broker for one turn of one of the two, because a session left over would queue the messages of the
/// other.
enum FreshBroker {
    Mosquitto(MosquittoBroker),
    Rumqttd(RumqttdBroker),
}

impl FreshBroker {
    async fn start(name: &str) -> anyhow::Result<Self> {
        match name {
            "mosquitto" => Ok(Self::Mosquitto(MosquittoBroker::start_unsaved().await)),
            "rumqttd" => Ok(Self::Rumqttd(RumqttdBroker::start().await)),
            other => anyhow::bail!("no broker {other}: mosquitto or rumqttd"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Mosquitto(broker) => broker.port(),
            Self::Rumqttd(broker) => broker.port(),
        }
    }
}

/// The costs of one turn.
struct BenchTurn {
    messages: u64,
    bytes: u64,
    elapsed: Duration,
    used: ProcessUsage,
}

impl BenchTurn {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for BenchTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.0} messages/s  {:>6.2} µs of CPU a message  {:>5.2} bytes written per byte of payload",
            self.rate(),
            self.used.cpu.as_micros() as f64 / self.messages as f64,
            self.used.written as f64 / self.bytes as f64,
        )
    }
}

async fn bare(broker: &FreshBroker, options: &BenchOptions) -> anyhow::Result<BenchTurn> {
    let port = broker.port();
    let mut child = ChildGuard(
        Command::new(std::env::current_exe()?)
            .env(ROLE, "subscriber")
            .args([port.to_string(), options.messages.to_string()])
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut lines = {
        use std::io::BufRead as _;
        std::io::BufReader::new(child.0.stdout.take().context("a pipe")?).lines()
    };
    lines.next().context("the subscriber ended")??;
    let before = ProcessUsage::of(child.0.id())?;
    let began = Instant::now();
    let bytes = publish(port, options.messages, options.keys, options.size).await;
    let lines = tokio::task::spawn_blocking(move || lines.next());
    tokio::time::timeout(LONG, lines).await??.context("the subscriber ended")??;
    let elapsed = began.elapsed();
    let used = ProcessUsage::of(child.0.id())?.since(&before);
    Ok(BenchTurn { messages: options.messages, bytes, elapsed, used })
}

async fn agent(broker: &FreshBroker, options: &BenchOptions) -> anyhow::Result<BenchTurn> {
    let port = broker.port();
    let destination = FakeDestination::start([]).await;
    let mut agent = at_home(port, &destination.url(), "1s")?;
    agent.resume().await;
    let id = agent.id().context("it runs")?;
    let before = ProcessUsage::of(id)?;
    let began = Instant::now();
    let bytes = publish(port, options.messages, options.keys, options.size).await;
    reached(&agent, "input_acknowledged_messages", "plant", options.messages).await;
    let elapsed = began.elapsed();
    // The work that it still does with them is part of their costs.
    reached(&agent, "pipeline_read_messages", "bench", options.messages).await;
    headwater_tests::ledger::wait_until_drained(&agent, "sink", LONG).await;
    let used = ProcessUsage::of(id)?.since(&before);
    let counted = agent.metrics().await?.of("pipeline_used_events", "bench");
    anyhow::ensure!(counted == options.messages, "only {counted} readings were used");
    agent.stop().await;
    Ok(BenchTurn { messages: options.messages, bytes, elapsed, used })
}

async fn reached(agent: &TestAgent, metric: &str, name: &str, value: u64) {
    eventually(&format!("{metric} {value}"), LONG, async || {
        let metrics = agent.metrics().await.ok()?;
        (metrics.of(metric, name) >= value).then_some(())
    })
    .await;
}

/// Measures memory with that many keys in open windows, and the time until a start with cached modules is
/// ready.
async fn memory_and_start(options: &BenchOptions) -> anyhow::Result<()> {
    let broker = MosquittoBroker::start_unsaved().await;
    let destination = FakeDestination::start([]).await;
    let keys = options.memory_keys;
    let messages = options.memory_keys * 4;
    let mut agent = at_home(broker.port(), &destination.url(), "1h")?;
    agent.resume().await;
    fill(&agent, broker.port(), messages, messages, options).await;
    say_memory("it compiled its modules", &agent, keys)?;
    agent.stop().await;

    let mut starts = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        agent.spawn();
        while !matches!(agent.get("/ready").await, Ok((200, _))) {
            anyhow::ensure!(began.elapsed() < LONG, "the agent does not become ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        starts.push(began.elapsed());
        agent.stop().await;
    }
    starts.sort();
    agent.resume().await;
    fill(&agent, broker.port(), messages, messages * 2, options).await;
    say_memory("modules cached", &agent, keys)?;
    agent.stop().await;
    println!(
        "start to ready {:.1} ms (median of {}, modules cached)",
        starts[2].as_secs_f64() * 1e3,
        starts.len()
    );
    Ok(())
}

async fn fill(agent: &TestAgent, port: u16, messages: u64, total: u64, options: &BenchOptions) {
    publish(port, messages, options.memory_keys, options.size).await;
    reached(agent, "pipeline_read_messages", "bench", total).await;
    headwater_tests::ledger::wait_until_drained(agent, "sink", LONG).await;
}

fn say_memory(when: &str, agent: &TestAgent, keys: u64) -> anyhow::Result<()> {
    let id = agent.id().context("it runs")?;
    let now = memory(id, "VmRSS")? as f64 / 1e6;
    let most = memory(id, "VmHWM")? as f64 / 1e6;
    println!("resident with {keys} keys {now:.1} MB, at its most {most:.1} MB ({when})");
    Ok(())
}

fn at_home(port: u16, url: &str, window: &str) -> anyhow::Result<TestAgent> {
    let plan = ConfigBuilder::default()
        .input("plant", port, &[TOPICS], "3.1.1")
        .pipeline(
            "bench",
            "plant",
            "sink",
            &format!(
                "key = \"{{topic[2]}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\n\
                 transform = [{{ module = \"modules/celsius.wasm\", settings = {{ field = \"temperature\" }} }}]\n\
                 window = {{ tumbling = {window:?}, lateness = \"1s\", idle = \"1s\" }}\n\
                 aggregate = {{ module = \"modules/stats.wasm\", settings = {{ fields = [\"temperature\"] }} }}"
            ),
        )
        .output("sink", url, "");
    Ok(TestAgent::prepare(plan.toml()).run_as(std::env::current_exe()?, (ROLE, "agent")))
}

/// Publishes as fast as the broker confirms, and returns the bytes of all payloads.
async fn publish(port: u16, messages: u64, keys: u64, size: usize) -> u64 {
    let publishers = [TestPublisher::connect("one", port), TestPublisher::connect("two", port)];
    let mut bytes = 0;
    for (id, publisher) in (0..messages).zip(publishers.iter().cycle()) {
        let time = Timestamp::now().0 / 1_000;
        let value = 70.0 + (id % 100) as f64 / 10.0;
        let head = format!(r#"{{"id":{id},"ts":{time},"temperature":{value},"pad":""#);
        let payload = format!(r#"{head}{}"}}"#, "x".repeat(size.saturating_sub(head.len() + 2)));
        bytes += payload.len() as u64;
        publisher.publish(&format!("plant/line/dev-{}/telemetry", id % keys), payload).await;
    }
    for publisher in &publishers {
        publisher.confirmed().await;
    }
    bytes
}

/// The CPU time and written bytes of a process.
#[derive(Clone, Copy, Debug)]
struct ProcessUsage {
    cpu: Duration,
    written: u64,
}

impl ProcessUsage {
    /// Reads proc(5): fields 14 and 15 of `stat` in ticks of 10 ms, and `write_bytes` of `io`.
    fn of(id: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let (_, rest) = stat.rsplit_once(") ").context("stat has a name")?;
        // The rest begins with field 3.
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("stat has its fields")?;
        let io = std::fs::read_to_string(format!("/proc/{id}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written = written.context("io has write_bytes")?.trim().parse()?;
        Ok(Self { cpu: Duration::from_millis((ticks.0 + ticks.1) * 10), written })
    }

    fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu - before.cpu, written: self.written - before.written }
    }
}

/// A child process that is killed when this is dropped.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs as the bare subscriber: nothing but rumqttc with its own acknowledgements. Prints `ready` once it is
/// subscribed and `done` once it has received the given number of readings, then waits to be killed.
#[tokio::main(flavor = "current_thread")]
async fn subscribe() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("port and number are the arguments");
    let port: u16 = argument()?.parse()?;
    let mut missing: u64 = argument()?.parse()?;
    let mut options = MqttOptions::new("bare", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 10);
    events.network_options.set_tcp_nodelay(true);
    client.subscribe(TOPICS, QoS::AtLeastOnce).await?;
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => say("ready")?,
            Event::Incoming(Packet::Publish(_)) => {
                missing -= 1;
                if missing == 0 {
                    say("done")?;
                }
            }
            _ => {}
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
