//! The costs of the examples in each language, against the Rust code as a part of the agent: the table in the reference.
//!
//! `just languages` builds them and writes the table between its markers. Cases take turns, and ratios are taken within
//! a turn, so that what else the machine does hits all of them: trust the ratios, not the rates.

use headwater_flow::{Event, Timestamp};
use headwater_host::{AggregateModule, CallMetrics, Group, ModuleHost, ModuleLimits, TransformModule};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../../transforms/sdk/src/json.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a part of the SDK, used here alone")]
mod json;

#[path = "../../../transforms/languages/rust/aggregate/src/summary.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a part of the module, used here alone")]
mod summary;

#[path = "shared/events.rs"]
mod events;

use events::{BATCH, events};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const MARKERS: (&str, &str) = ("<!-- languages -->\n", "<!-- /languages -->\n");
const FIELD: &str = "temperature";
const STARTS: usize = 21;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(150);

/// Takes the batch once.
type Run = Box<dyn FnMut()>;

/// The costs of one language: first those of the transform, then of the aggregate.
struct Language {
    name: String,
    bytes: usize,
    compile: Duration,
    instantiate: Duration,
    memory_bytes: usize,
    runs: [Run; 2],
    /// Events a second, and those against native, a turn each.
    rates: [Vec<f64>; 2],
    ratios: [Vec<f64>; 2],
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut languages = Vec::new();
    for entry in fs::read_dir(format!("{ROOT}/transforms/languages"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        println!("compiling {name}");
        languages.push(load(&name)?);
    }
    measure(&mut languages);
    languages.sort_by(|a, b| median(&b.ratios[0]).total_cmp(&median(&a.ratios[0])));
    let table = table(&languages)?;
    print!("{table}");
    write(&table)
}

fn load(name: &str) -> Result<Language, Box<dyn Error>> {
    let file = |kind: &str| format!("{ROOT}/target/languages/{name}-{kind}/mine.wasm");
    let of_events = file("transform");
    let of_windows = file("aggregate");
    let of_events = Path::new(&of_events);
    let of_windows = Path::new(&of_windows);
    if !of_events.is_file() || !of_windows.is_file() {
        return Err(format!("there is no {}: run .ci/languages", of_events.display()).into());
    }
    // No cache: the compilation is measured, too.
    let host = ModuleHost::new(None)?;
    let found = host.inspect(of_events)?;
    let settings = format!(r#"{{"field":"{FIELD}"}}"#);
    let mut transform =
        host.transform(of_events, &settings, &ModuleLimits::default(), &CallMetrics::default())?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        transform.renew(&settings)?;
        starts.push(started.elapsed());
    }
    starts.sort_unstable();
    transform.process(&events());
    let memory_bytes = transform.memory_bytes();
    let settings = format!(r#"{{"fields":["{FIELD}"]}}"#);
    let aggregate =
        host.aggregate(of_windows, &settings, &ModuleLimits::default(), &CallMetrics::default())?;
    Ok(Language {
        name: name.to_owned(),
        bytes: found.bytes,
        compile: found.compiled_in,
        instantiate: starts[STARTS / 2],
        memory_bytes,
        runs: [through(transform), into(aggregate)],
        rates: Default::default(),
        ratios: Default::default(),
    })
}

fn through(mut module: TransformModule) -> Run {
    let events = events();
    Box::new(move || {
        assert_eq!(black_box(module.process(black_box(&events))).0.len(), BATCH, "none is refused")
    })
}

/// Returns a run that updates the state before, as of a window that goes on.
fn into(mut module: AggregateModule) -> Run {
    let start = Timestamp(1_700_000_000_000_000);
    let end = Timestamp(1_700_000_060_000_000);
    let samples = events().into_iter().map(|event| (event.time, event.payload)).collect();
    let mut group = Group { key: "line-1".to_owned(), start, end, state: Vec::new(), samples };
    Box::new(move || {
        let updated = module.update(black_box(std::slice::from_ref(&group))).pop().unwrap_or_default();
        assert!(updated.rejected.is_empty(), "none is refused");
        group.state = updated.state;
    })
}

fn native() -> [Run; 2] {
    let samples = events();
    let events = events();
    let mut all = None::<summary::FieldSummary>;
    let convert = |event: &Event| {
        let payload = json::map_number(&event.payload, FIELD, |degrees| (degrees - 32.0) / 1.8).ok()?;
        Some(Event { payload, topic: event.topic.clone(), key: event.key.clone(), time: event.time })
    };
    [
        Box::new(move || {
            let converted: Vec<Event> = black_box(&events).iter().filter_map(convert).collect();
            assert_eq!(black_box(converted).len(), BATCH, "none is refused");
        }),
        Box::new(move || {
            for sample in black_box(&samples) {
                let number =
                    json::JsonObject::parse(&sample.payload).ok().and_then(|object| object.number(FIELD));
                let number = number.expect("none is refused");
                match &mut all {
                    Some(all) => all.add(number),
                    None => all = Some(summary::FieldSummary::of(number)),
                }
            }
            black_box(&all);
        }),
    ]
}

fn measure(languages: &mut [Language]) {
    let mut native = native();
    for round in 0..ROUNDS {
        println!("round {} of {ROUNDS}", round + 1);
        for (kind, native) in native.iter_mut().enumerate() {
            for language in &mut *languages {
                // Native beside each: it has the moment's share of the machine.
                let rate = rate(&mut language.runs[kind]);
                language.ratios[kind].push(rate / self::rate(native));
                language.rates[kind].push(rate);
            }
        }
    }
}

/// Events a second.
fn rate(run: &mut Run) -> f64 {
    let mut done = 0;
    let started = Instant::now();
    while started.elapsed() < ROUND {
        run();
        done += BATCH;
    }
    done as f64 / started.elapsed().as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(languages: &[Language]) -> Result<String, Box<dyn Error>> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let models = processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let models: Vec<&str> = models.map(|(_, model)| model).collect();
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let count = models.len();
    let model = models.first().copied().unwrap_or("processors");
    let mut table = String::new();
    writeln!(
        table,
        "| language | size | compile | instantiate | memory | `celsius`: events/s | µs each | of native | `stats`: events/s | µs each | of native |"
    )?;
    writeln!(table, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for language in languages {
        let Language { name, bytes, compile, instantiate, memory_bytes, rates, ratios, .. } = language;
        write!(table, "| {name} | {} ", size(*bytes))?;
        write!(table, "| {:.2} s | {:.2} ms ", compile.as_secs_f64(), instantiate.as_secs_f64() * 1e3)?;
        write!(table, "| {} ", size(*memory_bytes))?;
        for (rates, ratios) in rates.iter().zip(ratios) {
            let rate = median(rates);
            let ratio = median(ratios);
            write!(table, "| {:.0} k | {:.2} | {ratio:.3} ", rate / 1e3, 1e6 / rate)?;
        }
        writeln!(table, "|")?;
    }
    writeln!(
        table,
        "\nBy `just languages` (dependencies less optimized than in a release), on {count} × {model} under a load of\n\
         {load}: medians of {ROUNDS} turns, native beside each. Trust the ratios, not the times."
    )?;
    Ok(table)
}

fn size(bytes: usize) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.0} KiB") } else { format!("{:.1} MiB", kib / 1024.0) }
}

fn write(table: &str) -> Result<(), Box<dyn Error>> {
    let file = format!("{ROOT}/docs/src/reference/languages.md");
    let text = fs::read_to_string(&file)?;
    let (before, rest) =
        text.split_once(MARKERS.0).ok_or("docs/src/reference/languages.md has no place for the table")?;
    let (_, after) =
        rest.split_once(MARKERS.1).ok_or("docs/src/reference/languages.md has no end of the table")?;
    Ok(fs::write(file, format!("{before}{}{table}{}{after}", MARKERS.0, MARKERS.1))?)
}
