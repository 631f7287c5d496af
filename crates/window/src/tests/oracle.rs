//! The naive way: for each window, which readings are in it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::SECOND;
use super::run::{Id, Reading};

/// What is there in the end.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) windows: BTreeMap<Id, (Vec<u16>, u64)>,
    pub(super) late: BTreeSet<u16>,
}

/// A session, or a reading that was used.
#[derive(Clone, Debug)]
struct Held {
    first: u64,
    last: u64,
    ids: Vec<u16>,
    late: u64,
    /// Of a session: those that were closed and are part of it now; they are seen until it closes.
    seen: Vec<Held>,
}

impl Oracle {
    pub(super) fn replay(config: &WindowConfig, readings: &[Reading]) -> Self {
        let mut oracle = Self::default();
        let mut used: BTreeMap<u8, Vec<Held>> = BTreeMap::new();
        let mut taken: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        let (mut newest, mut of_key) = (None, BTreeMap::new());
        let watermark = |newest: Option<u64>, of_key: Option<&u64>| {
            let behind = |newest: u64| newest.saturating_sub(micros(config.lateness));
            let all = newest.map_or(0, behind);
            match config.patience {
                None => all,
                Some(patience) => {
                    all.saturating_sub(micros(patience)).max(of_key.map_or(0, |own| behind(*own)))
                }
            }
        };
        for reading in readings {
            let (at, key) = (reading.second * SECOND, reading.key);
            let now = watermark(newest, of_key.get(&key));
            let over = |end: u64| end.saturating_add(micros(config.revise)) <= now;
            let mut is_used = false;
            match &config.kind {
                WindowKind::Session(SessionWindow { gap, longest }) => {
                    let sessions = used.entry(key).or_default();
                    is_used =
                        join(sessions, (at, reading.id), now, |held| ends(held.last, *gap, *longest), over);
                }
                WindowKind::Sliding(_) | WindowKind::Count(_) => {
                    oracle.forget(config, key, &mut used, now);
                    is_used = at >= now;
                    if is_used {
                        let held = Held { first: at, last: at, ids: vec![reading.id], late: 0, seen: vec![] };
                        used.entry(key).or_default().push(held);
                    }
                }
                _ => {
                    for (start, end) in windows_of(config, at).into_iter().filter(|(_, end)| !over(*end)) {
                        is_used = true;
                        let taken = taken.entry((key, start)).or_default();
                        let part = u32::try_from(*taken / config.readings_max).unwrap();
                        *taken += 1;
                        let id = (key.to_string(), start, end, part);
                        let window = oracle.windows.entry(id).or_default();
                        window.0.push(reading.id);
                        window.1 += u64::from(end <= now);
                    }
                }
            }
            if is_used {
                newest = newest.max(Some(at));
                let own = of_key.entry(key).or_insert(at);
                *own = at.max(*own);
            } else {
                oracle.late.insert(reading.id);
            }
        }
        let last = |key: u8| watermark(newest, of_key.get(&key));
        for (key, held) in used {
            oracle.close(config, key, held, last(key));
        }
        let max = config.readings_max;
        oracle.windows.retain(|(key, _, end, _), (ids, _)| {
            *end <= last(key.parse().unwrap()) || ids.len() as u64 >= max
        });
        oracle.windows.values_mut().for_each(|(ids, _)| ids.sort_unstable());
        oracle
    }

    /// What is counted of a key that was silent for long is not counted on.
    fn forget(&mut self, config: &WindowConfig, key: u8, used: &mut BTreeMap<u8, Vec<Held>>, now: u64) {
        let Some(forget) = config.forget else { return };
        let newest = used.get(&key).and_then(|held| held.iter().map(|held| held.first).max());
        if newest.is_some_and(|newest| newest < now && newest + micros(forget) <= now) {
            self.close(config, key, used.remove(&key).unwrap_or_default(), now);
        }
    }

    fn close(&mut self, config: &WindowConfig, key: u8, mut held: Vec<Held>, watermark: u64) {
        let mut put = |start: u64, end: u64, part: u32, ids: Vec<u16>, late: u64| {
            self.windows.insert((key.to_string(), start, end, part), (ids, late));
        };
        match config.kind {
            WindowKind::Session(SessionWindow { gap, longest }) => {
                for session in held {
                    let end = ends(session.last, gap, longest);
                    let seen = if end <= watermark { vec![session] } else { session.seen };
                    for session in seen {
                        put(session.first, ends(session.last, gap, longest), 0, session.ids, session.late);
                    }
                }
            }
            WindowKind::Sliding(SlidingWindow { size }) => {
                let times: BTreeSet<_> =
                    held.iter().map(|held| held.first).filter(|at| *at < watermark).collect();
                for at in times {
                    let start = (at + 1).saturating_sub(micros(size));
                    let inside = held.iter().filter(|held| (start..=at).contains(&held.first));
                    put(start, at + 1, 0, inside.map(|held| held.ids[0]).collect(), 0);
                }
            }
            WindowKind::Count(CountWindow { size, slide }) => {
                held.retain(|held| held.first < watermark);
                // Stable: those of one time stay as they came.
                held.sort_by_key(|held| held.first);
                for (part, first) in (0..held.len()).step_by(slide as usize).enumerate() {
                    let Some(window) = held.get(first..first + size as usize) else { continue };
                    let ids = window.iter().map(|held| held.ids[0]).collect();
                    let (start, end) = (window[0].first, window[window.len() - 1].first + 1);
                    put(start, end, u32::try_from(part).unwrap(), ids, 0);
                }
            }
            _ => {}
        }
    }
}

/// All windows of fixed times that hold `at`, tried one by one.
fn windows_of(config: &WindowConfig, at: u64) -> Vec<(u64, u64)> {
    let aligned = |size: Duration, slide: Duration, offset: Duration| {
        let starts = (0..).map(|number: u64| micros(offset) + number * micros(slide));
        let windows = starts.take_while(|start| *start <= at).map(|start| (start, start + micros(size)));
        windows.filter(|(_, end)| at < *end).collect()
    };
    match &config.kind {
        WindowKind::Tumbling(TumblingWindow { size, offset }) => aligned(*size, *size, *offset),
        WindowKind::Hopping(HoppingWindow { size, slide, offset }) => aligned(*size, *slide, *offset),
        WindowKind::Day(DayWindow { zone }) => {
            let date = |at: u64| {
                let at = jiff::Timestamp::from_microsecond(i64::try_from(at).unwrap()).unwrap();
                at.to_zoned(zone.clone()).date()
            };
            // By quarters of an hour, to where the date changes.
            let step = 900 * SECOND;
            let here = at - at % step;
            let start =
                (0..).map(|back| here - back * step).find(|start| date(start - 1) != date(at)).unwrap();
            let end = (1..).map(|on| here + on * step).find(|end| date(*end) != date(at)).unwrap();
            vec![(start, end)]
        }
        _ => Vec::new(),
    }
}

fn ends(last: u64, gap: Duration, longest: Option<Duration>) -> u64 {
    let cut = longest.map_or(u64::MAX, |longest| (last / micros(longest) + 1) * micros(longest));
    (last + micros(gap)).min(cut)
}

/// Lets a reading join all sessions that are not over and that it touches; whether it was in time.
fn join(
    sessions: &mut Vec<Held>,
    (at, id): (u64, u16),
    now: u64,
    end: impl Fn(&Held) -> u64,
    over: impl Fn(u64) -> bool,
) -> bool {
    let alone = Held { first: at, last: at, ids: vec![id], late: 0, seen: vec![] };
    let touches = |held: &Held| held.first < end(&alone) && at < end(held) && !over(end(held));
    let (touched, rest): (Vec<_>, Vec<_>) = sessions.iter().cloned().partition(touches);
    let all = touched.iter().chain([&alone]);
    let joined = Held {
        first: all.clone().map(|held| held.first).min().unwrap(),
        last: all.clone().map(|held| held.last).max().unwrap(),
        ids: all.clone().flat_map(|held| held.ids.clone()).collect(),
        late: touched.iter().map(|held| held.late).sum(),
        seen: touched
            .iter()
            .flat_map(|held| if end(held) <= now { vec![held.clone()] } else { held.seen.clone() })
            .collect(),
    };
    if over(end(&joined)) {
        return false;
    }
    // It came late for the session that it joins first, or for its own.
    let before = touched.iter().min_by_key(|held| held.first).map_or(end(&alone), &end);
    *sessions = rest;
    sessions.push(Held { late: joined.late + u64::from(before <= now), ..joined });
    true
}
