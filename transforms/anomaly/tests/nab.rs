//! Measures the scores on recorded series whose anomalies are labelled, beside a plain z-score.
//!
//! The folder `nab` of the Numenta AnomalyScore Benchmark's series is looked for in `$HEADWATER_DATA`. What comes out
//! is held against `RESULTS.md`; with `HEADWATER_BLESS=1` it is written there:
//!
//!     HEADWATER_DATA=… HEADWATER_BLESS=1 cargo test --manifest-path transforms/Cargo.toml \
//!         -p headwater-anomaly --features recorded --test nab

use headwater_anomaly::{ANOMALOUS, AnomalyScore};
use headwater_module::JsonObject;
use headwater_module::testing::{TransformProbe, event};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The series by which the parameters were chosen come first.
const CHOSEN_BY: [&str; 2] = ["machine_temperature_system_failure", "TravelTime_387"];
const HELD_OUT: [&str; 3] = ["occupancy_t4013", "speed_6005", "speed_7578"];

/// The benchmark's: so much of a series, and at most so many readings, are there to learn from.
const PROBATION: f64 = 0.15;
const PROBATION_MAX: usize = 750;
/// Anomalous readings with less than this between them are one alarm.
const ALARM_GAP: u64 = 6 * 3600 * 1_000_000;

struct RecordedSeries {
    name: &'static str,
    readings: Vec<(u64, f64)>,
    windows: Vec<(u64, u64)>,
}

/// Counts of alarms and readings, which add up over series.
#[derive(Clone, Copy, Default)]
struct AlarmCounts {
    windows: usize,
    windows_found: usize,
    alarms: usize,
    alarms_right: usize,
    readings: usize,
    readings_right: usize,
}

impl AlarmCounts {
    fn of(series: &RecordedSeries, anomalous: &[bool]) -> Self {
        let learnt = ((series.readings.len() as f64 * PROBATION) as usize).min(PROBATION_MAX);
        let mut found = Self { windows: series.windows.len(), ..Self::default() };
        let mut seen = vec![false; series.windows.len()];
        let mut last = None;
        for ((time, _), _) in series.readings.iter().zip(anomalous).skip(learnt).filter(|(_, flag)| **flag) {
            let window = series.windows.iter().position(|(start, end)| (start..=end).contains(&time));
            window.into_iter().for_each(|window| seen[window] = true);
            let right = usize::from(window.is_some());
            found.readings += 1;
            found.readings_right += right;
            if last.is_none_or(|last| time.saturating_sub(last) > ALARM_GAP) {
                found.alarms += 1;
                found.alarms_right += right;
            }
            last = Some(*time);
        }
        found.windows_found = seen.iter().filter(|seen| **seen).count();
        found
    }

    fn and(self, other: Self) -> Self {
        Self {
            windows: self.windows + other.windows,
            windows_found: self.windows_found + other.windows_found,
            alarms: self.alarms + other.alarms,
            alarms_right: self.alarms_right + other.alarms_right,
            readings: self.readings + other.readings,
            readings_right: self.readings_right + other.readings_right,
        }
    }

    fn precision(&self) -> f64 {
        self.alarms_right as f64 / self.alarms.max(1) as f64
    }

    fn recall(&self) -> f64 {
        self.windows_found as f64 / self.windows as f64
    }

    fn f1(&self) -> f64 {
        2.0 * self.precision() * self.recall() / (self.precision() + self.recall()).max(f64::MIN_POSITIVE)
    }

    fn cells(&self) -> String {
        format!(
            "{}/{} | {}/{} | {}/{} | {:.2}",
            self.windows_found,
            self.windows,
            self.alarms_right,
            self.alarms,
            self.readings_right,
            self.readings,
            self.f1()
        )
    }
}

fn folder() -> PathBuf {
    let data = std::env::var_os("HEADWATER_DATA");
    let data = data.expect("HEADWATER_DATA must name the folder with `nab` in it, the benchmark's series");
    Path::new(&data).join("nab")
}

/// `2015-07-10 14:24:00` and the like, in UTC. Days are counted as in Hinnant, "chrono-compatible low-level date algorithms".
fn time(text: &str) -> u64 {
    let part = |range: std::ops::Range<usize>| -> u64 { text[range].parse().unwrap() };
    let day = part(8..10);
    let months = 12 * part(0..4) + part(5..7) - 3;
    let year = months / 12;
    let month = months % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    (((days * 24 + part(11..13)) * 60 + part(14..16)) * 60 + part(17..19)) * 1_000_000
}

fn load(name: &'static str) -> RecordedSeries {
    let read = |file: &str| {
        let path = folder().join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&read("anomaly_windows.json")).unwrap();
    let windows =
        windows[&format!("{name}.csv")].iter().map(|(start, end)| (time(start), time(end))).collect();
    let rows = read(&format!("{name}.csv"));
    let reading = |row: &str| {
        let (stamp, value) = row.split_once(',').unwrap();
        (time(stamp), value.trim().parse().unwrap())
    };
    RecordedSeries { name, readings: rows.lines().skip(1).map(reading).collect(), windows }
}

/// Returns the module's verdict on each reading.
fn by_module(series: &RecordedSeries, config: &str) -> Vec<bool> {
    let mut probe = TransformProbe::<AnomalyScore>::new(config).unwrap();
    let flagged = |(time, value): &(u64, f64)| {
        let mut event = event(format!(r#"{{"value":{value}}}"#));
        event.time = *time;
        let payload = probe.process(event).unwrap().remove(0).payload;
        let score = JsonObject::parse(&payload).unwrap().number("score").unwrap();
        assert_eq!(payload.ends_with(b"\"anomalous\":true}"), score >= ANOMALOUS);
        score >= ANOMALOUS
    };
    series.readings.iter().map(flagged).collect()
}

/// Returns true for each reading that is at least so many deviations from the mean of all that came before.
fn by_z_score(series: &RecordedSeries, limit: f64) -> Vec<bool> {
    let mut count = 0.0;
    let mut mean = 0.0;
    let mut squares: f64 = 0.0;
    let mut flagged = |value: f64| {
        let deviation = (squares / f64::max(count, 1.0)).sqrt();
        let apart = value - mean;
        count += 1.0;
        mean += apart / count;
        squares += apart * (value - mean);
        deviation > 0.0 && apart.abs() >= limit * deviation
    };
    series.readings.iter().map(|(_, value)| flagged(*value)).collect()
}

fn all<'a>(
    series: &'a [RecordedSeries],
    by: &'a impl Fn(&RecordedSeries) -> Vec<bool>,
) -> impl Iterator<Item = AlarmCounts> + 'a {
    series.iter().map(move |series| AlarmCounts::of(series, &by(series)))
}

fn together(found: impl Iterator<Item = AlarmCounts>) -> AlarmCounts {
    found.fold(AlarmCounts::default(), AlarmCounts::and)
}

fn table(series: &[RecordedSeries], z_limit: f64) -> String {
    let mut text = String::from(
        "| series | readings | method | windows found | alarms in windows | readings in windows | F1 |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let defaults = |series: &RecordedSeries| by_module(series, r#"{"field":"value"}"#);
    let daily = |series: &RecordedSeries| by_module(series, r#"{"field":"value","daily":true}"#);
    let three = |series: &RecordedSeries| by_z_score(series, 3.0);
    let chosen = |series: &RecordedSeries| by_z_score(series, z_limit);
    let mut row = |series: &[RecordedSeries], name: &str| {
        let readings: usize = series.iter().map(|series| series.readings.len()).sum();
        let z = format!("z-score, limit {z_limit:.1}");
        for (method, found) in [
            ("`anomaly`", together(all(series, &defaults))),
            ("`anomaly`, `daily`", together(all(series, &daily))),
            ("z-score, limit 3", together(all(series, &three))),
            (z.as_str(), together(all(series, &chosen))),
        ] {
            writeln!(text, "| {name} | {readings} | {method} | {} |", found.cells()).unwrap();
        }
    };
    for one in series {
        row(std::slice::from_ref(one), one.name);
    }
    row(&series[..CHOSEN_BY.len()], "**the first two, chosen by**");
    row(&series[CHOSEN_BY.len()..], "**the other three, held out**");
    row(series, "**all five**");
    text
}

#[test]
fn finds_the_labelled_anomalies_of_recorded_series() {
    let series: Vec<RecordedSeries> = CHOSEN_BY.into_iter().chain(HELD_OUT).map(load).collect();
    let (chosen_by, held_out) = series.split_at(CHOSEN_BY.len());
    let z_score =
        |limit: f64| together(all(chosen_by, &move |series: &RecordedSeries| by_z_score(series, limit)));
    let limits = (20..=80).map(|tenths| f64::from(tenths) / 10.0);
    let z_limit =
        limits.max_by(|a, b| z_score(*a).f1().total_cmp(&z_score(*b).f1()).then(b.total_cmp(a))).unwrap();

    let table = table(&series, z_limit);
    println!("{table}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
    let written = std::fs::read_to_string(&file).unwrap();
    let head = written.split("| series |").next().unwrap();
    if std::env::var_os("HEADWATER_BLESS").is_some() {
        std::fs::write(&file, format!("{head}{table}")).unwrap();
    } else {
        assert_eq!(
            written,
            format!("{head}{table}"),
            "RESULTS.md is of another version: see the head of nab.rs"
        );
    }

    let module =
        together(all(held_out, &|series: &RecordedSeries| by_module(series, r#"{"field":"value"}"#)));
    let plain = together(all(held_out, &|series: &RecordedSeries| by_z_score(series, z_limit)));
    assert!(module.recall() >= plain.recall() && module.f1() >= plain.f1());
}
