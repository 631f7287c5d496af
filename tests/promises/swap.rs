//! Modules change while readings come: every reading counts once, whatever the new version does and whenever
//! the agent is killed; and after a trip the pipeline's policy is followed.

#[cfg(feature = "machine")]
mod killed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::{check_ledger, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::process::eventually;
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const FAHRENHEIT: &str =
    r#"module = "modules/celsius.wasm", settings = { field = "temperature", from = "fahrenheit" }"#;

fn hostile(what: &str) -> String {
    format!("module = \"modules/hostile.wasm\", deadline = \"200ms\", settings = {{ do = {what:?} }}")
}

fn counting(what: &str) -> String {
    format!(
        "module = \"modules/hostile_aggregate.wasm\", deadline = \"200ms\", settings = {{ do = {what:?} }}"
    )
}

/// A plant, three pipelines, and a publisher.
struct SwapScene {
    agent: TestAgent,
    destination: FakeDestination,
    broker: RumqttdBroker,
}

impl SwapScene {
    async fn start(transform: &str, aggregate: &str) -> Self {
        let broker = RumqttdBroker::start().await;
        let destination = FakeDestination::start([]).await;
        let agent =
            TestAgent::start(&config(broker.port(), &destination.url(), transform, aggregate, "")).await;
        Self { agent, destination, broker }
    }

    fn configure(&self, transform: &str, aggregate: &str) {
        self.agent.configure(&config(self.broker.port(), &self.destination.url(), transform, aggregate, ""));
    }

    async fn counts(&self, metric: &str, value: u64) {
        self.agent.wait_for_metric(&format!("pipeline_{metric}"), "changed", value, SOON).await;
    }

    async fn digest(&self) -> Value {
        self.agent.status().await.expect("it answers")["modules"]["changed"]["running"][0].take()
    }

    /// Checks that all readings so far are in the results, each once, and in no dead letter.
    async fn check(&mut self, readings: u64) {
        let expected: Vec<_> = (0..readings).collect();
        eventually("every reading to arrive", SOON, async || {
            (plant::ids(&self.destination.accepted_lines(), "neighbour") == expected).then_some(())
        })
        .await;
        wait_until_drained(&self.agent, "central", SOON).await;
        check_ledger(&self.agent).await;
        let lines = self.destination.accepted_lines();
        assert_eq!(plant::ids(&lines, "changed"), expected);
        let counted = lines.iter().filter(|line| line["pipeline"] == "counted");
        let sum: u64 = counted.map(|line| line["value"].as_u64().expect("a count")).sum();
        assert_eq!(sum, readings - 1, "all but the one that closes the windows");
        assert_eq!(self.agent.dead_letters().await, Vec::<Value>::new());
    }
}

fn config(port: u16, url: &str, transform: &str, aggregate: &str, more: &str) -> String {
    let time = "time = { field = \"ts\", unit = \"ms\" }\ncommit_every = \"100ms\"\n";
    ConfigBuilder::default()
        .input("plant", port, &["plant"], "3.1.1")
        .output("central", url, more)
        .pipeline("changed", "plant", "central", &format!("key = \"k\"\n{time}transform = [{{ {transform} }}]"))
        .pipeline(
            "counted",
            "plant",
            "central",
            &format!(
                "key = \"{{field.device}}\"\n{time}window = {{ tumbling = \"1h\", idle = \"12h\" }}\naggregate = {{ {aggregate} }}"
            ),
        )
        .pipeline("neighbour", "plant", "central", &plant::forwarded("k"))
        .toml()
        .to_owned()
}

/// A task that publishes until it is told to end; every tenth reading is a bad one.
struct ReadingStream {
    end: Arc<AtomicBool>,
    task: tokio::task::JoinSet<u64>,
}

impl ReadingStream {
    fn start(port: u16, from: u64) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let publisher = TestPublisher::connect("stream", port);
            let mut id = from;
            while !ended.load(Ordering::Acquire) {
                publisher.publish("plant", reading(id, false)).await;
                id += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            publisher.publish("plant", reading(id, true)).await;
            publisher.confirmed().await;
            id + 1
        });
        Self { end, task }
    }

    async fn end(mut self) -> u64 {
        self.end.store(true, Ordering::Release);
        self.task.join_next().await.expect("one task").expect("it publishes")
    }
}

fn reading(id: u64, last: bool) -> String {
    let time = 1_767_225_600_000 + id + if last { 30 * 24 * 3_600_000 } else { 0 };
    let device = format!("d{}", id % 3);
    json!({ "id": id, "ts": time, "device": device, "temperature": 212.0, "bad": id % 10 == 7 }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_change_under_load_and_every_reading_counts_once() {
    let mut scene = SwapScene::start(&hostile("a"), &counting("a")).await;
    let stream = ReadingStream::start(scene.broker.port(), 0);
    scene.counts("read_messages", 50).await;
    let first = scene.digest().await;

    // This is a good version, of transform and aggregate.
    scene.configure(FAHRENHEIT, &counting("b"));
    scene.agent.reload();
    scene.counts("swaps", 1).await;
    scene.agent.wait_for_metric("pipeline_swaps", "counted", 1, SOON).await;
    let second = scene.digest().await;
    assert_ne!(first, second);

    // These are refused: by the module, by the loader, and because the change is not one of modules.
    scene.configure(&hostile("init-error"), &counting("b"));
    let (status, answer) = scene.agent.post("/v1/reload").await.expect("it answers");
    assert!(
        status == 200 && answer.contains("hostile settings") && answer.contains("\"counted\":\"unchanged\""),
        "{status} {answer}"
    );
    let broken = scene.agent.home().join("modules/broken.wasm");
    std::fs::write(&broken, &headwater_bundle::CELSIUS[..5_000]).expect("a writable folder");
    scene.configure("module = \"modules/broken.wasm\"", &counting("b"));
    let (_, answer) = scene.agent.post("/v1/reload").await.expect("it answers");
    assert!(answer.contains("expected a WebAssembly component"), "{answer}");
    scene.agent.configure(&config(
        scene.broker.port(),
        &scene.destination.url(),
        &hostile("c"),
        &counting("b"),
        ", linger = \"77ms\"",
    ));
    let (status, answer) = scene.agent.post("/v1/reload").await.expect("it answers");
    assert!(
        status == 409 && answer.contains("`output.central.http.linger` changed: that needs a restart"),
        "{status} {answer}"
    );
    assert_eq!(scene.digest().await, second, "what ran goes on");
    scene.counts("refused_swaps", 2).await;

    // This one is rolled back by itself, and not taken again.
    scene.configure(&hostile("panic"), &counting("update-loop"));
    scene.agent.reload();
    scene.counts("rollbacks", 1).await;
    scene.agent.wait_for_metric("pipeline_rollbacks", "counted", 1, SOON).await;
    assert_eq!(scene.digest().await, second);
    scene.agent.reload();
    scene.counts("refused_swaps", 3).await;
    let swap = scene.agent.status().await.expect("it answers")["modules"]["changed"]["swap"].take();
    assert!(
        swap["outcome"] == "refused"
            && swap["reason"].as_str().is_some_and(|it| it.contains("hostile panic")),
        "{swap}"
    );

    scene.configure(&hostile("d"), &counting("d"));
    scene.agent.reload();
    scene.counts("swaps", 3).await;
    assert_eq!(scene.digest().await, first);
    let readings = stream.end().await;
    scene.check(readings).await;
    let lines = scene.destination.accepted_lines();
    let of = |digest: &Value| {
        lines.iter().filter(|it| it["pipeline"] == "changed" && it["module"] == *digest).count()
    };
    assert!(of(&first) > 0 && of(&second) > 0, "both versions worked");
    assert!(!scene.agent.log_text().contains("stuck"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_trip_is_what_the_pipeline_says() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = |what: &str| {
        let body =
            |more: &str| plant::forwarded("k") + &format!("transform = [{{ {} }}]\n{more}", hostile(what));
        let rate = "trips = { max = 1, within = \"1m\", then = \"pause\" }";
        ConfigBuilder::default()
            .input("plant", broker.port(), &["plant"], "3.1.1")
            .output("central", &destination.url(), "")
            .pipeline("pauses", "plant", "central", &body("on_trip = \"pause\"\npause = \"1h\""))
            .pipeline("passes", "plant", "central", &body("on_trip = \"bypass\""))
            .pipeline("escalates", "plant", "central", &body(rate))
            .pipeline("neighbour", "plant", "central", &plant::forwarded("k"))
            .toml()
            .to_owned()
    };
    let mut agent = TestAgent::start(&plan("panic")).await;
    let publisher = TestPublisher::connect("stream", broker.port());
    // The bad readings are 7, 17, 27 and 37.
    for id in 0..40 {
        publisher.publish("plant", reading(id, false)).await;
    }
    publisher.confirmed().await;
    for (pipeline, metric, value) in [
        ("pauses", "paused", 1),
        ("passes", "bypassed_events", 4),
        ("escalates", "paused", 1),
        ("neighbour", "results", 40),
    ] {
        agent.wait_for_metric(&format!("pipeline_{metric}"), pipeline, value, SOON).await;
    }
    assert!(agent.metrics().await.expect("it answers").of("module_trips", "passes/transform[0]") == 4);
    let shown = agent.status().await.expect("it answers")["modules"]["pauses"]["paused"].take();
    assert!(
        shown["module"] == "transform[0]"
            && shown["reason"].as_str().is_some_and(|it| it.contains("hostile panic")),
        "{shown}"
    );
    assert_eq!(agent.get("/live").await.expect("it answers").0, 200);
    let lines = agent.metrics().await.expect("it answers");
    assert!(lines.of("pipeline_read_messages", "pauses") < 8, "it stopped before the one that trips");

    // Resumed, it comes to the same reading; with another version it goes on, and so it does after a restart.
    let trips = agent.metrics().await.expect("it answers").of("module_trips", "pauses/transform[0]");
    assert_eq!(agent.post("/v1/pipelines/pauses/resume").await.expect("it answers").0, 200);
    agent.wait_for_metric("module_trips", "pauses/transform[0]", trips + 1, SOON).await;
    assert_eq!(agent.post("/v1/pipelines/nobody/resume").await.expect("it answers").0, 404);
    agent.configure(&plan("nothing"));
    let (status, answer) = agent.post("/v1/reload").await.expect("it answers");
    assert_eq!(status, 200, "{answer}");
    agent.wait_for_metric("pipeline_read_messages", "pauses", 40, SOON).await;
    agent.wait_for_metric("pipeline_read_messages", "escalates", 40, SOON).await;
    eventually("nothing to be paused", SOON, async || {
        let paused = agent.metrics().await.ok()?.all("pipeline_paused");
        paused.iter().all(|it| *it == 0.0).then_some(())
    })
    .await;
    wait_until_drained(&agent, "central", SOON).await;
    check_ledger(&agent).await;
    let lines = destination.accepted_lines();
    let all: Vec<u64> = (0..40).collect();
    for pipeline in ["pauses", "passes", "neighbour"] {
        assert_eq!(plant::ids(&lines, pipeline), all, "{pipeline}");
    }
    let letters = agent.dead_letters().await;
    let own = |pipeline: &str| letters.iter().filter(|it| it["pipeline"] == pipeline).count();
    assert_eq!((own("pauses"), own("passes")), (0, 0));
    assert_eq!(plant::ids(&lines, "escalates").len() + own("escalates"), 40, "each in one place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_read_the_windows_there_are_is_refused_before_any_reading_passes_it() {
    let of = |version: u8, refuse: bool| {
        format!(
            "module = \"modules/hostile_aggregate.wasm\", settings = {{ version = {version}, refuse = {refuse} }}"
        )
    };
    let mut scene = SwapScene::start(&hostile("a"), &of(0, false)).await;
    let stream = ReadingStream::start(scene.broker.port(), 0);
    scene.agent.wait_for_metric("pipeline_used_events", "counted", 20, SOON).await;
    scene.configure(&hostile("a"), &of(2, true));
    scene.agent.reload();
    scene.agent.wait_for_metric("pipeline_refused_swaps", "counted", 1, SOON).await;
    let swap = scene.agent.status().await.expect("it answers")["modules"]["counted"]["swap"].take();
    let reason = swap["reason"].as_str().unwrap_or_default().to_owned();
    assert!(
        reason.contains("from state version 0 of its aggregate to 2: hostile state of version 0"),
        "{swap}"
    );

    // A restart does not change it either.
    assert!(scene.agent.stop().await.success());
    let output = scene.agent.run_command(&["run"]);
    let answer = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && answer.contains("hostile state of version 0"), "{answer}");
    scene.configure(&hostile("a"), &of(0, false));
    scene.agent.resume().await;

    // A version that can migrate takes the states over, and so does another at a start.
    scene.configure(&hostile("a"), &of(3, false));
    scene.agent.reload();
    scene.agent.wait_for_metric("pipeline_swaps", "counted", 1, SOON).await;
    let used = scene.agent.metrics().await.expect("it answers").of("pipeline_used_events", "counted");
    scene.agent.wait_for_metric("pipeline_used_events", "counted", used + 20, SOON).await;
    assert!(scene.agent.stop().await.success());
    scene.configure(&hostile("a"), &of(4, false));
    scene.agent.resume().await;
    let readings = stream.end().await;
    scene.check(readings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_seen_and_runs_beside_before_it_takes_over() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = |settings: &str| {
        let transform =
            format!("transform = [{{ module = \"modules/swapped.wasm\", settings = {{ {settings} }} }}]");
        let body = plant::forwarded("k") + &transform + "\nshadow = \"2s\"";
        let plan = ConfigBuilder::default()
            .input("plant", broker.port(), &["plant"], "3.1.1")
            .output("central", &destination.url(), "")
            .pipeline("changed", "plant", "central", &body);
        format!("watch = \"1s\"\n\n{}", plan.toml())
    };
    let settings = "field = \"temperature\", from = \"fahrenheit\"";
    let mut agent = TestAgent::prepare(&plan(settings));
    let file = agent.home().join("modules/swapped.wasm");
    std::fs::write(&file, headwater_bundle::HOSTILE).expect("a writable folder");
    agent.resume().await;
    let stream = ReadingStream::start(broker.port(), 0);
    agent.wait_for_metric("pipeline_read_messages", "changed", 20, SOON).await;

    std::fs::write(&file, headwater_bundle::CELSIUS).expect("a writable folder");
    agent.wait_for_metric("pipeline_shadowing", "changed", 1, SOON).await;
    agent.wait_for_metric("pipeline_swaps", "changed", 1, SOON).await;
    let shadow = agent.status().await.expect("it answers")["modules"]["changed"]["swap"]["shadow"].take();
    let events = shadow["events"].as_u64().unwrap_or(0);
    let differences = shadow["differences"].as_u64().unwrap_or(0);
    assert!(events > 20 && differences == events, "{shadow}");
    let first = shadow["first"][0].as_str().unwrap_or_default();
    assert!(
        first.starts_with("transform[0]: now \"k\" at") && first.contains("212.0") && first.contains("100.0"),
        "{first}"
    );
    assert_eq!(
        agent.metrics().await.expect("it answers").of("pipeline_shadow_differences", "changed"),
        differences
    );

    // A version that trips beside the running one never takes over.
    std::fs::write(&file, headwater_bundle::HOSTILE).expect("a writable folder");
    agent.configure(&plan("do = \"panic\""));
    agent.wait_for_metric("pipeline_refused_swaps", "changed", 1, SOON).await;
    let readings = stream.end().await;
    agent.wait_for_metric("pipeline_read_messages", "changed", readings, SOON).await;
    wait_until_drained(&agent, "central", SOON).await;
    assert_eq!(plant::ids(&destination.accepted_lines(), "changed"), (0..readings).collect::<Vec<_>>());
    assert_eq!(agent.metrics().await.expect("it answers").of("pipeline_swaps", "changed"), 1);
    assert_eq!(agent.dead_letters().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_beside_the_one_that_runs_is_compared_on_its_states_and_windows() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = |settings: &str| {
        let aggregate = format!("module = \"modules/hostile_aggregate.wasm\", settings = {{ {settings} }}");
        let body = format!(
            "key = \"bad-{{field.device}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n\
             window = {{ tumbling = \"50ms\", lateness = \"0s\" }}\naggregate = {{ {aggregate} }}\nshadow = \"1s\""
        );
        let plan = ConfigBuilder::default().input("plant", broker.port(), &["plant"], "3.1.1");
        plan.output("central", &destination.url(), "")
            .pipeline("counted", "plant", "central", &body)
            .toml()
            .to_owned()
    };
    let agent = TestAgent::start(&plan("")).await;
    let stream = ReadingStream::start(broker.port(), 0);
    agent.wait_for_metric("pipeline_used_events", "counted", 20, SOON).await;
    let mut swaps = 0;
    for (settings, differs) in [
        ("do = \"as-before\"", None),
        ("version = 3", None),
        // The first case changes the states, the second only the results.
        ("version = 3, do = \"count-updates\"", Some("one state, then another")),
        ("version = 4, do = \"finish-text\"", Some("then refused: the module's result is not JSON")),
    ] {
        swaps += 1;
        agent.configure(&plan(settings));
        agent.reload();
        agent.wait_for_metric("pipeline_swaps", "counted", swaps, SOON).await;
        let mut status = agent.status().await.expect("it answers");
        let shadow = status["modules"]["counted"]["swap"]["shadow"].take();
        assert!(shadow["events"].as_u64() > Some(20), "{settings}: {shadow}");
        let first = shadow["first"][0].as_str().unwrap_or_default();
        assert_eq!(shadow["differences"].as_u64() > Some(0), differs.is_some(), "{settings}: {shadow}");
        assert!(
            differs.is_none_or(|words| first.starts_with("aggregate, \"bad-d") && first.contains(words)),
            "{shadow}"
        );
    }
    agent.configure(&plan("version = 4, do = \"update-panic\""));
    agent.reload();
    agent.wait_for_metric("pipeline_refused_swaps", "counted", 1, SOON).await;
    agent.configure(&plan("version = 5, refuse = true"));
    agent.reload();
    agent.wait_for_metric("pipeline_refused_swaps", "counted", 2, SOON).await;
    let readings = stream.end().await;
    agent.wait_for_metric("pipeline_used_events", "counted", readings, SOON).await;
    wait_until_drained(&agent, "central", SOON).await;
    check_ledger(&agent).await;
}
