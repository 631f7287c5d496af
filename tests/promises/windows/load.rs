//! Readings of four devices in the order in which they are published: out of order within the lateness,
//! several at one time, silent in turns, and some far too late.

use headwater_tests::windows_oracle::OracleReading;

use super::{HOUR, MINUTE, SECOND, end};

/// The most by which a reading may be behind the newest one and still be used.
pub(super) const LATENESS: u64 = HOUR;

const READINGS: u64 = 3_500;
/// 2026-03-26T00:00:00Z: three days later a day in Europe has 23 hours.
const BEGIN: u64 = 1_774_483_200 * SECOND;
/// The event time from one reading to the next.
const STEP: u64 = 2 * MINUTE;
/// The number of readings for which a device is silent: three hours.
const SILENCE: u64 = 90;

pub(super) struct DeviceLoad {
    /// All readings, in their order.
    pub(super) published: Vec<OracleReading>,
    /// The readings without those that are too late for every kind.
    pub(super) used: Vec<OracleReading>,
    /// The indexes of the late ones among the published readings.
    late: Vec<usize>,
}

impl DeviceLoad {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut load = Self { published: Vec::new(), used: Vec::new(), late: Vec::new() };
        for number in 0..READINGS {
            let now = BEGIN + number * STEP;
            let silent = number / SILENCE % 5;
            let device = (0..4).filter(|device| *device != silent).nth(rng.usize(0..3)).unwrap_or_default();
            let behind =
                if rng.u8(0..10) < 6 { 0 } else { rng.u64(0..=LATENESS / SECOND / 10) * 10 * SECOND };
            let again = load.used.last().filter(|last| rng.u8(0..10) == 0 && last.time + LATENESS >= now);
            let time = again.map_or(now - behind, |last| last.time);
            let key = format!("device-{device}");
            let reading = OracleReading { key, time, value: f64::from(rng.u16(0..1_000)) / 8.0 };
            if number > 500 && number % 97 == 0 {
                // The time is before a day that is over, and beyond the patience of a key.
                load.late.push(load.published.len());
                load.published.push(OracleReading { time: now - 96 * HOUR, ..reading });
                continue;
            }
            load.published.push(reading.clone());
            load.used.push(reading);
        }
        let end = end(&load.used);
        load.published.push(end.clone());
        load.used.push(end);
        load
    }

    /// Returns the readings that no window takes, with their indexes.
    pub(super) fn late(&self) -> impl Iterator<Item = (usize, &OracleReading)> {
        self.late.iter().map(|number| (*number, &self.published[*number]))
    }
}
