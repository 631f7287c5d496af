//! The sums over the results of a pipeline, and the changes of a batch to them.

use headwater_wire::{ResultState, WindowFacts};
use rusqlite::{Transaction, params};

/// The effect of a line on the stored results.
pub(super) enum LineEffect {
    Event,
    Late,
    Stored(RowCounts),
    /// The row with the first counts was replaced by one with the second.
    Replaced(RowCounts, RowCounts),
    Ignored,
}

/// The counts that one row adds to the sums of its pipeline.
#[derive(Clone, Copy, Default)]
pub(super) struct RowCounts {
    pub(super) results: i64,
    pub(super) early: i64,
    pub(super) retracted: i64,
    pub(super) readings: i64,
    pub(super) late: i64,
    pub(super) rejected: i64,
}

/// The effect of a batch on the sums of one pipeline.
#[derive(Default)]
pub(super) struct SumChange {
    events: i64,
    late_readings: i64,
    replaced: i64,
    ignored: i64,
    gained: RowCounts,
    lost: RowCounts,
}

impl RowCounts {
    pub(super) fn of_window(window: &WindowFacts) -> Self {
        let &WindowFacts { count: readings, late, rejected, .. } = window;
        match window.state {
            ResultState::Closed => Self { results: 1, early: 0, retracted: 0, readings, late, rejected },
            ResultState::Early => Self { results: 1, early: 1, retracted: 0, readings, late, rejected },
            ResultState::Retracted => Self { retracted: 1, ..Self::default() },
        }
    }

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
    pub(super) fn add(&mut self, effect: LineEffect) {
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
    pub(super) fn write(self, transaction: &Transaction<'_>, pipeline: i64) -> rusqlite::Result<()> {
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
