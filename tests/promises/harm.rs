//! Damage to the state folder: after a kill, the damage and a new start, everything published is delivered
//! once or in a report.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_ledger, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::publisher::TestPublisher;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const READINGS: u64 = 2_000;

/// An agent whose collector is away, and a broker.
struct DamageWorld {
    agent: TestAgent,
    collector: TestCollector,
    _broker: RumqttdBroker,
}

impl DamageWorld {
    /// Publishes everything and waits until it is acknowledged, and with `read` until its results are in the
    /// outbox as well; then kills the agent.
    async fn publish_and_kill(read: bool) -> Self {
        let broker = RumqttdBroker::start().await;
        let mut collector = TestCollector::start().await;
        collector.kill9();
        let plan = ConfigBuilder::default()
            .input("plant", broker.port(), &[TOPICS], "3.1.1")
            .pipeline("windows", "plant", "central", &plant::windowed(KEY, "10s", "10s", "0s"))
            .pipeline("each", "plant", "central", &plant::forwarded(KEY))
            .output("central", &collector.url(), "");
        let mut agent = TestAgent::prepare(plan.toml());
        if !read {
            let stall = [(headwater_agent::fail::VARIABLE, "pipeline.read=stall:600s".to_owned())];
            agent.environment(stall);
        }
        agent.resume().await;
        let publisher = TestPublisher::connect("plant", broker.port());
        let mut load = PlantLoad::new(5);
        for _ in 0..READINGS {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        agent.wait_for_metric("input_acknowledged_messages", "plant", READINGS, SOON).await;
        if read {
            agent.wait_for_metric("pipeline_used_events", "each", READINGS, SOON).await;
            agent.wait_for_metric("pipeline_read_messages", "windows", READINGS, SOON).await;
        }
        agent.kill9();
        agent.environment([]);
        Self { agent, collector, _broker: broker }
    }

    /// Starts the agent again and returns all that arrives. A start that finds damage only while it reads
    /// ends, and the next start repairs it.
    async fn restart_and_collect(&mut self) -> Vec<Value> {
        self.delivered_at_least(READINGS).await
    }

    async fn delivered_at_least(&mut self, readings: u64) -> Vec<Value> {
        self.collector.restart().await;
        let began = Instant::now();
        self.agent.spawn();
        eventually("the agent to deliver all there is", SOON, async || {
            if self.agent.wait_for_exit(Duration::from_millis(1)).await.is_some() {
                self.agent.spawn();
            }
            let metrics = self.agent.metrics().await.ok()?;
            let lag: f64 = metrics.all("pipeline_lag_messages").iter().sum();
            let read =
                metrics.of("pipeline_read_messages", "each") + metrics.of("pipeline_lost_messages", "each");
            (read >= readings && lag == 0.0 && metrics.of("output_pending_results", "central") == 0)
                .then_some(())
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(30), "it runs again after {:?}", began.elapsed());
        wait_until_drained(&self.agent, "central", SOON).await;
        let mut lines = self.collector.results().await;
        let answer = self.collector.get("/v1/reports").await.expect("the collector answers");
        lines.extend(answer["reports"].as_array().expect("a list").iter().cloned());
        lines
    }

    fn store(&self) -> PathBuf {
        self.agent.state().join("store")
    }
}

fn is_result(line: &Value) -> bool {
    line.get("report").is_none()
}

/// Returns the number of records that the reports of a stage say are lost to a pipeline, or to all.
fn lost_records(lines: &[Value], stage: &str, pipeline: Option<&str>) -> u64 {
    let reports = lines.iter().filter(|line| {
        line["report"]["stage"] == stage && line["pipeline"].as_str() == pipeline && line["agent"] == "edge-1"
    });
    reports.map(|line| line["report"]["count"].as_u64().expect("a count")).sum()
}

fn ids(lines: &[Value]) -> Vec<u64> {
    let results: Vec<Value> = lines.iter().filter(|line| is_result(line)).cloned().collect();
    let ids = plant::ids(&results, "each");
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "none twice");
    ids
}

/// Returns the segments of the log, oldest first.
fn segments(log: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(log).expect("a log").flatten();
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("j-"));
    let mut segments: Vec<_> = all.map(|entry| entry.path()).filter(is_segment).collect();
    segments.sort();
    segments
}

/// Zeros every fourth page that was written to the first segment of the log.
fn zero_pages(log: &Path) {
    let segment = segments(log).remove(0);
    let file = File::options().read(true).write(true).open(segment.join("db")).expect("a database");
    let bytes = fs::read(segment.join("db")).expect("a database");
    let pages = bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
    let used: Vec<_> = pages.map(|(index, _)| index as u64).collect();
    for page in used[used.len() / 2..].iter().step_by(4) {
        file.write_all_at(&[0; 4096], page * 4096).expect("a writable file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_journal_lost_is_reported_and_the_rest_arrives() {
    let mut world = DamageWorld::publish_and_kill(false).await;
    zero_pages(&world.store().join("journal"));
    let lines = world.restart_and_collect().await;
    let arrived = ids(&lines).len() as u64;
    let lost = lost_records(&lines, "journal", Some("each"));
    eprintln!("journal: {arrived} arrived, {lost} reported");
    assert_eq!(arrived + lost, READINGS);
    assert!(lost > 0 && arrived > 0, "{arrived} arrived, {lost} lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_knows_how_far_the_journal_went_each_pipeline_says_so() {
    let mut world = DamageWorld::publish_and_kill(false).await;
    let last = segments(&world.store().join("journal")).pop().expect("a segment").join("db");
    let bytes = fs::read(&last).expect("a database");
    let record = format!("\"id\":{}", READINGS / 2);
    let found = bytes.windows(record.len()).rposition(|found| found == record.as_bytes()).expect("a record");
    File::options()
        .write(true)
        .open(&last)
        .and_then(|file| file.set_len(found as u64))
        .expect("a writable file");
    fs::write(world.store().join("journal-marks"), "garbage").expect("a writable folder");
    let lines = world.delivered_at_least(1).await;
    check_ledger(&world.agent).await;
    let arrived = ids(&lines).len() as u64;
    assert!((1..READINGS).contains(&arrived), "{arrived}");
    for pipeline in ["each", "windows"] {
        let reported = lines.iter().any(|line| {
            line["pipeline"] == pipeline
                && line["report"]["stage"] == "journal"
                && line["report"]["count"].is_null()
        });
        assert!(reported, "{pipeline}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_outbox_lost_is_reported_and_the_rest_arrives() {
    let mut world = DamageWorld::publish_and_kill(true).await;
    zero_pages(&world.store().join("outbox/central"));
    let lines = world.restart_and_collect().await;
    let arrived = lines.iter().filter(|line| is_result(line)).count() as u64;
    let each = ids(&lines).len() as u64;
    let lost = lost_records(&lines, "outbox", None);
    eprintln!("outbox: {arrived} arrived, {each} of them readings, {lost} reported");
    assert_eq!(arrived, each, "no window has closed");
    assert_eq!(each + lost, READINGS);
    assert!(lost > 0 && each > 0, "{each} arrived, {lost} lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_metadata_it_goes_on_where_it_was_and_says_which_windows_are_lost() {
    let mut world = DamageWorld::publish_and_kill(true).await;
    fs::remove_dir_all(world.store().join("meta")).expect("it is there");
    let lines = world.restart_and_collect().await;
    assert_eq!(ids(&lines), (0..READINGS).collect::<Vec<_>>(), "each reading once");
    let report = lines.iter().find(|line| line["report"]["stage"] == "windows").expect("a report of windows");
    assert_eq!((&report["pipeline"], &report["report"]["kind"]), (&"windows".into(), &"lost".into()));
    assert!(report["report"]["from"].is_string() && report["report"]["to"].is_string(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_name_mend_and_show_what_is_there() {
    let world = DamageWorld::publish_and_kill(true).await;
    let verify = world.agent.run_command(&["store", "verify"]);
    assert!(verify.status.success(), "{verify:?}");
    let dump =
        world.agent.run_command(&["store", "dump", "--part", "outbox", "--output", "central", "--max", "5"]);
    assert_eq!(String::from_utf8_lossy(&dump.stdout).lines().count(), 5, "{dump:?}");
    zero_pages(&world.store().join("outbox/central"));
    let verify = world.agent.run_command(&["store", "verify"]);
    let text = String::from_utf8_lossy(&verify.stdout);
    assert_eq!(verify.status.code(), Some(1), "{text}");
    assert!(text.contains("outbox/central/j-00000000000000000000"), "{text}");
    let repair = world.agent.run_command(&["store", "repair", "--dry-run"]);
    assert_eq!((repair.status.code(), String::from_utf8_lossy(&repair.stdout)), (Some(1), text));
    let repair = world.agent.run_command(&["store", "repair"]);
    assert!(repair.status.success(), "{repair:?}");
    let verify = world.agent.run_command(&["store", "verify"]);
    assert!(verify.status.success(), "{verify:?}");
}
