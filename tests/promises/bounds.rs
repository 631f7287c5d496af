//! The destination is away for longer than the quotas reach: each policy keeps what it promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater::store::MARGIN_BYTES;
use headwater_tests::agent::Agent;
use headwater_tests::backend::Backend;
use headwater_tests::broker::Broker;
use headwater_tests::plant::{KEY, Plan, TOPICS, forwarded};
use headwater_tests::publisher::Publisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// Of `[output.NAME]`, and of `[agent]`, the least there is.
const SMALL: &str = "outbox = { bytes_max = \"16 MiB\" }\n";

/// A reading with so much beside it that some thousands fill a quota.
fn payload(id: u64, millis: u64) -> Vec<u8> {
    let filling = "x".repeat(3_600);
    json!({ "id": id, "ts": 1_767_225_600_000 + millis, "filling": filling }).to_string().into_bytes()
}

/// The output's table `outbox` follows the inline table that the plan writes.
fn output(plan: Plan, name: &str, backend: &Backend) -> Plan {
    plan.output(name, &backend.url(), ", results_max = 1000, backoff_max = \"1s\"").more(SMALL)
}

/// How many results the reports of this kind tell of.
fn reported(lines: &[Value], kind: &str) -> u64 {
    reported_at(lines, kind, "outbox")
}

/// How many records of this stage the reports of this kind tell of.
fn reported_at(lines: &[Value], kind: &str, stage: &str) -> u64 {
    let reports = lines.iter().filter(|line| line["report"]["kind"] == kind);
    let reports = reports.filter(|line| line["report"]["stage"] == stage);
    reports.map(|line| line["report"]["count"].as_u64().expect("a count")).sum()
}

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["value"]["id"].as_u64()).collect()
}

/// One input, three pipelines to three destinations that are all gone: the one that waits holds up
/// neither of the others.
#[tokio::test(flavor = "multi_thread")]
async fn each_policy_keeps_its_promise_while_the_destination_is_away() {
    let broker = Broker::start().await;
    let mut backends = [Backend::start([]).await, Backend::start([]).await, Backend::start([]).await];
    let mut plan = Plan::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for (policy, backend) in ["block", "drop-newest", "drop-oldest"].iter().zip(&backends) {
        let body = format!("{}when_full = {policy:?}\n", forwarded(KEY));
        plan = output(plan.pipeline(policy, "plant", policy, &body), policy, backend);
    }
    let agent = Agent::start(plan.toml()).await;
    let publisher = Publisher::connect("plant", broker.port());
    for backend in &mut backends {
        backend.gone().await;
    }
    let count = 6_500;
    for id in 0..count {
        publisher.publish("plant/line-0/dev-0/telemetry", payload(id, id)).await;
    }
    publisher.confirmed().await;
    agent.reaches("pipeline_blocked", "block", 1, SOON).await;
    for pipeline in ["drop-newest", "drop-oldest"] {
        agent.reaches("pipeline_read_messages", pipeline, count, SOON).await;
        agent.reaches("pipeline_dropped_results", pipeline, 1, SOON).await;
    }
    let metrics = agent.metrics().await.unwrap();
    assert!(metrics.of("pipeline_read_messages", "block") < count);
    assert_eq!(metrics.of("pipeline_dropped_results", "block"), 0);
    for output in ["block", "drop-newest", "drop-oldest"] {
        let log = format!("outbox/{output}");
        let (bytes, quota) = (metrics.of("store_bytes", &log), metrics.of("store_quota_bytes", &log));
        assert_eq!(quota, 16 * MIB);
        assert!(bytes > 10 * MIB && bytes < quota + 4 * MIB, "{bytes} bytes in {log}");
    }

    for backend in &mut backends {
        backend.back().await;
    }
    for pipeline in ["block", "drop-newest", "drop-oldest"] {
        agent.reaches("pipeline_read_messages", pipeline, count, SOON).await;
        headwater_tests::ledger::drained(&agent, pipeline, SOON).await;
    }
    let all: Vec<u64> = (0..count).collect();
    assert_eq!(ids(&backends[0].accepted()), all, "block loses nothing and keeps the order");
    let newest = received(&backends[1]);
    let oldest = received(&backends[2]);
    for (lines, pipeline) in [(&newest, "drop-newest"), (&oldest, "drop-oldest")] {
        let (ids, dropped) = (ids(lines), reported(lines, "dropped"));
        assert!(ids.is_sorted_by(|a, b| a < b), "order is kept");
        assert_eq!(ids.len() as u64 + dropped, count, "{pipeline}: received and reported are all");
        assert_eq!(agent.metrics().await.unwrap().of("pipeline_dropped_results", pipeline), dropped);
    }
    assert_eq!(ids(&newest)[..100], all[..100], "the oldest were kept");
    assert_eq!(ids(&oldest).last(), all.last(), "the newest were kept");
    assert!(ids(&oldest)[..2_000].iter().any(|id| *id > 2_000), "older ones made room");
}

/// As [`Backend::accepted`], but a batch need not follow the last: numbers of what was dropped are
/// never sent.
fn received(backend: &Backend) -> Vec<Value> {
    let confirmed: BTreeMap<u64, Vec<Value>> = backend
        .attempts()
        .into_iter()
        .filter(|attempt| attempt.confirmed)
        .map(|attempt| (attempt.key.first, attempt.lines))
        .collect();
    confirmed.into_values().flatten().collect()
}

/// Windows of a reading each; far more than the outbox holds. Merged, all of them fit.
#[tokio::test(flavor = "multi_thread")]
async fn coarsening_keeps_every_reading_in_windows_that_do_not_overlap() {
    let broker = Broker::start().await;
    let mut backend = Backend::start([]).await;
    let fields: Vec<String> = (0..24).map(|field| format!("field-{field}")).collect();
    let body = format!(
        "key = {KEY:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n\
         window = {{ tumbling = \"10ms\" }}\nwhen_full = \"coarsen\"\n\
         aggregate = {{ module = \"modules/stats.wasm\", config = {{ fields = {fields:?} }} }}\n"
    );
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &body);
    let plan = output(plan, "central", &backend);
    let agent = Agent::start(plan.toml()).await;
    let publisher = Publisher::connect("plant", broker.port());
    backend.gone().await;
    let count = 7_000;
    for id in 0..=count {
        let mut reading: serde_json::Map<String, Value> =
            fields.iter().map(|field| (field.clone(), json!(id as f64 / 7.0))).collect();
        reading.insert("ts".to_owned(), json!(1_767_225_600_000 + id * 10));
        let topic = format!("plant/line-0/dev-{}/telemetry", id % 2);
        publisher.publish(&topic, serde_json::to_vec(&reading).unwrap()).await;
    }
    publisher.confirmed().await;
    agent.reaches("pipeline_read_messages", "windows", count + 1, SOON).await;
    agent.reaches("pipeline_coarsened_results", "windows", 1, SOON).await;
    backend.back().await;
    headwater_tests::ledger::drained(&agent, "central", SOON).await;

    let lines = received(&backend);
    let metrics = agent.metrics().await.unwrap();
    assert_eq!(metrics.of("pipeline_dropped_results", "windows"), 0, "merging was enough");
    let coarsened = reported(&lines, "coarsened");
    assert_eq!(metrics.of("pipeline_coarsened_results", "windows"), coarsened);
    let windows: Vec<&Value> = lines.iter().filter(|line| line["window"].is_object()).collect();
    assert_eq!(windows.len() as u64 + coarsened, metrics.of("pipeline_results", "windows"));
    let counts = windows.iter().map(|line| line["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), metrics.of("pipeline_used_events", "windows") - 1, "one window is open");
    let mut spans: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for line in &windows {
        let span = |name: &str| line["window"][name].as_str().unwrap();
        spans.entry(line["key"].as_str().unwrap()).or_default().push((span("start"), span("end")));
        let value = &line["value"]["field-3"];
        assert_eq!(value["count"], line["count"], "the value is of all readings: {line}");
    }
    for (key, spans) in &mut spans {
        let parsed = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let spans: Vec<_> = spans.iter().map(|(start, end)| (parsed(start), parsed(end))).collect();
        assert!(spans.iter().any(|(start, end)| end.duration_since(*start).as_millis() > 10));
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "windows of {key} overlap: {pair:?}");
        }
    }
}

/// Looks all the time at what the store takes on the disk.
struct Watch {
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<BTreeMap<String, u64>>,
}

impl Watch {
    fn start(store: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let looking = std::thread::spawn(move || {
            let mut most = BTreeMap::<String, u64>::new();
            while !stopped.load(Ordering::Acquire) {
                for (log, bytes) in taken(&store) {
                    let most = most.entry(log).or_default();
                    *most = bytes.max(*most);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        Self { stop, looking }
    }

    /// No log, all of 16 MiB, ever took more than that and the stated margin; what is beside them is little.
    fn ends_within_the_quotas(self, logs: usize) {
        self.stop.store(true, Ordering::Release);
        let most = self.looking.join().expect("it looks until it is told to stop");
        eprintln!("at most: {most:?}");
        let is_log = |name: &str| name == "journal" || name == "dead-letters" || name.starts_with("outbox/");
        let mut full = 0;
        for (name, bytes) in &most {
            match name.as_str() {
                log if is_log(log) => {
                    assert!(*bytes <= 16 * MIB + MARGIN_BYTES, "{log} took {bytes} bytes");
                    full += usize::from(*bytes > 14 * MIB);
                }
                "ballast" => assert_eq!(*bytes, 16 * MIB),
                beside => assert!(*bytes <= 2 * MIB, "{beside} took {bytes} bytes"),
            }
        }
        assert_eq!(full, logs, "so many were at their bound: {most:?}");
    }
}

/// Allocated bytes of each log, as `du` counts them.
fn taken(store: &Path) -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;
    let (mut taken, mut folders) = (BTreeMap::new(), vec![store.to_owned()]);
    while let Some(folder) = folders.pop() {
        // What is gone meanwhile takes nothing.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            let path = entry.path();
            let inside = path.strip_prefix(store).expect("it was found there");
            let parts = if inside.starts_with("outbox") { 2 } else { 1 };
            let log: PathBuf = inside.iter().take(parts).collect();
            *taken.entry(log.display().to_string()).or_default() += metadata.blocks() * 512;
        }
    }
    taken
}

/// Three policies that give something up, and poison beside the readings: every log is filled several
/// times over. At no moment do they take more than their quotas and the stated margin, and afterwards
/// everything was delivered once, merged, is kept, or was reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_week_long_outage_stays_within_the_quotas_and_all_is_delivered_or_reported() {
    let broker = Broker::start().await;
    let policies = ["drop-oldest", "drop-newest", "coarsen"];
    let mut backends = [Backend::start([]).await, Backend::start([]).await, Backend::start([]).await];
    let fields: Vec<String> = (0..20).map(|field| format!("field-{field}")).collect();
    let mut plan = Plan::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for (policy, backend) in policies.iter().zip(&backends) {
        let mut body = format!("{}when_full = {policy:?}\n", forwarded(KEY));
        if *policy == "coarsen" {
            body += &format!(
                "window = {{ tumbling = \"10ms\" }}\n\
                 aggregate = {{ module = \"modules/stats.wasm\", config = {{ fields = {fields:?} }} }}\n"
            );
        }
        plan = output(plan.pipeline(policy, "plant", policy, &body), policy, backend);
    }
    let quota = "{ bytes_max = \"16 MiB\" }";
    let agent = Agent::start(&format!("journal = {quota}\ndead_letters = {quota}\n\n{}", plan.toml())).await;
    let publisher = Publisher::connect("plant", broker.port());
    for backend in &mut backends {
        backend.gone().await;
    }
    let watch = Watch::start(agent.state().join("store"));
    let (count, poison) = (18_000, 4_500);
    let filling = "x".repeat(3_000);
    for id in 0..count {
        let mut reading: serde_json::Map<String, Value> =
            fields.iter().map(|field| (field.clone(), json!(id as f64 / 7.0))).collect();
        reading.insert("id".to_owned(), json!(id));
        reading.insert("ts".to_owned(), json!(1_767_225_600_000 + id * 10));
        reading.insert("filling".to_owned(), json!(filling));
        let topic = format!("plant/line-0/dev-{}/telemetry", id % 2);
        publisher.publish(&topic, serde_json::to_vec(&reading).unwrap()).await;
        if id % (count / poison) == 0 {
            publisher.publish(&topic, format!("{id} {filling}").into_bytes()).await;
        }
    }
    publisher.confirmed().await;
    for policy in policies {
        agent.reaches("pipeline_read_messages", policy, count + poison, SOON).await;
    }
    for backend in &mut backends {
        backend.back().await;
    }
    for policy in policies {
        headwater_tests::ledger::drained(&agent, policy, SOON).await;
    }
    watch.ends_within_the_quotas(5);
    let mut given_up = 0;
    for (policy, backend) in policies.iter().zip(&backends) {
        // What was owed while there was no room comes with the next commit.
        let (metrics, lines, letters) =
            headwater_tests::process::eventually("the last reports", SOON, async || {
                let (metrics, lines) = (agent.metrics().await.ok()?, received(backend));
                let letters = reported_at(&lines, "dropped", "dead-letters");
                let is_told = letters == metrics.of("pipeline_given_up_letters", policy)
                    && reported(&lines, "dropped") == metrics.of("pipeline_dropped_results", policy);
                is_told.then_some((metrics, lines, letters))
            })
            .await;
        assert_eq!(metrics.of("pipeline_dead_letters", policy), poison, "{policy}");
        given_up += letters;
        let appended = metrics.of("store_appended_bytes", &format!("outbox/{policy}"));
        assert!(appended > 3 * 16 * MIB || *policy == "drop-newest", "{policy}: {appended}");
        let dropped = reported(&lines, "dropped");
        if *policy == "coarsen" {
            let windows = lines.iter().filter(|line| line["window"].is_object());
            let used: u64 = windows.map(|line| line["count"].as_u64().unwrap()).sum();
            assert_eq!((used, dropped), (count - 1, 0), "all but one in an open window");
            continue;
        }
        let ids = ids(&lines);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{policy}: each once");
        assert_eq!(ids.len() as u64 + dropped, count, "{policy}: each is delivered or reported");
        assert!(dropped > count / 2, "{policy}: {dropped} is several times what it holds");
    }
    headwater_tests::ledger::holds(&agent).await;
    let mut agent = agent;
    let kept = agent.dead_letters().await.len() as u64;
    assert_eq!(kept + given_up, poison * policies.len() as u64, "each letter is kept or reported");
}

/// The one that loses nothing: outbox and journal are full, the rest stays with the broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_week_long_outage_under_block_stays_within_the_quotas_and_all_is_delivered() {
    let (broker, mut backend) = (Broker::start().await, Backend::start([]).await);
    let plan = Plan::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    let plan = plan.pipeline("block", "plant", "central", &forwarded(KEY));
    let plan = output(plan, "central", &backend);
    let agent = Agent::start(&format!("journal = {{ bytes_max = \"16 MiB\" }}\n\n{}", plan.toml())).await;
    let publisher = Publisher::connect("plant", broker.port());
    let watch = Watch::start(agent.state().join("store"));
    let (mut published, each) = (0, 10_000);
    for _ in 0..3 {
        backend.gone().await;
        for id in published..published + each {
            publisher.publish("plant/line-0/dev-0/telemetry", payload(id, id)).await;
        }
        published += each;
        agent.reaches("pipeline_blocked", "block", 1, SOON).await;
        agent.reaches("store_blocked", "journal", 1, SOON).await;
        backend.back().await;
        agent.reaches("pipeline_read_messages", "block", published, SOON).await;
        headwater_tests::ledger::drained(&agent, "central", SOON).await;
    }
    watch.ends_within_the_quotas(2);
    headwater_tests::ledger::holds(&agent).await;
    assert_eq!(ids(&received(&backend)), (0..published).collect::<Vec<_>>(), "each once, in order");
}
