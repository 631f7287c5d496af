//! A load that tests share: devices, their readings, and the configuration that takes them in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::oracle::{PlantReading, ReadingStats, WindowKey};

pub mod power;

/// The repository's own modules: file name without `.wasm`, and bytes.
#[must_use]
pub fn modules() -> [(&'static str, &'static [u8]); 6] {
    [
        ("celsius", headwater_bundle::CELSIUS),
        ("stats", headwater_bundle::STATS),
        ("hostile", headwater_bundle::HOSTILE),
        ("hostile_aggregate", headwater_bundle::HOSTILE_AGGREGATE),
        ("hostile_stateful", headwater_bundle::HOSTILE_STATEFUL),
        ("core", headwater_bundle::CORE_MODULE),
    ]
}

/// A configuration that is built section by section, without `[agent]`.
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    text: String,
}

impl ConfigBuilder {
    /// Adds an input at QoS 1 with the given MQTT version.
    #[must_use]
    pub fn input(mut self, name: &str, port: u16, topics: &[&str], version: &str) -> Self {
        writeln!(
            self.text,
            "[input.{name}]\nmqtt = {{ url = \"mqtt://127.0.0.1:{port}\", topics = {topics:?}, qos = 1, version = {version:?} }}\n"
        )
        .expect("writing to a String cannot fail");
        self
    }

    /// Adds an input; `mqtt` is the content of its inline table.
    #[must_use]
    pub fn broker(mut self, name: &str, mqtt: &str) -> Self {
        writeln!(self.text, "[input.{name}]\nmqtt = {{ {mqtt} }}\n")
            .expect("writing to a String cannot fail");
        self
    }

    /// Adds an input at QoS 1; `more` is appended to the inline table.
    #[must_use]
    pub fn input_with(mut self, name: &str, port: u16, topics: &[&str], more: &str) -> Self {
        writeln!(
            self.text,
            "[input.{name}]\nmqtt = {{ url = \"mqtt://127.0.0.1:{port}\", topics = {topics:?}, qos = 1{more} }}\n"
        )
        .expect("writing to a String cannot fail");
        self
    }

    /// Adds a pipeline; `body` are the lines after its input and output.
    #[must_use]
    pub fn pipeline(mut self, name: &str, input: &str, output: &str, body: &str) -> Self {
        writeln!(self.text, "[pipeline.{name}]\ninput = {input:?}\noutput = {output:?}\n{body}\n")
            .expect("writing to a String cannot fail");
        self
    }

    /// Adds an output over HTTP; `more` is appended after the address in the inline table.
    #[must_use]
    pub fn output(mut self, name: &str, url: &str, more: &str) -> Self {
        writeln!(self.text, "[output.{name}]\nhttp = {{ url = {url:?}{more} }}\n")
            .expect("writing to a String cannot fail");
        self
    }

    /// Appends lines to the last section.
    #[must_use]
    pub fn more(mut self, lines: &str) -> Self {
        self.text.truncate(self.text.trim_end().len());
        writeln!(self.text, "\n{lines}").expect("writing to a String cannot fail");
        self
    }

    /// The text of the configuration.
    #[must_use]
    pub fn toml(&self) -> &str {
        &self.text
    }
}

/// Returns lines of a pipeline that computes statistics of `temperature` for each device in windows.
#[must_use]
pub fn windowed(key: &str, size: &str, lateness: &str, revise: &str) -> String {
    format!(
        "key = {key:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\n\
         window = {{ tumbling = {size:?}, lateness = {lateness:?}, idle = \"12h\", revise = {revise:?} }}\n\
         aggregate = {{ module = \"modules/stats.wasm\", settings = {{ fields = [\"temperature\"] }} }}\n\
         commit_every = \"100ms\"\n"
    )
}

/// Returns lines of a pipeline that sends every event to its output.
#[must_use]
pub fn forwarded(key: &str) -> String {
    format!("key = {key:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n")
}

/// The readings of a plant, in the order in which they are published: ten milliseconds of event time apart,
/// on a day long past, so that no clock of the host plays a part.
#[derive(Clone, Debug)]
pub struct PlantLoad {
    devices: u64,
    padding: usize,
    readings: Vec<PlantReading>,
}

/// Event time of the first reading, in milliseconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600_000;

/// Event time between readings, in milliseconds.
const STEP: u64 = 10;

impl PlantLoad {
    /// Returns a plant of `devices` that has published nothing.
    #[must_use]
    pub fn new(devices: u64) -> Self {
        Self { devices, padding: 0, readings: Vec::new() }
    }

    /// Adds this many bytes to each reading.
    #[must_use]
    pub fn padded(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Returns topic and payload of the next reading.
    pub fn reading(&mut self) -> (String, Vec<u8>) {
        let id = self.readings.len() as u64;
        self.at(BEGIN + id * STEP)
    }

    /// Returns topic and payload of a reading so much later that every window before it closes. Its own
    /// window stays open.
    pub fn closing_reading(&mut self) -> (String, Vec<u8>) {
        let id = self.readings.len() as u64;
        self.at(BEGIN + id * STEP + 7 * 24 * 3_600_000)
    }

    /// Returns all readings published so far, in order.
    #[must_use]
    pub fn readings(&self) -> &[PlantReading] {
        &self.readings
    }

    /// Returns the number of readings published so far.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.readings.len() as u64
    }

    fn at(&mut self, time: u64) -> (String, Vec<u8>) {
        let id = self.readings.len() as u64;
        let device = id % self.devices;
        let value = 20.0 + (id as f64 * 0.37).sin() * 5.0 + device as f64;
        self.readings.push(PlantReading { key: format!("line-{}/dev-{device}", device % 3), time, value });
        let topic = format!("plant/line-{}/dev-{device}/telemetry", device % 3);
        if self.padding == 0 {
            return (topic, payload(id, time, value));
        }
        let pad = "p".repeat(self.padding);
        let padded = json!({ "id": id, "ts": time, "temperature": value, "pad": pad });
        (topic, padded.to_string().into_bytes())
    }
}

/// The topic filter of the whole plant.
pub const TOPICS: &str = "plant/+/+/telemetry";

/// The template for the key of a device.
pub const KEY: &str = "{topic[1]}/{topic[2]}";

/// Returns the payload of a device.
#[must_use]
pub fn payload(id: u64, time: u64, value: f64) -> Vec<u8> {
    json!({ "id": id, "ts": time, "temperature": value }).to_string().into_bytes()
}

/// Returns the windows of one pipeline from result lines, each in its highest revision.
///
/// # Panics
/// When a line is not as the contract says, or one revision came with two values.
#[must_use]
pub fn windows(lines: &[Value], pipeline: &str) -> BTreeMap<WindowKey, ReadingStats> {
    let mut newest: BTreeMap<WindowKey, (u64, ReadingStats)> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["pipeline"] == pipeline) {
        let (place, revision, stats) = window(line).unwrap_or_else(|| panic!("no window result: {line}"));
        match newest.get(&place) {
            Some((known, same)) if *known == revision => assert_eq!(*same, stats, "{line}"),
            Some((known, _)) if *known > revision => {}
            _ => {
                newest.insert(place, (revision, stats));
            }
        }
    }
    newest.into_iter().map(|(place, (_, stats))| (place, stats)).collect()
}

fn window(line: &Value) -> Option<(WindowKey, u64, ReadingStats)> {
    let time = |name: &str| -> Option<u64> {
        let time: jiff::Timestamp = line["window"][name].as_str()?.parse().ok()?;
        time.as_millisecond().try_into().ok()
    };
    let place = (line["key"].as_str()?.to_owned(), time("start")?, time("end")?);
    let value = &line["value"]["temperature"];
    let number = |name: &str| value[name].as_f64();
    let stats = ReadingStats {
        count: value["count"].as_u64()?,
        mean: number("mean")?,
        min: number("min")?,
        max: number("max")?,
        stddev: number("stddev")?,
    };
    (line["count"].as_u64()? == stats.count).then_some(())?;
    Some((place, line["revision"].as_u64()?, stats))
}

/// Returns the ids of the readings that one pipeline sent, sorted; an id that came twice is there twice.
///
/// # Panics
/// When a line carries no id.
#[must_use]
pub fn ids(lines: &[Value], pipeline: &str) -> Vec<u64> {
    let of = |line: &Value| line["value"]["id"].as_u64().unwrap_or_else(|| panic!("no id: {line}"));
    let mut ids: Vec<_> = lines.iter().filter(|line| line["pipeline"] == pipeline).map(of).collect();
    ids.sort_unstable();
    ids
}
