//! A whole world around one agent, which goes on over any number of its deaths: devices that publish without
//! pause, a mosquitto, the agent, proxies and the collector; and the verdict on the results of everything
//! published.

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

pub use books::ReportedLosses;

/// The variable that tells a program with several roles which one to take.
pub const ROLE: &str = "HEADWATER_TEST_ROLE";
/// The windows of the pipeline `windows`.
const WINDOWS: TumblingWindows = TumblingWindows { size: 1_000, lateness: 10_000, revise: 0 };
/// The number of messages of which one is no reading.
const POISON_EVERY: u64 = 50;
/// Longest wait for the arrival of everything published.
const ARRIVAL: Duration = Duration::from_secs(30);
/// The time for which an idle agent must be quiet until everything that has not arrived counts as lost.
const QUIET: Duration = Duration::from_secs(4);

/// The settings of a world.
#[derive(Clone, Debug, Default)]
pub struct WorldOptions {
    /// Bytes that each reading carries beside its value.
    pub padding: usize,
    /// Size in bytes of a disk of its own for the state folder, whose power can be cut. Needs root.
    pub disk_bytes: Option<u64>,
    /// The program that runs as agent and as collector, told by [`ROLE`]; `None` for the programs built with
    /// the tests.
    pub player: Option<PathBuf>,
    /// Text appended to the input's table: `, keep_alive = "2s"`.
    pub input: String,
    /// Lets the newest results overtake a backlog.
    pub live: bool,
    /// The seed of the proxies' random faults.
    pub seed: u64,
    /// The rules of the agent's first start (`headwater_agent::fail`): it dies of them or is killed soon, and
    /// is started again.
    pub first_start: Option<String>,
}

/// The devices, the broker, the agent and the collector.
#[derive(Debug)]
pub struct TestWorld {
    /// The devices that publish.
    pub devices: WorldDevices,
    /// The agent and all that is behind it.
    pub host: TestHost,
    _broker: MosquittoBroker,
}

/// The publishers, and everything that they have published.
#[derive(Debug)]
pub struct WorldDevices {
    publisher: TestPublisher,
    load: PlantLoad,
    poisons: u64,
}

/// The agent, its disk, and the results that arrived behind it.
#[derive(Debug)]
pub struct TestHost {
    // The agent is dropped before its disk, because a running process keeps the disk busy.
    /// The agent itself.
    pub agent: TestAgent,
    /// The collector that gets the results.
    pub collector: TestCollector,
    /// The proxy between the broker and the agent.
    pub mqtt: FaultProxy,
    /// The proxy between the agent and the collector.
    pub http: FaultProxy,
    /// Longest time from a start until the agent was ready.
    pub ready_max: Duration,
    /// Most memory of the agent in any of its runs, in bytes.
    pub rss_max: u64,
    disk: Option<DiskImage>,
    seen: ArrivedLines,
    broker_log: PathBuf,
    /// The journal as it was before the last damage, if there was any.
    journal_end: Option<JournalEnd>,
}

/// The lines that the collector has shown so far.
#[derive(Debug, Default)]
struct ArrivedLines {
    change: i64,
    /// The lines of each reading, sent one by one.
    each: HashMap<u64, Vec<Value>>,
    windows: Vec<Value>,
}

/// The verdict on the results of everything published.
#[derive(Clone, Debug, Default)]
pub struct WorldVerdict {
    /// The readings that did not arrive.
    pub lost: Vec<u64>,
    /// The readings that arrived more than once, or were never published.
    pub doubled: Vec<u64>,
    /// The windows whose results are missing or wrong, as text.
    pub windows: Vec<String>,
    /// All other faults, as text.
    pub wrong: Vec<String>,
    /// The number of messages that each pipeline rightly counts twice: damage took them from the journal,
    /// which is reported, and the broker sent them again, because it had no acknowledgement for them.
    pub resent: u64,
}

impl WorldVerdict {
    /// Returns true if everything counted once.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_good_but_for(ReportedLosses::default())
    }

    /// Returns true if everything counted once or is reported as lost.
    #[must_use]
    pub fn is_good_but_for(&self, reported: ReportedLosses) -> bool {
        self.lost.len() as u64 <= reported.readings
            && (self.windows.is_empty() || reported.windows)
            && self.doubled.is_empty()
            && self.wrong.is_empty()
    }
}

impl TestWorld {
    /// Starts all parts, and returns once the agent is ready.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(options: &WorldOptions) -> Self {
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
        let mut host = TestHost {
            agent,
            collector,
            mqtt,
            http,
            ready_max: Duration::ZERO,
            rss_max: 0,
            disk,
            seen: ArrivedLines::default(),
            broker_log: broker.log(),
            journal_end: None,
        };
        if let Some(rules) = &options.first_start {
            host.fail(rules);
            host.wait_for_death(Duration::from_secs(2)).await;
        }
        host.start().await;
        let publisher = TestPublisher::connect("plant", broker.port());
        let load = PlantLoad::new(10).padded(options.padding);
        Self { devices: WorldDevices { publisher, load, poisons: 0 }, host, _broker: broker }
    }

    /// Lets the devices publish while `happens` does something to the agent.
    pub async fn under_load<T>(&mut self, happens: impl AsyncFnOnce(&mut TestHost) -> T) -> T {
        let stop = AtomicBool::new(false);
        let happening = async {
            let happened = happens(&mut self.host).await;
            stop.store(true, Ordering::Relaxed);
            happened
        };
        tokio::join!(self.devices.publish(&stop), happening).1
    }

    /// Waits until everything published has arrived, or long enough, and returns the verdict.
    pub async fn settle(&mut self) -> WorldVerdict {
        self.devices.publisher.confirmed().await;
        let deadline = Instant::now() + ARRIVAL;
        let mut change = self.host.seen.change;
        let mut quiet_since = Instant::now();
        loop {
            self.host.restart_after_damage().await;
            self.host.take_new_lines().await;
            let verdict = self.host.seen.judge(&self.devices.load);
            if change != self.host.seen.change || !self.host.is_idle().await {
                change = self.host.seen.change;
                quiet_since = Instant::now();
            }
            let is_over = quiet_since.elapsed() > QUIET || Instant::now() > deadline;
            if verdict.is_good() || is_over {
                return self.check_books(verdict).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keeps the homes of agent and collector on disk when this is dropped, if `keep` is true. If the counts
    /// are wrong, the broker's log is kept in the agent's home as well.
    pub fn keep(&mut self, keep: bool) {
        self.host.agent.keep(keep);
        self.host.collector.keep(keep);
    }

    /// The number of messages that are no readings. Each becomes a dead letter of each pipeline.
    #[must_use]
    pub fn poisons(&self) -> u64 {
        self.devices.poisons
    }

    /// Returns the number of readings published and the number of messages that the broker has confirmed.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        (self.devices.load.published(), self.devices.publisher.confirmed_now())
    }
}

impl WorldDevices {
    /// Publishes some thousand messages a second until `stop` is set, half of them at QoS 2.
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

impl TestHost {
    /// Starts the agent and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(&mut self) {
        self.agent.spawn();
        self.ready().await;
    }

    /// Waits until the agent is ready, and records the time that it took.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        self.agent.ready().await;
        self.ready_max = self.ready_max.max(began.elapsed());
    }

    /// Starts an agent that ended because it found damage again, as a supervisor does, so that it repairs its
    /// store.
    ///
    /// # Panics
    /// When it ended for another reason.
    pub async fn restart_after_damage(&mut self) {
        if let Some(status) = self.agent.wait_for_exit(Duration::ZERO).await {
            let named = matches!(status.code(), Some(1 | 78)) && self.agent.log_text().contains("damaged");
            assert!(named, "the agent ended with {status} and named no damage");
            self.agent.spawn();
        }
    }

    /// Starts the agent with rules to fail by (`headwater_agent::fail`), without waiting for anything.
    pub fn fail(&mut self, rules: &str) {
        self.agent.environment([(fail::VARIABLE, rules.to_owned())]);
        self.agent.spawn();
        self.agent.environment([]);
    }

    /// Waits until the agent dies by itself, and kills it if that takes too long. Returns true if it died.
    pub async fn wait_for_death(&mut self, within: Duration) -> bool {
        self.note_memory();
        let died = self.agent.wait_for_exit(within).await.is_some();
        if !died {
            self.kill();
        }
        died
    }

    /// Kills the agent with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.note_memory();
        self.agent.kill9();
    }

    /// Cuts the power of the disk of the state folder: all that was not flushed is lost, and the agent is
    /// killed.
    ///
    /// # Panics
    /// When it has no disk of its own, or images cannot be copied and mounted.
    pub async fn cut(&mut self) {
        self.note_memory();
        let disk = self.disk.as_mut().expect("a world with a disk");
        freeze(self.agent.id().expect("the agent runs")).await.expect("it can be stopped");
        let copy = disk.copy().expect("an image can be copied");
        self.agent.kill9();
        disk.replace(&copy).expect("images can be mounted");
    }

    /// Records the most memory that the agent has used.
    fn note_memory(&mut self) {
        let most = self.agent.id().and_then(|id| memory(id, "VmHWM").ok());
        self.rss_max = self.rss_max.max(most.unwrap_or(0));
    }

    /// Returns true if the agent is connected and has no work left.
    async fn is_idle(&self) -> bool {
        let Ok(metrics) = self.agent.metrics().await else { return false };
        let sum = |metric: &str| metrics.all(metric).iter().sum::<f64>();
        sum("input_connected") == 1.0
            && sum("pipeline_lag_messages") == 0.0
            && sum("output_pending_results") == 0.0
    }

    /// Takes the new lines from the collector.
    async fn take_new_lines(&mut self) {
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

impl ArrivedLines {
    fn judge(&self, load: &PlantLoad) -> WorldVerdict {
        let mut verdict = WorldVerdict::default();
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
