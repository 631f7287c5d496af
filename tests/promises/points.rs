//! Killed at every boundary of effect, one after the other, and again as a panic: nothing
//! acknowledged is lost, nothing counts twice, and nothing lives on that is stuck.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use headwater::fail::POINTS;
use headwater_tests::agent::Agent;
use headwater_tests::backend::{Answer, Backend};
use headwater_tests::broker::Mosquitto;
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::Mode;
use headwater_tests::publisher::Publisher;
use headwater_tests::world::{Host, Options, World};

/// How the agent comes to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Every start passes it, or every load.
    Load,
    /// Only the first start does.
    FirstStart,
    /// Only a stop that was asked for.
    Stop,
    /// Only a start after it was killed at another point.
    After(&'static str),
    /// Only where a test of its own leads: the destination refuses results, there is a backlog, modules change.
    Own,
}

fn way(point: &str) -> Way {
    match point {
        "layout.made" | "layout.renamed" | "meta.made" | "meta.renamed" | "ballast.made"
        | "outbox.created" | "session.counted" | "pipeline.built" => Way::FirstStart,
        "log.truncated" => Way::After("commit.results-appended"),
        "segment.tidied" => Way::After("segment.dying"),
        "segment.discarded" => Way::After("log.rotated"),
        "outbox.narrowed" | "forward.refused" | "outbox.cut" | "letters.given-up" => Way::Own,
        // In `swap.rs`.
        "pipeline.switching" | "pipeline.switched" | "pipeline.going-back" | "pipeline.gone-back" => Way::Own,
        stop if stop.starts_with("agent.") && stop.contains("stopp") => Way::Stop,
        _ => Way::Load,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_it_loses_and_doubles_nothing() {
    walk("kill").await;
}

/// A panic anywhere ends the process, for its supervisor to start it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_every_point_ends_it_and_it_loses_and_doubles_nothing() {
    walk("panic").await;
}

async fn walk(action: &str) {
    // Large readings fill segments soon.
    let mut world = World::start(&Options { padding: 4_000, ..Options::default() }).await;
    let mut missed = Vec::new();
    for (point, _) in POINTS {
        let rule = format!("{point}={action}@{}", hit(point));
        let died = match way(point) {
            Way::FirstStart | Way::Own => continue,
            Way::Load if action == "panic" && HELPED.contains(point) => goes_on(&mut world, &rule).await,
            Way::Load => dies(&mut world, &[&rule], false).await,
            Way::Stop => dies(&mut world, &[&rule], true).await,
            Way::After(before) => {
                // Not every death there leaves something for the next start.
                let mut died = false;
                for hit in 1..=12 {
                    died = died || dies(&mut world, &[&format!("{before}=kill@{hit}"), &rule], false).await;
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
    assert!(missed.is_empty(), "never came to {missed:?}");
    let letters = world.host.agent.dead_letters().await.len() as u64;
    assert_eq!(letters, 2 * world.poisons());
}

/// The thread that makes segments ahead survives its panics: appends help themselves meanwhile.
const HELPED: [&str; 4] = ["segment.ordered", "engine.created", "engine.filled", "segment.prepared"];

/// Whether the agent comes to the panic, and either ends or goes on: more is acknowledged afterwards
/// than fits what was begun before.
async fn goes_on(world: &mut World, rule: &str) -> bool {
    world
        .under_load(async |host| {
            host.kill();
            // Not the first, which a start makes without help.
            host.fail(&rule.replace("@1", "@2x1"));
            let before = host.agent.logged().matches("panic at").count();
            let acknowledged = async |host: &Host| {
                let metrics = host.agent.metrics().await.ok();
                metrics.map_or(0, |metrics| metrics.of("source_acknowledged_messages", "plant"))
            };
            let (deadline, mut came) = (Instant::now() + Duration::from_secs(30), None);
            while Instant::now() < deadline {
                if host.agent.ends(Duration::from_millis(50)).await.is_some() {
                    host.start().await;
                    return true;
                }
                let now = acknowledged(host).await;
                if came.is_none() && host.agent.logged().matches("panic at").count() > before {
                    came = Some(now);
                }
                if came.is_some_and(|came| now > came + 3_000) {
                    return true;
                }
            }
            false
        })
        .await
}

/// Where hits are many it is not the first: the load has begun by then.
fn hit(point: &str) -> u32 {
    let many = ["source.", "log.", "meta.", "pipeline.", "commit.", "forward.", "disk."];
    let is_often = many.iter().any(|many| point.starts_with(many));
    if is_often && !["source.connected", "log.truncated"].contains(&point) { 5 } else { 1 }
}

/// Kills the agent, and lets each of its next lives run into its rule, the last of them after it was
/// asked to stop if so wanted; whether that one died there. It runs again.
async fn dies(world: &mut World, rules: &[&str], is_asked_to_stop: bool) -> bool {
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
                died = host.dies(patience).await;
            }
            host.start().await;
            died
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_of_its_first_start_it_starts_all_the_same() {
    for (point, _) in POINTS.iter().filter(|(point, _)| way(point) == Way::FirstStart) {
        for action in ["kill", "panic"] {
            let first_start = Some(format!("{point}={action}@1"));
            let mut world = World::start(&Options { first_start, ..Options::default() }).await;
            let said = world.host.agent.logged();
            assert!(said.contains(&format!("at {point}")), "it never came to {point}: {said}");
            world.under_load(async |_| tokio::time::sleep(Duration::from_millis(200)).await).await;
            let verdict = world.settle().await;
            assert!(verdict.is_good(), "{action} at {point}: {verdict:?}");
        }
    }
}

/// A destination that refuses one result: it is narrowed down to, over any death.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_narrows_down_it_loses_and_doubles_nothing() {
    for (point, hit) in [("outbox.narrowed", 1), ("outbox.narrowed", 3), ("forward.refused", 1)] {
        let broker = Mosquitto::start_unsaved().await;
        let backend = Backend::start([Answer::RefuseWith(422, "\"id\":77,".to_owned())]).await;
        let plan = Plan::default()
            .input("plant", broker.port(), &[TOPICS], "3.1.1")
            .pipeline("each", "plant", "central", &plant::forwarded(KEY))
            .output("central", &backend.url(), ", timeout = \"1s\", results_max = 50");
        let mut agent = Agent::start(plan.toml()).await;
        agent.kill9();
        let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(5));
        for _ in 0..300 {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        publisher.confirmed().await;
        agent.environment([(headwater::fail::VARIABLE, format!("{point}=kill@{hit}"))]);
        agent.spawn();
        assert!(agent.ends(Duration::from_secs(20)).await.is_some(), "it never came to {point}");
        agent.environment([]);
        agent.resume().await;

        let expected: BTreeSet<u64> = (0..300).filter(|id| *id != 77).collect();
        eventually("the rest to arrive", Duration::from_secs(60), async || {
            (accepted(&backend).len() == expected.len()).then_some(())
        })
        .await;
        assert_eq!(accepted(&backend).into_iter().collect::<BTreeSet<_>>(), expected);
        let letters = agent.dead_letters().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
    }
}

/// The newest results overtake what gathered while the collector was away.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_live_results_overtake_it_loses_and_doubles_nothing() {
    let mut world = World::start(&Options { live: true, ..Options::default() }).await;
    for action in ["kill", "panic"] {
        let died = world
            .under_load(async |host| {
                host.http.set(Mode::Cut);
                tokio::time::sleep(Duration::from_secs(2)).await;
                host.kill();
                host.fail(&format!("outbox.cut={action}@1"));
                host.http.set(Mode::Pass);
                let died = host.dies(Duration::from_secs(20)).await;
                host.start().await;
                died
            })
            .await;
        assert!(died, "it never came to outbox.cut");
        let verdict = world.settle().await;
        assert!(verdict.is_good(), "{action} at outbox.cut: {verdict:?}");
    }
}

/// Ids of what was accepted, each number of the outbox once.
fn accepted(backend: &Backend) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for attempt in backend.attempts().into_iter().filter(|attempt| attempt.confirmed) {
        for (number, line) in (attempt.key.first..).zip(&attempt.lines) {
            if seen.insert(number) {
                ids.push(line["value"]["id"].as_u64().expect("an id"));
            }
        }
    }
    ids
}
