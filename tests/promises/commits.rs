//! The commits of the store against a plain model, with a worker that is killed at every fail point.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use headwater_tests::commits::worker::WorkerRequest;
use headwater_tests::commits::{OUTPUTS, PipelineStep, StoreContents, StoreModel, StoreOperation};
use headwater_tests::process::built_program;
use proptest::collection::vec;
use proptest::prelude::*;

/// The points at which the worker may be killed, with the most hits before that. They are those that it
/// passes while it opens, appends, commits, delivers and trims.
const POINTS: [&str; 24] = [
    "folder.locked",
    "layout.renamed",
    "meta.renamed",
    "journal.appended",
    "log.filled",
    "log.written",
    "log.synced",
    "log.marked",
    "log.rotated",
    "log.truncated",
    "engine.created",
    "segment.prepared",
    "segment.renamed",
    "segment.begun",
    "segment.grown",
    "segment.dying",
    "meta.applied",
    "meta.synced",
    "meta.marked",
    "commit.results-appended",
    "commit.letters-appended",
    "outbox.created",
    "outbox.begun",
    "outbox.narrowed",
];
const HITS_MAX: u64 = 12;

/// A run of the worker: the point at which it dies, and the operations until then.
#[derive(Clone, Debug)]
struct WorkerLife {
    point: &'static str,
    hit: u64,
    operations: Vec<StoreOperation>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn hold_what_a_plain_model_holds_whatever_they_die_of(lives in vec(life(), 1..6)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut states = vec![StoreModel::default()];
        for life in &lives {
            states = run_worker(folder.path(), life, states);
        }
        let last = WorkerLife { point: "folder.locked", hit: u64::MAX, operations: vec![StoreOperation::Look] };
        run_worker(folder.path(), &last, states);
    }
}

/// Returns the number of cases that `PROPTEST_CASES` asks for.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

/// Lets the worker and the model do the operations, and returns all states that the store may have in the
/// end.
fn run_worker(folder: &Path, life: &WorkerLife, mut states: Vec<StoreModel>) -> Vec<StoreModel> {
    let Some(mut worker) = StoreWorker::start(folder, life) else { return states };
    // The first read tells which of the states the store is in.
    for operation in std::iter::once(&StoreOperation::Look).chain(&life.operations) {
        let Some(operation) = states[0].cut(operation) else { continue };
        match worker.ask(&operation, states[0].mark()) {
            None => return states.iter().flat_map(|state| state.after_crash(&operation)).collect(),
            Some(seen) => {
                for state in &mut states {
                    state.done(&operation);
                }
                if let Some(seen) = seen {
                    let held = states.clone();
                    states.retain(|state| state.allows(&seen));
                    assert!(!states.is_empty(), "{life:?}\nthe store holds {seen:?}\nit may hold {held:?}");
                }
            }
        }
    }
    states
}

/// A worker process on a store, killed when this is dropped.
struct StoreWorker {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl StoreWorker {
    /// Starts a worker. Returns `None` if it dies while it opens the store.
    fn start(folder: &Path, life: &WorkerLife) -> Option<Self> {
        let mut process = Command::new(built_program("store_worker"))
            .arg(folder.join("store"))
            .env("HEADWATER_FAIL", format!("{}=kill@{}", life.point, life.hit))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let orders = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut worker = Self { process, orders, answers };
        worker.line().map(|_| worker)
    }

    /// Sends an operation. Returns `None` if the worker dies, else the contents if the operation reads them.
    fn ask(&mut self, operation: &StoreOperation, mark: u64) -> Option<Option<StoreContents>> {
        let order =
            serde_json::to_string(&WorkerRequest { operation: operation.clone(), mark }).expect("JSON");
        if writeln!(self.orders, "{order}").is_err() {
            return self.check_killed();
        }
        let line = self.line()?;
        Some(serde_json::from_str(&line).expect("what the worker saw"))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(read) if read > 0 => Some(line),
            _ => self.check_killed(),
        }
    }

    /// Checks that the worker died of the kill and not of a failure.
    fn check_killed<T>(&mut self) -> Option<T> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.process.wait().expect("the worker is our child");
        let mut text = String::new();
        if let Some(stderr) = &mut self.process.stderr {
            std::io::Read::read_to_string(stderr, &mut text).ok();
        }
        assert_eq!(status.signal(), Some(9), "the worker failed: {text}");
        None
    }
}

impl Drop for StoreWorker {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn life() -> impl Strategy<Value = WorkerLife> {
    let operations = vec(operation(), 0..25);
    (prop::sample::select(&POINTS), 1..=HITS_MAX, operations)
        .prop_map(|(point, hit, operations)| WorkerLife { point, hit, operations })
}

fn operation() -> impl Strategy<Value = StoreOperation> {
    let output = 0..OUTPUTS.len();
    prop_oneof![
        6 => vec(size(), 1..12).prop_map(|sizes| StoreOperation::Append { sizes }),
        8 => step().prop_map(StoreOperation::Commit),
        4 => (output.clone(), 1..9_usize)
            .prop_map(|(output, results_max)| StoreOperation::Begin { output, results_max }),
        2 => (output.clone(), any::<prop::sample::Index>())
            .prop_map(|(output, at)| StoreOperation::Narrow { output, results: at.index(8) }),
        4 => (output, any::<bool>()).prop_map(|(output, refused)| StoreOperation::Confirm { output, refused }),
        2 => Just(StoreOperation::Trim),
        1 => (0..2_usize).prop_map(|input| StoreOperation::Session { input }),
        1 => Just(StoreOperation::Look),
    ]
}

fn step() -> impl Strategy<Value = PipelineStep> {
    let windows = vec((0..5_u8, prop::option::of(size())), 0..4);
    (0..3_usize, 0..40_u64, windows, vec(size(), 0..5), vec(size(), 0..3), vec(size(), 0..2)).prop_map(
        |(pipeline, advance, windows, results, late, letters)| PipelineStep {
            pipeline,
            advance,
            windows,
            results,
            late,
            letters,
        },
    )
}

/// Generates sizes of records that share a frame, that need several frames, and that fill segments.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 8..400_usize, 2 => 4_000..9_000_usize, 1 => 300_000..900_000_usize]
}
