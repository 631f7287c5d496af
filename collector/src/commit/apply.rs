//! Applies the lines of a batch to the results and to the sums over them.

use std::collections::HashMap;

use headwater_wire::{
    ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, ResultState, WindowFacts,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::CommitError;
use crate::batch::Batch;

/// Stores the lines of a batch in order.
pub(super) fn apply_lines(
    transaction: &Transaction<'_>,
    epoch: i64,
    batch: &Batch,
) -> Result<(), CommitError> {
    let change: i64 = transaction
        .prepare_cached("SELECT coalesce(max(change), 0) FROM results")?
        .query_row([], |row| row.get(0))?;
    let mut names = NameIds { transaction, agent: &batch.key.agent, pipelines: HashMap::new() };
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

/// The effect of a line on the stored results.
enum LineEffect {
    Event,
    Late,
    Stored(RowCounts),
    /// The row with the first counts was replaced by one with the second.
    Replaced(RowCounts, RowCounts),
    Ignored,
}

/// The counts that one row adds to the sums of its pipeline.
#[derive(Clone, Copy, Default)]
struct RowCounts {
    results: i64,
    early: i64,
    retracted: i64,
    readings: i64,
    late: i64,
    rejected: i64,
}

impl RowCounts {
    fn of_window(window: &WindowFacts) -> Self {
        let &WindowFacts { count: readings, late, rejected, .. } = window;
        match window.state {
            ResultState::Closed => Self { results: 1, early: 0, retracted: 0, readings, late, rejected },
            ResultState::Early => Self { results: 1, early: 1, retracted: 0, readings, late, rejected },
            ResultState::Retracted => Self { retracted: 1, ..Self::default() },
        }
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

/// The effect of a batch on the sums of one pipeline.
#[derive(Default)]
struct SumChange {
    events: i64,
    late_readings: i64,
    replaced: i64,
    ignored: i64,
    gained: RowCounts,
    lost: RowCounts,
}

impl RowCounts {
    fn add(&mut self, other: Self) {
        self.results += other.results;
        self.early += other.early;
        self.retracted += other.retracted;
        self.readings = self.readings.saturating_add(other.readings);
        self.late = self.late.saturating_add(other.late);
        self.rejected = self.rejected.saturating_add(other.rejected);
    }
}

impl SumChange {
    fn add(&mut self, effect: LineEffect) {
        match effect {
            LineEffect::Event => self.events += 1,
            LineEffect::Late => self.late_readings += 1,
            LineEffect::Ignored => self.ignored += 1,
            LineEffect::Stored(new) => self.gained.add(new),
            LineEffect::Replaced(old, new) => {
                self.replaced += 1;
                self.lost.add(old);
                self.gained.add(new);
            }
        }
    }

    /// Adds this change to the stored sums. The sums that may overflow are added here and not in SQL:
    /// SQLite turns an integer that overflows into a double.
    fn write(self, transaction: &Transaction<'_>, pipeline: i64) -> rusqlite::Result<()> {
        let old: [i64; 3] = transaction
            .prepare_cached("SELECT readings, late, rejected FROM pipelines WHERE id = ?")?
            .query_row([pipeline], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
        let Self { gained, lost, .. } = self;
        let sum = |old: i64, gained: i64, lost: i64| old.saturating_add(gained).saturating_sub(lost).max(0);
        transaction
            .prepare_cached(
                "UPDATE pipelines SET results = results + ?2, events = events + ?3,
                 replaced = replaced + ?4, ignored = ignored + ?5, early = early + ?6,
                 retracted = retracted + ?7, readings = ?8, late = ?9, rejected = ?10,
                 late_readings = late_readings + ?11 WHERE id = ?1",
            )?
            .execute(params![
                pipeline,
                gained.results - lost.results,
                self.events,
                self.replaced,
                self.ignored,
                gained.early - lost.early,
                gained.retracted - lost.retracted,
                sum(old[0], gained.readings, lost.readings),
                sum(old[1], gained.late, lost.late),
                sum(old[2], gained.rejected, lost.rejected),
                self.late_readings,
            ])?;
        Ok(())
    }
}

/// The ids of pipelines, keys and modules. A new name gets its id when it is first looked up.
struct NameIds<'t> {
    transaction: &'t Transaction<'t>,
    agent: &'t str,
    /// The ids looked up so far: a batch has few pipelines and many lines.
    pipelines: HashMap<String, i64>,
}

impl NameIds<'_> {
    fn pipeline(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(&id) = self.pipelines.get(name) {
            return Ok(id);
        }
        let id = self.find_or_insert(
            "SELECT id FROM pipelines WHERE agent = ? AND pipeline = ?",
            "INSERT INTO pipelines (agent, pipeline) VALUES (?, ?)",
            params![self.agent, name],
        )?;
        self.pipelines.insert(name.to_owned(), id);
        Ok(id)
    }

    fn series(&self, pipeline: i64, key: &str) -> rusqlite::Result<i64> {
        self.find_or_insert(
            "SELECT id FROM series WHERE pipeline = ? AND key = ?",
            "INSERT INTO series (pipeline, key) VALUES (?, ?)",
            params![pipeline, key],
        )
    }

    fn module(&self, digest: Option<&str>) -> rusqlite::Result<Option<i64>> {
        let Some(digest) = digest else {
            return Ok(None);
        };
        let find = "SELECT id FROM modules WHERE digest = ?";
        self.find_or_insert(find, "INSERT INTO modules (digest) VALUES (?)", params![digest]).map(Some)
    }

    fn find_or_insert(
        &self,
        find: &str,
        insert: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<i64> {
        let known = self.transaction.prepare_cached(find)?.query_row(params, |row| row.get(0)).optional()?;
        match known {
            Some(id) => Ok(id),
            None => self.transaction.prepare_cached(insert)?.insert(params),
        }
    }
}
