//! Breaks one agent again and again, and counts the losses: `cargo run --release --bin soak -- --kills 1000
//! --cuts 200 --corruptions 60 --seed 1` (the program `soak` only builds and calls this one, which has fail
//! points in it and runs as agent and collector itself).
//!
//! A round breaks the agent under load, lets it go on, and compares the collector with the oracle: every
//! reading once, every result right, every message read once. Losses that are reported do not count as
//! losses. A message that damage took before the broker had its acknowledgement is reported lost and read
//! when the broker sends it again: only such messages may be in a pipeline's counts twice. The last line sums
//! up all rounds. The program fails after a loss without a report, a reading that counts twice, or a wrong
//! result. A failed round keeps its folders and prints their path.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use fastrand::Rng;
use headwater_agent::error_text;
use headwater_agent::fail::POINTS;
use headwater_tests::proxy::ProxyMode;
use headwater_tests::world::{ROLE, ReportedLosses, TestWorld, WorldOptions, WorldVerdict};

/// Longest time until a damaged store is repaired and the agent ready.
const MENDED: Duration = Duration::from_secs(30);
/// Rounds after which a new world replaces the old one: first starts are broken too, and the oracle looks at
/// all readings of a world each time.
const WORLD_ROUNDS: u32 = 25;
/// Size of the disk in bytes: the space that the agent wants free, its ballast, and as much again.
const DISK_BYTES: u64 = 128 << 20;

#[derive(Clone, Copy, Debug, Parser)]
struct SoakOptions {
    /// Rounds of `kill -9`, at random instants and at random fail points.
    #[arg(long, default_value_t = 60)]
    kills: u32,
    /// Rounds of power cuts; they need root.
    #[arg(long, default_value_t = 10)]
    cuts: u32,
    /// Rounds of bytes flipped, pages zeroed and files cut short in the stopped agent's store.
    #[arg(long, default_value_t = 60)]
    corruptions: u32,
    /// The seed of all choices; without it a new one.
    #[arg(long)]
    seed: Option<u64>,
}

/// The kind of damage that a round does to the agent.
#[derive(Clone, Copy, Debug)]
enum RoundKind {
    Kill,
    Cut,
    Corruption,
}

/// The sums over all rounds.
#[derive(Debug, Default)]
struct SoakTally {
    rounds: u32,
    published: u64,
    acknowledged: u64,
    lost: usize,
    reported: usize,
    incomplete: usize,
    /// Messages that were reported lost and sent again by the broker, so that nothing of them is lost.
    resent: u64,
    doubled: usize,
    wrong: usize,
    /// The outcome of each round that failed.
    failed: Vec<String>,
    ready_max: Duration,
    rss_max: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match std::env::var(ROLE).as_deref() {
        Ok("agent") => return headwater::main(),
        _ if headwater_tests::agent::is_module_compiler() => return headwater::main(),
        Ok(_) => runtime.map_err(Into::into).and_then(|runtime| {
            runtime.block_on(headwater_tests::collector::serve())?;
            Ok(ExitCode::SUCCESS)
        }),
        Err(_) => runtime.map_err(Into::into).and_then(|runtime| {
            let rounds = soak(SoakOptions::parse());
            tokio::task::LocalSet::new().block_on(&runtime, rounds)
        }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("soak: {error:#}");
        ExitCode::FAILURE
    })
}

async fn soak(options: SoakOptions) -> anyhow::Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut tally = SoakTally::default();
    let parts = [
        (RoundKind::Kill, options.kills),
        (RoundKind::Cut, options.cuts),
        (RoundKind::Corruption, options.corruptions),
    ];
    for (kind, rounds) in parts {
        let mut world = None;
        for number in 0..rounds {
            let mut rng =
                Rng::with_seed(seed ^ (u64::from(number) << 2 | kind as u64).wrapping_mul(0x9e37_79b9));
            if number % WORLD_ROUNDS == 0 {
                add_world(world.take(), &mut tally);
            }
            world = round(kind, number, world, &mut rng, &mut tally).await?;
        }
        add_world(world, &mut tally);
    }
    tally.failed.iter().for_each(|failed| println!("{failed}"));
    println!("{tally}, seed {seed}");
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a round, and returns the world for the next one unless something is wrong with it. A panic fails the
/// round, not the soak.
async fn round(
    kind: RoundKind,
    number: u32,
    world: Option<TestWorld>,
    rng: &mut Rng,
    tally: &mut SoakTally,
) -> anyhow::Result<Option<TestWorld>> {
    let began = Instant::now();
    let mut world = match world {
        Some(world) => world,
        None => TestWorld::start(&options(kind, rng)?).await,
    };
    world.keep(true);
    let home = world.host.agent.home().to_owned();
    let mut chance = rng.fork();
    let done = tokio::task::spawn_local(async move {
        let (what, verdict) = match kind {
            RoundKind::Kill => (kill(&mut world, &mut chance).await, world.settle().await),
            RoundKind::Cut => (cut(&mut world, &mut chance).await, world.settle().await),
            RoundKind::Corruption => corrupt(&mut world, &mut chance).await,
        };
        (world, what, verdict)
    });
    let done = done.await;
    tally.rounds += 1;
    let took = began.elapsed().as_millis();
    let (mut world, what, verdict) = match done {
        Ok(done) => done,
        Err(error) => {
            let why = error
                .try_into_panic()
                .map_or_else(|_| "cancelled".to_owned(), |it| error_text::of_panic(&*it));
            let log = std::fs::read_to_string(home.join("agent.log")).unwrap_or_default();
            let last = log.lines().rfind(|line| !line.starts_with("note: ")).unwrap_or_default();
            let kept = home.display();
            tally.fail(format!(
                "{kind:?} {number}: FAILED, {why}; the agent's last words: {last}; {took} ms; kept {kept}"
            ));
            return Ok(None);
        }
    };
    let reported = if matches!(kind, RoundKind::Corruption) {
        world.reported().await
    } else {
        ReportedLosses::default()
    };
    let is_good = tally.count(&verdict, reported);
    let line = format!("{kind:?} {number}: {what}, {took} ms{}", verdict_text(&verdict, is_good, &home));
    if is_good {
        println!("{line}");
        world.keep(false);
    } else {
        tally.fail(line);
    }
    // A report explains only the losses of its own round.
    if reported.readings > 0 || reported.windows || !verdict.is_good() {
        add_world(Some(world), tally);
        return Ok(None);
    }
    Ok(Some(world))
}

fn options(kind: RoundKind, rng: &mut Rng) -> anyhow::Result<WorldOptions> {
    let is_cut = matches!(kind, RoundKind::Cut);
    let first_start = (rng.bool() && !is_cut).then(|| rule(rng, 3, true));
    Ok(WorldOptions {
        padding: if rng.u8(..4) == 0 { 2_000 } else { 0 },
        disk_bytes: is_cut.then_some(DISK_BYTES),
        player: Some(std::env::current_exe().context("this program has no path")?),
        first_start,
        seed: rng.u64(..),
        ..WorldOptions::default()
    })
}

/// Returns a rule to be killed at a random point, half the time at its first hit, else at one of the next.
fn rule(rng: &mut Rng, exponent: u32, is_first_start: bool) -> String {
    let only_first = |name: &str| {
        ["layout.", "meta.made", "meta.renamed", "ballast.", "session.", "outbox.created"]
            .iter()
            .any(|first| name.starts_with(first))
    };
    let only_refused = |name: &str| name == "outbox.narrowed" || name == "output.refused";
    loop {
        let (name, _) = POINTS[rng.usize(..POINTS.len())];
        if (is_first_start || !only_first(name)) && !only_refused(name) {
            let scale = if rng.bool() { 0 } else { rng.u32(..=exponent) };
            return format!("{name}=kill@{}", 1 + rng.u64(..1 << scale));
        }
    }
}

fn millis(rng: &mut Rng, to: u64) -> Duration {
    Duration::from_micros(rng.u64(..to * 1_000))
}

/// Kills the agent at a random instant, and then mostly again: while it starts, at a fail point, or while it
/// stops.
async fn kill(world: &mut TestWorld, rng: &mut Rng) -> String {
    world
        .under_load(async |host| {
            let moment = millis(rng, 600);
            tokio::time::sleep(moment).await;
            host.kill();
            let mut what = format!("after {moment:?}");
            match rng.u8(..10) {
                0..2 => {
                    let moment = millis(rng, 250);
                    host.agent.spawn();
                    tokio::time::sleep(moment).await;
                    host.kill();
                    what += &format!(", {moment:?} into the next start");
                }
                2..3 => {
                    host.fail(&rule(rng, 2, false));
                    if host.agent.wait_for_exit(Duration::from_millis(400)).await.is_none() {
                        host.agent.terminate();
                        host.wait_for_death(millis(rng, 800)).await;
                    }
                    what += ", stopping";
                }
                3..9 => {
                    let rule = rule(rng, 6, false);
                    host.fail(&rule);
                    let died = host.wait_for_death(Duration::from_millis(900)).await;
                    what += &format!(", {rule}{}", if died { "" } else { " (not reached)" });
                }
                _ => {}
            }
            host.start().await;
            what
        })
        .await
}

/// Cuts the power at a random instant, now and then while the agent starts.
async fn cut(world: &mut TestWorld, rng: &mut Rng) -> String {
    world
        .under_load(async |host| {
            let moment = millis(rng, 1_500);
            tokio::time::sleep(moment).await;
            let mut what = format!("after {moment:?}");
            if rng.u8(..4) == 0 {
                host.kill();
                host.agent.spawn();
                let moment = millis(rng, 250);
                tokio::time::sleep(moment).await;
                what = format!("{moment:?} into a start");
            }
            host.cut().await;
            host.start().await;
            what
        })
        .await
}

/// Damages the store in one to three places, with or without results in the outbox.
async fn corrupt(world: &mut TestWorld, rng: &mut Rng) -> (String, WorldVerdict) {
    let is_cut_off = rng.bool();
    let places = world
        .under_load(async |host| {
            tokio::time::sleep(millis(rng, 500)).await;
            if is_cut_off {
                host.http.set(ProxyMode::Cut);
            }
            tokio::time::sleep(millis(rng, 500)).await;
            host.kill();
            host.note_journal();
            let store = host.agent.state().join("store");
            let places: Vec<_> = (0..rng.u8(1..4)).map(|_| damage_file(&store, rng)).collect();
            host.agent.spawn();
            host.http.set(ProxyMode::Pass);
            places
        })
        .await;
    let what = places.join(", ");
    let began = Instant::now();
    while world.host.agent.wait_for_exit_or_ready().await.is_some() {
        assert!(began.elapsed() < MENDED, "the agent still does not start after {MENDED:?}: {what}");
        world.host.agent.spawn();
    }
    world.host.ready_max = world.host.ready_max.max(began.elapsed());
    (what, world.settle().await)
}

/// Flips a byte, zeros a page or cuts off the rest, somewhere in the files below the folder, and returns what
/// it did.
fn damage_file(folder: &Path, rng: &mut Rng) -> String {
    let mut files = Vec::new();
    list_files(folder, &mut files);
    files.sort();
    let file = &files[rng.usize(..files.len())];
    let mut bytes = std::fs::read(file).expect("a file that was listed");
    let place = rng.usize(..bytes.len());
    let how = match rng.u8(..3) {
        0 => {
            bytes[place] ^= 1 << rng.u8(..8);
            "flipped"
        }
        1 => {
            let page = place & !4095;
            let end = bytes.len().min(page + 4096);
            bytes[page..end].fill(0);
            "zeroed"
        }
        _ => {
            bytes.truncate(place);
            "cut short"
        }
    };
    std::fs::write(file, bytes).expect("a file that was listed");
    format!("{} {how} at {place}", file.strip_prefix(folder).unwrap_or(file).display())
}

/// Lists the files that are not empty, without those that hold nothing of the store any more.
fn list_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the store is a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if name == "quarantine" {
            continue;
        }
        if path.is_dir() {
            list_files(&path, files);
        } else if name != "ballast" && entry.metadata().is_ok_and(|file| file.len() > 0) {
            files.push(path);
        }
    }
}

fn add_world(world: Option<TestWorld>, tally: &mut SoakTally) {
    if let Some(world) = world {
        let (published, acknowledged) = world.published();
        tally.published += published + world.poisons();
        tally.acknowledged += acknowledged;
        tally.ready_max = tally.ready_max.max(world.host.ready_max);
        tally.rss_max = tally.rss_max.max(world.host.rss_max);
    }
}

fn verdict_text(verdict: &WorldVerdict, is_good: bool, home: &Path) -> String {
    let WorldVerdict { lost, doubled, windows, wrong, resent } = verdict;
    if is_good && verdict.is_good() && *resent == 0 {
        return String::new();
    }
    let first = wrong.iter().chain(windows).next().map_or("", String::as_str);
    let kept = if is_good { String::new() } else { format!("; FAILED, kept {}", home.display()) };
    let lost = lost.len();
    let doubled = doubled.len();
    let wrong = wrong.len() + windows.len();
    format!(": lost {lost}, sent again {resent}, doubled {doubled}, wrong {wrong} {first}{kept}")
}

impl SoakTally {
    fn fail(&mut self, what: String) {
        println!("{what}");
        self.failed.push(what);
    }

    /// Adds a round. Returns true if nothing is wrong with it but the losses in `reported`.
    fn count(&mut self, verdict: &WorldVerdict, reported: ReportedLosses) -> bool {
        let is_good = verdict.is_good_but_for(reported);
        let lost_count = if is_good { &mut self.reported } else { &mut self.lost };
        *lost_count += verdict.lost.len();
        *(if is_good { &mut self.incomplete } else { &mut self.wrong }) += verdict.windows.len();
        self.wrong += verdict.wrong.len();
        self.doubled += verdict.doubled.len();
        self.resent += verdict.resent;
        is_good
    }
}

impl std::fmt::Display for SoakTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rounds, published, acknowledged, lost, reported, resent, incomplete, .. } = self;
        let Self { doubled, wrong, .. } = self;
        write!(f, "{rounds} runs, {published} published, {acknowledged} acknowledged, {lost} lost, ")?;
        write!(f, "{reported} reported lost, {resent} reported lost and sent again, ")?;
        write!(f, "{incomplete} windows reported incomplete, {doubled} doubled, ")?;
        write!(f, "{wrong} results wrong, {} failed, ", self.failed.len())?;
        write!(f, "worst {} ms to ready, {} MiB of memory", self.ready_max.as_millis(), self.rss_max >> 20)
    }
}
