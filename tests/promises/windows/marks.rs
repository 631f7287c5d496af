//! The time at which a window's result is due and the number of its revisions, from the readings in their
//! order.

use std::collections::BTreeMap;

use headwater_tests::windows_oracle::OracleReading;

use super::HOUR;
use super::naive::FoundResult;

/// The readings that move the watermark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WatermarkScope {
    /// Those of all devices.
    Pipeline,
    /// Those of the key itself; those of the others less a day.
    Key,
}

/// The results that a window gives before the one that is compared, from which its revision follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum EarlierResults {
    /// At most one result for each reading that came late.
    Late,
    /// Provisional results as well.
    Early,
    /// The results of sessions that were joined later.
    Joined,
}

/// The watermark of each key, after each reading of all devices.
pub(super) struct KeyWatermarks<'a> {
    readings: &'a [OracleReading],
    of: BTreeMap<&'a str, Vec<i64>>,
}

impl<'a> KeyWatermarks<'a> {
    pub(super) fn of(readings: &'a [OracleReading], lateness: u64, clock: WatermarkScope) -> Self {
        let mut of: BTreeMap<&str, Vec<i64>> = readings.iter().map(|it| (&*it.key, Vec::new())).collect();
        for (key, marks) in &mut of {
            let mut newest = 0_u64;
            let mut own = 0;
            for reading in readings {
                newest = newest.max(reading.time);
                own = own.max(if reading.key == *key { reading.time } else { 0 });
                let newest = match clock {
                    WatermarkScope::Pipeline => newest,
                    WatermarkScope::Key => own.max(newest.saturating_sub(24 * HOUR)),
                };
                marks.push(newest.saturating_sub(lateness).cast_signed());
            }
        }
        Self { readings, of }
    }

    /// Returns the fault in the time or the number of a window's results, if there is one.
    pub(super) fn check(
        &self,
        inside: &[&OracleReading],
        found: &FoundResult<'_>,
        shown: EarlierResults,
    ) -> Result<(), String> {
        if shown == EarlierResults::Joined {
            return Ok(());
        }
        let end = found.place.end;
        let marks = &self.of[&*found.place.key];
        let came_at = inside.iter().map(|reading| {
            // Equal readings are told apart by their place in the list.
            let begin = self.readings.as_ptr().addr();
            let index =
                (std::ptr::from_ref::<OracleReading>(reading).addr() - begin) / size_of::<OracleReading>();
            index.checked_sub(1).map_or(0, |before| marks[before])
        });
        let late: Vec<_> = came_at.filter(|mark| *mark >= end).collect();
        let first = marks.get(marks.partition_point(|mark| *mark < end)).copied();
        let watermark = late.iter().max().copied().or(first);
        let revision = if late.len() == inside.len() { late.len() - 1 } else { late.len() };
        let same = found.late == late.len() as u64
            && Some(found.watermark) == watermark
            && (shown == EarlierResults::Early || found.revision == revision as u64);
        same.then_some(())
            .ok_or_else(|| format!("revision {revision}, {} late, at {watermark:?}", late.len()))
    }
}
