//! Windows of every kind through the whole agent: the results at the collector equal a naive computation over
//! all readings, and do not depend on how the readings came (kills, a backlog).

mod bounded;
mod coarse;
mod load;
mod marks;
mod naive;

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_balance, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::recorded::{SERIES, series};
use headwater_tests::windows_oracle::{OracleReading, WindowRule, contents};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use load::{DeviceLoad, LATENESS};
use marks::{EarlierResults, KeyWatermarks, WatermarkScope};
use naive::{AggregateKind, FoundResult, check_unwindowed};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR.cast_signed();
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the pipeline without windows.
const UNWINDOWED: &str = "none";

/// The device whose reading closes all windows of the others; it stays in open windows itself.
const END: &str = "end";

/// A pipeline with its expected results.
struct PipelineCase {
    name: String,
    window: String,
    kind: WindowRule,
    aggregate: AggregateKind,
    clock: WatermarkScope,
    shown: EarlierResults,
}

/// Returns each kind with built-ins and with a module.
fn with_both_aggregates(kinds: &[(&str, &str, WindowRule)], lateness: &str) -> Vec<PipelineCase> {
    let cases = kinds.iter().flat_map(|(name, window, kind)| {
        [AggregateKind::BuiltIn, AggregateKind::Module].map(|aggregate| PipelineCase {
            name: format!("{name}-{}", aggregate.name()),
            window: format!("{window}, lateness = {lateness:?}"),
            kind: kind.clone(),
            aggregate,
            clock: WatermarkScope::Pipeline,
            shown: EarlierResults::Late,
        })
    });
    cases.collect()
}

fn day(zone: &str) -> WindowRule {
    WindowRule::Day { zone: TimeZone::get(zone).expect("a time zone") }
}

/// Returns a configuration in which late readings go to the output of the results, or to another that leads
/// to the same collector.
fn plan(cases: &[PipelineCase], broker: &MosquittoBroker, collector: &TestCollector) -> ConfigBuilder {
    let mut plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/+/telemetry"], "3.1.1")
        .output("central", &collector.url(), "")
        .output("late", &collector.url(), "");
    for (at, PipelineCase { name, window, aggregate, .. }) in cases.iter().enumerate() {
        let late = if at % 2 == 0 { "late" } else { "central" };
        let body = format!(
            "key = \"{{topic[1]}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\nwindow = {{ {window} }}\n\
             aggregate = {}\ncommit_every = \"100ms\"\nlate = {{ output = {late:?} }}",
            aggregate.toml()
        );
        plan = plan.pipeline(name, "plant", "central", &body);
    }
    plan
}

async fn publish(publisher: &TestPublisher, id: usize, reading: &OracleReading) {
    let topic = format!("plant/{}/telemetry", reading.key);
    publisher.publish(&topic, plant::payload(id as u64, reading.time / 1_000, reading.value)).await;
}

/// Returns a reading so much later that every window of the others closes.
fn end(after: &[OracleReading]) -> OracleReading {
    let newest = after.iter().map(|reading| reading.time).max().unwrap_or_default();
    OracleReading { key: END.to_owned(), time: newest + 30 * 24 * HOUR, value: 0.0 }
}

/// Returns the differences between the results of a pipeline and the expected ones.
fn differences(case: &PipelineCase, readings: &[OracleReading], lateness: u64, lines: &[Value]) -> String {
    let marks = KeyWatermarks::of(readings, lateness, case.clock);
    let mut expected = contents(readings, &case.kind);
    expected.retain(|place, _| place.key != END);
    assert!(expected.len() > 10, "{} has {} windows", case.name, expected.len());
    let mut wrong = Vec::new();
    for line in lines.iter().filter(|line| line["pipeline"] == case.name) {
        let found = FoundResult::of(line);
        let Some(inside) = expected.remove(&found.place) else {
            wrong.push(format!("not expected, or twice: {line}"));
            continue;
        };
        let same =
            case.aggregate.check(&inside, &found).and_then(|()| marks.check(&inside, &found, case.shown));
        wrong.extend(same.err().map(|difference| format!("{difference}: {line}")));
    }
    wrong.extend(expected.into_iter().map(|(place, inside)| format!("missing {place:?}: {inside:?}")));
    if wrong.is_empty() {
        return String::new();
    }
    let number = wrong.len();
    wrong.truncate(5);
    format!("{number} of {} differ:\n{}\n", case.name, wrong.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_every_kind_over_the_recorded_series_equal_a_naive_computation() {
    let kinds = [
        (
            "tumbling",
            r#"tumbling = "6h", offset = "90m""#,
            WindowRule::Tumbling { size: 6 * HOUR, offset: 90 * MINUTE },
        ),
        // Clocks went back on 2014-02-16 there, and here on 2015-08-15.
        ("day-sao-paulo", r#"tumbling = "1d", zone = "America/Sao_Paulo""#, day("America/Sao_Paulo")),
        ("day-pyongyang", r#"tumbling = "1d", zone = "Asia/Pyongyang""#, day("Asia/Pyongyang")),
        (
            "hopping",
            r#"hopping = "3h", slide = "30m", offset = "10m""#,
            WindowRule::Hopping { size: 3 * HOUR, slide: 30 * MINUTE, offset: 10 * MINUTE },
        ),
        ("sliding", r#"sliding = "1h""#, WindowRule::Sliding { length: HOUR }),
        (
            "session",
            r#"session = "20m", longest = "12h""#,
            WindowRule::Session { gap: 20 * MINUTE, longest: Some(12 * HOUR) },
        ),
        ("count", "count = 12, slide = 5", WindowRule::Count { size: 12, slide: 5 }),
    ];
    let cases = with_both_aggregates(&kinds, "2h");
    let mut readings = recorded();
    readings.push(end(&readings));
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let body = "key = \"{topic[1]}\"\ntime = { field = \"ts\", unit = \"ms\" }\ncommit_every = \"100ms\"";
    let plan = plan(&cases, &broker, &collector).pipeline(UNWINDOWED, "plant", "central", body);
    let mut agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("devices", broker.port());
    for (id, reading) in readings.iter().enumerate() {
        publish(&publisher, id, reading).await;
    }
    publisher.confirmed().await;
    for case in &cases {
        let metrics = check_balance(&agent, &case.name, "central", readings.len() as u64, PATIENCE).await;
        assert_eq!(metrics.of("pipeline_used_events", &case.name), readings.len() as u64, "{}", case.name);
    }
    check_balance(&agent, UNWINDOWED, "central", readings.len() as u64, PATIENCE).await;
    let results = collector.results().await;
    check_unwindowed(UNWINDOWED, &readings, &results);
    let wrong: String = cases.iter().map(|case| differences(case, &readings, 2 * HOUR, &results)).collect();
    assert!(wrong.is_empty(), "{wrong}");
    assert!(agent.dead_letters().await.is_empty());
    eprintln!("{} results of {} readings and {} ways", results.len(), readings.len(), cases.len());

    // Without such days the series would prove nothing about them.
    let lengths = |name: &str| results.iter().filter(|line| line["pipeline"] == name).map(length).collect();
    let west: Vec<i64> = lengths("day-sao-paulo-module");
    let east: Vec<i64> = lengths("day-pyongyang-module");
    assert!(west.iter().any(|day| day - DAY == HOUR.cast_signed()), "a day of 25 hours");
    assert!(east.iter().any(|day| day - DAY == 30 * MINUTE.cast_signed()), "a day of 24 hours and a half");
}

fn length(line: &Value) -> i64 {
    let place = FoundResult::of(line).place;
    place.end - place.start
}

/// Returns all series as one plant: each in its own order, and always the device whose next reading is the
/// earliest.
fn recorded() -> Vec<OracleReading> {
    let mut series: Vec<_> = SERIES.iter().map(|name| series(name).into_iter().peekable()).collect();
    let mut all = Vec::new();
    loop {
        let heads = series.iter_mut().filter_map(|series| Some((series.peek()?.time, series)));
        let Some((_, first)) = heads.min_by_key(|(time, _)| *time) else { return all };
        let reading = first.next().expect("it was seen");
        all.push(OracleReading { key: reading.key, time: reading.time * 1_000, value: reading.value });
    }
}

/// Returns the kinds for the load: those that give each result once, and those that give it provisionally,
/// revise it, or have a watermark for each key.
fn load_ways() -> Vec<PipelineCase> {
    let tumbling = || WindowRule::Tumbling { size: 30 * MINUTE, offset: 10 * MINUTE };
    let hopping = || WindowRule::Hopping { size: HOUR, slide: 25 * MINUTE, offset: 5 * MINUTE };
    let session = || WindowRule::Session { gap: 20 * MINUTE, longest: Some(7 * HOUR) };
    let count = || WindowRule::Count { size: 7, slide: 3 };
    let sliding = || WindowRule::Sliding { length: 40 * MINUTE };
    let berlin = || day("Europe/Berlin");
    let tumbling_text = r#"tumbling = "30m", offset = "10m""#;
    let hopping_text = r#"hopping = "1h", slide = "25m", offset = "5m""#;
    let session_text = r#"session = "20m", longest = "7h""#;
    let once = [
        ("tumbling", tumbling_text, tumbling()),
        ("day", r#"tumbling = "1d", zone = "Europe/Berlin""#, berlin()),
        ("hopping", hopping_text, hopping()),
        ("sliding", r#"sliding = "40m""#, sliding()),
        ("session", session_text, session()),
        ("count", "count = 7, slide = 3", count()),
    ];
    let mut cases = with_both_aggregates(&once, "1h");
    let own = r#"lateness = "1h", watermark = "key", patience = "24h""#;
    let more = [
        (
            "tumbling-early",
            format!(r#"{tumbling_text}, revise = "1h", early = "10m""#),
            tumbling(),
            EarlierResults::Early,
        ),
        (
            "day-revised",
            r#"tumbling = "1d", zone = "Europe/Berlin", revise = "1h""#.to_owned(),
            berlin(),
            EarlierResults::Late,
        ),
        ("hopping-revised", format!(r#"{hopping_text}, revise = "1h""#), hopping(), EarlierResults::Late),
        ("session-revised", format!(r#"{session_text}, revise = "1h""#), session(), EarlierResults::Joined),
        ("hopping-own", format!("{hopping_text}, {own}"), hopping(), EarlierResults::Late),
        ("sliding-own", format!(r#"sliding = "40m", {own}"#), sliding(), EarlierResults::Late),
        ("session-own", format!("{session_text}, {own}"), session(), EarlierResults::Late),
        ("count-own", format!("count = 7, slide = 3, {own}"), count(), EarlierResults::Late),
    ];
    cases.extend(more.into_iter().map(|(name, window, kind, shown)| PipelineCase {
        name: name.to_owned(),
        clock: if window.contains("watermark") { WatermarkScope::Key } else { WatermarkScope::Pipeline },
        window,
        kind,
        aggregate: AggregateKind::BuiltIn,
        shown,
    }));
    cases
}

/// The circumstances in which the same readings come to an agent.
#[derive(Clone, Copy, Debug)]
enum DeliveryHistory {
    /// They come with small pauses.
    Live,
    /// They come all while the agent is away.
    Outage,
    /// They come with small pauses, and the agent is killed this many times.
    Kills(u32),
}

/// The results at the collector by pipeline, key, window and part, as text, and likewise the retracted
/// windows.
#[derive(Debug, PartialEq)]
struct StoredRows {
    results: BTreeMap<String, String>,
    retracted: BTreeMap<String, String>,
    lines: Vec<Value>,
    /// The late readings of each pipeline, in their order.
    late: BTreeMap<String, Vec<String>>,
}

async fn run(history: DeliveryHistory, cases: &[PipelineCase], load: &DeviceLoad, seed: u64) -> StoredRows {
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let mut agent = TestAgent::start(plan(cases, &broker, &collector).toml()).await;
    let publisher = TestPublisher::connect("devices", broker.port());
    let mut rng = fastrand::Rng::with_seed(seed);
    match history {
        DeliveryHistory::Outage => {
            assert_eq!(agent.stop().await.code(), Some(0));
            publish_load(&publisher, load, None).await;
            agent.spawn();
        }
        DeliveryHistory::Live => publish_load(&publisher, load, Some(&mut rng.clone())).await,
        DeliveryHistory::Kills(kills) => {
            let mut pauses = rng.fork();
            tokio::join!(publish_load(&publisher, load, Some(&mut pauses)), async {
                for kill in 0..kills {
                    let moment = Duration::from_millis(rng.u64(0..1_500));
                    tokio::time::sleep(moment).await;
                    agent.kill9();
                    eprintln!("kill {kill} after {moment:?}, seed {seed}");
                    agent.spawn();
                }
            });
        }
    }
    agent.ready().await;
    for PipelineCase { name, .. } in cases {
        let metrics = check_balance(&agent, name, "central", load.published.len() as u64, PATIENCE).await;
        let late = metrics.of("pipeline_late_events", name);
        assert_eq!(late, load.late().count() as u64, "late readings of {name}, {history:?}, seed {seed}");
    }
    wait_until_drained(&agent, "late", PATIENCE).await;
    let (lines, retracted) = collector.results_and_retractions().await;
    assert!(agent.dead_letters().await.is_empty(), "{history:?}, seed {seed}");
    assert!(!agent.log_text().contains("panicked"), "no thread panicked, {history:?}, seed {seed}");
    let results = by_identity(&lines);
    let retracted = by_identity(&retracted);
    StoredRows { results, retracted, lines, late: by_pipeline(&collector.late().await) }
}

/// Returns late readings unchanged, grouped by pipeline.
fn by_pipeline(rows: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut by_pipeline = BTreeMap::<String, Vec<String>>::new();
    for row in rows {
        let name = row["pipeline"].as_str().expect("a name");
        let mut row = row.clone();
        row.as_object_mut().expect("a row").remove("id");
        by_pipeline.entry(name.to_owned()).or_default().push(row.to_string());
    }
    by_pipeline
}

/// Returns the readings of the load that must come as late readings of a pipeline.
fn late_of(case: &PipelineCase, load: &DeviceLoad) -> Vec<String> {
    let row = |(id, reading): (usize, &OracleReading)| {
        let time = jiff::Timestamp::from_microsecond(reading.time.cast_signed()).expect("a time");
        let value: Value =
            serde_json::from_slice(&plant::payload(id as u64, reading.time / 1_000, reading.value))
                .expect("JSON");
        let topic = format!("plant/{}/telemetry", reading.key);
        let time = time.to_string();
        json!({
            "agent": "edge-1", "pipeline": case.name, "key": reading.key, "topic": topic, "time": time,
            "module": null, "value": value,
        })
        .to_string()
    };
    load.late().map(row).collect()
}

/// Publishes all readings, with a pause now and then.
async fn publish_load(publisher: &TestPublisher, load: &DeviceLoad, mut pauses: Option<&mut fastrand::Rng>) {
    for (id, reading) in load.published.iter().enumerate() {
        publish(publisher, id, reading).await;
        if let Some(pauses) = pauses.as_mut().filter(|_| id % 8 == 0) {
            tokio::time::sleep(Duration::from_millis(pauses.u64(0..30))).await;
        }
    }
    publisher.confirmed().await;
}

/// Returns rows without the number of their change, by their identity.
fn by_identity(rows: &[Value]) -> BTreeMap<String, String> {
    let rows = rows.iter().map(|row| {
        let mut row = row.clone();
        row.as_object_mut().expect("a row").remove("change");
        (format!("{} {} {}", row["pipeline"], row["key"], row["window"]), row.to_string())
    });
    let number = rows.len();
    let by_identity: BTreeMap<_, _> = rows.collect();
    assert_eq!(by_identity.len(), number, "an identity twice");
    by_identity
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_kills_nor_a_backlog_show_in_windows_of_any_kind() {
    let seed = seed();
    let cases = load_ways();
    let load = DeviceLoad::new(seed);
    let (live, outage, killed) = tokio::join!(
        run(DeliveryHistory::Live, &cases, &load, seed),
        run(DeliveryHistory::Outage, &cases, &load, seed),
        run(DeliveryHistory::Kills(8), &cases, &load, seed),
    );
    for (history, stored) in [("live", &live), ("outage", &outage), ("killed", &killed)] {
        let lateness = |case: &PipelineCase| if case.window.contains("revise") { 0 } else { LATENESS };
        let of = |case| differences(case, &load.used, lateness(case), &stored.lines);
        let wrong: String = cases.iter().map(of).collect();
        assert!(wrong.is_empty(), "{history}, seed {seed}:\n{wrong}");
        // Without retractions the load would prove nothing about them.
        assert!(stored.retracted.len() > 10, "{history}, seed {seed}: sessions were joined");
        for case in &cases {
            let found = &stored.late[&case.name];
            let expected = late_of(case, &load);
            assert!(*found == expected, "{history}, seed {seed}: late of {}: {found:?}", case.name);
        }
        let revised = |line: &&Value| line["revision"] != 0 && line["late"] != 0;
        let revised = stored.lines.iter().filter(revised).count();
        assert!(revised > 100, "{history}, seed {seed}: {revised} results revised");
    }
    for (history, stored) in [("outage", &outage), ("killed", &killed)] {
        for (kind, one, other) in
            [("result", &live.results, &stored.results), ("retracted", &live.retracted, &stored.retracted)]
        {
            let differ: Vec<_> = one.iter().filter(|(place, row)| other.get(*place) != Some(row)).collect();
            let first = differ.first().map(|(place, row)| (row, other.get(*place)));
            assert!(differ.is_empty(), "{history}, {kind}, seed {seed}: {} differ: {first:#?}", differ.len());
            assert_eq!(one.len(), other.len(), "{history}, {kind}, seed {seed}");
        }
    }
}

/// Returns the seed in HEADWATER_SEED, to repeat a run, or else a new one.
fn seed() -> u64 {
    let given = std::env::var("HEADWATER_SEED").ok();
    given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("HEADWATER_SEED is a number"))
}
