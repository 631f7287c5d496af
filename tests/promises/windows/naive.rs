//! The result of a window's readings, computed from all of them at once, in event-time order.

use std::collections::BTreeMap;

use headwater_tests::windows_oracle::{OracleReading, WindowId};
use serde_json::{Value, json};

/// The relative error of quantiles, as configured by default.
const ERROR: f64 = 0.01;
/// The number of different values up to which they are counted one by one.
const DISTINCT_EXACT: usize = 256;
/// The error of the estimate beyond that: six standard errors.
const DISTINCT_ERROR: f64 = 0.1;

const COMPUTE: &str = r#"[ "count", { sum = "temperature" }, { mean = "temperature" }, { min = "temperature" }, { max = "temperature" }, { stddev = "temperature" }, { first = "temperature" }, { last = "temperature" }, { delta = "temperature" }, { rate = "temperature" }, { quantile = "temperature", at = [0.1, 0.5, 0.9] }, { distinct = "temperature" }, { histogram = "temperature", bounds = [20, 60, 90] }, { time_mean = "temperature", disorder = 64 } ]"#;

/// The aggregate that computes the results.
#[derive(Clone, Copy, Debug)]
pub(super) enum AggregateKind {
    BuiltIn,
    Module,
}

/// A result as the collector holds it.
pub(super) struct FoundResult<'a> {
    pub(super) place: WindowId,
    pub(super) watermark: i64,
    pub(super) revision: u64,
    pub(super) late: u64,
    line: &'a Value,
}

impl<'a> FoundResult<'a> {
    #[track_caller]
    pub(super) fn of(line: &'a Value) -> Self {
        let instant = |text: &Value| -> i64 {
            let time = text.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            time.unwrap_or_else(|| panic!("{text} is no time: {line}")).as_microsecond()
        };
        let window = &line["window"];
        let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("no {field}: {line}"));
        Self {
            place: WindowId {
                key: line["key"].as_str().unwrap_or_default().to_owned(),
                start: instant(&window["start"]),
                end: instant(&window["end"]),
                part: window["part"].as_u64().unwrap_or_default(),
            },
            watermark: instant(&line["watermark"]),
            revision: number("revision"),
            late: number("late"),
            line,
        }
    }
}

impl AggregateKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Module => "module",
        }
    }

    pub(super) fn toml(self) -> String {
        match self {
            Self::BuiltIn => format!("{{ compute = {COMPUTE} }}"),
            Self::Module => {
                r#"{ module = "modules/stats.wasm", settings = { fields = ["temperature"] } }"#.into()
            }
        }
    }

    /// Returns the fault in a result of these readings, if there is one.
    pub(super) fn check(self, inside: &[&OracleReading], found: &FoundResult<'_>) -> Result<(), String> {
        let line = found.line;
        if line["count"] != inside.len() || line["rejected"] != 0 || line["early"] == true {
            return Err(format!("{} readings, none rejected, and final", inside.len()));
        }
        let value = &line["value"];
        let moments = moments(inside);
        match self {
            Self::Module => {
                agree(moments.iter().map(|(name, right)| (&value["temperature"][*name], name, right)))
            }
            Self::BuiltIn => {
                let named = |name: &str| match name {
                    "count" => "count".to_owned(),
                    _ => format!("{name}_temperature"),
                };
                let more = shape(inside, found.place.end);
                let all = moments.iter().chain(&more);
                agree(all.map(|(name, right)| (&value[named(name)], name, right)))?;
                sketches(inside, value)
            }
        }
    }
}

type Named = (&'static str, Value);

fn agree<'a>(all: impl Iterator<Item = (&'a Value, &'a &'static str, &'a Value)>) -> Result<(), String> {
    for (found, name, right) in all {
        let same = match (found.as_f64(), right.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs())),
            _ => found == right,
        };
        if !same {
            return Err(format!("{name} is {found} and should be {right}"));
        }
    }
    Ok(())
}

fn values(inside: &[&OracleReading]) -> Vec<f64> {
    inside.iter().map(|reading| reading.value).collect()
}

/// Computes the values that the module gives too.
fn moments(inside: &[&OracleReading]) -> Vec<Named> {
    let values = values(inside);
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    vec![
        ("count", json!(values.len())),
        ("mean", json!(mean)),
        ("min", json!(values.iter().copied().fold(f64::INFINITY, f64::min))),
        ("max", json!(values.iter().copied().fold(f64::NEG_INFINITY, f64::max))),
        ("stddev", json!((squares / count).sqrt())),
    ]
}

/// Computes the values that depend on order and times, which only the built-ins have.
fn shape(inside: &[&OracleReading], end: i64) -> Vec<Named> {
    let first = inside[0];
    let last = inside[inside.len() - 1];
    let seconds = (last.time - first.time) as f64 / 1e6;
    let delta = last.value - first.value;
    let rate = if seconds > 0.0 { json!(delta / seconds) } else { Value::Null };
    let end = u64::try_from(end).expect("a time after 1970");
    let spans = inside.windows(2).map(|pair| (pair[0].value, pair[1].time - pair[0].time));
    let area: f64 =
        spans.chain([(last.value, end - last.time)]).map(|(value, span)| value * span as f64).sum();
    let values = values(inside);
    let below = |bound: f64| values.iter().filter(|value| **value <= bound).count();
    let counts =
        [below(20.0), below(60.0) - below(20.0), below(90.0) - below(60.0), values.len() - below(90.0)];
    vec![
        ("sum", json!(values.iter().sum::<f64>())),
        ("first", json!(first.value)),
        ("last", json!(last.value)),
        ("delta", json!(delta)),
        ("rate", rate),
        ("histogram", json!({ "bounds": [20, 60, 90], "counts": counts })),
        ("time_mean", json!(area / (end - first.time) as f64)),
    ]
}

/// Checks the values that have a stated error.
fn sketches(inside: &[&OracleReading], value: &Value) -> Result<(), String> {
    let mut sorted = values(inside);
    sorted.sort_by(f64::total_cmp);
    for (name, q) in [("p10", 0.1), ("p50", 0.5), ("p90", 0.9)] {
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let found = value["quantile_temperature"][name].as_f64().unwrap_or(f64::NAN);
        if (found - exact).abs() > exact.abs() * ERROR * (1.0 + 1e-9) || found.is_nan() {
            return Err(format!("{name} is {found} for {exact}"));
        }
    }
    sorted.dedup();
    let found = value["distinct_temperature"].as_f64().unwrap_or(f64::NAN);
    let error = if sorted.len() > DISTINCT_EXACT { DISTINCT_ERROR * sorted.len() as f64 } else { 0.0 };
    let near = (found - sorted.len() as f64).abs() <= error;
    near.then_some(()).ok_or_else(|| format!("distinct is {found} and should be {}", sorted.len()))
}

/// Checks that without windows each reading is a result, unchanged.
pub(super) fn check_unwindowed(pipeline: &str, readings: &[OracleReading], results: &[Value]) {
    let found = results.iter().filter(|line| line["pipeline"] == pipeline);
    let found: BTreeMap<u64, &Value> =
        found.map(|line| (line["value"]["id"].as_u64().expect("a number"), line)).collect();
    for (id, reading) in (0..).zip(readings) {
        let line = found.get(&id).unwrap_or_else(|| panic!("reading {id} is missing"));
        let time = line["time"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let time = time.map(|time| time.as_microsecond().cast_unsigned());
        assert_eq!((time, &line["key"]), (Some(reading.time), &json!(reading.key)), "{line}");
        assert_eq!(line["value"]["temperature"], json!(reading.value), "{line}");
    }
    let number = results.iter().filter(|line| line["pipeline"] == pipeline).count();
    assert_eq!((found.len(), number), (readings.len(), readings.len()), "each once");
}
