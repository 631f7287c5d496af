//! Which of an outbox's lines give way to fewer, and to what: pure but for the aggregate.
//!
//! What goes is put together with what an earlier report of the same kind tells, so that an outbox
//! that was full for a week holds few reports, and each result that went is in exactly one.

use std::collections::HashMap;

use super::line::{self, Said};
use super::records;
use super::tally::{LossRun, Tally, UNKNOWN_SPAN};
use crate::flow::{LossReport, ReportKind, Timestamp};
use crate::module::Closed;
use crate::store::{Thinner, Waiting};
use crate::window::WindowOutcome;
use crate::wire::{AgentReport, Record};

/// Whose lines they are, and by when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose<'a> {
    pub(super) agent: &'a str,
    pub(super) pipeline: &'a str,
    pub(super) what: What,
    pub(super) now: Timestamp,
}

impl<'a> Whose<'a> {
    /// The record of a report of theirs.
    pub(super) fn report(&self, report: LossReport) -> Record<'a> {
        let agent = self.agent.into();
        let pipeline = Some(self.pipeline.into());
        Record::Report(AgentReport { agent, pipeline, time: self.now, report })
    }
}

/// What lines an outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Results.
    Results,
    /// Readings that came too late for their windows.
    Late,
}

impl What {
    /// Where they are, as reports name it.
    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Results => "outbox",
            Self::Late => "late",
        }
    }

    /// What they are called there.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Late => "late readings",
        }
    }
}

/// What merges closed windows: a module, or a stand-in.
pub(super) trait Merge {
    /// The digest that its results carry.
    fn digest(&self) -> &str;
    /// Two partial states of one key as one.
    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>;
    /// The results' JSON, or why there is none, one for each window, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// Gives up the results that `goes` says, and tells so in one line. `None` when none goes.
pub(super) fn drop(
    lines: Vec<Waiting>,
    whose: Whose<'_>,
    kind: ReportKind,
    tally: &Tally,
    goes: impl Fn(&Waiting) -> bool,
) -> Option<(Thinner, Tally)> {
    let (mut run, mut at, mut reports, mut dropped) = (LossRun::default(), None, 0, 0);
    let mut kept = Vec::with_capacity(lines.len());
    for line in lines {
        match line::said(&line.line) {
            Said::Report(told) if told.is(kind, whose.what.stage()) => {
                run.add(&told.run);
                reports += 1;
            }
            Said::Report(_) => {
                kept.push(line);
                continue;
            }
            _ if !goes(&line) => {
                kept.push(line);
                continue;
            }
            said => {
                run.add(&LossRun::single(None, said.span()));
                dropped += 1;
            }
        }
        at.get_or_insert((line.number, line.made));
    }
    if dropped == 0 {
        return None;
    }
    let mut tally = *tally;
    let noun = whose.what.noun();
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
    Some((told(kept, at, &run, whose, kind, &reason, &tally), tally))
}

/// Merges adjacent windows of a key, as far as they lie in the same cell of `cell` microseconds, and tells
/// so in one line. `None` when that makes nothing fewer. What cannot be merged stays as it is; why, is
/// handed to `failed`.
pub(super) fn coarsen(
    lines: Vec<Waiting>,
    whose: Whose<'_>,
    cell: u64,
    merge: &mut impl Merge,
    tally: &Tally,
    mut failed: impl FnMut(String),
) -> Option<(Thinner, Tally)> {
    let (mut run, mut at, mut reports) = (LossRun::default(), None, Vec::new());
    let mut others = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut newest: HashMap<String, usize> = HashMap::new();
    for line in lines {
        let window = match line::said(&line.line) {
            Said::Report(told) if told.is(ReportKind::Coarsened, "outbox") => {
                run.add(&told.run);
                at.get_or_insert((line.number, line.made));
                reports.push(line);
                continue;
            }
            Said::Window(window) if !line.state.is_empty() && window.module == merge.digest() => window,
            _ => {
                others.push(line);
                continue;
            }
        };
        let group = newest.get(&window.key).map(|&index| &mut groups[index]);
        match group.map(|group| group.take(&window, &line, cell, merge)) {
            Some(Ok(true)) => {}
            outcome => {
                if let Some(Err(reason)) = outcome {
                    failed(reason);
                }
                newest.insert(window.key.clone(), groups.len());
                groups.push(Group::of(window, line));
            }
        }
    }
    let mut gone = 0;
    let mut kept = others;
    for (group, merged) in finish(groups, whose, merge, &mut failed) {
        match merged {
            Some(line) => {
                gone += group.lines.len() as u64 - 1;
                let (count, span) = (group.lines.len() as u64 - 1, (group.start, group.end));
                run.add(&LossRun { count, span, ..LossRun::default() });
                let first = &group.lines[0];
                let first = (first.number, first.made);
                at = Some(at.map_or(first, |at: (u64, Timestamp)| at.min(first)));
                kept.push(line);
            }
            None => kept.extend(group.lines),
        }
    }
    // Of two windows come one window and one report: nothing would be won.
    if gone < 2 {
        return None;
    }
    kept.sort_by_key(|line| line.number);
    let mut tally = *tally;
    tally.coarsened += gone;
    tally.reports = tally.reports + 1 - reports.len() as u64;
    let reason = "the outbox was full: results were merged into wider windows";
    Some((told(kept, at, &run, whose, ReportKind::Coarsened, reason, &tally), tally))
}

/// The lines that stay, with a report in the place of the first that went.
fn told(
    mut kept: Vec<Waiting>,
    at: Option<(u64, Timestamp)>,
    run: &LossRun,
    whose: Whose<'_>,
    kind: ReportKind,
    reason: &str,
    tally: &Tally,
) -> Thinner {
    let (number, made) = at.unwrap_or_default();
    let report = run.report(kind, whose.what.stage(), reason);
    let line = whose.report(report).to_line();
    let place = kept.partition_point(|line| line.number < number);
    kept.insert(place, Waiting { number, made, state: Vec::new(), line });
    Thinner { lines: kept, tally: tally.encode() }
}

/// Windows of one key that become one.
struct Group {
    key: String,
    start: Timestamp,
    end: Timestamp,
    count: u64,
    late: u64,
    rejected: u64,
    state: Vec<u8>,
    lines: Vec<Waiting>,
}

impl Group {
    fn of(window: line::Window, line: Waiting) -> Self {
        let line::Window { key, start, end, count, late, rejected, .. } = window;
        Self { key, start, end, count, late, rejected, state: line.state.clone(), lines: vec![line] }
    }

    /// Whether the window went in; why not, when the module failed.
    fn take(
        &mut self,
        window: &line::Window,
        line: &Waiting,
        cell: u64,
        merge: &mut impl Merge,
    ) -> Result<bool, String> {
        let last = window.end.0.saturating_sub(1);
        if window.start < self.end || self.start.0 / cell.max(1) != last / cell.max(1) {
            return Ok(false);
        }
        self.state = merge.merge(&self.state, &line.state)?;
        self.end = window.end;
        self.count += window.count;
        self.late += window.late;
        self.rejected += window.rejected;
        self.lines.push(line.clone());
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
}

/// The groups, each with its line where several windows became one.
fn finish(
    groups: Vec<Group>,
    whose: Whose<'_>,
    merge: &mut impl Merge,
    failed: &mut impl FnMut(String),
) -> Vec<(Group, Option<Waiting>)> {
    let closed: Vec<Closed> =
        groups.iter().filter(|group| group.lines.len() > 1).map(Group::closed).collect();
    let mut values = merge.finish(&closed).into_iter();
    let digest = merge.digest().to_owned();
    let mut all = Vec::with_capacity(groups.len());
    for mut group in groups {
        let value = if group.lines.len() > 1 { values.next() } else { None };
        let merged = value.and_then(|value| {
            let line = line_of(&group, value, whose, &digest);
            line.map_err(&mut *failed).ok()
        });
        let last = group.lines.last().map(|line| (line.number, line.made)).unwrap_or_default();
        let state = std::mem::take(&mut group.state);
        let merged = merged.map(|line| Waiting { number: last.0, made: last.1, state, line });
        all.push((group, merged));
    }
    all
}

fn line_of(
    group: &Group,
    value: Result<Vec<u8>, String>,
    whose: Whose<'_>,
    digest: &str,
) -> Result<Vec<u8>, String> {
    let outcome = WindowOutcome {
        key: group.key.clone(),
        start: group.start,
        end: group.end,
        part: 0,
        revision: 0,
        count: group.count,
        late: group.late,
        rejected: group.rejected,
        watermark: group.end,
        early: false,
        retracted: false,
        value: Ok(value?),
        state: Vec::new(),
    };
    let result = records::window(whose.agent, whose.pipeline, digest, &outcome);
    result.map(|result| result.to_line()).map_err(|(reason, _)| reason)
}

/// The time that lines speak of, for a run.
pub(super) fn run_of(lines: &[Vec<u8>]) -> LossRun {
    let mut run = LossRun { span: UNKNOWN_SPAN, ..LossRun::default() };
    for line in lines {
        run.add(&LossRun::single(None, line::said(line).span()));
    }
    run
}
