//! Applies a batch's lines to the results and to the sums over them.

use std::collections::HashMap;

use headwater_wire::{
    ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, ResultState, WindowFacts,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::CommitError;
use crate::batch::Batch;

/// Stores the lines in order.
pub(super) fn lines(transaction: &Transaction<'_>, epoch: i64, batch: &Batch) -> Result<(), CommitError> {
    let change: i64 = transaction
        .prepare_cached("SELECT coalesce(max(change), 0) FROM results")?
        .query_row([], |row| row.get(0))?;
    let mut names = Names { transaction, agent: &batch.key.agent, pipelines: HashMap::new() };
    let mut sums: HashMap<i64, Sums> = HashMap::new();
    let mut at = Place { epoch, seq: 0, change, pipeline: 0, series: 0, module: None };
    for (index, line) in batch.lines.iter().enumerate() {
        at.seq = batch.key.first + index as u64;
        let other = || CommitError::Sequence { line: index + 1 };
        let line = match line {
            ParsedLine::Result(line) => line,
            ParsedLine::Late(new) => {
                at.name(&mut names, &new.pipeline, &new.key, new.module.as_deref())?;
                let effect = late(transaction, &at, new)?.ok_or_else(other)?;
                sums.entry(at.pipeline).or_default().add(effect);
                continue;
            }
            ParsedLine::Report(new) => {
                report(transaction, &at, &batch.key.agent, new)?.ok_or_else(other)?;
                continue;
            }
        };
        at.name(&mut names, &line.pipeline, &line.key, line.module.as_deref())?;
        let effect = match line.span {
            ResultSpan::Window(new) => window(transaction, &mut at, line, new)?,
            ResultSpan::Event(time) => event(transaction, &mut at, line, time)?.ok_or_else(other)?,
        };
        sums.entry(at.pipeline).or_default().add(effect);
    }
    sums.into_iter().try_for_each(|(pipeline, sums)| sums.write(transaction, pipeline))?;
    Ok(())
}

/// Where a line goes.
struct Place {
    epoch: i64,
    seq: u64,
    /// The last change made; each one takes the next number.
    change: i64,
    pipeline: i64,
    series: i64,
    module: Option<i64>,
}

impl Place {
    /// Whose the line is.
    fn name(
        &mut self,
        names: &mut Names<'_>,
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

/// What a line changed.
enum Effect {
    Event,
    Late,
    Stored(Counts),
    /// The first were replaced by the second.
    Replaced(Counts, Counts),
    Ignored,
}

/// What one row adds to its pipeline's sums.
#[derive(Clone, Copy, Default)]
struct Counts {
    results: i64,
    early: i64,
    retracted: i64,
    readings: i64,
    late: i64,
    rejected: i64,
}

impl Counts {
    fn of(window: &WindowFacts) -> Self {
        let (readings, late, rejected) = (window.count, window.late, window.rejected);
        match window.state {
            ResultState::Closed => Self { results: 1, early: 0, retracted: 0, readings, late, rejected },
            ResultState::Early => Self { results: 1, early: 1, retracted: 0, readings, late, rejected },
            ResultState::Retracted => Self { retracted: 1, ..Self::default() },
        }
    }
}

/// Stores the line if it is the highest revision of its window so far. A retraction takes the place of
/// the result, come before or later, so that what it withdraws finds a higher revision there.
fn window(
    transaction: &Transaction<'_>,
    at: &mut Place,
    line: &ParsedResult,
    new: WindowFacts,
) -> rusqlite::Result<Effect> {
    let gained = Counts::of(&new);
    let known: Option<(i64, u32, Counts)> = transaction
        .prepare_cached(
            "SELECT change, revision, 1 - retracted, early, retracted, count, late, rejected FROM results
             WHERE series = ? AND start = ? AND end = ? AND part = ?",
        )?
        .query_row(params![at.series, new.start, new.end, new.part], |row| {
            let counts = Counts {
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
        insert(transaction, at, line)?;
        return Ok(Effect::Stored(gained));
    };
    if new.revision <= revision {
        return Ok(Effect::Ignored);
    }
    transaction.prepare_cached("DELETE FROM results WHERE change = ?")?.execute([change])?;
    insert(transaction, at, line)?;
    Ok(Effect::Replaced(lost, gained))
}

/// `None` when the sequence number belongs to another result.
fn event(
    transaction: &Transaction<'_>,
    at: &mut Place,
    line: &ParsedResult,
    time: i64,
) -> rusqlite::Result<Option<Effect>> {
    let known: Option<bool> = transaction
        .prepare_cached(
            "SELECT series = ?3 AND start = ?4 AND module IS ?5 AND value = ?6 FROM results
             WHERE epoch = ?1 AND seq = ?2 AND end IS NULL",
        )?
        .query_row(params![at.epoch, at.seq, at.series, time, at.module, line.value], |row| row.get(0))
        .optional()?;
    match known {
        Some(same) => Ok(same.then_some(Effect::Ignored)),
        None => {
            insert(transaction, at, line)?;
            Ok(Some(Effect::Event))
        }
    }
}

/// `None` when the sequence number belongs to another reading.
fn late(transaction: &Transaction<'_>, at: &Place, new: &ParsedLate) -> rusqlite::Result<Option<Effect>> {
    let row = params![at.epoch, at.seq, at.series, new.time, new.topic, at.module, new.value];
    let known: Option<bool> = transaction
        .prepare_cached(
            "SELECT series = ?3 AND time = ?4 AND topic = ?5 AND module IS ?6 AND value = ?7 FROM late
             WHERE epoch = ?1 AND seq = ?2",
        )?
        .query_row(row, |row| row.get(0))
        .optional()?;
    if let Some(same) = known {
        return Ok(same.then_some(Effect::Ignored));
    }
    transaction
        .prepare_cached(
            "INSERT INTO late (epoch, seq, series, time, topic, module, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(row)?;
    Ok(Some(Effect::Late))
}

/// `None` when the sequence number belongs to another report.
fn report(
    transaction: &Transaction<'_>,
    at: &Place,
    agent: &str,
    new: &ParsedReport,
) -> rusqlite::Result<Option<()>> {
    let known: Option<bool> = transaction
        .prepare_cached("SELECT value = ?3 FROM reports WHERE epoch = ?1 AND seq = ?2")?
        .query_row(params![at.epoch, at.seq, new.value], |row| row.get(0))
        .optional()?;
    if let Some(same) = known {
        return Ok(same.then_some(()));
    }
    transaction
        .prepare_cached(
            "INSERT INTO reports (epoch, seq, agent, pipeline, time, kind, count, value)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![at.epoch, at.seq, agent, new.pipeline, new.time, new.kind, new.count, new.value])?;
    Ok(Some(()))
}

fn insert(transaction: &Transaction<'_>, at: &mut Place, line: &ParsedResult) -> rusqlite::Result<()> {
    at.change += 1;
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
            at.change,
            at.pipeline,
            at.series,
            at.epoch,
            at.seq,
            start,
            at.module,
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

/// A batch's effect on one pipeline's sums.
#[derive(Default)]
struct Sums {
    events: i64,
    late_readings: i64,
    replaced: i64,
    ignored: i64,
    gained: Counts,
    lost: Counts,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.results += other.results;
        self.early += other.early;
        self.retracted += other.retracted;
        self.readings = self.readings.saturating_add(other.readings);
        self.late = self.late.saturating_add(other.late);
        self.rejected = self.rejected.saturating_add(other.rejected);
    }
}

impl Sums {
    fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Event => self.events += 1,
            Effect::Late => self.late_readings += 1,
            Effect::Ignored => self.ignored += 1,
            Effect::Stored(new) => self.gained.add(new),
            Effect::Replaced(old, new) => {
                self.replaced += 1;
                self.lost.add(old);
                self.gained.add(new);
            }
        }
    }

    /// Added here, not in SQL, where it may overflow: SQLite turns such an integer into a double.
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

/// Numbers of names, made on first sight.
struct Names<'t> {
    transaction: &'t Transaction<'t>,
    agent: &'t str,
    /// A batch has few pipelines and many lines.
    pipelines: HashMap<String, i64>,
}

impl Names<'_> {
    fn pipeline(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(&id) = self.pipelines.get(name) {
            return Ok(id);
        }
        let id = self.number(
            "SELECT id FROM pipelines WHERE agent = ? AND pipeline = ?",
            "INSERT INTO pipelines (agent, pipeline) VALUES (?, ?)",
            params![self.agent, name],
        )?;
        self.pipelines.insert(name.to_owned(), id);
        Ok(id)
    }

    fn series(&self, pipeline: i64, key: &str) -> rusqlite::Result<i64> {
        self.number(
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
        self.number(find, "INSERT INTO modules (digest) VALUES (?)", params![digest]).map(Some)
    }

    fn number(&self, find: &str, insert: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<i64> {
        let known = self.transaction.prepare_cached(find)?.query_row(params, |row| row.get(0)).optional()?;
        match known {
            Some(id) => Ok(id),
            None => self.transaction.prepare_cached(insert)?.insert(params),
        }
    }
}
