//! Deaths at every fail point, one after the other, by a kill and by a panic: nothing acknowledged is lost,
//! nothing counts twice, and no agent lives on that is stuck.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use headwater_agent::fail::POINTS;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::destination::{FakeDestination, ScriptedAnswer};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::ProxyMode;
use headwater_tests::publisher::TestPublisher;
use headwater_tests::world::{TestHost, TestWorld, WorldOptions};

/// The circumstances in which the agent passes a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PointTrigger {
    /// Every start or every load.
    Load,
    /// The first start only.
    FirstStart,
    /// A stop that was asked for.
    Stop,
    /// A start after a death at another point.
    After(&'static str),
    /// A test of its own: the destination refuses results, there is a backlog, or modules change.
    Own,
}

fn trigger_of(point: &str) -> PointTrigger {
    match point {
        "layout.made" | "layout.renamed" | "meta.made" | "meta.renamed" | "ballast.made"
        | "outbox.created" | "session.counted" | "pipeline.built" => PointTrigger::FirstStart,
        "log.truncated" => PointTrigger::After("commit.results-appended"),
        "segment.tidied" => PointTrigger::After("segment.dying"),
        "segment.discarded" => PointTrigger::After("log.rotated"),
        "outbox.narrowed" | "output.refused" | "outbox.cut" | "letters.given-up" => PointTrigger::Own,
        // The tests of `store/layout.rs` cut a migration short at these places.
        "layout.converted" | "layout.prepared" | "layout.moved" | "layout.switched" => PointTrigger::Own,
        // This one is tested with a second encoder, in the output's own tests.
        "outbox.begun-anew" => PointTrigger::Own,
        // These points are tested in `swap.rs`.
        "pipeline.switching" | "pipeline.switched" | "pipeline.going-back" | "pipeline.gone-back" => {
            PointTrigger::Own
        }
        stop if stop.starts_with("agent.") && stop.contains("stopp") => PointTrigger::Stop,
        _ => PointTrigger::Load,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_it_loses_and_doubles_nothing() {
    fail_at_every_point("kill").await;
}

/// Checks that a panic anywhere ends the process, so that its supervisor starts it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_every_point_ends_it_and_it_loses_and_doubles_nothing() {
    fail_at_every_point("panic").await;
}

async fn fail_at_every_point(action: &str) {
    // Large readings fill segments soon.
    let mut world = TestWorld::start(&WorldOptions { padding: 4_000, ..WorldOptions::default() }).await;
    let mut missed = Vec::new();
    for (point, _) in POINTS {
        let rule = format!("{point}={action}@{}", hit_number(point));
        let died = match trigger_of(point) {
            PointTrigger::FirstStart | PointTrigger::Own => continue,
            PointTrigger::Load if action == "panic" && HELPED.contains(point) => {
                survives_panic(&mut world, &rule).await
            }
            PointTrigger::Load => dies_at(&mut world, &[&rule], false).await,
            PointTrigger::Stop => dies_at(&mut world, &[&rule], true).await,
            PointTrigger::After(before) => {
                // A death at the first point may leave nothing for the next start to do, so it is tried
                // several times.
                let mut died = false;
                for hit in 1..=12 {
                    died =
                        died || dies_at(&mut world, &[&format!("{before}=kill@{hit}"), &rule], false).await;
                }
                died
            }
        };
        let verdict = world.settle().await;
        eprintln!(
            "{action} at {point}: {}, {:?}",
            if died { "died" } else { "NOT REACHED" },
            world.published()
        );
        assert!(verdict.is_good(), "{action} at {point}: {verdict:?}");
        if !died {
            missed.push(*point);
        }
    }
    assert!(missed.is_empty(), "never reached {missed:?}");
    let letters = world.host.agent.dead_letters().await.len() as u64;
    assert_eq!(letters, 2 * world.poisons());
}

/// The thread that prepares segments survives its panics, and appends prepare them themselves meanwhile.
const HELPED: [&str; 4] = ["segment.ordered", "engine.created", "engine.filled", "segment.prepared"];

/// Returns true if the agent passes the panic and then either ends or goes on. It has gone on once more is
/// acknowledged than fits into the segments begun before.
async fn survives_panic(world: &mut TestWorld, rule: &str) -> bool {
    world
        .under_load(async |host| {
            host.kill();
            // The first hit is of the start, which makes a segment without that thread.
            host.fail(&rule.replace("@1", "@2x1"));
            let before = host.agent.log_text().matches("panic at").count();
            let acknowledged = async |host: &TestHost| {
                let metrics = host.agent.metrics().await.ok();
                metrics.map_or(0, |metrics| metrics.of("input_acknowledged_messages", "plant"))
            };
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut count_at_panic = None;
            while Instant::now() < deadline {
                if host.agent.wait_for_exit(Duration::from_millis(50)).await.is_some() {
                    host.start().await;
                    return true;
                }
                let now = acknowledged(host).await;
                if count_at_panic.is_none() && host.agent.log_text().matches("panic at").count() > before {
                    count_at_panic = Some(now);
                }
                if count_at_panic.is_some_and(|count_at_panic| now > count_at_panic + 3_000) {
                    return true;
                }
            }
            false
        })
        .await
}

/// Returns the hit at which to fail. Where there are many hits it is not the first, so that the load has
/// begun by then.
fn hit_number(point: &str) -> u32 {
    let many = ["input.", "log.", "meta.", "pipeline.", "commit.", "output.", "disk."];
    let is_often = many.iter().any(|many| point.starts_with(many));
    if is_often && !["input.connected", "log.truncated"].contains(&point) { 5 } else { 1 }
}

/// Kills the agent and starts it once for each rule, the last time with a stop if so asked. Returns true if
/// that last run died of its rule. The agent runs again afterwards.
async fn dies_at(world: &mut TestWorld, rules: &[&str], is_asked_to_stop: bool) -> bool {
    world
        .under_load(async |host| {
            host.kill();
            let mut died = false;
            for (number, rule) in rules.iter().enumerate() {
                host.fail(rule);
                if is_asked_to_stop {
                    host.ready().await;
                    host.agent.terminate();
                }
                let patience = if number == 0 { Duration::from_secs(20) } else { Duration::from_secs(2) };
                died = host.wait_for_death(patience).await;
            }
            host.start().await;
            died
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_of_its_first_start_it_starts_all_the_same() {
    for (point, _) in POINTS.iter().filter(|(point, _)| trigger_of(point) == PointTrigger::FirstStart) {
        for action in ["kill", "panic"] {
            let first_start = Some(format!("{point}={action}@1"));
            let mut world = TestWorld::start(&WorldOptions { first_start, ..WorldOptions::default() }).await;
            let text = world.host.agent.log_text();
            assert!(text.contains(&format!("at {point}")), "it never reached {point}: {text}");
            world.under_load(async |_| tokio::time::sleep(Duration::from_millis(200)).await).await;
            let verdict = world.settle().await;
            assert!(verdict.is_good(), "{action} at {point}: {verdict:?}");
        }
    }
}

/// Checks a destination that refuses one result: the batch is made smaller down to that result, over any
/// death.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_narrows_down_it_loses_and_doubles_nothing() {
    for (point, hit) in [("outbox.narrowed", 1), ("outbox.narrowed", 3), ("output.refused", 1)] {
        let broker = MosquittoBroker::start_unsaved().await;
        let destination =
            FakeDestination::start([ScriptedAnswer::RefuseWith(422, "\"id\":77,".to_owned())]).await;
        let plan = ConfigBuilder::default()
            .input("plant", broker.port(), &[TOPICS], "3.1.1")
            .pipeline("each", "plant", "central", &plant::forwarded(KEY))
            .output("central", &destination.url(), ", timeout = \"1s\", results_max = 50");
        let mut agent = TestAgent::start(plan.toml()).await;
        agent.kill9();
        let publisher = TestPublisher::connect("plant", broker.port());
        let mut load = PlantLoad::new(5);
        for _ in 0..300 {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        publisher.confirmed().await;
        agent.environment([(headwater_agent::fail::VARIABLE, format!("{point}=kill@{hit}"))]);
        agent.spawn();
        assert!(agent.wait_for_exit(Duration::from_secs(20)).await.is_some(), "it never reached {point}");
        agent.environment([]);
        agent.resume().await;

        let expected: BTreeSet<u64> = (0..300).filter(|id| *id != 77).collect();
        eventually("the rest to arrive", Duration::from_secs(60), async || {
            (accepted_ids(&destination).len() == expected.len()).then_some(())
        })
        .await;
        assert_eq!(accepted_ids(&destination).into_iter().collect::<BTreeSet<_>>(), expected);
        let letters = agent.dead_letters().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
    }
}

/// Checks that the newest results overtake those that gathered while the collector was away.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_live_results_overtake_it_loses_and_doubles_nothing() {
    let mut world = TestWorld::start(&WorldOptions { live: true, ..WorldOptions::default() }).await;
    for action in ["kill", "panic"] {
        let died = world
            .under_load(async |host| {
                host.http.set(ProxyMode::Cut);
                tokio::time::sleep(Duration::from_secs(2)).await;
                host.kill();
                host.fail(&format!("outbox.cut={action}@1"));
                host.http.set(ProxyMode::Pass);
                let died = host.wait_for_death(Duration::from_secs(20)).await;
                host.start().await;
                died
            })
            .await;
        assert!(died, "it never reached outbox.cut");
        let verdict = world.settle().await;
        assert!(verdict.is_good(), "{action} at outbox.cut: {verdict:?}");
    }
}

/// Returns the ids of the accepted results, each number of the outbox once.
fn accepted_ids(destination: &FakeDestination) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for request in destination.requests().into_iter().filter(|request| request.confirmed) {
        for (number, line) in (request.key.first..).zip(&request.lines) {
            if seen.insert(number) {
                ids.push(line["value"]["id"].as_u64().expect("an id"));
            }
        }
    }
    ids
}
