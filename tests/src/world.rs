//! A whole world around one agent, which goes on over any number of its deaths: devices that
//! publish without pause, a mosquitto, the agent, a proxy and the collector; and the verdict on
//! what came of all that was published.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_agent::fail;
use rumqttc::QoS;
use serde_json::Value;

use crate::agent::TestAgent;
use crate::broker::MosquittoBroker;
use crate::collector::{self, TestCollector};
use crate::image::DiskImage;
use crate::oracle::{self, TumblingWindows, compute};
use crate::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use crate::process::{freeze, memory};
use crate::proxy::FaultProxy;
use crate::publisher::TestPublisher;
use crate::resent::JournalEnd;

mod books;

pub use books::Reported;

/// Tells a program that plays several parts to be this one.
pub const ROLE: &str = "HEADWATER_TEST_ROLE";
/// How the pipeline `windows` cuts event time.
const WINDOWS: TumblingWindows = TumblingWindows { size: 1_000, lateness: 10_000, revise: 0 };
/// One message of so many is no reading.
const POISON_EVERY: u64 = 50;
/// Longest wait for all that was published to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// What has not arrived when an agent with nothing to do was quiet for so long never will.
const QUIET: Duration = Duration::from_secs(4);

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that each reading carries beside its value.
    pub padding: usize,
    /// The state folder is on a disk of its own, of that size, whose power can be cut. Needs root.
    pub disk_bytes: Option<u64>,
    /// What plays agent and collector, told by [`ROLE`]; the programs built with the tests without.
    pub player: Option<PathBuf>,
    /// What follows in the input's table: `, keep_alive = "2s"`.
    pub input: String,
    /// Lets the newest results overtake a backlog.
    pub live: bool,
    /// Of the proxies' chances.
    pub seed: u64,
    /// Rules of the agent's first start (`headwater_agent::fail`): it dies there, or is killed soon, and
    /// started again.
    pub first_start: Option<String>,
}

/// Devices, broker, agent, collector.
#[derive(Debug)]
pub struct World {
    /// Who publishes.
    pub devices: Devices,
    /// Who receives.
    pub host: Host,
    _broker: MosquittoBroker,
}

/// Publishers, and what they have published.
#[derive(Debug)]
pub struct Devices {
    publisher: TestPublisher,
    load: PlantLoad,
    poisons: u64,
}

/// The agent, its disk, and what arrived behind it.
#[derive(Debug)]
pub struct Host {
    // Before its disk: a process that runs keeps it busy.
    /// The agent.
    pub agent: TestAgent,
    /// Where results go.
    pub collector: TestCollector,
    /// Between the broker and the agent.
    pub mqtt: FaultProxy,
    /// Between the agent and the collector.
    pub http: FaultProxy,
    /// Longest time from a start to being ready.
    pub ready_max: Duration,
    /// Most memory that any life of the agent took, in bytes.
    pub rss_max: u64,
    disk: Option<DiskImage>,
    seen: Seen,
    broker_log: PathBuf,
    /// The journal before it was damaged, where it was.
    journal_end: Option<JournalEnd>,
}

/// What the collector has shown so far.
#[derive(Debug, Default)]
struct Seen {
    change: i64,
    /// Lines of each reading, forwarded one by one.
    each: HashMap<u64, Vec<Value>>,
    windows: Vec<Value>,
}

/// What came of all that was published.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Readings that did not arrive.
    pub lost: Vec<u64>,
    /// Readings that arrived more than once, or were never published.
    pub doubled: Vec<u64>,
    /// Windows whose results are missing or not what they must be, in words.
    pub windows: Vec<String>,
    /// What else is not as it must be, in words.
    pub wrong: Vec<String>,
    /// Messages in each pipeline's books twice, rightly: damage took what was stored of them, which is
    /// reported, and the broker sent them again, since it had no acknowledgement for them.
    pub resent: u64,
}

impl Verdict {
    /// Whether everything counted once.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_good_but_for(Reported::default())
    }

    /// Whether everything counted once, or is reported as lost.
    #[must_use]
    pub fn is_good_but_for(&self, reported: Reported) -> bool {
        self.lost.len() as u64 <= reported.readings
            && (self.windows.is_empty() || reported.windows)
            && self.doubled.is_empty()
            && self.wrong.is_empty()
    }
}

impl World {
    /// Starts all of it; the agent is ready.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(options: &Options) -> Self {
        let broker = MosquittoBroker::start_unsaved_logging_packets().await;
        let role = |part| options.player.clone().map(|program| (program, (ROLE, part)));
        let collector = TestCollector::start_as(role("collector")).await;
        let mqtt = FaultProxy::seeded(broker.port(), options.seed).await;
        let http = FaultProxy::seeded(collector.port(), options.seed).await;
        let live = if options.live { "priority = \"live\"\n" } else { "" };
        let small = if options.live { ", results_max = 50" } else { "" };
        let plan = ConfigBuilder::default()
            .input_with("plant", mqtt.port(), &[TOPICS], &options.input)
            .pipeline("windows", "plant", "central", &(plant::windowed(KEY, "1s", "10s", "0s") + live))
            .pipeline("each", "plant", "central", &(plant::forwarded(KEY) + live))
            .output(
                "central",
                &collector::url(http.port()),
                &format!(", timeout = \"2s\", backoff_max = \"1s\"{small}"),
            );
        let mut agent = TestAgent::prepare(plan.toml());
        if let Some((program, role)) = role("agent") {
            agent = agent.run_as(program, role);
        }
        let image = |bytes| DiskImage::make(agent.home(), "state", bytes).expect("images can be mounted");
        let disk = options.disk_bytes.map(image);
        let (ready_max, rss_max, seen) = (Duration::ZERO, 0, Seen::default());
        let broker_log = broker.log();
        let journal_end = None;
        let mut host =
            Host { agent, collector, mqtt, http, ready_max, rss_max, disk, seen, broker_log, journal_end };
        if let Some(rules) = &options.first_start {
            host.fail(rules);
            host.dies(Duration::from_secs(2)).await;
        }
        host.start().await;
        let publisher = TestPublisher::connect("plant", broker.port());
        let load = PlantLoad::new(10).padded(options.padding);
        Self { devices: Devices { publisher, load, poisons: 0 }, host, _broker: broker }
    }

    /// Lets the devices publish while something happens to the agent.
    pub async fn under_load<T>(&mut self, happens: impl AsyncFnOnce(&mut Host) -> T) -> T {
        let stop = AtomicBool::new(false);
        let happening = async {
            let happened = happens(&mut self.host).await;
            stop.store(true, Ordering::Relaxed);
            happened
        };
        tokio::join!(self.devices.publish(&stop), happening).1
    }

    /// Waits until all that was published has arrived, or a while, and judges.
    pub async fn settle(&mut self) -> Verdict {
        self.devices.publisher.confirmed().await;
        let deadline = Instant::now() + ARRIVAL;
        let (mut change, mut quiet_since) = (self.host.seen.change, Instant::now());
        loop {
            self.host.revive().await;
            self.host.look().await;
            let verdict = self.host.seen.judge(&self.devices.load);
            if change != self.host.seen.change || !self.host.is_idle().await {
                (change, quiet_since) = (self.host.seen.change, Instant::now());
            }
            let is_over = quiet_since.elapsed() > QUIET || Instant::now() > deadline;
            if verdict.is_good() || is_over {
                return self.books(verdict).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keeps the agent's home and the collector's on disk when this is dropped, or does not. What is not as
    /// it must be in the books also keeps the broker's log in the agent's home.
    pub fn keep(&mut self, keep: bool) {
        self.host.agent.keep(keep);
        self.host.collector.keep(keep);
    }

    /// Messages that are no readings; each becomes a dead letter of each pipeline.
    #[must_use]
    pub fn poisons(&self) -> u64 {
        self.devices.poisons
    }

    /// Readings published, and how many messages the broker has confirmed.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        (self.devices.load.published(), self.devices.publisher.confirmed_now())
    }
}

impl Devices {
    /// Some thousand messages a second until told to stop, half of them at QoS 2.
    async fn publish(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..5 {
                self.message().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn message(&mut self) {
        let number = self.load.published() + self.poisons;
        let qos = if number.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let (topic, payload) = if number.is_multiple_of(POISON_EVERY) {
            self.poisons += 1;
            ("plant/line-0/dev-0/telemetry".to_owned(), b"{\"id\":".to_vec())
        } else {
            self.load.reading()
        };
        self.publisher.publish_at(qos, &topic, payload).await;
    }
}

impl Host {
    /// Starts the agent and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(&mut self) {
        self.agent.spawn();
        self.ready().await;
    }

    /// Waits until it is ready, and takes the time.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        self.agent.ready().await;
        self.ready_max = self.ready_max.max(began.elapsed());
    }

    /// What a supervisor does: an agent that ended because it found damage is started again, to mend it.
    ///
    /// # Panics
    /// When it ended for another reason.
    pub async fn revive(&mut self) {
        if let Some(status) = self.agent.wait_for_exit(Duration::ZERO).await {
            let named = matches!(status.code(), Some(1 | 78)) && self.agent.log_text().contains("damaged");
            assert!(named, "the agent ended with {status} and named no damage");
            self.agent.spawn();
        }
    }

    /// Starts the agent with rules to fail by (`headwater_agent::fail`), and waits for nothing.
    pub fn fail(&mut self, rules: &str) {
        self.agent.environment([(fail::VARIABLE, rules.to_owned())]);
        self.agent.spawn();
        self.agent.environment([]);
    }

    /// Waits until the agent dies by itself, and kills it when that takes too long; whether it did.
    pub async fn dies(&mut self, within: Duration) -> bool {
        self.weigh();
        let died = self.agent.wait_for_exit(within).await.is_some();
        if !died {
            self.kill();
        }
        died
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.weigh();
        self.agent.kill9();
    }

    /// Cuts the power of the state folder's disk: what it has not flushed is gone, and the agent
    /// with it.
    ///
    /// # Panics
    /// When it has no disk of its own, or images cannot be copied and mounted.
    pub async fn cut(&mut self) {
        self.weigh();
        let disk = self.disk.as_mut().expect("a world with a disk");
        freeze(self.agent.id().expect("the agent runs")).await.expect("it can be stopped");
        let copy = disk.copy().expect("an image can be copied");
        self.agent.kill9();
        disk.replace(&copy).expect("images can be mounted");
    }

    /// Takes note of the most memory it had.
    fn weigh(&mut self) {
        let most = self.agent.id().and_then(|id| memory(id, "VmHWM").ok());
        self.rss_max = self.rss_max.max(most.unwrap_or(0));
    }

    /// Whether it is connected and has nothing on its way.
    async fn is_idle(&self) -> bool {
        let Ok(metrics) = self.agent.metrics().await else { return false };
        let sum = |metric: &str| metrics.all(metric).iter().sum::<f64>();
        sum("input_connected") == 1.0
            && sum("pipeline_lag_messages") == 0.0
            && sum("output_pending_results") == 0.0
    }

    /// Takes in what is new at the collector.
    async fn look(&mut self) {
        let (lines, change) = self.collector.changes(self.seen.change).await;
        self.seen.change = change;
        for line in lines {
            match line["value"]["id"].as_u64() {
                Some(id) if line["pipeline"] == "each" => self.seen.each.entry(id).or_default().push(line),
                _ => self.seen.windows.push(line),
            }
        }
    }
}

impl Seen {
    fn judge(&self, load: &PlantLoad) -> Verdict {
        let mut verdict = Verdict::default();
        for (id, reading) in (0..).zip(load.readings()) {
            match self.each.get(&id).map(Vec::as_slice) {
                None => verdict.lost.push(id),
                Some([line]) => {
                    let same = line["key"] == *reading.key
                        && line["value"]["ts"].as_u64() == Some(reading.time)
                        && line["value"]["temperature"].as_f64() == Some(reading.value);
                    if !same {
                        verdict.wrong.push(format!("reading {id} is another: {line}"));
                    }
                }
                Some(_) => verdict.doubled.push(id),
            }
        }
        verdict.doubled.extend(self.each.keys().filter(|id| **id >= load.published()));
        if verdict.lost.is_empty() || verdict.lost.len() < 1_000 {
            let expected = compute(load.readings(), WINDOWS).windows;
            match catch_unwind(AssertUnwindSafe(|| plant::windows(&self.windows, "windows"))) {
                Ok(got) => verdict.windows.extend(oracle::differences(&expected, &got)),
                Err(_) => verdict.wrong.push("a window came with two values".to_owned()),
            }
        }
        verdict
    }
}
