//! `headwater demo`: broker, sensors, agent and collector in one process, nothing to install.
//!
//! The real agent, configured by a real configuration file, between an embedded broker and the
//! real collector. It works in a temporary folder that goes with it. At its end a ledger is
//! drawn up from what each of the four counted on its own; it must balance.

mod broker;
mod ledger;
mod machine;
mod plant;
mod publisher;
mod table;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use headwater_collector::Collector;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use headwater_agent::agent::Agent;
use headwater_agent::config;
use headwater_agent::metrics::Metrics;
use ledger::Ledger;

/// The agent's name in the demo.
const AGENT: &str = "demo";
/// How long after the last reading windows may take to close and results to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// How long, how much, and how it is shown.
#[derive(Debug, Args)]
pub struct Options {
    /// Publish for this many seconds, then print the ledger: "20s". Without it: until ctrl-c.
    #[arg(long = "for", value_parser = seconds)]
    duration: Option<Duration>,
    /// Print the final ledger as JSON and nothing else.
    #[arg(long)]
    json: bool,
    /// Simulated devices.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Readings of each device per second.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    rate: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<u64>().ok();
    let seconds = number.filter(|seconds| (1..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "write 1s to 86400s".to_owned())
}

/// Runs the demo to its end.
///
/// # Errors
/// When something cannot be started, or the ledger does not balance.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("headwater-demo-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ledger = runtime.block_on(demo(options, folder.path()));
    runtime.shutdown_background();
    folder.close().context("failed to remove the demo's temporary folder")?;
    let ledger = ledger?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&ledger.to_json())?);
    } else {
        print!("{}", table::final_ledger(&ledger));
    }
    let faults = ledger.faults();
    anyhow::ensure!(faults.is_empty(), "the ledger does not balance: {}", faults.join("; "));
    Ok(())
}

async fn demo(options: &Options, folder: &Path) -> anyhow::Result<Ledger> {
    let broker = broker::start()?;
    let collector = Collector::open(headwater_collector::CollectorConfig::new(folder.join("collector.db")))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let page = listener.local_addr()?;
    let config = write_config(folder, broker, page)?;
    let agent = Agent::build(&config::load(&config)?).await?;
    let watched = Watched { agent: agent.metrics(), collector: collector.clone(), page };

    let mut services = JoinSet::new();
    let (stop_collector, collector_stopped) = oneshot::channel::<()>();
    let serving = collector.clone();
    services.spawn(async move {
        let stopped = async { drop(collector_stopped.await) };
        serving.serve(listener, stopped).await.map_err(anyhow::Error::from)
    });
    let (stop_agent, agent_stopped) = oneshot::channel::<()>();
    services.spawn(async move { Ok(agent.run(async { drop(agent_stopped.await) }).await?) });

    let ledger = tokio::select! {
        ledger = publish_and_settle(options, broker, &watched) => ledger?,
        Some(ended) = services.join_next() => {
            ended??;
            anyhow::bail!("a service of the demo ended early")
        }
    };
    drop(stop_agent);
    drop(stop_collector);
    while let Some(ended) = services.join_next().await {
        ended??;
    }
    Ok(ledger)
}

/// What the demo looks at.
struct Watched {
    agent: Arc<Metrics>,
    collector: Collector,
    page: SocketAddr,
}

async fn publish_and_settle(
    options: &Options,
    broker: SocketAddr,
    watched: &Watched,
) -> anyhow::Result<Ledger> {
    wait_for_subscription(watched).await?;
    let (stop, stopped) = watch::channel(false);
    let published = Arc::new(publisher::Published::default());
    let mut publishers = JoinSet::new();
    let plant = plant::Plant::new(options.devices, options.rate);
    publishers.spawn(publisher::run("plant", broker, plant, published.clone(), stopped.clone()));
    publishers.spawn(publisher::run(
        "machine",
        broker,
        machine::Machine::open()?,
        published.clone(),
        stopped,
    ));

    let shown = show_until_over(options, watched, &published);
    tokio::select! {
        shown = shown => shown?,
        Some(ended) = publishers.join_next() => {
            ended??;
            anyhow::bail!("a publisher of the demo ended early")
        }
    }
    stop.send_replace(true);
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    settle(watched, &published).await
}

async fn wait_for_subscription(watched: &Watched) -> anyhow::Result<()> {
    let input = watched.agent.input("sensors");
    let connected = async {
        while input.connected.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, connected).await.context("the agent did not reach the embedded broker")
}

async fn show_until_over(
    options: &Options,
    watched: &Watched,
    published: &publisher::Published,
) -> anyhow::Result<()> {
    let over = async {
        match options.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let mut table = table::Table::new(options.json, watched.page);
    let mut tick = tokio::time::interval(table.every());
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            _ = tick.tick() => table.show(&Ledger::take(watched, published).await?, watched).await?,
        }
    }
}

/// Waits until the last window has closed and every result has arrived, as far as they do.
async fn settle(watched: &Watched, published: &publisher::Published) -> anyhow::Result<Ledger> {
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    loop {
        let ledger = Ledger::take(watched, published).await?;
        if ledger.faults().is_empty() || tokio::time::Instant::now() > deadline {
            return Ok(ledger);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The configuration of the demo: what one would write for a plant.
fn write_config(
    folder: &Path,
    broker: SocketAddr,
    collector: SocketAddr,
) -> anyhow::Result<std::path::PathBuf> {
    std::fs::write(folder.join("celsius.wasm"), headwater_bundle::CELSIUS)?;
    std::fs::write(folder.join("stats.wasm"), headwater_bundle::STATS)?;
    let text = format!(
        r#"
[agent]
id = "{AGENT}"
state = "state"
admin = "127.0.0.1:0"

[input.sensors]
mqtt = {{ url = "mqtt://{broker}", topics = ["plant/+/telemetry", "machine/+"], qos = 1 }}

# Fahrenheit to Celsius by a WASM transform, then statistics per device by a WASM aggregate.
[pipeline.plant]
input = "sensors"
topics = ["plant/#"]
key = "{{topic[1]}}"
time = {{ field = "ts", unit = "ms" }}
transform = [{{ module = "celsius.wasm", settings = {{ field = "temperature" }} }}]
window = {{ tumbling = "2s", lateness = "1s", idle = "1s" }}
aggregate = {{ module = "stats.wasm", settings = {{ fields = ["temperature", "pressure"] }} }}
output = "collector"

# The machine this runs on.
[pipeline.machine]
input = "sensors"
topics = ["machine/#"]
key = "{{topic[1]}}"
window = {{ tumbling = "1s", idle = "1s" }}
aggregate = {{ module = "stats.wasm", settings = {{ fields = ["percent", "celsius"] }} }}
output = "collector"

[output.collector]
http = {{ url = "http://{collector}/v1/batches" }}
"#
    );
    let file = folder.join("headwater.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}
