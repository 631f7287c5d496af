//! A disk that is full, fails, stalls, or may not be written: acknowledged messages stay, nothing is
//! acknowledged that is not durable, and the agent goes on by itself once it can.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use headwater_tests::agent::{PROGRAM, TestAgent};
use headwater_tests::image::DiskImage;
use headwater_tests::plant::{self, ConfigBuilder, KEY, TOPICS};
use headwater_tests::process::{built_program, eventually};
use headwater_tests::proxy::ProxyMode;
use headwater_tests::world::{TestHost, TestWorld, WorldOptions};

const SOON: Duration = Duration::from_secs(30);
const DISK_BYTES: u64 = 128 << 20;

async fn world() -> TestWorld {
    TestWorld::start(&WorldOptions { disk_bytes: Some(DISK_BYTES), ..WorldOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_withholds_acknowledgements_until_there_is_room() {
    let mut world = world().await;
    let again = world
        .under_load(async |host| {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let filler = DiskFiller::leave(host, 10 << 20);
            eventually("the disk to be called full", SOON, async || {
                (metric(host, "disk_full", "state").await? == 1).then_some(())
            })
            .await;
            // Groups that were on their way to the disk may still be acknowledged.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let acknowledged = metric(host, "input_acknowledged_messages", "plant").await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(metric(host, "input_acknowledged_messages", "plant").await, acknowledged);
            assert_eq!(host.agent.get("/live").await.expect("it lives").0, 200);
            assert!(host.agent.log_text().contains("input waits for room"));
            drop(filler);
            let began = Instant::now();
            eventually("acknowledgements to go on", Duration::from_secs(10), async || {
                (metric(host, "input_acknowledged_messages", "plant").await > acknowledged).then_some(())
            })
            .await;
            began.elapsed()
        })
        .await;
    eprintln!("acknowledges again {again:?} after there was room");
    good(&mut world).await;
}

/// Checks a disk of which another process takes every byte, even the ballast's: the agent may end with that
/// cause, and then waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_to_its_end_costs_nothing() {
    let mut world = world().await;
    world
        .under_load(async |host| {
            let until = Instant::now() + Duration::from_secs(10);
            let mut filler = DiskFiller::none(host);
            let mut ends = Vec::new();
            while Instant::now() < until {
                filler.fill();
                if let Some(status) = host.agent.wait_for_exit(Duration::from_millis(50)).await {
                    ends.push(status.code());
                    host.agent.spawn();
                }
            }
            eprintln!("ended with {ends:?}");
            assert!(ends.len() <= 2 && ends.iter().all(|code| matches!(code, Some(1 | 78))), "{ends:?}");
            let text = host.agent.log_text();
            assert!(ends.is_empty() || text.contains("disk full"), "{text}");
            drop(filler);
            if host.agent.wait_for_exit(Duration::from_millis(500)).await.is_some() {
                host.agent.spawn();
            }
            host.ready().await;
        })
        .await;
    good(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_it_starts_with_its_ballast_and_drains() {
    let mut world = world().await;
    world.host.http.set(ProxyMode::Cut);
    world.under_load(async |_| tokio::time::sleep(Duration::from_secs(3)).await).await;
    let host = &mut world.host;
    host.kill();
    let mut filler = DiskFiller::none(host);
    filler.fill();
    assert!(ballast(host).exists(), "it is held from the first start on");
    host.agent.spawn();
    host.http.set(ProxyMode::Pass);
    eventually("all that was stored to be delivered", SOON, async || {
        let metrics = host.agent.metrics().await.ok()?;
        let lag: f64 = metrics.all("pipeline_lag_messages").iter().sum();
        let delivered = metrics.of("output_delivered_results", "central");
        (delivered > 0 && lag == 0.0 && metrics.of("output_pending_results", "central") == 0).then_some(())
    })
    .await;
    assert!(!ballast(host).exists(), "it was released");
    assert!(host.agent.log_text().contains("ballast released"));
    drop(filler);
    eventually("the ballast to be held again", SOON, async || ballast(host).exists().then_some(())).await;
    good(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_waits_and_touches_nothing() {
    let mut world = world().await;
    world.under_load(async |_| tokio::time::sleep(Duration::from_millis(500)).await).await;
    let host = &mut world.host;
    host.kill();
    // The state is that of a disk that filled up although the ballast was released.
    std::fs::remove_file(ballast(host)).expect("it is held");
    let mut filler = DiskFiller::none(host);
    filler.fill();
    let before = store_bytes(&host.agent.state());
    host.agent.spawn();
    assert_eq!(host.agent.wait_for_exit(Duration::from_secs(4)).await, None, "it waits, alive");
    assert!(host.agent.log_text().contains("agent waits for disk space"), "{}", host.agent.log_text());
    assert_eq!(store_bytes(&host.agent.state()), before);
    drop(filler);
    let began = Instant::now();
    host.ready().await;
    assert!(began.elapsed() < Duration::from_secs(10));
    good(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_on_a_full_disk_waits_too() {
    let mut agent = TestAgent::prepare(unreachable_plan().toml());
    let disk = DiskImage::make(agent.home(), "state", DISK_BYTES).expect("images can be mounted");
    let mut filler = DiskFiller::at(disk.folder());
    filler.fill();
    agent.spawn();
    assert_eq!(agent.wait_for_exit(Duration::from_secs(3)).await, None, "it waits, alive");
    assert!(agent.log_text().contains("agent waits for disk space"), "{}", agent.log_text());
    drop(filler);
    eventually("it to start", SOON, async || agent.get("/live").await.ok()).await;
    assert_eq!(agent.stop().await.code(), Some(0));
}

/// Checks a single failure after which the disk reports success: a second try would wrongly believe it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_or_write_that_failed_once_is_never_tried_again() {
    let mut world = TestWorld::start(&WorldOptions { padding: 2_000, ..WorldOptions::default() }).await;
    for rules in [
        "disk.sync=error@40x1",
        "disk.write=error@40x1",
        "disk.mark=error@40x1",
        "disk.sync=error:full@41x1",
        "disk.write=error:full@41x1",
    ] {
        let code = world
            .under_load(async |host| {
                host.kill();
                host.fail(rules);
                let status = host.agent.wait_for_exit(SOON).await.expect("it ends for its supervisor");
                let text = host.agent.log_text();
                assert!(text.contains("store failed, nothing more is written"), "{text}");
                host.start().await;
                status.code()
            })
            .await;
        assert_eq!(code, Some(1), "{rules}");
        good(&mut world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_two_seconds_a_sync_loses_no_connection() {
    let keep_alive = ", keep_alive = \"5s\"".to_owned();
    let mut world = TestWorld::start(&WorldOptions { input: keep_alive, ..WorldOptions::default() }).await;
    let (connections, syncs, messages) = world
        .under_load(async |host| {
            host.kill();
            // The last stall is longer than the broker waits for a ping.
            host.fail("disk.sync=stall:2s@30x30; disk.sync=stall:9s@60x1");
            host.ready().await;
            tokio::time::sleep(Duration::from_secs(8)).await;
            let before = host.agent.metrics().await.expect("it answers while the disk does not");
            tokio::time::sleep(Duration::from_secs(7)).await;
            let after = host.agent.metrics().await.expect("it answers while the disk does not");
            let grown = |metric: &str, name: &str| after.of(metric, name) - before.of(metric, name);
            let syncs = grown("store_syncs", "journal");
            let messages = grown("store_appended_records", "journal");
            tokio::time::sleep(Duration::from_secs(16)).await;
            let after = host.agent.metrics().await.expect("it answers while the disk does not");
            (after.of("input_connections", "plant"), syncs, messages)
        })
        .await;
    eprintln!("{messages} messages in {syncs} syncs");
    assert_eq!(connections, 1, "pings went on");
    assert!((1..=4).contains(&syncs) && messages > 500 * syncs, "groups grow");
    good(&mut world).await;
    assert!(world.host.rss_max < 160 << 20, "{} bytes of memory", world.host.rss_max);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_may_not_be_written_is_refused_with_78_and_nothing_consumed() {
    let mut world = world().await;
    world.under_load(async |_| tokio::time::sleep(Duration::from_millis(300)).await).await;
    world.host.kill();
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", how]).arg(world.host.agent.state()).status();
        assert!(done.expect("mount starts").success(), "{how}");
    };
    remount("remount,ro");
    // Messages that come meanwhile stay with the broker.
    refused(&world.host.agent, world.host.agent.run_command(&["run"]));
    remount("remount,rw");

    // The agent runs as an unprivileged user in a folder of root, with its program where that user may run
    // it.
    let home = world.host.agent.home();
    let program = world.host.agent.home().join("headwater");
    std::fs::copy(built_program(PROGRAM), &program).expect("room for the program");
    for path in [home, &world.host.agent.state()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    let mut command = Command::new(program);
    command.uid(65_534).args(["run", "--config"]).arg(world.host.agent.config()).current_dir("/");
    refused(&world.host.agent, command.output().expect("it starts"));

    world.under_load(async |host| host.start().await).await;
    good(&mut world).await;
}

#[track_caller]
fn refused(agent: &TestAgent, output: std::process::Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains(agent.state().to_str().expect("a plain path")), "the path is named: {text}");
    assert!(text.contains("ermission denied") || text.contains("Read-only"), "the reason is named: {text}");
}

/// Returns the configuration of an agent whose broker and destination do not exist.
fn unreachable_plan() -> ConfigBuilder {
    ConfigBuilder::default()
        .input("plant", 9, &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", "http://127.0.0.1:9/v1/batches", "")
}

async fn good(world: &mut TestWorld) {
    let verdict = world.settle().await;
    assert!(verdict.is_good(), "{verdict:?}");
    assert!(!world.host.agent.log_text().contains("panicked"), "{}", world.host.agent.log_text());
}

async fn metric(host: &TestHost, metric: &str, name: &str) -> Option<u64> {
    Some(host.agent.metrics().await.ok()?.of(metric, name))
}

fn ballast(host: &TestHost) -> PathBuf {
    host.agent.state().join("store/ballast")
}

/// Returns the bytes of every file below the folder, but for files that do not belong to the store.
fn store_bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("store")).into_iter().flatten().flatten() {
        collect(&entry.path(), &mut files);
    }
    files
}

fn collect(path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            collect(&entry.path(), files);
        }
    } else {
        files.insert(path.to_owned(), std::fs::read(path).expect("a file that was listed"));
    }
}

/// A file of another process on the disk of the state folder. Dropping it removes the file.
struct DiskFiller {
    path: PathBuf,
    file: File,
}

impl DiskFiller {
    fn at(folder: &Path) -> Self {
        let path = folder.join("filler");
        Self { file: File::create(&path).expect("the first block"), path }
    }

    fn none(host: &TestHost) -> Self {
        Self::at(&host.agent.state())
    }

    /// Takes all space but this many bytes.
    fn leave(host: &TestHost, bytes: u64) -> Self {
        let filler = Self::none(host);
        let free = rustix::fs::statvfs(&filler.path).expect("a mounted disk");
        let take = free.f_bavail * free.f_frsize - bytes;
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&filler.file, flags, 0, take).expect("there is room");
        filler
    }

    /// Takes all space that is left.
    fn fill(&mut self) {
        for piece in [vec![1; 1 << 20], vec![1; 4096]] {
            while self.file.write_all(&piece).is_ok() {}
        }
        self.file.sync_all().ok();
    }
}

impl Drop for DiskFiller {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
