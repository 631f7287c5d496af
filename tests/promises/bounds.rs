//! An outage of the destination longer than the quotas last: each policy keeps its promise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_agent::store::MARGIN_BYTES;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::plant::{ConfigBuilder, KEY, TOPICS, forwarded};
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// The smallest quotas that there are, for `[output.NAME]` and for `[agent]`.
const SMALL: &str = "outbox = { bytes_max = \"16 MiB\" }\n";

/// Returns a reading so large that some thousands fill a quota.
fn payload(id: u64, millis: u64) -> Vec<u8> {
    let filling = "x".repeat(3_600);
    json!({ "id": id, "ts": 1_767_225_600_000 + millis, "filling": filling }).to_string().into_bytes()
}

/// Adds an output; its table `outbox` follows the inline table that the builder writes.
fn add_output(plan: ConfigBuilder, name: &str, destination: &FakeDestination) -> ConfigBuilder {
    plan.output(name, &destination.url(), ", results_max = 1000, backoff_max = \"1s\"").more(SMALL)
}

/// Returns the number of results in the reports of this kind.
fn reported_results(lines: &[Value], kind: &str) -> u64 {
    reported_records(lines, kind, "outbox")
}

/// Returns the number of records of this stage in the reports of this kind.
fn reported_records(lines: &[Value], kind: &str, stage: &str) -> u64 {
    let reports = lines.iter().filter(|line| line["report"]["kind"] == kind);
    let reports = reports.filter(|line| line["report"]["stage"] == stage);
    reports.map(|line| line["report"]["count"].as_u64().expect("a count")).sum()
}

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["value"]["id"].as_u64()).collect()
}

/// Checks one input with three pipelines to three destinations that are all away: the pipeline that waits
/// does not hold up the others.
#[tokio::test(flavor = "multi_thread")]
async fn each_policy_keeps_its_promise_while_the_destination_is_away() {
    let broker = RumqttdBroker::start().await;
    let mut destinations = [
        FakeDestination::start([]).await,
        FakeDestination::start([]).await,
        FakeDestination::start([]).await,
    ];
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for (policy, destination) in ["block", "drop-newest", "drop-oldest"].iter().zip(&destinations) {
        let body = format!("{}when_full = {policy:?}\n", forwarded(KEY));
        plan = add_output(plan.pipeline(policy, "plant", policy, &body), policy, destination);
    }
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    for destination in &mut destinations {
        destination.stop_listening().await;
    }
    let count = 6_500;
    for id in 0..count {
        publisher.publish("plant/line-0/dev-0/telemetry", payload(id, id)).await;
    }
    publisher.confirmed().await;
    agent.wait_for_metric("pipeline_blocked", "block", 1, SOON).await;
    for pipeline in ["drop-newest", "drop-oldest"] {
        agent.wait_for_metric("pipeline_read_messages", pipeline, count, SOON).await;
        agent.wait_for_metric("pipeline_dropped_results", pipeline, 1, SOON).await;
    }
    let metrics = agent.metrics().await.unwrap();
    assert!(metrics.of("pipeline_read_messages", "block") < count);
    assert_eq!(metrics.of("pipeline_dropped_results", "block"), 0);
    for output in ["block", "drop-newest", "drop-oldest"] {
        let log = format!("outbox/{output}");
        let bytes = metrics.of("store_bytes", &log);
        let quota = metrics.of("store_quota_bytes", &log);
        assert_eq!(quota, 16 * MIB);
        assert!(bytes > 10 * MIB && bytes < quota + 4 * MIB, "{bytes} bytes in {log}");
    }

    for destination in &mut destinations {
        destination.listen_again().await;
    }
    for pipeline in ["block", "drop-newest", "drop-oldest"] {
        agent.wait_for_metric("pipeline_read_messages", pipeline, count, SOON).await;
        headwater_tests::ledger::wait_until_drained(&agent, pipeline, SOON).await;
    }
    let all: Vec<u64> = (0..count).collect();
    assert_eq!(ids(&destinations[0].accepted_lines()), all, "block loses nothing and keeps the order");
    let newest = confirmed_lines(&destinations[1]);
    let oldest = confirmed_lines(&destinations[2]);
    for (lines, pipeline) in [(&newest, "drop-newest"), (&oldest, "drop-oldest")] {
        let ids = ids(lines);
        let dropped = reported_results(lines, "dropped");
        assert!(ids.is_sorted_by(|a, b| a < b), "order is kept");
        assert_eq!(ids.len() as u64 + dropped, count, "{pipeline}: received and reported are all");
        assert_eq!(agent.metrics().await.unwrap().of("pipeline_dropped_results", pipeline), dropped);
    }
    assert_eq!(ids(&newest)[..100], all[..100], "the oldest were kept");
    assert_eq!(ids(&oldest).last(), all.last(), "the newest were kept");
    assert!(ids(&oldest)[..2_000].iter().any(|id| *id > 2_000), "older ones made room");
}

/// Returns the lines that [`FakeDestination::accepted_lines`] does, but allows gaps between batches: the
/// numbers of dropped results are never sent.
fn confirmed_lines(destination: &FakeDestination) -> Vec<Value> {
    let confirmed: BTreeMap<u64, Vec<Value>> = destination
        .requests()
        .into_iter()
        .filter(|request| request.confirmed)
        .map(|request| (request.key.first, request.lines))
        .collect();
    confirmed.into_values().flatten().collect()
}

/// Checks windows of one reading each, far more than the outbox holds, but merged all of them fit.
#[tokio::test(flavor = "multi_thread")]
async fn coarsening_keeps_every_reading_in_windows_that_do_not_overlap() {
    let broker = RumqttdBroker::start().await;
    let mut destination = FakeDestination::start([]).await;
    let fields: Vec<String> = (0..24).map(|field| format!("field-{field}")).collect();
    let body = format!(
        "key = {KEY:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n\
         window = {{ tumbling = \"10ms\" }}\nwhen_full = \"coarsen\"\n\
         aggregate = {{ module = \"modules/stats.wasm\", settings = {{ fields = {fields:?} }} }}\n"
    );
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &body);
    let plan = add_output(plan, "central", &destination);
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    destination.stop_listening().await;
    let count = 7_000;
    for id in 0..=count {
        let mut reading: serde_json::Map<String, Value> =
            fields.iter().map(|field| (field.clone(), json!(id as f64 / 7.0))).collect();
        reading.insert("ts".to_owned(), json!(1_767_225_600_000 + id * 10));
        let topic = format!("plant/line-0/dev-{}/telemetry", id % 2);
        publisher.publish(&topic, serde_json::to_vec(&reading).unwrap()).await;
    }
    publisher.confirmed().await;
    agent.wait_for_metric("pipeline_read_messages", "windows", count + 1, SOON).await;
    agent.wait_for_metric("pipeline_coarsened_results", "windows", 1, SOON).await;
    destination.listen_again().await;
    headwater_tests::ledger::wait_until_drained(&agent, "central", SOON).await;

    let lines = confirmed_lines(&destination);
    let metrics = agent.metrics().await.unwrap();
    assert_eq!(metrics.of("pipeline_dropped_results", "windows"), 0, "merging was enough");
    let coarsened = reported_results(&lines, "coarsened");
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

/// A task that measures the size of the store on the disk all the time.
struct DiskWatch {
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<BTreeMap<String, u64>>,
}

impl DiskWatch {
    fn start(store: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let looking = std::thread::spawn(move || {
            let mut most = BTreeMap::<String, u64>::new();
            while !stopped.load(Ordering::Acquire) {
                for (log, bytes) in allocated_bytes(&store) {
                    let most = most.entry(log).or_default();
                    *most = bytes.max(*most);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        Self { stop, looking }
    }

    /// Checks that no log, each with a quota of 16 MiB, was ever larger than that and the stated margin, and
    /// that there is little beside them.
    fn check_quotas(self, logs: usize) {
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

/// Returns the allocated bytes of each log, as `du` counts them.
fn allocated_bytes(store: &Path) -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;
    let mut taken = BTreeMap::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        // A file that was removed meanwhile takes nothing.
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

/// Checks three policies that give something up, with bad messages beside the readings, so that every log is
/// filled several times over. The logs are never larger than their quotas and the stated margin, and in the
/// end every record was delivered once, merged, kept, or reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_week_long_outage_stays_within_the_quotas_and_all_is_delivered_or_reported() {
    let broker = RumqttdBroker::start().await;
    let policies = ["drop-oldest", "drop-newest", "coarsen"];
    let mut destinations = [
        FakeDestination::start([]).await,
        FakeDestination::start([]).await,
        FakeDestination::start([]).await,
    ];
    let fields: Vec<String> = (0..20).map(|field| format!("field-{field}")).collect();
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    for (policy, destination) in policies.iter().zip(&destinations) {
        let mut body = format!("{}when_full = {policy:?}\n", forwarded(KEY));
        if *policy == "coarsen" {
            body += &format!(
                "window = {{ tumbling = \"10ms\" }}\n\
                 aggregate = {{ module = \"modules/stats.wasm\", settings = {{ fields = {fields:?} }} }}\n"
            );
        }
        plan = add_output(plan.pipeline(policy, "plant", policy, &body), policy, destination);
    }
    let quota = "{ bytes_max = \"16 MiB\" }";
    let agent =
        TestAgent::start(&format!("journal = {quota}\ndead_letters = {quota}\n\n{}", plan.toml())).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    for destination in &mut destinations {
        destination.stop_listening().await;
    }
    let watch = DiskWatch::start(agent.state().join("store"));
    let count = 18_000;
    let poison = 4_500;
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
        agent.wait_for_metric("pipeline_read_messages", policy, count + poison, SOON).await;
    }
    for destination in &mut destinations {
        destination.listen_again().await;
    }
    for policy in policies {
        headwater_tests::ledger::wait_until_drained(&agent, policy, SOON).await;
    }
    watch.check_quotas(5);
    let mut given_up = 0;
    for (policy, destination) in policies.iter().zip(&destinations) {
        // A report that had no room is sent with the next commit.
        let (metrics, lines, letters) =
            headwater_tests::process::eventually("the last reports", SOON, async || {
                let metrics = agent.metrics().await.ok()?;
                let lines = confirmed_lines(destination);
                let letters = reported_records(&lines, "dropped", "dead-letters");
                let is_told = letters == metrics.of("pipeline_given_up_letters", policy)
                    && reported_results(&lines, "dropped") == metrics.of("pipeline_dropped_results", policy);
                is_told.then_some((metrics, lines, letters))
            })
            .await;
        assert_eq!(metrics.of("pipeline_dead_letters", policy), poison, "{policy}");
        given_up += letters;
        let appended = metrics.of("store_appended_bytes", &format!("outbox/{policy}"));
        assert!(appended > 3 * 16 * MIB || *policy == "drop-newest", "{policy}: {appended}");
        let dropped = reported_results(&lines, "dropped");
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
    headwater_tests::ledger::check_ledger(&agent).await;
    let mut agent = agent;
    let kept = agent.dead_letters().await.len() as u64;
    assert_eq!(kept + given_up, poison * policies.len() as u64, "each letter is kept or reported");
}

/// Checks the policy that loses nothing: outbox and journal are full, and the rest stays with the broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_week_long_outage_under_block_stays_within_the_quotas_and_all_is_delivered() {
    let broker = RumqttdBroker::start().await;
    let mut destination = FakeDestination::start([]).await;
    let plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    let plan = plan.pipeline("block", "plant", "central", &forwarded(KEY));
    let plan = add_output(plan, "central", &destination);
    let agent = TestAgent::start(&format!("journal = {{ bytes_max = \"16 MiB\" }}\n\n{}", plan.toml())).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let watch = DiskWatch::start(agent.state().join("store"));
    let mut published = 0;
    let each = 10_000;
    for _ in 0..3 {
        destination.stop_listening().await;
        for id in published..published + each {
            publisher.publish("plant/line-0/dev-0/telemetry", payload(id, id)).await;
        }
        published += each;
        agent.wait_for_metric("pipeline_blocked", "block", 1, SOON).await;
        agent.wait_for_metric("store_blocked", "journal", 1, SOON).await;
        destination.listen_again().await;
        agent.wait_for_metric("pipeline_read_messages", "block", published, SOON).await;
        headwater_tests::ledger::wait_until_drained(&agent, "central", SOON).await;
    }
    watch.check_quotas(2);
    headwater_tests::ledger::check_ledger(&agent).await;
    assert_eq!(
        ids(&confirmed_lines(&destination)),
        (0..published).collect::<Vec<_>>(),
        "each once, in order"
    );
}
