//! Dead letters: a message that cannot be used is kept to the byte, and counts once when it is replayed.

use std::time::Duration;

use headwater_agent::flow::StoredLetter;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::destination::{FakeDestination, ScriptedAnswer};
use headwater_tests::feeder::{FeedPlan, FeedingBroker};
use headwater_tests::ledger::wait_until_drained;
use headwater_tests::oracle::{self, compute};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// The number of readings that a wrong configuration refuses.
const READINGS: u64 = 5_000;

/// Returns payloads that are no JSON, or that not all readers of JSON read alike, each with a word of the
/// reason.
fn poison() -> Vec<(Vec<u8>, &'static str)> {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    vec![
        (b"{\"id\":1,\"ts\":1767225600000,\"temp".to_vec(), "EOF"),
        (format!("{{\"id\":1,\"ts\":1767225600000,\"a\":{deep}}}").into_bytes(), "recursion limit"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":1e999}".to_vec(), "number out of range"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":1,\"a\":2}".to_vec(), "twice"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":9007199254740993}".to_vec(), "2^53"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":-123456789012345678901}".to_vec(), "2^53"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":\"\xff\xfe\"}".to_vec(), "unicode"),
        (b"\x00\x01\x02\xff\n\r".to_vec(), "expected value"),
        (Vec::new(), "EOF"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_kept_to_the_byte_and_the_next_reading_is_processed() {
    let destination = FakeDestination::start([]).await;
    let (mut agent, publisher) = forwarding(&destination.url(), &plant::forwarded("k")).await;
    let poison = poison();
    for (id, (bytes, _)) in (0..).zip(&poison) {
        publisher.publish("plant/poison", bytes.clone()).await;
        publisher.publish("plant/good", good(id)).await;
    }
    publisher.confirmed().await;
    wait_until_settled(&agent, poison.len() as u64 * 2).await;
    assert_eq!(
        plant::ids(&destination.accepted_lines(), "each"),
        (0..poison.len() as u64).collect::<Vec<_>>()
    );

    let running = export(&agent, &[]);
    assert_eq!(running.len(), poison.len());
    for (kept, (bytes, word)) in running.iter().zip(&poison) {
        let letter = &kept.letter;
        assert_eq!(letter.payload, *bytes, "to the byte: {}", letter.reason);
        let place = [&*letter.pipeline, &*letter.stage, &*letter.input, &*letter.topic];
        assert_eq!(place, ["each", "decode", "plant", "plant/poison"]);
        assert!(letter.reason.contains(word), "{word:?} is not in {:?}", letter.reason);
        assert!(letter.received.0 > 0 && letter.time >= letter.received.0 && !kept.replayed);
    }
    assert_eq!(export(&agent, &["--reason", "2^53"]), running[4..6]);
    assert_eq!(export(&agent, &["--from", "2", "--until", "3"]), running[2..4]);
    assert_eq!(export(&agent, &["--stage", "encode"]), []);
    let list = command_output(&agent, &["list"]);
    let show = command_output(&agent, &["show", "7"]);
    assert_eq!(list.lines().count(), 1 + poison.len(), "{list}");
    assert!(show.contains("00 01 02 ff 0a 0d"), "{show}");

    assert_eq!(agent.stop().await.code(), Some(0));
    assert_eq!(export(&agent, &[]), running, "a stopped agent's are the same");
    let refused = agent.run_command(&["dead-letters", "replay", "--all"]);
    assert_eq!(refused.status.code(), Some(1), "only a running agent replays");
}

/// Checks payloads that are not in [`poison`] because their place in the journal matters here: other
/// encodings, and sizes up to the largest packet that can be allowed.
#[tokio::test(flavor = "multi_thread")]
async fn poison_of_any_encoding_and_size_is_kept_to_the_byte() {
    let huge = "9".repeat(8_300_000);
    let poison = [
        (b"\xef\xbb\xbf{\"id\":1,\"ts\":1767225600000}".to_vec(), "expected value"),
        (b"{\"id\":1,\"ts\":1767225600000,\"a\":\"\0\"}".to_vec(), "control character"),
        (b"{\"id\":1,\"ts\":1767225600000}\0".to_vec(), "trailing characters"),
        (b"{\0\"\0i\0d\0\"\0:\x001\0}\0".to_vec(), "key must be a string"),
        (format!("{{\"id\":1,\"ts\":{huge}}}").into_bytes(), "number out of range"),
        (format!("{{\"id\":1,\"ts\":\"{huge}\"}}").into_bytes(), "ahead of its arrival"),
        (format!("{{\"id\":1,\"ts\":1767225600000,\"a\":{huge}}}").into_bytes(), "number out of range"),
        (b"{\"id\":1,\"ts\":1e999}".to_vec(), "number out of range"),
        (b"{\"id\":1,\"ts\":\"1e999\"}".to_vec(), "ahead of its arrival"),
        (b"{\"id\":1,\"ts\":-1}".to_vec(), "before 1970"),
        (b"{\"id\":1,\"ts\":\"soon\"}".to_vec(), "no time in milliseconds"),
    ];
    let destination = FakeDestination::start([]).await;
    let feeder = FeedingBroker::start().await.expect("a free port");
    let sizes = ", packet_bytes_max = \"8 MiB\", in_flight_bytes_max = \"32 MiB\"";
    let plan = ConfigBuilder::default()
        .input_with("plant", feeder.port().expect("it listens"), &["plant/#"], sizes)
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &destination.url(), "");
    let mut agent = TestAgent::prepare(plan.toml());
    agent.spawn();
    let mut subscriber = feeder.subscriber().await.expect("the agent subscribes");
    let messages = poison.len() as u64 * 2;
    let feed = FeedPlan { messages, rate: None, in_flight_max: 2 };
    let fed = subscriber.feed(feed, |number| {
        let id = number / 2;
        let bytes = if number % 2 == 0 { poison[id as usize].0.clone() } else { good(id) };
        ("plant/any".to_owned(), bytes)
    });
    assert_eq!(fed.await.expect("all is acknowledged").len() as u64, messages);
    wait_until_settled(&agent, messages).await;
    assert_eq!(plant::ids(&destination.accepted_lines(), "each"), (0..messages / 2).collect::<Vec<_>>());
    let letters = export(&agent, &[]);
    assert_eq!(letters.len(), poison.len());
    for (kept, (bytes, word)) in letters.iter().zip(&poison) {
        let reason = &kept.letter.reason;
        assert!(kept.letter.payload == *bytes, "to the byte: {reason}");
        assert!(reason.contains(word) && reason.len() < 1_000, "{word:?} is not in {reason:.1000?}");
    }
    assert!(!agent.log_text().contains("panicked"), "no thread panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_mends_what_it_can_and_a_letter_is_replayed_once() {
    let destination = FakeDestination::start([]).await;
    let (agent, publisher) = forwarding(&destination.url(), &plant::forwarded("k")).await;
    for (bytes, _) in poison() {
        publisher.publish("plant/poison", bytes).await;
    }
    publisher.confirmed().await;
    wait_until_settled(&agent, poison().len() as u64).await;

    // The module writes the number `a` as a float, and refuses events without one.
    let settings = r#"{"field":"a","from":"celsius"}"#;
    let mend = ["replay", "--all", "--json", "--module", "modules/celsius.wasm", "--settings", settings];
    let replayed = replay_output(&agent, &mend, 1);
    assert_eq!((&replayed["asked"], &replayed["passed"]), (&json!(2), &json!(2)), "{replayed}");
    assert_eq!(replayed["refused"].as_array().map(Vec::len), Some(poison().len() - 2), "{replayed}");
    let replayed: Vec<_> =
        export(&agent, &[]).iter().filter(|kept| kept.replayed).map(|kept| kept.number).collect();
    assert_eq!(replayed, [4, 5, 9, 10], "what the module refused is not marked");
    assert_eq!(plant::ids(&wait_for_lines(&destination, 2).await, "each"), [1, 1]);
    let metrics = agent.metrics().await.expect("the agent answers");
    let counts =
        ["replayed_messages", "succeeded_replays"].map(|it| metrics.of(&format!("pipeline_{it}"), "each"));
    assert_eq!(counts, [2, 2]);

    let again = replay_output(&agent, &["replay", "4", "--json"], 1);
    assert!(again["refused"][0]["reason"].as_str().unwrap().contains("--again"), "{again}");
    for wrong in [&["replay", "--all", "--again"][..], &["replay", "4", "--stage", "decode"], &["replay"]] {
        let output = agent.run_command(&[&["dead-letters"], wrong].concat());
        assert!(!output.status.success(), "{wrong:?}");
    }
    let again = replay_output(&agent, &["replay", "4", "77", "--again", "--json"], 1);
    assert_eq!(again["refused"][0]["number"], 77, "{again}");
    assert_eq!(
        (&again["failed"][0]["number"], &again["failed"][0]["new"]),
        (&json!(4), &json!(11)),
        "{again}"
    );
    let new = export(&agent, &["--from", "11"]);
    assert_eq!((new[0].letter.replay_of, new[0].letter.payload.clone()), (Some(4), poison()[4].0.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_read_the_state_folder_cannot_replay() {
    let destination = FakeDestination::start([]).await;
    let (agent, _publisher) = forwarding(&destination.url(), &plant::forwarded("k")).await;
    let address = std::fs::read_to_string(agent.state().join("admin.addr")).unwrap();
    let url = format!("http://{address}/dead-letters/replay");
    let client = reqwest::Client::builder().build().unwrap();
    let ask = |key: String| client.post(&url).bearer_auth(key).body("").send();
    let key = std::fs::read_to_string(agent.state().join("admin.key")).unwrap();
    assert_eq!(ask(String::new()).await.unwrap().status(), 401);
    assert_eq!(ask(key[1..].to_owned()).await.unwrap().status(), 401);
    assert_eq!(ask(key).await.unwrap().status(), 200);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(agent.state().join("admin.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_refused_arrives_when_the_destination_is_mended() {
    let mut destination =
        FakeDestination::start([ScriptedAnswer::RefuseWith(422, "\"id\":3,".to_owned())]).await;
    let (agent, publisher) = forwarding(&destination.url(), &plant::forwarded("k")).await;
    for id in 0..6 {
        publisher.publish("plant/good", good(id)).await;
    }
    publisher.confirmed().await;
    wait_until_settled(&agent, 6).await;
    let letters = export(&agent, &["--stage", "output"]);
    assert_eq!(letters.len(), 1);
    let line: Value = serde_json::from_slice(&letters[0].letter.payload).unwrap();
    assert_eq!(line["value"]["id"], 3);
    destination.accept_all();
    let replayed = replay_output(&agent, &["replay", "--stage", "output", "--json"], 0);
    assert_eq!(replayed["passed"], 1, "{replayed}");
    wait_until_drained(&agent, "central", SOON).await;
    let confirmed: Vec<Value> = destination
        .requests()
        .into_iter()
        .filter(|request| request.confirmed)
        .flat_map(|request| request.lines)
        .collect();
    assert_eq!(plant::ids(&confirmed, "each"), [0, 1, 2, 3, 4, 5]);
    destination.stop_listening().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_with_its_module_and_where_it_was() {
    let destination = FakeDestination::start([]).await;
    let body = plant::forwarded("k")
        + "transform = [{ module = \"modules/hostile.wasm\", settings = { do = \"panic\" } }]";
    let (agent, publisher) = forwarding(&destination.url(), &body).await;
    for id in 0..20 {
        let reading = json!({ "id": id, "ts": 1_767_225_600_000_u64, "bad": id == 7 });
        publisher.publish("plant/good", reading.to_string()).await;
    }
    publisher.confirmed().await;
    wait_until_settled(&agent, 20).await;
    let good: Vec<_> = (0..20).filter(|id| *id != 7).collect();
    assert_eq!(plant::ids(&wait_for_lines(&destination, 19).await, "each"), good, "the others arrive");
    let letters = export(&agent, &[]);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0].letter;
    assert_eq!(letter.stage, "transform[0]");
    assert!(letter.module.as_deref().is_some_and(|digest| digest.starts_with("sha256:")));
    for word in ["unreachable", "hostile panic", "(in ", ", by "] {
        assert!(letter.reason.contains(word), "{word:?} is not in {}", letter.reason);
    }
    assert!(letter.reason.len() < 4096, "{} bytes", letter.reason.len());
    assert!(letter.payload.windows(8).any(|part| part == b"\"id\":7,\""), "its own bytes");
}

/// Checks a first configuration that looks for the time where there is none. Once it is mended, all of it is
/// replayed while the agent is killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_mended_configuration_replays_every_reading_once_over_any_kill() {
    let seed = std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut moments = fastrand::Rng::with_seed(seed);
    let broker = RumqttdBroker::start().await;
    let collector = TestCollector::start().await;
    let windows = plant::windowed(KEY, "1s", "10s", "0s");
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &windows.replace("\"ts\"", "\"stamp\""))
        .pipeline("each", "plant", "central", &plant::forwarded(KEY).replace("\"ts\"", "\"stamp\""))
        .output("central", &collector.url(), ", timeout = \"2s\"");
    let mut agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(10);
    for _ in 0..READINGS {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
    for pipeline in ["windows", "each"] {
        agent.wait_for_metric("pipeline_rejected_messages", pipeline, READINGS, SOON).await;
    }
    assert_eq!(agent.stop().await.code(), Some(0));
    let mended = std::fs::read_to_string(agent.config()).unwrap().replace("\"stamp\"", "\"ts\"");
    std::fs::write(agent.config(), mended).unwrap();

    let mut in_the_middle = 0;
    agent.resume().await;
    for kill in 0..12 {
        let mut replay = agent.start_command(&["dead-letters", "replay", "--all", "--wait", "0"]);
        let moment = Duration::from_millis(moments.u64(0..200));
        tokio::time::sleep(moment).await;
        agent.kill9();
        replay.wait().expect("it ends, with or without an answer");
        agent.resume().await;
        let replayed = agent.metrics().await.unwrap().of("pipeline_replayed_messages", "windows");
        in_the_middle += u32::from((1..READINGS).contains(&replayed));
        eprintln!("kill {kill} after {moment:?}, seed {seed}: {replayed} of {READINGS} replayed");
    }
    assert!(in_the_middle > 0, "no kill came in the middle of a replay, seed {seed}");
    let replayed = replay_output(&agent, &["replay", "--all", "--json"], 0);
    assert_eq!((&replayed["failed"], &replayed["waiting"]), (&json!([]), &json!(0)), "{replayed}");
    let (topic, payload) = load.closing_reading();
    publisher.publish(&topic, payload).await;
    publisher.confirmed().await;

    let expected =
        compute(load.readings(), oracle::TumblingWindows { size: 1_000, lateness: 10_000, revise: 0 });
    assert_eq!(expected.late, 0);
    for pipeline in ["windows", "each"] {
        agent.wait_for_metric("pipeline_used_events", pipeline, load.published(), SOON).await;
        wait_until_drained(&agent, "central", SOON).await;
        let metrics = agent.metrics().await.expect("the agent answers");
        let counts = ["replayed_messages", "succeeded_replays", "used_events", "late_events", "events"];
        let counts = counts.map(|it| metrics.of(&format!("pipeline_{it}"), pipeline));
        assert_eq!(counts, [READINGS, READINGS, READINGS + 1, 0, READINGS + 1], "{pipeline}, seed {seed}");
    }
    let all = expected.windows.len() + load.readings().len();
    let results = collector.wait_for_results(all).await;
    assert_eq!(results.len(), all, "results at the collector, seed {seed}");
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>(), "seed {seed}");
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
    assert!(!agent.log_text().contains("panicked"), "no thread panicked");
}

fn good(id: u64) -> Vec<u8> {
    json!({ "id": id, "ts": 1_767_225_600_000_u64 + id, "more": 1 }).to_string().into_bytes()
}

async fn forwarding(url: &str, body: &str) -> (TestAgent, TestPublisher) {
    let broker = RumqttdBroker::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/#"], "3.1.1")
        .pipeline("each", "plant", "central", body)
        .output("central", url, "");
    (TestAgent::start(plan.toml()).await, TestPublisher::connect("plant", broker.port()))
}

/// Waits until this many messages are read and all their results are sent, and checks the sums.
async fn wait_until_settled(agent: &TestAgent, messages: u64) {
    agent.wait_for_metric("pipeline_read_messages", "each", messages, SOON).await;
    wait_until_drained(agent, "central", SOON).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    let of = |metric: &str| metrics.of(&format!("pipeline_{metric}"), "each");
    assert_eq!(of("read_messages") + of("replayed_messages"), of("rejected_messages") + of("events"));
    assert_eq!(
        of("events") + of("replayed_events"),
        of("used_events") + of("late_events") + of("rejected_events")
    );
}

/// Waits until the destination has accepted this many lines, and returns them.
async fn wait_for_lines(destination: &FakeDestination, lines: usize) -> Vec<Value> {
    headwater_tests::process::eventually("the lines to arrive", SOON, async || {
        Some(destination.accepted_lines()).filter(|got| got.len() >= lines)
    })
    .await
}

fn export(agent: &TestAgent, filter: &[&str]) -> Vec<StoredLetter> {
    let text = command_output(agent, &[&["export"], filter].concat());
    text.lines().map(|line| StoredLetter::from_line(line).expect("a line reads back")).collect()
}

fn command_output(agent: &TestAgent, command: &[&str]) -> String {
    let output = agent.run_command(&[&["dead-letters"], command].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a replay, checks its exit code and returns its output as JSON.
fn replay_output(agent: &TestAgent, command: &[&str], code: i32) -> Value {
    let output = agent.run_command(&[&["dead-letters"], command].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words} {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {words}"))
}

/// Checks letters that are dropped at the quota or expire, with a kill just after they became unreadable:
/// those kept and those reported are all that there were, each once.
#[tokio::test(flavor = "multi_thread")]
async fn letters_that_are_given_up_are_reported_once() {
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/+"], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &destination.url(), ", backoff_max = \"1s\"");
    let config = |age: &str| format!("dead_letters = {{ bytes_max = \"16 MiB\"{age} }}\n\n{}", plan.toml());
    let mut agent = TestAgent::start(&config("")).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let count = 7_000;
    for id in 0..count {
        publisher.publish("plant/poison", format!("{id}{}", "x".repeat(3_600)).into_bytes()).await;
    }
    publisher.confirmed().await;
    wait_until_settled(&agent, count).await;
    // Each of this many letters is kept or reported; a report may come later, because it goes the way of
    // results.
    let reported = async |agent: &TestAgent, kind: &str, all: u64| {
        let found = headwater_tests::process::eventually("each kept or reported", SOON, async || {
            let lines = destination.accepted_lines();
            let of = lines.iter().map(|line| &line["report"]).filter(|report| report["kind"] == kind);
            let of: Vec<_> = of.filter(|report| report["stage"] == "dead-letters").collect();
            let number = |report: &&Value, name: &str| report[name].as_u64().expect("a number");
            let sum: u64 = of.iter().map(|report| number(report, "count")).sum();
            assert!(of.iter().all(|report| report["from"].is_string() && report["to"].is_string()));
            let first = of.iter().map(|report| number(report, "first")).min()?;
            let last = of.iter().map(|report| number(report, "last")).max()?;
            let kept = export(agent, &[]);
            (sum + kept.len() as u64 == all).then_some((sum, first, last, kept))
        })
        .await;
        wait_until_drained(agent, "central", SOON).await;
        headwater_tests::ledger::check_ledger(agent).await;
        found
    };
    let (dropped, first, last, kept) = reported(&agent, "dropped", count).await;
    assert!(kept.len() > 1_000, "{}", kept.len());
    assert_eq!((first, last + 1), (0, kept[0].number));
    let metrics = agent.metrics().await.expect("it answers");
    assert_eq!(metrics.of("pipeline_given_up_letters", "each"), dropped);

    assert_eq!(agent.stop().await.code(), Some(0));
    agent.configure(&config(", age_max = \"1s\""));
    agent.environment([(headwater_agent::fail::VARIABLE, "letters.given-up=kill".to_owned())]);
    agent.spawn();
    assert!(agent.wait_for_exit(SOON).await.is_some(), "killed where the first went");
    agent.environment([]);
    agent.resume().await;
    let (expired, first, _, left) = reported(&agent, "expired", kept.len() as u64).await;
    assert!(left.len() < kept.len());
    assert_eq!(first, kept[0].number);
    let metrics = agent.metrics().await.expect("it answers");
    assert_eq!(metrics.of("pipeline_given_up_letters", "each"), dropped + expired);
}
