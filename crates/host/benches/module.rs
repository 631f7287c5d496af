//! The transform `celsius` as a module against the same code as a part of the agent.
//!
//! `cargo bench -p headwater-host --bench module`, on a quiet machine: trust the ratios, not the rates.

use headwater_flow::Event;
use headwater_host::{CallMetrics, ModuleHost, ModuleLimits, TransformModule};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../../transforms/sdk/src/json.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a part of the SDK, used here alone")]
mod json;

#[path = "shared/events.rs"]
mod events;

use events::{BATCH, events};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(300);

/// Takes a batch, and says how many events came of it.
type Run = Box<dyn FnMut(Vec<Event>) -> usize>;

fn main() -> Result<(), headwater_host::ModuleError> {
    let host = ModuleHost::new(None)?;
    let events = events();
    let celsius = load(&host, headwater_bundle::CELSIUS_PATH, r#"{"field":"temperature"}"#)?;
    let hostile = load(&host, headwater_bundle::HOSTILE_PATH, "{}")?;
    let mut cases: [(&str, Run); 3] = [
        ("celsius, native", Box::new(|events| native(events).len())),
        ("celsius, module", Box::new(through(celsius))),
        ("pass, module", Box::new(through(hostile))),
    ];
    // In turns, so that a disturbance hits all; the best round of each is the least disturbed.
    let mut best = [0.0_f64; 3];
    for _ in 0..ROUNDS {
        for (case, best) in cases.iter_mut().zip(&mut best) {
            *best = best.max(rate(&events, &mut case.1));
        }
    }
    for ((name, _), rate) in cases.iter().zip(best) {
        println!("{name}: {rate:>9.0} events/s, {:.2} of native", rate / best[0]);
    }
    Ok(())
}

fn load(host: &ModuleHost, path: &str, config: &str) -> Result<TransformModule, headwater_host::ModuleError> {
    host.transform(Path::new(path), config, &ModuleLimits::default(), &CallMetrics::default())
}

fn through(mut module: TransformModule) -> impl FnMut(Vec<Event>) -> usize {
    move |events| module.process(&events).0.len()
}

fn native(events: Vec<Event>) -> Vec<Event> {
    let convert = |mut event: Event| {
        let celsius = |degrees| (degrees - 32.0) / 1.8;
        event.payload = json::map_number(&event.payload, "temperature", celsius).ok()?;
        Some(event)
    };
    events.into_iter().filter_map(convert).collect()
}

/// Events per second, the copies they start from not counted.
fn rate(events: &[Event], run: &mut Run) -> f64 {
    let mut done = 0;
    let mut busy = Duration::ZERO;
    while busy < ROUND {
        let copies = events.to_vec();
        let started = Instant::now();
        assert_eq!(black_box(run(black_box(copies))), BATCH, "nothing is refused");
        busy += started.elapsed();
        done += BATCH;
    }
    done as f64 / busy.as_secs_f64()
}
