//! Thinning of an outbox: which of a pipeline's records are replaced by fewer, and by which. Pure but for the
//! aggregate.
//!
//! A loss is added to an earlier report of the same kind, so that an outbox that was full for a week holds few
//! reports, and each result that is gone is in exactly one.

use std::collections::HashMap;

use super::tally::{LossRun, LossTally, UNKNOWN_SPAN};
use crate::flow::{LossReport, ReportKind, Seq, Timestamp};
use crate::module::Closed;
use crate::store::{PendingRecord, Replacement};
use crate::wire::{AgentReport, JsonText, ModuleDigest, Record, ResultState, WindowResult};

/// The owner of the records of a route, and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordOwner<'a> {
    pub(super) agent: &'a str,
    pub(super) pipeline: &'a str,
    pub(super) kind: RecordKind,
    pub(super) now: Timestamp,
}

/// The kind of records that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// Results.
    Results,
    /// Readings that came too late for their windows.
    Late,
}

impl<'a> RecordOwner<'a> {
    /// Makes the record of a report.
    pub(super) fn report(&self, report: LossReport) -> Record<'a> {
        let agent = self.agent.into();
        let pipeline = Some(self.pipeline.into());
        Record::Report(AgentReport { agent, pipeline, time: self.now, report })
    }
}

impl RecordKind {
    /// Returns the name of their place in reports.
    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Results => "outbox",
            Self::Late => "late",
        }
    }

    /// Returns the word for them in reports.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Late => "late readings",
        }
    }
}

/// A function that merges closed windows: a module's, or a stand-in.
pub(super) trait WindowMerge {
    /// The digest that its results carry.
    fn digest(&self) -> &str;
    /// Merges two partial states of one key.
    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>;
    /// Returns the results' JSON, or why there is none, one for each window, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// Drops the results for which `goes` is true, and reports that in one record. `None` when none goes.
pub(super) fn drop(
    pending: Vec<PendingRecord>,
    owner: RecordOwner<'_>,
    kind: ReportKind,
    tally: &LossTally,
    goes: impl Fn(&PendingRecord) -> bool,
) -> Option<(Replacement, LossTally)> {
    let mut run = LossRun::default();
    let mut at = None;
    let mut reports = 0;
    let mut dropped = 0;
    let mut kept = Vec::with_capacity(pending.len());
    for one in pending {
        match Record::from_bytes(&one.record) {
            Ok(Record::Report(told)) if is_same(&told, kind, owner.kind.stage()) => {
                run.add(&run_of_report(&told));
                reports += 1;
            }
            Ok(Record::Report(_)) => {
                kept.push(one);
                continue;
            }
            _ if !goes(&one) => {
                kept.push(one);
                continue;
            }
            record => {
                let span = record.map_or(UNKNOWN_SPAN, |record| record.span());
                run.add(&LossRun::single(None, span));
                dropped += 1;
            }
        }
        at.get_or_insert((one.number, one.made));
    }
    if dropped == 0 {
        return None;
    }
    let mut tally = *tally;
    let noun = owner.kind.noun();
    let reason = match kind {
        ReportKind::Expired => {
            tally.expired += dropped;
            format!("{noun} were too old and not delivered yet")
        }
        _ => {
            tally.dropped += dropped;
            format!("the outbox was full: its oldest {noun} were dropped")
        }
    };
    tally.reports = tally.reports + 1 - reports;
    let report = run.report(kind, owner.kind.stage(), &reason);
    Some((with_report(kept, at, owner.report(report), &tally), tally))
}

/// Merges adjacent windows of a key, as far as they lie in the same cell of `cell` microseconds, and reports
/// that in one record. `None` when that makes nothing fewer. Windows that cannot be merged stay as they are;
/// the reason is handed to `failed`.
pub(super) fn coarsen(
    pending: Vec<PendingRecord>,
    owner: RecordOwner<'_>,
    cell: u64,
    merge: &mut impl WindowMerge,
    tally: &LossTally,
    mut failed: impl FnMut(String),
) -> Option<(Replacement, LossTally)> {
    let mut run = LossRun::default();
    let mut at = None;
    let mut reports = 0;
    let mut others = Vec::new();
    let mut groups: Vec<MergeGroup> = Vec::new();
    let mut newest: HashMap<String, usize> = HashMap::new();
    let digest = merge.digest().to_owned();
    let digest = ModuleDigest::from(&*digest);
    for one in pending {
        let window = match Record::from_bytes(&one.record) {
            Ok(Record::Report(told)) if is_same(&told, ReportKind::Coarsened, "outbox") => {
                run.add(&run_of_report(&told));
                at.get_or_insert((one.number, one.made));
                reports += 1;
                continue;
            }
            Ok(Record::Window(window))
                if !one.state.is_empty() && window.module.as_ref() == Some(&digest) =>
            {
                window
            }
            _ => {
                others.push(one);
                continue;
            }
        };
        let group = newest.get(&*window.key).map(|&index| &mut groups[index]);
        match group.map(|group| group.take(&window, &one, cell, merge)) {
            Some(Ok(true)) => {}
            outcome => {
                if let Some(Err(reason)) = outcome {
                    failed(reason);
                }
                newest.insert(window.key.clone().into_owned(), groups.len());
                groups.push(MergeGroup::new(&window, &one));
            }
        }
    }
    let mut gone = 0;
    let mut kept = others;
    for (group, merged) in finish(groups, owner, merge, &mut failed) {
        match merged {
            Some(merged) => {
                let count = group.records.len() as u64 - 1;
                gone += count;
                run.add(&LossRun { count, span: (group.start, group.end), ..LossRun::default() });
                let first = (group.records[0].number, group.records[0].made);
                at = Some(at.map_or(first, |at: (Seq, Timestamp)| at.min(first)));
                kept.push(merged);
            }
            None => kept.extend(group.records),
        }
    }
    // Of two windows come one window and one report: nothing would be won.
    if gone < 2 {
        return None;
    }
    kept.sort_by_key(|one| one.number);
    let mut tally = *tally;
    tally.coarsened += gone;
    tally.reports = tally.reports + 1 - reports;
    let reason = "the outbox was full: results were merged into wider windows";
    let report = run.report(ReportKind::Coarsened, owner.kind.stage(), reason);
    Some((with_report(kept, at, owner.report(report), &tally), tally))
}

/// Returns the run of the times that records speak of.
pub(super) fn run_of(records: &[Vec<u8>]) -> LossRun {
    let mut run = LossRun { span: UNKNOWN_SPAN, ..LossRun::default() };
    for record in records {
        let span = Record::from_bytes(record).map_or(UNKNOWN_SPAN, |record| record.span());
        run.add(&LossRun::single(None, span));
    }
    run
}

fn is_same(told: &AgentReport<'_>, kind: ReportKind, stage: &str) -> bool {
    told.report.kind == kind && told.report.stage == stage
}

fn run_of_report(told: &AgentReport<'_>) -> LossRun {
    let span = told.report.from.zip(told.report.to).unwrap_or(UNKNOWN_SPAN);
    LossRun { count: told.report.count.unwrap_or(0), span, ..LossRun::default() }
}

/// Puts a report in the place of the first record that is gone.
fn with_report(
    mut kept: Vec<PendingRecord>,
    at: Option<(Seq, Timestamp)>,
    report: Record<'_>,
    tally: &LossTally,
) -> Replacement {
    let (number, made) = at.unwrap_or_default();
    let place = kept.partition_point(|one| one.number < number);
    kept.insert(place, PendingRecord { number, made, state: Vec::new(), record: report.to_bytes() });
    Replacement { records: kept, tally: tally.encode() }
}

/// Windows of one key that become one.
struct MergeGroup {
    key: String,
    start: Timestamp,
    end: Timestamp,
    count: u64,
    late: u64,
    rejected: u64,
    state: Vec<u8>,
    records: Vec<PendingRecord>,
}

impl MergeGroup {
    fn new(window: &WindowResult<'_>, record: &PendingRecord) -> Self {
        Self {
            key: window.key.clone().into_owned(),
            start: window.start,
            end: window.end,
            count: window.count,
            late: window.late,
            rejected: window.rejected,
            state: record.state.clone(),
            records: vec![record.clone()],
        }
    }

    /// Takes the window in if it fits; the reason why not, when the module failed.
    fn take(
        &mut self,
        window: &WindowResult<'_>,
        record: &PendingRecord,
        cell: u64,
        merge: &mut impl WindowMerge,
    ) -> Result<bool, String> {
        let last = window.end.0.saturating_sub(1);
        if window.start < self.end || self.start.0 / cell.max(1) != last / cell.max(1) {
            return Ok(false);
        }
        self.state = merge.merge(&self.state, &record.state)?;
        self.end = window.end;
        self.count += window.count;
        self.late += window.late;
        self.rejected += window.rejected;
        self.records.push(record.clone());
        Ok(true)
    }

    fn closed(&self) -> Closed {
        Closed {
            key: self.key.clone(),
            start: self.start,
            end: self.end,
            state: self.state.clone(),
            count: self.count,
            late: self.late,
            revision: 0,
        }
    }

    /// Makes the record of all of them.
    fn record(
        &self,
        value: Result<Vec<u8>, String>,
        owner: RecordOwner<'_>,
        digest: &str,
    ) -> Result<Vec<u8>, String> {
        let value = value?;
        let value = JsonText::checked(&value).map_err(|error| error.to_string())?;
        let result = WindowResult {
            agent: owner.agent.into(),
            pipeline: owner.pipeline.into(),
            key: (&*self.key).into(),
            start: self.start,
            end: self.end,
            part: 0,
            revision: 0,
            state: ResultState::Closed,
            module: Some(ModuleDigest::from(digest)),
            count: self.count,
            late: self.late,
            rejected: self.rejected,
            watermark: Some(self.end),
            value,
        };
        Ok(Record::Window(result).to_bytes())
    }
}

/// Returns the groups, each with its record where several windows became one.
fn finish(
    groups: Vec<MergeGroup>,
    owner: RecordOwner<'_>,
    merge: &mut impl WindowMerge,
    failed: &mut impl FnMut(String),
) -> Vec<(MergeGroup, Option<PendingRecord>)> {
    let closed: Vec<Closed> =
        groups.iter().filter(|group| group.records.len() > 1).map(MergeGroup::closed).collect();
    let mut values = merge.finish(&closed).into_iter();
    let digest = merge.digest().to_owned();
    let mut all = Vec::with_capacity(groups.len());
    for mut group in groups {
        let value = if group.records.len() > 1 { values.next() } else { None };
        let record = value.and_then(|value| group.record(value, owner, &digest).map_err(&mut *failed).ok());
        let state = std::mem::take(&mut group.state);
        let merged = record.zip(group.records.last()).map(|(record, last)| PendingRecord {
            number: last.number,
            made: last.made,
            state,
            record,
        });
        all.push((group, merged));
    }
    all
}
