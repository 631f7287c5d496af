//! A network that does anything to the two connections of the agent: with its broker, and with the
//! collector. Nothing is lost, nothing counts twice, and the backlog drains once it behaves.

use std::time::Duration;

use headwater_tests::proxy::{Mode, Way};
use headwater_tests::world::{Options, World};

const KEEP_ALIVE: &str = ", keep_alive = \"5s\"";
/// How long the network misbehaves: longer than the broker or the collector may be silent.
const LONG: Duration = Duration::from_secs(9);
const SHORT: Duration = Duration::from_millis(1_500);

/// What either connection may meet, and how long.
const MODES: [(Mode, Duration); 20] = [
    (Mode::Stall(Way::Both), LONG),
    (Mode::Stall(Way::Up), LONG),
    (Mode::Stall(Way::Down), LONG),
    (Mode::Delay(Way::Both, Duration::from_millis(200)), SHORT),
    (Mode::Rate(Way::Up, 20_000), SHORT),
    (Mode::Rate(Way::Down, 20_000), SHORT),
    (Mode::Cut, SHORT),
    (Mode::Refuse, SHORT),
    (Mode::Reset(Way::Up), SHORT),
    (Mode::Reset(Way::Down), SHORT),
    (Mode::HalfClose(Way::Up), LONG),
    (Mode::HalfClose(Way::Down), LONG),
    (Mode::Half(Way::Up), SHORT),
    (Mode::Half(Way::Down), SHORT),
    (Mode::Swallow(Way::Up), SHORT),
    (Mode::Swallow(Way::Down), SHORT),
    (Mode::Garbage(Way::Up), SHORT),
    (Mode::Garbage(Way::Down), SHORT),
    // Of MQTT, a flipped bit makes another message, as good as the first: nobody could tell. A
    // request's body has a checksum.
    (Mode::Pass, SHORT),
    (Mode::Corrupt(Way::Up), LONG),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_broker_loses_and_doubles_nothing() {
    let mut world = world().await;
    for (mode, time) in MODES.into_iter().filter(|(mode, _)| !matches!(mode, Mode::Corrupt(_))) {
        world
            .under_load(async |host| {
                tokio::time::sleep(Duration::from_millis(200)).await;
                host.mqtt.set(mode);
                tokio::time::sleep(time).await;
                // A broken connection comes back, whatever it met before.
                if matches!(mode, Mode::Garbage(_) | Mode::HalfClose(_)) {
                    host.mqtt.set(Mode::Cut);
                }
                host.mqtt.set(Mode::Pass);
            })
            .await;
        settled(&mut world, mode).await;
    }
    finish(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_collector_loses_and_doubles_nothing() {
    let mut world = world().await;
    for (mode, time) in MODES {
        world
            .under_load(async |host| {
                tokio::time::sleep(Duration::from_millis(200)).await;
                // The noise comes first on a connection.
                if matches!(mode, Mode::Garbage(_)) {
                    host.http.set(Mode::Cut);
                }
                host.http.set(mode);
                tokio::time::sleep(time).await;
                host.http.set(Mode::Pass);
            })
            .await;
        settled(&mut world, mode).await;
    }
    let failed =
        world.host.agent.metrics().await.expect("it answers").of("output_failed_attempts", "central");
    assert!(failed > 10, "only {failed} attempts failed: this test sees nothing");
    finish(world).await;
}

/// A seed of its own each time, printed to repeat it.
async fn world() -> World {
    let given = std::env::var("HEADWATER_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    eprintln!("HEADWATER_SEED={seed}");
    World::start(&Options { input: KEEP_ALIVE.to_owned(), seed, ..Options::default() }).await
}

async fn settled(world: &mut World, mode: Mode) {
    let verdict = world.settle().await;
    eprintln!("{mode:?}: {:?}", world.published());
    assert!(verdict.is_good(), "{mode:?}: {verdict:?}");
}

async fn finish(mut world: World) {
    let letters = world.host.agent.dead_letters().await.len() as u64;
    assert_eq!(letters, 2 * world.poisons(), "nothing but what is no reading is a dead letter");
    assert!(!world.host.agent.logged().contains("panicked"), "no thread panicked");
}
