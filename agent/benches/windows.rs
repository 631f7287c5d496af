//! What windows cost a reading, as ratios: CPU and memory by number of keys, hopping and sliding
//! against tumbling, built-ins against a module, bytes of state for a reading, and Bytewax beside it.
//!
//! `cargo bench -p headwater-agent --bench windows`; `-- keys` measures that group only. For Bytewax a Python
//! that has it: `python3 -m venv V && V/bin/pip install bytewax==0.21.1`, then `PYTHON=V/bin/python`.
//!
//! Each case is a process of its own: windows over a store, readings in slices, commits as a pipeline's.
//! CPU is that of all threads, system calls for the commits included, the making of the readings not.
//!
//! Recorded on 2 quiet cores, medians, memory with the 28 MiB that the process has before (dev profile, this crate
//! at `opt-level` 3, its dependencies at 2), 20 readings a window in the first line:
//!
//! ```text
//! keys in turn     1: 0.57 µs, 49 MiB    100: 0.60 µs, 49 MiB    10,000: 2.0 µs, 61 MiB    100,000: 2.6 µs, 99 MiB
//! 100 at once      1: 0.48 µs, 35 MiB    100: 0.32 µs, 34 MiB    10,000: 0.31 µs, 36 MiB   100,000: 0.32 µs, 39 MiB
//! 300 readings a minute   tumbling 1m 0.28 µs    hopping 1h by 1m 0.33 µs    sliding 5m 8.9 µs
//! 1 reading a minute      tumbling 1m 3.8 µs     hopping 1h by 1m 3.9 µs     sliding 5m 4.1 µs
//! 100 keys         built-in 0.40 µs    module `stats` 0.84 µs
//! Bytewax          1 key 4.2 µs (ours 0.34)    100 keys 6.4 µs (ours 0.40)
//! ```
//!
//! With as many keys in turn as are not at hand each reading reads, decodes and writes all of a key, and finds
//! its memory in no cache; rows of the engine in place of `store/recent.rs` cost 12 and 30 µs. Of the difference
//! 0.3 µs are there with 300 keys already, all of them in the cache: no two readings of a slice are of one key,
//! so each is a group of its own. A map from 100,000 names to their rows costs 0.37 µs on the same machine to look up
//! and change, and the change's bytes 0.1 to 0.5 µs to write: 1.5 times one key's cost is below that sum. The
//! rest is memory, taken and given back for each key that comes and goes: another allocator takes a quarter less.

#![expect(clippy::unwrap_used, reason = "a failed measurement is no measurement")]

use headwater_agent::builtin::{self, AggregateFunction, BuiltinAggregate, ComputedMember};
use headwater_agent::flow::Timestamp;
use headwater_agent::metrics::StoreMetrics;
use headwater_agent::module::{CallMetrics, ModuleHost, ModuleLimits};
use headwater_agent::pipeline::{COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, COMMIT_MESSAGES_MAX};
use headwater_agent::store::{self, Commit, Outgoing, Store};
use headwater_agent::window::{
    Aggregate, HoppingWindow, ObservedReading, OpenWindows, RowVisitor, SlidingWindow, TumblingWindow,
    WindowConfig, WindowError, WindowKind, WindowOutcome, WindowStore,
};
use headwater_agent::wire::{JsonText, ModuleDigest, Record, ResultState, WindowResult};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Whole minutes, as in `windows.py`.
const BEGAN: u64 = 1_700_000_000_000_000 / MINUTE * MINUTE;
const MINUTE: u64 = 60_000_000;
const SLICE: u64 = 256;
const RESULTS_MAX: usize = 256;

/// What one process measures.
#[derive(Clone, Copy)]
struct Case {
    kind: &'static str,
    aggregate: &'static str,
    readings: u64,
    keys: u64,
    /// Readings of a key in a minute.
    each: u64,
    /// Of a key's readings so many come one after the other.
    run: u64,
}

const CASE: Case =
    Case { kind: "tumbling", aggregate: "builtin", readings: 500_000, keys: 100, each: 100, run: 1 };

/// What it found.
#[derive(Clone, Copy)]
struct Cost {
    /// Microseconds of CPU for a reading.
    cpu: f64,
    /// Most memory, and how much of it there was before the first reading, in KiB.
    peak: f64,
    before: f64,
    results: f64,
    /// Bytes of state and of results handed to the store, and bytes on the disk's way, for a reading.
    state: f64,
    output: f64,
    written: f64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.first().is_some_and(|word| word == "case") {
        println!("{}", measure(&words[1..]));
        return;
    }
    let groups: [(&str, fn()); 5] = [
        ("keys", by_keys),
        ("kinds", by_kind),
        ("module", by_aggregate),
        ("state", by_each),
        ("bytewax", beside_bytewax),
    ];
    for (name, group) in groups {
        if words.is_empty() || words.iter().any(|word| word == name) {
            group();
        }
    }
}

fn by_keys() {
    println!("keys in turn, 20 readings a window: CPU and growth of memory");
    let case = Case { each: 20, readings: 1_000_000, ..CASE };
    scale(case);
    println!("keys in turn, 100 readings of each at once");
    scale(Case { each: 100, run: 100, readings: 1_000_000, ..CASE });
}

fn scale(case: Case) {
    let first = show("1 key", cost(Case { keys: 1, ..case }));
    for keys in [100, 10_000, 100_000] {
        let cost = show(
            &format!("{keys} keys"),
            cost(Case { keys, readings: case.readings.max(keys * 20), ..case }),
        );
        ratio("CPU of 1 key's", cost.cpu / first.cpu, Some(1.5));
        ratio("peak memory of 1 key's", cost.peak / first.peak, Some(1.5));
    }
}

fn by_kind() {
    for each in [300, 1] {
        println!("10 keys, {each} readings of each in a minute");
        let case = Case { keys: 10, each, readings: if each == 1 { 100_000 } else { 900_000 }, ..CASE };
        let tumbling = show("tumbling 1m", cost(case));
        let hour = show("tumbling 1h", cost(Case { kind: "hour", ..case }));
        let hopping = show("hopping 1h by 1m", cost(Case { kind: "hopping", ..case }));
        ratio("of tumbling 1m, as many results", hopping.cpu / tumbling.cpu, Some(2.0));
        ratio("of tumbling 1h", hopping.cpu / hour.cpu, None);
        let sliding = show("sliding 5m", cost(Case { kind: "sliding", readings: 100_000, ..case }));
        let limit = (each == 1).then_some(2.0);
        ratio("of tumbling 1m", sliding.cpu / tumbling.cpu, limit);
    }
}

fn by_aggregate() {
    println!("100 keys, 100 readings a window: built-in and module");
    let builtin = show("built-in", cost(CASE));
    let module = show("module `stats`", cost(Case { aggregate: "module", ..CASE }));
    ratio("module of built-in", module.cpu / builtin.cpu, None);
}

fn by_each() {
    println!("bytes for a reading: state that commits hand to the store, results, and what the disk wrote");
    for (keys, each) in [(100, 100), (100, 1), (100_000, 20)] {
        let cost = cost(Case { keys, each, ..CASE });
        println!(
            "  {keys:>6} keys, {each:>3} a window: state {:.1}, results {:.1}, disk {:.1}",
            cost.state, cost.output, cost.written
        );
    }
}

fn beside_bytewax() {
    println!("the same readings in Bytewax, which commits nothing");
    for keys in [1, 100] {
        let case = Case { keys, ..CASE };
        let ours = show(&format!("{keys} keys, headwater"), cost(case));
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/windows.py");
        let words = [case.readings, case.keys, case.each].map(|number| number.to_string());
        let [cpu, peak, results] = numbers(Command::new(&python).arg(script).args(words));
        println!(
            "  {:<24} {cpu:>8.3} µs {peak:>9.0} KiB {results:>8.0} results",
            format!("{keys} keys, Bytewax")
        );
        // At its end it closes what is open.
        assert!(ours.results <= results && results <= ours.results + keys as f64, "the windows differ");
        let times = cpu / ours.cpu;
        println!("    {times:.2} times its rate for a CPU second, goal 10: {}", verdict(times >= 10.0));
    }
}

fn show(name: &str, cost: Cost) -> Cost {
    let Cost { cpu, peak, before, results, .. } = cost;
    println!("  {name:<24} {cpu:>8.3} µs {peak:>9.0} KiB {results:>8.0} results ({before:.0} KiB before)");
    cost
}

fn ratio(what: &str, ratio: f64, limit: Option<f64>) {
    match limit {
        Some(limit) => println!("    {ratio:.2} {what}, limit {limit}: {}", verdict(ratio <= limit)),
        None => println!("    {ratio:.2} {what}"),
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}

fn cost(case: Case) -> Cost {
    let Case { kind, aggregate, readings, keys, each, run } = case;
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["case", kind, aggregate]).args([readings, keys, each, run].map(|number| number.to_string()));
    let [cpu, peak, before, results, state, output, written] = numbers(&mut this);
    Cost { cpu, peak, before, results, state, output, written }
}

fn numbers<const N: usize>(command: &mut Command) -> [f64; N] {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// One case, in this process.
fn measure(words: &[String]) -> String {
    let [readings, keys, each, run] = [2, 3, 4, 5].map(|at: usize| words[at].parse::<u64>().unwrap());
    let made = Made { keys, run, step: MINUTE / (keys * each).max(1) };
    let idle = cpu_micros();
    for n in 0..readings {
        std::hint::black_box(made.reading(n));
    }
    let making = cpu_micros() - idle;
    let folder = tempfile::tempdir().unwrap();
    let aggregate = aggregate(&words[1]);
    let mut bench = Bench::open(folder.path(), WindowConfig::new(kind(&words[0])), aggregate);
    let (before, disk, began) = (resident_kib("VmRSS:"), written_bytes(folder.path()), cpu_micros());
    for from in (0..readings).step_by(SLICE as usize) {
        bench.slice((from..(from + SLICE).min(readings)).map(|n| made.reading(n)));
    }
    bench.commit();
    let cpu = cpu_micros() - began - making;
    let disk = written_bytes(folder.path()) - disk;
    let each = |number: f64| number / readings as f64;
    format!(
        "{} {} {before} {} {} {} {}",
        each(cpu),
        resident_kib("VmHWM:"),
        bench.given,
        each(bench.state_bytes as f64),
        each(bench.output_bytes as f64),
        each(disk as f64)
    )
}

fn kind(word: &str) -> WindowKind {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    match word {
        "tumbling" => WindowKind::Tumbling(TumblingWindow { size: minutes(1), offset: Duration::ZERO }),
        "hour" => WindowKind::Tumbling(TumblingWindow { size: minutes(60), offset: Duration::ZERO }),
        "hopping" => WindowKind::Hopping(HoppingWindow {
            size: minutes(60),
            slide: minutes(1),
            offset: Duration::ZERO,
        }),
        _ => WindowKind::Sliding(SlidingWindow { size: minutes(5) }),
    }
}

fn aggregate(word: &str) -> Box<dyn Aggregate> {
    if word == "module" {
        let host = ModuleHost::new(None).unwrap();
        let path = Path::new(headwater_bundle::STATS_PATH);
        let settings = r#"{"fields":["temperature"]}"#;
        let aggregate = host.aggregate(path, settings, &ModuleLimits::default(), &CallMetrics::default());
        return Box::new(aggregate.unwrap());
    }
    let of = |function, field: Option<&str>, name: &str| ComputedMember {
        function,
        field: field.map(|field| vec![field.to_owned()]),
        name: name.to_owned(),
    };
    let compute = vec![
        of(AggregateFunction::Count, None, "count"),
        of(AggregateFunction::Mean, Some("temperature"), "mean"),
        of(AggregateFunction::Max, Some("temperature"), "max"),
    ];
    Box::new(BuiltinAggregate::new(&builtin::BuiltinConfig { compute }))
}

/// The readings, as in `windows.py`.
struct Made {
    keys: u64,
    run: u64,
    step: u64,
}

impl Made {
    fn reading(&self, n: u64) -> (String, Timestamp, Vec<u8>) {
        let key = format!("plant/device-{:06}", n / self.run * 7919 % self.keys);
        let cents = 1500 + n * 31 % 1000;
        let (whole, rest) = (cents / 100, cents % 100);
        let payload = format!(r#"{{"temperature":{whole}.{rest:02},"pressure":101.325,"ok":true}}"#);
        (key, Timestamp(BEGAN + n * self.step), payload.into_bytes())
    }
}

#[derive(Debug)]
struct Rows(Store);

impl WindowStore for Rows {
    fn rows(&self, key: &str, each: RowVisitor<'_>) -> Result<(), WindowError> {
        let mut shown = Ok(());
        let read = self.0.shelf("bench", key.as_bytes(), &mut |tail, value| {
            if shown.is_ok() {
                shown = each(tail, value);
            }
            Ok(())
        });
        read.map_err(|error: store::Error| WindowError::Store(Box::new(error)))?;
        shown
    }
}

/// Windows and what a pipeline does with them.
struct Bench {
    store: Store,
    windows: OpenWindows,
    aggregate: Box<dyn Aggregate>,
    position: u64,
    committed: u64,
    results: Vec<Vec<u8>>,
    bytes: usize,
    given: u64,
    state_bytes: usize,
    output_bytes: usize,
}

impl Bench {
    fn open(folder: &Path, config: WindowConfig, aggregate: Box<dyn Aggregate>) -> Self {
        let store = store::Config { ballast_bytes: 1 << 20, ..store::Config::new(folder.join("state")) };
        let store = Store::open(&store, &StoreMetrics::default()).unwrap();
        store.outbox_epoch("central").unwrap();
        let windows = OpenWindows::new(config, Box::new(Rows(store.clone())), store.at_hand_bytes_max());
        Self {
            store,
            windows,
            aggregate,
            position: 0,
            committed: 0,
            results: Vec::new(),
            bytes: 0,
            given: 0,
            state_bytes: 0,
            output_bytes: 0,
        }
    }

    fn slice(&mut self, readings: impl Iterator<Item = (String, Timestamp, Vec<u8>)>) {
        for (key, time, payload) in readings {
            let observed = self.windows.observe(self.aggregate.as_mut(), &key, time, payload).unwrap();
            assert_eq!(observed, ObservedReading::Used);
            self.position += 1;
        }
        let settled = self.windows.apply(self.aggregate.as_mut()).unwrap();
        self.take(settled.outcomes);
        while self.windows.due() {
            let settled = self.windows.settle(self.aggregate.as_mut(), RESULTS_MAX).unwrap();
            self.take(settled.outcomes);
        }
    }

    fn take(&mut self, outcomes: Vec<WindowOutcome>) {
        self.given += outcomes.len() as u64;
        for outcome in outcomes {
            let record = record(&outcome);
            self.bytes += record.len();
            self.results.push(record);
        }
        let readings = self.position - self.committed;
        let is_much = self.bytes >= COMMIT_BYTES_MAX || self.windows.changed() > COMMIT_KEYS_MAX;
        if readings >= COMMIT_MESSAGES_MAX || is_much {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let windows = self.windows.drain_changes();
        let size = |(row, state): &store::Change| row.len() + state.as_ref().map_or(0, Vec::len);
        self.state_bytes += windows.iter().map(size).sum::<usize>();
        self.output_bytes += std::mem::take(&mut self.bytes);
        let commit = Commit {
            pipeline: "bench",
            position: self.position,
            progress: self.windows.progress(),
            windows,
            results: Outgoing::new("central", std::mem::take(&mut self.results)),
            ..Commit::default()
        };
        self.store.commit(&commit).unwrap();
        self.committed = self.position;
    }
}

/// As a pipeline's.
fn record(outcome: &WindowOutcome) -> Vec<u8> {
    let result = WindowResult {
        agent: "bench".into(),
        pipeline: "bench".into(),
        key: (&*outcome.key).into(),
        start: outcome.start,
        end: outcome.end,
        part: outcome.part,
        revision: outcome.revision,
        state: ResultState::Closed,
        module: Some(ModuleDigest::from("builtin:0123456789abcdef")),
        count: outcome.count,
        late: outcome.late,
        rejected: outcome.rejected,
        watermark: Some(outcome.watermark),
        value: JsonText::checked(outcome.value.as_ref().unwrap()).unwrap(),
    };
    Record::Window(result).to_bytes()
}

/// Of all threads, in ticks of a hundredth of a second.
fn cpu_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) * 10_000.0
}

fn resident_kib(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the disk below a folder has written, whoever asked for it: on a quiet machine it is this process.
fn written_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
}
