//! `[pipeline.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::aggregate;
use super::read::{Read, Section, duration, integer, size, text, texts, word};
use crate::decode::{self, Format, Guard, Place, Stamp, Template, TimeUnit, WhenMissing, WhenOff};
use crate::input::mqtt::{self, Version};
use crate::module::{ModuleCapability, ModuleDigest, ModuleLimits, ModuleOrigin, RemoteAddress};
use crate::pipeline::{
    AggregateConfig, COARSEN_MAX, Config, Late, ModuleConfig, OnTrip, PAUSE_MAX, Policy, Priority, Rate,
    TRIPS_MAX, Then, WhenFull,
};
use crate::window;

/// What a pipeline may refer to.
pub(super) struct Names<'a> {
    pub(super) inputs: &'a BTreeMap<String, Option<mqtt::Config>>,
    pub(super) outputs: BTreeSet<&'a String>,
}

const DAY: Duration = Duration::from_hours(24);

pub(super) fn section(mut section: Section<'_>, names: &Names<'_>, folder: &Path) -> Option<Config> {
    let input = reference(&mut section, "input", &names.inputs.keys().collect());
    let output = reference(&mut section, "output", &names.outputs);
    let decode = decode(&mut section);
    if let (Some(input), Some(decode)) = (&input, &decode)
        && let Some(Some(input)) = names.inputs.get(input)
        && matches!(decode.time, Some(Stamp { place: Place::Property(_), .. }))
        && input.version == Version::V311
    {
        let remedy =
            "add `version = \"5\"` to the input's mqtt table, or take the time from a field or the topic";
        section.fault_at("time", "takes a user property, which MQTT 3.1.1 does not have", remedy);
    }
    let transforms: Vec<_> =
        section.sections("transform").into_iter().map(|step| module(step, folder)).collect();
    if transforms.is_empty() && decode.as_ref().is_some_and(|decode| decode.format == Format::Bytes) {
        let remedy = "add `transform = [{ module = ... }]` that makes JSON of what comes";
        section.fault_at("format", "is \"bytes\", and there is no transform", remedy);
    }
    let window = section.optional_section("window").map(super::window::section);
    let aggregate = section.optional_section("aggregate").map(|step| aggregate::section(step, folder));
    match (&window, &aggregate) {
        (Some(_), None) => section.fault(
            "has a window and no aggregate",
            "add `aggregate = { compute = [...] }` or `{ module = ... }`",
        ),
        (None, Some(_)) => {
            section.fault("has an aggregate and no window", "add `window = { tumbling = \"1m\" }`")
        }
        _ => {}
    }
    let commit_every = section.or(
        "commit_every",
        Duration::from_secs(1),
        duration(Duration::from_millis(10), Duration::from_mins(10)),
    );
    let (when_full, coarsen_max) = when_full(&mut section, window.as_ref().map(Option::as_ref));
    let priority = section.or(
        "priority",
        Priority::default(),
        word(&[("order", Priority::Order), ("live", Priority::Live)]),
    );
    let late = section.optional_section("late").map(|late| self::late(late, names));
    if late.is_some() && window.is_none() {
        let remedy = "add a window and an aggregate, or take it out";
        section.fault_at("late", "is for windows: without one no reading is late", remedy);
    }
    let module_aggregate = matches!(aggregate, Some(Some(AggregateConfig::Module(_))));
    let on_trip = on_trip(&mut section, !transforms.is_empty(), module_aggregate);
    let shadow = section.or("shadow", Duration::ZERO, duration(Duration::ZERO, DAY));
    section.finish();
    let windowed = match (window, aggregate) {
        (Some(window), Some(aggregate)) => Some((window?, aggregate?)),
        _ => None,
    };
    let transforms = transforms.into_iter().collect::<Option<_>>()?;
    Some(Config {
        input: input?,
        decode: decode?,
        transforms,
        windowed,
        commit_every,
        output: output?,
        priority,
        when_full,
        coarsen_max,
        late: match late {
            Some(late) => Some(late?),
            None => None,
        },
        on_trip,
        shadow,
    })
}

/// `on_trip = "pause"`, `pause = "5m"`, `trips = { max = 100, within = "1m", then = "bypass" }`.
fn on_trip(section: &mut Section<'_>, transforms: bool, module_aggregate: bool) -> OnTrip {
    let default = OnTrip::default();
    let policy = section.or(
        "on_trip",
        default.policy,
        word(&[("dead-letter", Policy::DeadLetter), ("bypass", Policy::Bypass), ("pause", Policy::Pause)]),
    );
    let pause = section.or("pause", default.pause, duration(Duration::from_secs(1), PAUSE_MAX));
    let rate = section.optional_section("trips").and_then(rate);
    let bypass = |then: &Rate| then.then == Then::Bypass;
    for (key, set) in [("on_trip", policy == Policy::Bypass), ("trips", rate.as_ref().is_some_and(bypass))] {
        if set && (module_aggregate || !transforms) {
            let message = "says \"bypass\", and only a transform can be passed by";
            let remedy =
                "write \"dead-letter\" or \"pause\": what an aggregate cannot take is part of no result";
            section.fault_at(key, message, remedy);
        }
    }
    OnTrip { policy, pause, rate }
}

/// `{ max = 100, within = "1m", then = "last-good" }`.
fn rate(mut section: Section<'_>) -> Option<Rate> {
    let max = section.required("max", integer(0..=TRIPS_MAX));
    let within = section.required("within", duration(Duration::from_secs(1), DAY));
    let then = section.required(
        "then",
        word(&[("pause", Then::Pause), ("bypass", Then::Bypass), ("last-good", Then::LastGood)]),
    );
    section.finish();
    Some(Rate { max: max?, within: within?, then: then? })
}

/// `late = { output = "NAME", when_full = "block" }`.
fn late(mut section: Section<'_>, names: &Names<'_>) -> Option<Late> {
    let output = reference(&mut section, "output", &names.outputs);
    let when_full = section.or(
        "when_full",
        WhenFull::Block,
        word(&[
            ("block", WhenFull::Block),
            ("drop-oldest", WhenFull::DropOldest),
            ("drop-newest", WhenFull::DropNewest),
        ]),
    );
    section.finish();
    Some(Late { output: output?, when_full })
}

/// `window` is the pipeline's, if it has one, and none in there if that has faults.
fn when_full(section: &mut Section<'_>, window: Option<Option<&window::WindowConfig>>) -> (WhenFull, u64) {
    let when_full = section.or(
        "when_full",
        WhenFull::Block,
        word(&[
            ("block", WhenFull::Block),
            ("drop-oldest", WhenFull::DropOldest),
            ("drop-newest", WhenFull::DropNewest),
            ("coarsen", WhenFull::Coarsen),
        ]),
    );
    let coarsen_max = section.or("coarsen_max", COARSEN_MAX, |value| {
        let factor = integer(2..=1 << 16)(value)?;
        let remedy = "write 2, 4, 8 or another power of two: each round doubles the width";
        if factor.is_power_of_two() { Ok(factor) } else { Err(("is no power of two".into(), remedy.into())) }
    });
    if when_full == WhenFull::Coarsen
        && let Some((message, remedy)) = window.map_or(Some(NO_WINDOWS), |window| not_merged(window?))
    {
        section.fault_at("when_full", format!("is \"coarsen\", and {message}"), remedy);
    }
    (when_full, coarsen_max)
}

/// What is wrong, and the remedy.
type Fault = (&'static str, &'static str);

const NO_WINDOWS: Fault =
    ("there are no windows to merge", "add a window and an aggregate, or use \"drop-oldest\"");

/// Why results of such windows cannot be merged into wider ones.
fn not_merged(window: &window::WindowConfig) -> Option<Fault> {
    let parts = (window.readings_max, window.bytes_max) != (u64::MAX, u64::MAX);
    if window.kind.mergeable().is_none() {
        let message = "only tumbling windows without an offset can be merged";
        Some((message, "write `window = { tumbling = ... }`, or use \"drop-oldest\""))
    } else if !window.revise.is_zero() {
        let message = "the window has `revise`: a revision would count twice beside the wider window";
        Some((message, "take out `revise` and raise `lateness`, or use \"drop-oldest\""))
    } else if window.early.is_some() {
        Some((
            "an early result would count twice beside the wider window",
            "take out `early`, or use \"drop-oldest\"",
        ))
    } else if parts {
        let remedy = "take out `readings_max` and `bytes_max`, or use \"drop-oldest\"";
        Some(("only whole windows can be merged", remedy))
    } else {
        None
    }
}

fn reference(section: &mut Section<'_>, kind: &'static str, names: &BTreeSet<&String>) -> Option<String> {
    section.required(kind, |value| {
        let name = text(value)?;
        if names.contains(&name) {
            return Ok(name);
        }
        let known: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        Err((
            format!("names {name:?}, and there is no [{kind}.{name}]"),
            format!("known are: {}", known.join(", ")),
        ))
    })
}

const FORMATS: &[(&str, Format)] =
    &[("json", Format::Json), ("number", Format::Number), ("bytes", Format::Bytes)];

fn decode(section: &mut Section<'_>) -> Option<decode::Config> {
    let topics = section.or("topics", Vec::new(), texts);
    let format = section.or("format", Format::Json, word(FORMATS));
    let whole_topic = || "{topic}".parse::<Template>().expect("it is a template");
    let key = section.or("key", whole_topic(), |value| {
        let text = text(value)?;
        text.parse::<Template>().map_err(|error| {
            (format!("is {text:?}: {error}"), "for example \"{topic[1]}/{field.device}\"".into())
        })
    });
    let time = time(section);
    let timed_by_field = matches!(&time, Some(Some(Stamp { place: Place::Field(_), .. })));
    if format == Format::Bytes && (timed_by_field || key.paths().next().is_some()) {
        let remedy = "take key and time from the topic or the arrival; a transform may set them anew";
        section.fault_at("format", "is \"bytes\", which have no fields", remedy);
    }
    let guard = guard(section, matches!(time, Some(None)));
    Some(decode::Config { topics, format, key, time: time?, guard })
}

/// `"arrival"`, or a table that says where the stamp stands; `None` where there is a fault.
fn time(section: &mut Section<'_>) -> Option<Option<Stamp>> {
    let arrival = word(&[("arrival", ())]);
    if section.text("time").is_some() {
        return section.required("time", arrival).map(|()| None);
    }
    match section.optional_section("time") {
        Some(stamp_section) => stamp(stamp_section).map(Some),
        None if section.has("time") => None,
        None => Some(None),
    }
}

fn stamp(mut section: Section<'_>) -> Option<Stamp> {
    let field = section.optional("field", |value| {
        let path: Vec<String> = text(value)?.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err((
                "has an empty name".into(),
                "write \"ts\", or \"meta.ts\" for one in an object".into(),
            ));
        }
        Ok(Place::Field(path))
    });
    let topic = section
        .optional("topic", integer(0..=1_000))
        .map(|level| Place::Topic(usize::try_from(level).unwrap_or(usize::MAX)));
    let property = section.optional("property", |value| {
        let name = text(value)?;
        if name.len() > mqtt::PROPERTY_BYTES_MAX {
            return Err((
                "is too long".into(),
                format!("use a name of up to {} bytes", mqtt::PROPERTY_BYTES_MAX),
            ));
        }
        Ok(Place::Property(name))
    });
    let unit = section.required(
        "unit",
        word(&[
            ("s", TimeUnit::Seconds),
            ("ms", TimeUnit::Millis),
            ("us", TimeUnit::Micros),
            ("ns", TimeUnit::Nanos),
            ("rfc3339", TimeUnit::Rfc3339),
        ]),
    );
    let when_missing = section.or(
        "missing",
        WhenMissing::default(),
        word(&[("reject", WhenMissing::Reject), ("arrival", WhenMissing::Arrival)]),
    );
    let named = ["field", "topic", "property"].into_iter().filter(|key| section.has(key)).count();
    if named != 1 {
        section.fault(
            "names not exactly one place",
            "write one of { field = \"ts\" }, { topic = 3 } and { property = \"ts\" }, and its `unit`",
        );
    }
    section.finish();
    let place = field.or(topic).or(property)?;
    (named == 1).then_some(Stamp { place, unit: unit?, when_missing })
}

fn guard(section: &mut Section<'_>, by_arrival: bool) -> Guard {
    const WHEN_OFF: &[(&str, WhenOff)] =
        &[("reject", WhenOff::Reject), ("arrival", WhenOff::Arrival), ("clamp", WhenOff::Clamp)];
    let default = Guard::default();
    let guard = Guard {
        skew: section.or("skew", default.skew, duration(Duration::ZERO, 365 * DAY)),
        when_ahead: section.or("when_ahead", default.when_ahead, word(WHEN_OFF)),
        past: section.optional("past", duration(Duration::from_secs(1), 36_500 * DAY)),
        when_past: section.or("when_past", default.when_past, word(WHEN_OFF)),
    };
    if section.has("when_past") && !section.has("past") {
        section.fault_at("when_past", "needs a bound", "add `past = \"7d\"`, or remove it");
    }
    if by_arrival && section.has("past") {
        section.fault_at(
            "past",
            "bounds stamps, and the time is that of arrival",
            "add `time`, or remove it",
        );
    }
    guard
}

pub(super) fn module(mut section: Section<'_>, folder: &Path) -> Option<ModuleConfig> {
    let file = section.required("module", text);
    let remote = file.as_ref().filter(|file| file.contains("://")).map(|file| file.parse::<RemoteAddress>());
    if let (Some(file), Some(Err(remedy))) = (&file, &remote) {
        section.fault_at("module", format!("is {file:?}"), *remedy);
    }
    if remote.as_ref().is_some_and(|it| it.as_ref().is_ok_and(|it| !it.is_pinned())) && !section.has("digest")
    {
        section.fault(
            "is fetched and not pinned",
            "add `digest = \"sha256:...\"`, as `sha256sum` prints it of the file",
        );
    }
    if let Some(file) = file.as_ref().filter(|file| remote.is_none() && !folder.join(file).is_file()) {
        let message = format!("is {file:?}, and there is no such file in {}", folder.display());
        section.fault_at(
            "module",
            message,
            "build the module, or correct the path: it is relative to this file",
        );
    }
    let digest = section.optional("digest", digest);
    section.renamed("config", "settings");
    let settings = section.or("settings", "{}".to_owned(), settings);
    let mut limits = limits(&mut section);
    limits.granted = section.or("capabilities", BTreeSet::new(), capabilities);
    section.finish();
    let remote = remote.and_then(Result::ok).map(Box::new);
    let file = if remote.is_some() { file?.into() } else { folder.join(file?) };
    let origin = ModuleOrigin { file, remote, digest };
    Some(ModuleConfig { origin, settings, limits })
}

fn digest(value: &DeValue<'_>) -> Read<ModuleDigest> {
    let text = text(value)?;
    text.parse().map_err(|remedy: &str| (format!("is {text:?}"), remedy.into()))
}

/// The bounds of a module's calls.
pub(super) fn limits(section: &mut Section<'_>) -> ModuleLimits {
    let mut limits = ModuleLimits::default();
    limits.deadline =
        section.or("deadline", limits.deadline, duration(Duration::from_millis(20), Duration::from_secs(2)));
    limits.memory_bytes_max = section.or("memory_bytes_max", limits.memory_bytes_max, size(1 << 20, 4 << 30));
    limits.output_bytes_max = section.or("output_bytes_max", limits.output_bytes_max, size(1 << 10, 8 << 20));
    let lines = section.or("log_lines_max", limits.log_lines_per_second_max.into(), integer(0..=10_000));
    limits.log_lines_per_second_max = u32::try_from(lines).unwrap_or(u32::MAX);
    limits.state_names_max = section.or("state_names_max", limits.state_names_max, integer(1..=10_000_000));
    limits
}

/// Imports that a module may have, by name.
pub(super) fn capabilities(value: &DeValue<'_>) -> Read<BTreeSet<ModuleCapability>> {
    let one = word(&[("wasi", ModuleCapability::Wasi), ("state", ModuleCapability::State)]);
    match value {
        DeValue::Array(items) => items.iter().map(|item| one(item.get_ref())).collect(),
        _ => Err(("is no list".into(), "write it as [\"wasi\"]".into())),
    }
}

/// A module's settings: any TOML, given to it as JSON.
pub(super) fn settings(value: &DeValue<'_>) -> Read<String> {
    Ok(json(value)?.to_string())
}

fn json(value: &DeValue<'_>) -> Read<serde_json::Value> {
    let number = |text: &str| -> Read<serde_json::Value> {
        let plain = text.replace('_', "");
        serde_json::from_str(plain.trim_start_matches('+')).map_err(|_| {
            (format!("holds {text}, which JSON cannot say"), "write a finite decimal number".into())
        })
    };
    Ok(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) if integer.radix() == 10 => number(integer.as_str())?,
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX).into()
        }
        DeValue::Float(float) => number(float.as_str())?,
        DeValue::Boolean(boolean) => (*boolean).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => {
            items.iter().map(|item| json(item.get_ref())).collect::<Read<Vec<_>>>()?.into()
        }
        DeValue::Table(table) => {
            let entries =
                table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), json(value.get_ref())?)));
            entries.collect::<Read<serde_json::Map<_, _>>>()?.into()
        }
    })
}
