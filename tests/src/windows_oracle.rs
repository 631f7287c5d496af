//! The expected contents of every kind of window: a naive computation over the whole list of readings, which
//! knows nothing of panes, watermarks or batches.
//!
//! It gives the contents of each window once no more readings come. A caller first removes from the list the
//! readings that an agent may leave out because they came too late.
//!
//! Windows are half open, `start <= time < end`, in whole microseconds:
//!
//! | kind | one window | start | end |
//! | --- | --- | --- | --- |
//! | none | a reading | its time | the same |
//! | tumbling | a multiple of `size`, plus `offset` | that | start + size |
//! | day | a calendar day of a zone | its midnight | the next midnight |
//! | hopping | a multiple of `slide`, plus `offset` | that | start + size |
//! | sliding | a distinct time t of a key | t - length + 1 us | t + 1 us |
//! | session | readings less than `gap` apart, cut at multiples of `longest` | the first one's time | the last one's time + gap, at most the next multiple |
//! | count | the last `size` readings of a key, at the `size`th and every `slide` later | the first one's time | the last one's time + 1 us |
//!
//! `part` is the ordinal among the key's windows for none and count, and else 0. Readings with the same time
//! are in the order of their arrival.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

/// A reading; its index in the list is its order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleReading {
    /// The key it belongs to.
    pub key: String,
    /// The event time, in microseconds since the Unix epoch.
    pub time: u64,
    /// The value measured.
    pub value: f64,
}

/// The rule by which readings are put into windows; lengths in microseconds.
#[derive(Clone, Debug)]
pub enum WindowRule {
    /// Each reading by itself.
    None,
    /// Windows side by side.
    Tumbling {
        /// The length of a window.
        size: u64,
        /// The offset of their starts from the multiples of `size`.
        offset: u64,
    },
    /// Calendar days.
    Day {
        /// The zone whose midnights are the bounds.
        zone: TimeZone,
    },
    /// Overlapping windows; with a `slide` over `size` there are gaps between them.
    Hopping {
        /// The length of a window.
        size: u64,
        /// The distance from one start to the next.
        slide: u64,
        /// The offset of their starts from the multiples of `slide`.
        offset: u64,
    },
    /// Windows that look back from each distinct time.
    Sliding {
        /// The length of a window.
        length: u64,
    },
    /// Windows that last as long as readings come.
    Session {
        /// The silence that ends a window.
        gap: u64,
        /// The length at whose multiples a window is cut.
        longest: Option<u64>,
    },
    /// Windows of a number of readings, in event-time order.
    Count {
        /// The number of readings in a window.
        size: usize,
        /// The number of readings from one window to the next.
        slide: usize,
    },
}

/// The identity of a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowId {
    /// The key it belongs to.
    pub key: String,
    /// The first instant; negative before 1970.
    pub start: i64,
    /// The first instant after the window.
    pub end: i64,
    /// A number that tells windows of one key and time apart.
    pub part: u64,
}

/// All windows that are not empty, with their readings in event-time order.
pub type WindowContents<'a> = BTreeMap<WindowId, Vec<&'a OracleReading>>;

/// Puts readings, in the order of their arrival, into windows.
///
/// # Panics
/// When a length is zero or a time is beyond all calendars.
#[must_use]
pub fn contents<'a>(readings: &'a [OracleReading], kind: &WindowRule) -> WindowContents<'a> {
    let keys: BTreeSet<&str> = readings.iter().map(|reading| &*reading.key).collect();
    let mut contents = WindowContents::new();
    for key in keys {
        let mut own: Vec<_> = readings.iter().filter(|reading| reading.key == key).collect();
        if !matches!(kind, WindowRule::None) {
            own.sort_by_key(|reading| reading.time);
        }
        for (start, end, part, inside) in windows(&own, kind) {
            let place = WindowId { key: key.to_owned(), start, end, part };
            assert!(contents.insert(place, inside).is_none(), "a window twice");
        }
    }
    contents
}

type FoundWindow<'a> = (i64, i64, u64, Vec<&'a OracleReading>);

fn windows<'a>(own: &[&'a OracleReading], kind: &WindowRule) -> Vec<FoundWindow<'a>> {
    match kind {
        WindowRule::None => each(own),
        WindowRule::Tumbling { size, offset } => between(own, |time| aligned(time, *size, *size, *offset)),
        WindowRule::Day { zone } => between(own, |time| vec![day(time, zone)]),
        WindowRule::Hopping { size, slide, offset } => {
            between(own, |time| aligned(time, *size, *slide, *offset))
        }
        WindowRule::Sliding { length } => {
            between_these(own, own.iter().map(|reading| sliding(reading, *length)))
        }
        WindowRule::Session { gap, longest } => sessions(own, *gap, *longest),
        WindowRule::Count { size, slide } => counted(own, *size, *slide),
    }
}

fn time(reading: &OracleReading) -> i64 {
    i64::try_from(reading.time).expect("a time of this calendar")
}

fn length(micros: u64) -> i64 {
    i64::try_from(micros).ok().filter(|micros| *micros > 0).expect("a length")
}

fn each<'a>(own: &[&'a OracleReading]) -> Vec<FoundWindow<'a>> {
    let ordinals = 0_u64..;
    ordinals.zip(own).map(|(part, reading)| (time(reading), time(reading), part, vec![*reading])).collect()
}

/// Returns all windows that hold the time of any reading.
fn between<'a>(own: &[&'a OracleReading], of: impl Fn(i64) -> Vec<(i64, i64)>) -> Vec<FoundWindow<'a>> {
    between_these(own, own.iter().flat_map(|reading| of(time(reading))))
}

/// Returns a window for each of these bounds, with all readings in between.
fn between_these<'a>(
    own: &[&'a OracleReading],
    bounds: impl Iterator<Item = (i64, i64)>,
) -> Vec<FoundWindow<'a>> {
    let bounds: BTreeSet<_> = bounds.collect();
    // The readings are in the order of their times, so a binary search finds the bounds.
    let before = |bound: i64| own.partition_point(|reading| time(reading) < bound);
    let inside = |start, end| own[before(start)..before(end)].to_vec();
    bounds.into_iter().map(|(start, end)| (start, end, 0, inside(start, end))).collect()
}

fn aligned(time: i64, size: u64, slide: u64, offset: u64) -> Vec<(i64, i64)> {
    let size = length(size);
    let slide = length(slide);
    let offset = i64::try_from(offset).expect("a length");
    let mut start = (time - offset).div_euclid(slide) * slide + offset;
    let mut all = Vec::new();
    while start + size > time {
        all.push((start, start + size));
        start -= slide;
    }
    all
}

fn day(time: i64, zone: &TimeZone) -> (i64, i64) {
    let instant = jiff::Timestamp::from_microsecond(time).expect("a time of this calendar");
    let date = instant.to_zoned(zone.clone()).date();
    let midnight = |date: jiff::civil::Date| {
        let zoned = date.to_zoned(zone.clone()).expect("a day of this calendar");
        zoned.timestamp().as_microsecond()
    };
    (midnight(date), midnight(date.tomorrow().expect("a day of this calendar")))
}

fn sliding(reading: &OracleReading, back: u64) -> (i64, i64) {
    (time(reading) - length(back) + 1, time(reading) + 1)
}

fn sessions<'a>(own: &[&'a OracleReading], gap: u64, longest: Option<u64>) -> Vec<FoundWindow<'a>> {
    let gap = length(gap);
    let block = |at: i64| longest.map(|longest| at.div_euclid(length(longest)));
    let mut all: Vec<Vec<&OracleReading>> = Vec::new();
    for reading in own {
        match all.last_mut() {
            Some(session)
                if session.last().is_some_and(|last| {
                    time(reading) - time(last) < gap && block(time(reading)) == block(time(last))
                }) =>
            {
                session.push(reading);
            }
            _ => all.push(vec![*reading]),
        }
    }
    let bounds = |session: &[&OracleReading]| {
        let first = time(session[0]);
        let last = time(session[session.len() - 1]);
        let cut = longest.map(|longest| (last.div_euclid(length(longest)) + 1) * length(longest));
        (first, cut.map_or(last + gap, |cut| cut.min(last + gap)))
    };
    all.into_iter()
        .map(|session| {
            let (start, end) = bounds(&session);
            (start, end, 0, session)
        })
        .collect()
}

fn counted<'a>(own: &[&'a OracleReading], size: usize, slide: usize) -> Vec<FoundWindow<'a>> {
    let ordinals = 0_u64..;
    let all = (0..).map(|ordinal| ordinal * slide).take_while(|first| first + size <= own.len());
    ordinals
        .zip(all)
        .map(|(part, first)| {
            let inside = own[first..first + size].to_vec();
            (time(inside[0]), time(inside[size - 1]) + 1, part, inside)
        })
        .collect()
}

#[cfg(test)]
mod tests;
