//! Applies the lines of a batch to the results and to the sums over them.

mod names;
mod sums;

use std::collections::HashMap;

use headwater_wire::{
    ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, ResultState, WindowFacts,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::CommitError;
use crate::batch::ReceivedBatch;
use names::NameIds;
use sums::{LineEffect, RowCounts, SumChange};

/// Stores the lines of a batch in order.
pub(super) fn apply_lines(
    transaction: &Transaction<'_>,
    epoch: i64,
    batch: &ReceivedBatch,
) -> Result<(), CommitError> {
    let change: i64 = transaction
        .prepare_cached("SELECT coalesce(max(change), 0) FROM results")?
        .query_row([], |row| row.get(0))?;
    let mut names = NameIds::new(transaction, &batch.key.agent);
    let mut sums: HashMap<i64, SumChange> = HashMap::new();
    let mut context = LineContext { epoch, seq: 0, change, pipeline: 0, series: 0, module: None };
    for (index, line) in batch.lines.iter().enumerate() {
        context.seq = batch.key.first + index as u64;
        let conflict = || CommitError::Sequence { line: index + 1 };
        let line = match line {
            ParsedLine::Result(line) => line,
            ParsedLine::Late(new) => {
                context.set_names(&mut names, &new.pipeline, &new.key, new.module.as_deref())?;
                let effect = apply_late(transaction, &context, new)?.ok_or_else(conflict)?;
                sums.entry(context.pipeline).or_default().add(effect);
                continue;
            }
            ParsedLine::Report(new) => {
                apply_report(transaction, &context, &batch.key.agent, new)?.ok_or_else(conflict)?;
                continue;
            }
        };
        context.set_names(&mut names, &line.pipeline, &line.key, line.module.as_deref())?;
        let effect = match line.span {
            ResultSpan::Window(new) => apply_window(transaction, &mut context, line, new)?,
            ResultSpan::Event(time) => {
                apply_event(transaction, &mut context, line, time)?.ok_or_else(conflict)?
            }
        };
        sums.entry(context.pipeline).or_default().add(effect);
    }
    sums.into_iter().try_for_each(|(pipeline, change)| change.write(transaction, pipeline))?;
    Ok(())
}

/// The ids under which a line is stored.
struct LineContext {
    epoch: i64,
    seq: u64,
    /// The number of the last change. Each change takes the next number.
    change: i64,
    pipeline: i64,
    series: i64,
    module: Option<i64>,
}

impl LineContext {
    /// Sets the ids of the names in a line.
    fn set_names(
        &mut self,
        names: &mut NameIds<'_>,
        pipeline: &str,
        key: &str,
        module: Option<&str>,
    ) -> rusqlite::Result<()> {
        self.pipeline = names.pipeline(pipeline)?;
        self.series = names.series(self.pipeline, key)?;
        self.module = names.module(module)?;
        Ok(())
    }
}

/// Stores a line with a window if it is the highest revision of that window so far. A retraction is
/// stored in the place of the result, so that a withdrawn result that comes later is the lower revision.
fn apply_window(
    transaction: &Transaction<'_>,
    context: &mut LineContext,
    line: &ParsedResult,
    new: WindowFacts,
) -> rusqlite::Result<LineEffect> {
    let gained = RowCounts::of_window(&new);
    let known: Option<(i64, u32, RowCounts)> = transaction
        .prepare_cached(
            "SELECT change, revision, 1 - retracted, early, retracted, count, late, rejected FROM results
             WHERE series = ? AND start = ? AND end = ? AND part = ?",
        )?
        .query_row(params![context.series, new.start, new.end, new.part], |row| {
            let counts = RowCounts {
                results: row.get(2)?,
                early: row.get(3)?,
                retracted: row.get(4)?,
                readings: row.get(5)?,
                late: row.get(6)?,
                rejected: row.get(7)?,
            };
            Ok((row.get(0)?, row.get(1)?, counts))
        })
        .optional()?;
    let Some((change, revision, lost)) = known else {
        insert_result(transaction, context, line)?;
        return Ok(LineEffect::Stored(gained));
    };
    if new.revision <= revision {
        return Ok(LineEffect::Ignored);
    }
    transaction.prepare_cached("DELETE FROM results WHERE change = ?")?.execute([change])?;
    insert_result(transaction, context, line)?;
    Ok(LineEffect::Replaced(lost, gained))
}

/// Stores a result without a window. Returns `None` if the sequence number belongs to another result.
fn apply_event(
    transaction: &Transaction<'_>,
    context: &mut LineContext,
    line: &ParsedResult,
    time: i64,
) -> rusqlite::Result<Option<LineEffect>> {
    let known: Option<bool> = transaction
        .prepare_cached(
            "SELECT series = ?3 AND start = ?4 AND module IS ?5 AND value = ?6 FROM results
             WHERE epoch = ?1 AND seq = ?2 AND end IS NULL",
        )?
        .query_row(
            params![context.epoch, context.seq, context.series, time, context.module, line.value],
            |row| row.get(0),
        )
        .optional()?;
    match known {
        Some(same) => Ok(same.then_some(LineEffect::Ignored)),
        None => {
            insert_result(transaction, context, line)?;
            Ok(Some(LineEffect::Event))
        }
    }
}

/// Stores a late reading. Returns `None` if the sequence number belongs to another reading.
fn apply_late(
    transaction: &Transaction<'_>,
    context: &LineContext,
    new: &ParsedLate,
) -> rusqlite::Result<Option<LineEffect>> {
    let row =
        params![context.epoch, context.seq, context.series, new.time, new.topic, context.module, new.value];
    let known: Option<bool> = transaction
        .prepare_cached(
            "SELECT series = ?3 AND time = ?4 AND topic = ?5 AND module IS ?6 AND value = ?7 FROM late
             WHERE epoch = ?1 AND seq = ?2",
        )?
        .query_row(row, |row| row.get(0))
        .optional()?;
    if let Some(same) = known {
        return Ok(same.then_some(LineEffect::Ignored));
    }
    transaction
        .prepare_cached(
            "INSERT INTO late (epoch, seq, series, time, topic, module, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(row)?;
    Ok(Some(LineEffect::Late))
}

/// Stores a report. Returns `None` if the sequence number belongs to another report.
fn apply_report(
    transaction: &Transaction<'_>,
    context: &LineContext,
    agent: &str,
    new: &ParsedReport,
) -> rusqlite::Result<Option<()>> {
    let known: Option<bool> = transaction
        .prepare_cached("SELECT value = ?3 FROM reports WHERE epoch = ?1 AND seq = ?2")?
        .query_row(params![context.epoch, context.seq, new.value], |row| row.get(0))
        .optional()?;
    if let Some(same) = known {
        return Ok(same.then_some(()));
    }
    transaction
        .prepare_cached(
            "INSERT INTO reports (epoch, seq, agent, pipeline, time, kind, count, value)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            context.epoch,
            context.seq,
            agent,
            new.pipeline,
            new.time,
            new.kind,
            new.count,
            new.value
        ])?;
    Ok(Some(()))
}

fn insert_result(
    transaction: &Transaction<'_>,
    context: &mut LineContext,
    line: &ParsedResult,
) -> rusqlite::Result<()> {
    context.change += 1;
    let (start, window) = match line.span {
        ResultSpan::Window(window) => (window.start, Some(window)),
        ResultSpan::Event(time) => (time, None),
    };
    transaction
        .prepare_cached(
            "INSERT INTO results (change, pipeline, series, epoch, seq, start, module, value,
                                  end, revision, count, late, rejected, part, early, retracted,
                                  watermark)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            context.change,
            context.pipeline,
            context.series,
            context.epoch,
            context.seq,
            start,
            context.module,
            line.value,
            window.map(|window| window.end),
            window.map(|window| window.revision),
            window.map(|window| window.count),
            window.map(|window| window.late),
            window.map(|window| window.rejected),
            window.map_or(0, |window| window.part),
            window.is_some_and(|window| window.state == ResultState::Early),
            window.is_some_and(|window| window.state == ResultState::Retracted),
            window.and_then(|window| window.watermark),
        ])?;
    Ok(())
}
