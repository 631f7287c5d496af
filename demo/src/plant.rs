//! A simulated plant: devices that send Fahrenheit with noise, now and then twice, late, out of
//! order, or broken, as real ones do.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;

use super::publisher::Sensor;
use headwater_agent::flow::Timestamp;

const TICK: Duration = Duration::from_millis(50);

/// The plant.
#[derive(Debug)]
pub(super) struct Plant {
    devices: u32,
    /// Readings of all devices in one tick.
    per_tick: f64,
    owed: f64,
    number: u64,
    started: Timestamp,
    random: fastrand::Rng,
    /// Readings on their way by a slower road.
    delayed: VecDeque<(Timestamp, (String, Vec<u8>))>,
}

impl Plant {
    pub(super) fn new(devices: u32, rate: u32) -> Self {
        Self {
            devices,
            per_tick: f64::from(devices) * f64::from(rate) * TICK.as_secs_f64(),
            owed: 0.0,
            number: 0,
            started: Timestamp::now(),
            random: fastrand::Rng::new(),
            delayed: VecDeque::new(),
        }
    }

    fn next(&mut self, now: Timestamp, out: &mut Vec<(String, Vec<u8>)>) {
        let device = u32::try_from(self.number % u64::from(self.devices)).unwrap_or_default();
        self.number += 1;
        let topic = format!("plant/press-{device:02}/telemetry");
        let payload = self.reading(device, now);
        match self.random.u32(..1_000) {
            // Out of order, within the lateness of 1 s: used all the same.
            0..50 => self.delayed.push_back((now.after(Duration::from_millis(600)), (topic, payload))),
            // Later than that: its window has closed.
            50..60 => self.delayed.push_back((now.after(Duration::from_secs(5)), (topic, payload))),
            // The device sends it twice: two messages, so both count.
            60..70 => {
                out.push((topic.clone(), payload.clone()));
                out.push((topic, payload));
            }
            // A broken device: text for a number, a cut payload.
            70..72 => out.push((topic, br#"{"ts": 0, "temperature": "hot"}"#.to_vec())),
            72..74 => out.push((topic, payload[..payload.len() / 2].to_vec())),
            _ => out.push((topic, payload)),
        }
    }

    fn reading(&mut self, device: u32, now: Timestamp) -> Vec<u8> {
        let running = now.since(self.started).as_secs_f64();
        let wave = (running / 7.0 + f64::from(device)).sin() * 9.0;
        let noise = self.random.f64() - 0.5;
        let fahrenheit = 160.0 + f64::from(device % 10) * 4.0 + wave + noise;
        let pressure = 4.0 + (running / 3.0 + f64::from(device)).cos() + noise / 10.0;
        let round = |number: f64| (number * 1_000.0).round() / 1_000.0;
        json!({ "ts": now.0 / 1_000, "temperature": round(fahrenheit), "pressure": round(pressure) })
            .to_string()
            .into_bytes()
    }
}

impl Sensor for Plant {
    fn every(&self) -> Duration {
        TICK
    }

    fn read(&mut self) -> Vec<(String, Vec<u8>)> {
        let now = Timestamp::now();
        let mut out = Vec::new();
        self.owed += self.per_tick;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.next(now, &mut out);
        }
        let due = self.delayed.iter().filter(|(due, _)| *due <= now).map(|(_, reading)| reading.clone());
        out.extend(due);
        self.delayed.retain(|(due, _)| *due > now);
        out
    }
}
