//! Calendar days.

use jiff::tz::TimeZone;

use super::super::context::KeyContext;
use super::super::pane::{KeyState, PaneId, PaneState};
use super::super::{ObservedReading, WindowConfig};
use super::{KindRules, aligned};
use headwater_flow::Timestamp;

const DAY_MICROS: u64 = 86_400_000_000;

/// Calendar days of a time zone: 23 or 25 hours long where its clocks change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayWindow {
    /// The zone in which days begin at midnight, or at the first moment after it that exists.
    pub zone: TimeZone,
}

impl KindRules for DayWindow {
    fn assign(
        &self,
        context: &mut KeyContext<'_>,
        key_state: &mut KeyState,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> ObservedReading {
        aligned::assign(self, context, key_state, time, payload)
    }

    fn fire(&self, context: &mut KeyContext<'_>, key_state: &mut KeyState) {
        aligned::fire(self, context, key_state);
    }

    fn due(&self, config: &WindowConfig, key_state: &KeyState) -> Option<u64> {
        aligned::due(self, config, key_state)
    }

    fn pane_bounds(&self, pane_id: PaneId, _: &PaneState) -> (u64, u64) {
        self.window_at(Timestamp(pane_id.at)).unwrap_or((pane_id.at, pane_id.at))
    }

    fn last_end(&self, newest: u64) -> Option<u64> {
        self.window_at(Timestamp(newest)).map(|(_, end)| end)
    }

    fn window_at(&self, time: Timestamp) -> Option<(u64, u64)> {
        let (start, end) = day(&self.zone, time);
        Some((start.0, end.0))
    }

    fn has_fixed_windows(&self) -> bool {
        true
    }
}

/// Returns the start and the end of the calendar day that holds `at`.
fn day(zone: &TimeZone, at: Timestamp) -> (Timestamp, Timestamp) {
    let bounds = || {
        let micros = i64::try_from(at.0).ok()?;
        let day =
            jiff::Timestamp::from_microsecond(micros).ok()?.to_zoned(zone.clone()).start_of_day().ok()?;
        let end = day.tomorrow().ok()?.start_of_day().ok()?;
        Some((timestamp(&day), timestamp(&end)))
    };
    // After the calendar's end there is one last day.
    bounds().unwrap_or((Timestamp(at.0 - at.0 % DAY_MICROS), Timestamp(u64::MAX)))
}

fn timestamp(time: &jiff::Zoned) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp().as_microsecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_23_or_25_hours_where_clocks_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let hours = |text: &str| {
            let (start, end) = day(&zone, text.parse().unwrap());
            assert!(start <= text.parse().unwrap() && text.parse::<Timestamp>().unwrap() < end);
            (start.to_string(), (end.0 - start.0) / 3_600_000_000)
        };
        assert_eq!(hours("2026-03-29T12:00:00Z"), ("2026-03-28T23:00:00Z".into(), 23));
        assert_eq!(hours("2026-10-25T22:59:59Z"), ("2026-10-24T22:00:00Z".into(), 25));
        assert_eq!(hours("2026-11-21T22:59:59.999999Z"), ("2026-11-20T23:00:00Z".into(), 24));
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        let (start, end) = day(&zone, "2018-11-04T12:00:00Z".parse().unwrap());
        assert_eq!(
            (start.to_string(), (end.0 - start.0) / 3_600_000_000),
            ("2018-11-04T03:00:00Z".into(), 23)
        );
        assert_eq!(day(&zone, Timestamp(u64::MAX)).1, Timestamp(u64::MAX));
    }
}
