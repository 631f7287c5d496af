//! Dead letters: what cannot be used is kept to the byte, and counts once when it is replayed.

use std::time::Duration;

use headwater::flow::Kept;
use headwater_tests::agent::Agent;
use headwater_tests::backend::{Answer, Backend};
use headwater_tests::broker::Broker;
use headwater_tests::collector::Collector;
use headwater_tests::feeder::{Feed, Feeder};
use headwater_tests::ledger::drained;
use headwater_tests::oracle::{self, compute};
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::publisher::Publisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// Readings that a wrong configuration refuses.
const READINGS: u64 = 5_000;

/// What no JSON reader takes, or not every one for the same; and a word of the reason.
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
    let backend = Backend::start([]).await;
    let (mut agent, publisher) = forwarding(&backend.url(), &plant::forwarded("k")).await;
    let poison = poison();
    for (id, (bytes, _)) in (0..).zip(&poison) {
        publisher.publish("plant/poison", bytes.clone()).await;
        publisher.publish("plant/good", good(id)).await;
    }
    publisher.confirmed().await;
    settled(&agent, poison.len() as u64 * 2).await;
    assert_eq!(plant::ids(&backend.accepted(), "each"), (0..poison.len() as u64).collect::<Vec<_>>());

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
    let (list, show) = (said(&agent, &["list"]), said(&agent, &["show", "7"]));
    assert_eq!(list.lines().count(), 1 + poison.len(), "{list}");
    assert!(show.contains("00 01 02 ff 0a 0d"), "{show}");

    assert_eq!(agent.stop().await.code(), Some(0));
    assert_eq!(export(&agent, &[]), running, "a stopped agent's are the same");
    let refused = agent.run(&["dead-letters", "replay", "--all"]);
    assert_eq!(refused.status.code(), Some(1), "only a running agent replays");
}

/// What is not in [`poison`] because its place in the journal matters there: encodings, and sizes up to
/// the largest packet that can be allowed.
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
    let (backend, feeder) = (Backend::start([]).await, Feeder::start().await.expect("a free port"));
    let sizes = ", packet_bytes_max = \"8 MiB\", in_flight_bytes_max = \"32 MiB\"";
    let plan = Plan::default()
        .input_with("plant", feeder.port().expect("it listens"), &["plant/#"], sizes)
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &backend.url(), "");
    let mut agent = Agent::at_home(plan.toml());
    agent.spawn();
    let mut subscriber = feeder.subscriber().await.expect("the agent subscribes");
    let messages = poison.len() as u64 * 2;
    let feed = Feed { messages, rate: None, in_flight_max: 2 };
    let fed = subscriber.feed(feed, |number| {
        let id = number / 2;
        let bytes = if number % 2 == 0 { poison[id as usize].0.clone() } else { good(id) };
        ("plant/any".to_owned(), bytes)
    });
    assert_eq!(fed.await.expect("all is acknowledged").len() as u64, messages);
    settled(&agent, messages).await;
    assert_eq!(plant::ids(&backend.accepted(), "each"), (0..messages / 2).collect::<Vec<_>>());
    let letters = export(&agent, &[]);
    assert_eq!(letters.len(), poison.len());
    for (kept, (bytes, word)) in letters.iter().zip(&poison) {
        let reason = &kept.letter.reason;
        assert!(kept.letter.payload == *bytes, "to the byte: {reason}");
        assert!(reason.contains(word) && reason.len() < 1_000, "{word:?} is not in {reason:.1000?}");
    }
    assert!(!agent.logged().contains("panicked"), "no thread panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_mends_what_it_can_and_a_letter_is_replayed_once() {
    let backend = Backend::start([]).await;
    let (agent, publisher) = forwarding(&backend.url(), &plant::forwarded("k")).await;
    for (bytes, _) in poison() {
        publisher.publish("plant/poison", bytes).await;
    }
    publisher.confirmed().await;
    settled(&agent, poison().len() as u64).await;

    // It writes the number `a` as a float, and refuses what holds none.
    let settings = r#"{"field":"a","from":"celsius"}"#;
    let mend = ["replay", "--all", "--json", "--module", "modules/celsius.wasm", "--settings", settings];
    let told = told_of(&agent, &mend, 1);
    assert_eq!((&told["asked"], &told["passed"]), (&json!(2), &json!(2)), "{told}");
    assert_eq!(told["refused"].as_array().map(Vec::len), Some(poison().len() - 2), "{told}");
    let replayed: Vec<_> =
        export(&agent, &[]).iter().filter(|kept| kept.replayed).map(|kept| kept.number).collect();
    assert_eq!(replayed, [4, 5, 9, 10], "what the module refused is not marked");
    assert_eq!(plant::ids(&reached(&backend, 2).await, "each"), [1, 1]);
    let metrics = agent.metrics().await.expect("the agent answers");
    let counts =
        ["replayed_messages", "succeeded_replays"].map(|it| metrics.of(&format!("pipeline_{it}"), "each"));
    assert_eq!(counts, [2, 2]);

    let again = told_of(&agent, &["replay", "4", "--json"], 1);
    assert!(again["refused"][0]["reason"].as_str().unwrap().contains("--again"), "{again}");
    for wrong in [&["replay", "--all", "--again"][..], &["replay", "4", "--stage", "decode"], &["replay"]] {
        let output = agent.run(&[&["dead-letters"], wrong].concat());
        assert!(!output.status.success(), "{wrong:?}");
    }
    let again = told_of(&agent, &["replay", "4", "77", "--again", "--json"], 1);
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
    let backend = Backend::start([]).await;
    let (agent, _publisher) = forwarding(&backend.url(), &plant::forwarded("k")).await;
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
    let mut backend = Backend::start([Answer::RefuseWith(422, "\"id\":3,".to_owned())]).await;
    let (agent, publisher) = forwarding(&backend.url(), &plant::forwarded("k")).await;
    for id in 0..6 {
        publisher.publish("plant/good", good(id)).await;
    }
    publisher.confirmed().await;
    settled(&agent, 6).await;
    let letters = export(&agent, &["--stage", "forward"]);
    assert_eq!(letters.len(), 1);
    let line: Value = serde_json::from_slice(&letters[0].letter.payload).unwrap();
    assert_eq!(line["value"]["id"], 3);
    backend.mend();
    let told = told_of(&agent, &["replay", "--stage", "forward", "--json"], 0);
    assert_eq!(told["passed"], 1, "{told}");
    drained(&agent, "central", SOON).await;
    let confirmed: Vec<Value> = backend
        .attempts()
        .into_iter()
        .filter(|attempt| attempt.confirmed)
        .flat_map(|attempt| attempt.lines)
        .collect();
    assert_eq!(plant::ids(&confirmed, "each"), [0, 1, 2, 3, 4, 5]);
    backend.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_with_its_module_and_where_it_was() {
    let backend = Backend::start([]).await;
    let body = plant::forwarded("k")
        + "transform = [{ module = \"modules/hostile.wasm\", settings = { do = \"panic\" } }]";
    let (agent, publisher) = forwarding(&backend.url(), &body).await;
    for id in 0..20 {
        let reading = json!({ "id": id, "ts": 1_767_225_600_000_u64, "bad": id == 7 });
        publisher.publish("plant/good", reading.to_string()).await;
    }
    publisher.confirmed().await;
    settled(&agent, 20).await;
    let good: Vec<_> = (0..20).filter(|id| *id != 7).collect();
    assert_eq!(plant::ids(&reached(&backend, 19).await, "each"), good, "the others arrive");
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

/// The first configuration looks for the time where there is none. Mended, all of it is replayed
/// while the agent is killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_mended_configuration_replays_every_reading_once_over_any_kill() {
    let seed = std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut moments = fastrand::Rng::with_seed(seed);
    let (broker, collector) = (Broker::start().await, Collector::start().await);
    let windows = plant::windowed(KEY, "1s", "10s", "0s");
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &windows.replace("\"ts\"", "\"stamp\""))
        .pipeline("each", "plant", "central", &plant::forwarded(KEY).replace("\"ts\"", "\"stamp\""))
        .output("central", &collector.url(), ", timeout = \"2s\"");
    let mut agent = Agent::start(plan.toml()).await;
    let publisher = Publisher::connect("plant", broker.port());
    let mut load = Load::new(10);
    for _ in 0..READINGS {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
    for pipeline in ["windows", "each"] {
        agent.reaches("pipeline_rejected_messages", pipeline, READINGS, SOON).await;
    }
    assert_eq!(agent.stop().await.code(), Some(0));
    let mended = std::fs::read_to_string(agent.config()).unwrap().replace("\"stamp\"", "\"ts\"");
    std::fs::write(agent.config(), mended).unwrap();

    let mut in_the_middle = 0;
    agent.resume().await;
    for kill in 0..12 {
        let mut replay = agent.begin(&["dead-letters", "replay", "--all", "--wait", "0"]);
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
    let told = told_of(&agent, &["replay", "--all", "--json"], 0);
    assert_eq!((&told["failed"], &told["waiting"]), (&json!([]), &json!(0)), "{told}");
    let (topic, payload) = load.closing();
    publisher.publish(&topic, payload).await;
    publisher.confirmed().await;

    let expected = compute(load.readings(), oracle::Windows { size: 1_000, lateness: 10_000, revise: 0 });
    assert_eq!(expected.late, 0);
    for pipeline in ["windows", "each"] {
        agent.reaches("pipeline_used_events", pipeline, load.published(), SOON).await;
        drained(&agent, "central", SOON).await;
        let metrics = agent.metrics().await.expect("the agent answers");
        let counts = ["replayed_messages", "succeeded_replays", "used_events", "late_events", "events"];
        let counts = counts.map(|it| metrics.of(&format!("pipeline_{it}"), pipeline));
        assert_eq!(counts, [READINGS, READINGS, READINGS + 1, 0, READINGS + 1], "{pipeline}, seed {seed}");
    }
    let all = expected.windows.len() + load.readings().len();
    let results = collector.results_of(all).await;
    assert_eq!(results.len(), all, "results at the collector, seed {seed}");
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>(), "seed {seed}");
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
    assert!(!agent.logged().contains("panicked"), "no thread panicked");
}

fn good(id: u64) -> Vec<u8> {
    json!({ "id": id, "ts": 1_767_225_600_000_u64 + id, "more": 1 }).to_string().into_bytes()
}

async fn forwarding(url: &str, body: &str) -> (Agent, Publisher) {
    let broker = Broker::start().await;
    let plan = Plan::default()
        .input("plant", broker.port(), &["plant/#"], "3.1.1")
        .pipeline("each", "plant", "central", body)
        .output("central", url, "");
    (Agent::start(plan.toml()).await, Publisher::connect("plant", broker.port()))
}

/// Waits until so many messages were read and all that came of them was sent; checks the sums.
async fn settled(agent: &Agent, messages: u64) {
    agent.reaches("pipeline_read_messages", "each", messages, SOON).await;
    drained(agent, "central", SOON).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    let of = |metric: &str| metrics.of(&format!("pipeline_{metric}"), "each");
    assert_eq!(of("read_messages") + of("replayed_messages"), of("rejected_messages") + of("events"));
    assert_eq!(
        of("events") + of("replayed_events"),
        of("used_events") + of("late_events") + of("rejected_events")
    );
}

/// What the backend took, once there is as much.
async fn reached(backend: &Backend, lines: usize) -> Vec<Value> {
    headwater_tests::process::eventually("the lines to arrive", SOON, async || {
        Some(backend.accepted()).filter(|got| got.len() >= lines)
    })
    .await
}

fn export(agent: &Agent, filter: &[&str]) -> Vec<Kept> {
    let text = said(agent, &[&["export"], filter].concat());
    text.lines().map(|line| Kept::from_line(line).expect("a line reads back")).collect()
}

fn said(agent: &Agent, command: &[&str]) -> String {
    let output = agent.run(&[&["dead-letters"], command].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a replay says as JSON, and its exit code.
fn told_of(agent: &Agent, command: &[&str], code: i32) -> Value {
    let output = agent.run(&[&["dead-letters"], command].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words} {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {words}"))
}

/// Some are given up at the quota, others because of their age, with a kill where they have just become
/// unreadable: what is kept and what was reported are all there were, each once.
#[tokio::test(flavor = "multi_thread")]
async fn letters_that_are_given_up_are_reported_once() {
    let (broker, backend) = (Broker::start().await, Backend::start([]).await);
    let plan = Plan::default()
        .input("plant", broker.port(), &["plant/+"], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &backend.url(), ", backoff_max = \"1s\"");
    let config = |age: &str| format!("dead_letters = {{ bytes_max = \"16 MiB\"{age} }}\n\n{}", plan.toml());
    let mut agent = Agent::start(&config("")).await;
    let publisher = Publisher::connect("plant", broker.port());
    let count = 7_000;
    for id in 0..count {
        publisher.publish("plant/poison", format!("{id}{}", "x".repeat(3_600)).into_bytes()).await;
    }
    publisher.confirmed().await;
    settled(&agent, count).await;
    // Of so many, each is kept or reported: sooner or later, as reports go the way of results.
    let reported = async |agent: &Agent, kind: &str, all: u64| {
        let found = headwater_tests::process::eventually("each kept or reported", SOON, async || {
            let lines = backend.accepted();
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
        drained(agent, "central", SOON).await;
        headwater_tests::ledger::holds(agent).await;
        found
    };
    let (dropped, first, last, kept) = reported(&agent, "dropped", count).await;
    assert!(kept.len() > 1_000, "{}", kept.len());
    assert_eq!((first, last + 1), (0, kept[0].number));
    let metrics = agent.metrics().await.expect("it answers");
    assert_eq!(metrics.of("pipeline_given_up_letters", "each"), dropped);

    assert_eq!(agent.stop().await.code(), Some(0));
    agent.configure(&config(", age_max = \"1s\""));
    agent.environment([(headwater::fail::VARIABLE, "letters.given-up=kill".to_owned())]);
    agent.spawn();
    assert!(agent.ends(SOON).await.is_some(), "killed where the first went");
    agent.environment([]);
    agent.resume().await;
    let (expired, first, _, left) = reported(&agent, "expired", kept.len() as u64).await;
    assert!(left.len() < kept.len());
    assert_eq!(first, kept[0].number);
    let metrics = agent.metrics().await.expect("it answers");
    assert_eq!(metrics.of("pipeline_given_up_letters", "each"), dropped + expired);
}
