//! Thinning against a plain model: many pipelines in one outbox, and a reopen at any point.

use crate::codec::{self, Row};
use crate::error::Health;
use crate::meta::Meta;
use crate::metrics::StoreMetrics;
use crate::segments::Segments;
use crate::thin::{Exchange, digest};
use crate::{
    Batch, Commit, Config, Error, Outgoing, PendingRecord, Quota, Quotas, Replacement, Store, ThinOutcome,
};
use headwater_flow::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;

const PIPELINES: [&str; 3] = ["a", "b", "c"];

/// Segments of an eighth of the quota; a small one takes half a MiB of disk.
fn open(path: &Path) -> Store {
    let quota = Quota { bytes_max: 16_000_000, age_max: None };
    let quotas = Quotas { outboxes: BTreeMap::from([("central".to_owned(), quota)]), ..Quotas::default() };
    let config =
        Config { quotas, segment_bytes: 2_000_000, ballast_bytes: 1 << 20, ..Config::new(path.to_owned()) };
    Store::open(&config, &StoreMetrics::default()).unwrap()
}

/// A line of the outbox: its pipeline, and the results that it stands for.
type Line = (usize, Vec<u64>);

fn encode((pipeline, results): &Line) -> Vec<u8> {
    let mut line = format!("{pipeline}:{results:?}").into_bytes();
    line.resize(line.len().max(30_000), b' ');
    line
}

fn decode(line: &[u8]) -> Line {
    let text = std::str::from_utf8(line).unwrap().trim_end();
    let (pipeline, results) = text.split_once(':').unwrap();
    let results = results.trim_matches(['[', ']']).split(", ").map(|one| one.parse().unwrap());
    (pipeline.parse().unwrap(), results.collect())
}

#[derive(Clone, Debug)]
enum Act {
    /// So many results of a pipeline.
    Commit(usize, usize),
    /// Every so many lines of a pipeline become one, in its first segment that has that many.
    Thin(usize, usize),
    Begin(usize),
    Narrow,
    Confirm,
    Trim,
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..3usize, 1..30usize).prop_map(|(pipeline, count)| Act::Commit(pipeline, count)),
        4 => (0..3usize, 2..40usize).prop_map(|(pipeline, into)| Act::Thin(pipeline, into)),
        2 => (1..60usize).prop_map(Act::Begin),
        1 => Just(Act::Narrow),
        1 => Just(Act::Confirm),
        1 => Just(Act::Trim),
        1 => Just(Act::Reopen),
    ]
}

/// The store, and what must be in it.
struct Both {
    folder: tempfile::TempDir,
    store: Option<Store>,
    next: u64,
    waiting: VecDeque<Line>,
    begun: Option<Batch>,
    tallies: [u64; 3],
}

impl Both {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(open(folder.path()));
        Self { folder, store, next: 0, waiting: VecDeque::new(), begun: None, tallies: [0; 3] }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Commit(pipeline, count) => self.commit(pipeline, count as u64),
            Act::Thin(pipeline, into) => self.thin(pipeline, into),
            Act::Begin(max) => self.begin(max),
            Act::Narrow => {
                if let Some(batch) = &self.begun {
                    let half = batch.records.len().div_ceil(2);
                    self.begun = Some(self.store().narrow_batch("central", half).unwrap());
                }
            }
            Act::Confirm => {
                if let Some(batch) = self.begun.take() {
                    self.store().confirm_batch("central", &batch.range, None).unwrap();
                    self.waiting.drain(..batch.records.len());
                }
            }
            Act::Trim => self.store().trim(&[]).unwrap(),
            Act::Reopen => {
                self.store = None;
                self.store = Some(open(self.folder.path()));
            }
        }
        assert_eq!(self.store().pending("central").unwrap(), self.waiting.len() as u64);
        for (pipeline, tally) in PIPELINES.iter().zip(self.tallies) {
            let held = self.store().checkpoint(pipeline).unwrap().tally;
            assert_eq!(held.try_into().map_or(0, u64::from_le_bytes), tally);
        }
    }

    fn commit(&mut self, pipeline: usize, count: u64) {
        let lines: Vec<Line> = (0..count).map(|at| (pipeline, vec![self.next + at])).collect();
        let commit = Commit {
            pipeline: PIPELINES[pipeline],
            results: Outgoing::new("central", lines.iter().map(encode).collect()),
            now: Timestamp(self.next),
            ..Commit::default()
        };
        match self.store().commit(&commit) {
            Ok(()) => {
                self.next += count;
                self.waiting.extend(lines);
            }
            Err(Error::Quota { bytes, bytes_max, .. }) => assert!(bytes + count * 31_000 > bytes_max),
            Err(error) => panic!("{error}"),
        }
    }

    fn thin(&mut self, pipeline: usize, into: usize) {
        let tally = self.tallies[pipeline] + 1;
        let (mut from, mut seen) = (0, None);
        // Each segment in turn, until one has lines to give up.
        while seen.is_none() {
            let thinned = self.store().thin("central", PIPELINES[pipeline], from, &mut |lines| {
                let thinner = thinner(&lines, into, tally);
                seen = thinner.as_ref().map(|_| lines);
                thinner
            });
            match thinned.unwrap() {
                ThinOutcome::Fewer(_) => assert!(seen.is_some()),
                ThinOutcome::Same(next) => from = next,
                ThinOutcome::End => return,
                ThinOutcome::Busy => panic!("nobody else is there"),
            }
        }
        self.tallies[pipeline] = tally;
        let gone: Vec<Line> = seen.unwrap_or_default().iter().map(|line| decode(&line.record)).collect();
        for group in gone.chunks(into) {
            let all = group.iter().flat_map(|(_, results)| results.clone()).collect();
            let at = self.waiting.iter().position(|line| *line == group[0]).expect("it waits");
            self.waiting[at] = (pipeline, all);
            self.waiting.retain(|line| !group[1..].contains(line));
        }
    }

    fn begin(&mut self, max: usize) {
        let Some(batch) = self.store().begin_batch("central", max, usize::MAX).unwrap() else {
            assert!(self.waiting.is_empty());
            return;
        };
        let lines: Vec<Line> = batch.records.iter().map(|line| decode(line)).collect();
        assert_eq!(lines[..], self.waiting.make_contiguous()[..lines.len()]);
        assert!(self.begun.as_ref().is_none_or(|begun| *begun == batch), "the same bytes again");
        self.begun = Some(batch);
    }
}

/// Groups of lines become one each, which stands for all of them.
fn thinner(lines: &[PendingRecord], into: usize, tally: u64) -> Option<Replacement> {
    let groups = lines.chunks(into).map(|group| {
        let all: Vec<Line> = group.iter().map(|line| decode(&line.record)).collect();
        let line = (all[0].0, all.iter().flat_map(|(_, results)| results.clone()).collect());
        PendingRecord { record: encode(&line), ..group[0].clone() }
    });
    let after: Vec<PendingRecord> = groups.collect();
    (after.len() < lines.len()).then(|| Replacement { records: after, tally: tally.to_le_bytes().to_vec() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn thinning_keeps_order_and_touches_nothing_of_others(acts in proptest::collection::vec(any_act(), 1..80)) {
        let mut both = Both::new();
        for act in &acts {
            both.act(act);
        }
        while !both.waiting.is_empty() {
            both.begin(7);
            both.act(&Act::Confirm);
        }
        prop_assert!(both.store().begin_batch("central", 1, 1).unwrap().is_none());
    }
}

/// The folders of a log's segments, by name.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Numbers at which the outbox's segments begin.
fn firsts(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder.join("outbox/central")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut firsts: Vec<u64> = names.filter_map(|name| name.strip_prefix("j-")?.parse().ok()).collect();
    firsts.sort_unstable();
    firsts
}

/// The exchange that leads from one folder to the other.
fn exchange(before: &Path, after: &Path, pending: u64) -> Exchange {
    let (held, holds) = (firsts(before), firsts(after));
    assert_eq!(holds[..], [&held[..1], &held[2..]].concat(), "two became one");
    let range = held[0]..held[2];
    let mut records = Vec::new();
    let segments = Segments::find(&after.join("outbox/central")).unwrap();
    let (_, segment) = segments.of(0).unwrap().unwrap();
    let each = |seq, record: &[u8]| {
        records.push((seq, record.to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    assert_eq!(segment.read(0, range.end, each).unwrap().0, range.end);
    let (output, pipeline) = ("central".to_owned(), PIPELINES[0].to_owned());
    let (missing, digest) = (30 * 8 - pending, digest(&records));
    Exchange { output, pipeline, range, missing, digest, tally: u64::to_le_bytes(2).to_vec() }
}

fn plant(folder: &Path, exchange: &Exchange) {
    let (path, mark) = (folder.join("meta"), folder.join("meta-marks"));
    let meta = Meta::open(&path, &mark, Health::default(), crate::metrics::Log::default()).unwrap();
    meta.apply(&[(Row::exchange(&exchange.output), Some(codec::put_exchange(exchange)))]).unwrap();
}

/// A crash right after the row was written, and one right after the segments were exchanged: put
/// together of the folder before and after.
#[test]
fn a_crash_in_an_exchange_leaves_it_done_or_not_done() {
    let mut both = Both::new();
    for _ in 0..30 {
        both.commit(0, 8);
    }
    // The first segment becomes small, so that the second is taken together with it.
    both.thin(0, 1_000);
    let (path, before) = (both.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let pending = both.store().pending("central").unwrap();
    both.store = None;
    copy(&path, before.path());
    both.store = Some(open(&path));
    both.thin(0, 1_000);
    let after = both.store().pending("central").unwrap();
    assert!(after < pending);
    both.store = None;
    let exchange = exchange(before.path(), &path, after);

    for exchanged in [false, true] {
        let crashed = tempfile::tempdir().unwrap();
        copy(before.path(), crashed.path());
        if exchanged {
            // The one segment that was composed is there; those it took the place of, too.
            let name = format!("outbox/central/j-{:020}", exchange.range.start);
            std::fs::remove_dir_all(crashed.path().join(&name)).unwrap();
            copy(&path.join(&name), &crashed.path().join(&name));
        }
        plant(crashed.path(), &exchange);
        let store = open(crashed.path());
        let (expected, tally) = if exchanged { (after, 2) } else { (pending, 1) };
        assert_eq!(store.pending("central").unwrap(), expected);
        let held = store.checkpoint("a").unwrap().tally;
        assert_eq!(held.try_into().map_or(0, u64::from_le_bytes), tally);
        let mut lines = 0;
        while let Some(batch) = store.begin_batch("central", 100, usize::MAX).unwrap() {
            lines += batch.records.len() as u64;
            store.confirm_batch("central", &batch.range, None).unwrap();
        }
        assert_eq!(lines, expected, "exchanged: {exchanged}");
    }
}
