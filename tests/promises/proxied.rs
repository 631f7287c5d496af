//! A network that does anything to the two connections of the agent, those with its broker and with the
//! collector. Nothing is lost, nothing counts twice, and the backlog drains once the network behaves.

use std::time::Duration;

use headwater_tests::proxy::{FaultDirection, ProxyMode};
use headwater_tests::world::{TestWorld, WorldOptions};

const KEEP_ALIVE: &str = ", keep_alive = \"5s\"";
/// The time for which the network misbehaves, longer than the broker or the collector may be silent.
const LONG: Duration = Duration::from_secs(9);
const SHORT: Duration = Duration::from_millis(1_500);

/// The faults that either connection meets, and how long each lasts.
const MODES: [(ProxyMode, Duration); 20] = [
    (ProxyMode::Stall(FaultDirection::Both), LONG),
    (ProxyMode::Stall(FaultDirection::Up), LONG),
    (ProxyMode::Stall(FaultDirection::Down), LONG),
    (ProxyMode::Delay(FaultDirection::Both, Duration::from_millis(200)), SHORT),
    (ProxyMode::Rate(FaultDirection::Up, 20_000), SHORT),
    (ProxyMode::Rate(FaultDirection::Down, 20_000), SHORT),
    (ProxyMode::Cut, SHORT),
    (ProxyMode::Refuse, SHORT),
    (ProxyMode::Reset(FaultDirection::Up), SHORT),
    (ProxyMode::Reset(FaultDirection::Down), SHORT),
    (ProxyMode::HalfClose(FaultDirection::Up), LONG),
    (ProxyMode::HalfClose(FaultDirection::Down), LONG),
    (ProxyMode::Half(FaultDirection::Up), SHORT),
    (ProxyMode::Half(FaultDirection::Down), SHORT),
    (ProxyMode::Swallow(FaultDirection::Up), SHORT),
    (ProxyMode::Swallow(FaultDirection::Down), SHORT),
    (ProxyMode::Garbage(FaultDirection::Up), SHORT),
    (ProxyMode::Garbage(FaultDirection::Down), SHORT),
    // There is no flipped bit on the MQTT connection: it makes another message, as good as the first. The
    // body of a request has a checksum.
    (ProxyMode::Pass, SHORT),
    (ProxyMode::Corrupt(FaultDirection::Up), LONG),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_broker_loses_and_doubles_nothing() {
    let mut world = seeded_world().await;
    for (mode, time) in MODES.into_iter().filter(|(mode, _)| !matches!(mode, ProxyMode::Corrupt(_))) {
        world
            .under_load(async |host| {
                tokio::time::sleep(Duration::from_millis(200)).await;
                host.mqtt.set(mode);
                tokio::time::sleep(time).await;
                // A broken connection must come back, after any fault.
                if matches!(mode, ProxyMode::Garbage(_) | ProxyMode::HalfClose(_)) {
                    host.mqtt.set(ProxyMode::Cut);
                }
                host.mqtt.set(ProxyMode::Pass);
            })
            .await;
        settled(&mut world, mode).await;
    }
    finish(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_collector_loses_and_doubles_nothing() {
    let mut world = seeded_world().await;
    for (mode, time) in MODES {
        world
            .under_load(async |host| {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // The noise hits the first piece of a connection.
                if matches!(mode, ProxyMode::Garbage(_)) {
                    host.http.set(ProxyMode::Cut);
                }
                host.http.set(mode);
                tokio::time::sleep(time).await;
                host.http.set(ProxyMode::Pass);
            })
            .await;
        settled(&mut world, mode).await;
    }
    let failed =
        world.host.agent.metrics().await.expect("it answers").of("output_failed_attempts", "central");
    assert!(failed > 10, "only {failed} attempts failed: this test sees nothing");
    finish(world).await;
}

/// Makes a world with a new seed, which is printed so that a run can be repeated.
async fn seeded_world() -> TestWorld {
    let given = std::env::var("HEADWATER_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    eprintln!("HEADWATER_SEED={seed}");
    TestWorld::start(&WorldOptions { input: KEEP_ALIVE.to_owned(), seed, ..WorldOptions::default() }).await
}

async fn settled(world: &mut TestWorld, mode: ProxyMode) {
    let verdict = world.settle().await;
    eprintln!("{mode:?}: {:?}", world.published());
    assert!(verdict.is_good(), "{mode:?}: {verdict:?}");
}

async fn finish(mut world: TestWorld) {
    let letters = world.host.agent.dead_letters().await.len() as u64;
    assert_eq!(letters, 2 * world.poisons(), "nothing but what is no reading is a dead letter");
    assert!(!world.host.agent.log_text().contains("panicked"), "no thread panicked");
}
