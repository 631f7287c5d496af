//! A transform that misbehaves on request.
//!
//! `{"do": "panic"}` in its settings gives the misdeed, `"bad":true` in the payload of an event triggers it.
//! All other events pass unchanged. Built with WASI, it also asks for things outside of the sandbox
//! (`world`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

#[allow(missing_docs, reason = "the WIT file is their documentation")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "transform" });
    pub(crate) use headwater::module::{logging, types::Rejection};
}

mod world;

use bindings::{Event, Processed, Rejection, logging};

struct HostileTransform;

bindings::export!(HostileTransform with_types_in bindings);

static DO: OnceLock<String> = OnceLock::new();
static CALLS: AtomicU32 = AtomicU32::new(0);

impl bindings::Guest for HostileTransform {
    fn init(config: String) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| {
            logging::log(logging::Level::Error, &panic.to_string());
        }));
        let config: serde_json::Value = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        let what = config["do"].as_str().unwrap_or_default().to_owned();
        match &*what {
            "init-error" => return Err("hostile settings".to_owned()),
            "init-panic" => panic!("hostile start"),
            "init-loop" => forever(),
            _ => {}
        }
        DO.set(what).map_err(|_| "initialised twice".to_owned())
    }

    fn process(events: Vec<Event>) -> Result<Processed, String> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        let mut out = Processed { events: Vec::new(), rejected: Vec::new() };
        let what = DO.get().map_or("", |what| what);
        let bad = |event: &Event| match what {
            "panic-bytes" => std::str::from_utf8(&event.payload).is_err(),
            "panic-texts" => !event.key.is_ascii(),
            _ => event.payload.windows(10).any(|part| part == b"\"bad\":true"),
        };
        let inputs = events.len();
        if what == "invent" && inputs == 0 {
            let payload = Vec::new();
            out.events.push(Event { topic: String::new(), key: String::new(), time: 0, payload });
        }
        for (index, event) in (0..).zip(events) {
            if what == "leak" {
                std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 14]));
            }
            if bad(&event) {
                misbehave(what, index, calls, inputs, &event, &mut out)?;
            } else {
                out.events.push(event);
            }
        }
        Ok(out)
    }
}

fn misbehave(
    what: &str,
    index: u32,
    calls: u32,
    inputs: usize,
    event: &Event,
    out: &mut Processed,
) -> Result<(), String> {
    let mut count = |number: u32| {
        out.events.push(Event { payload: number.to_string().into_bytes(), ..event.clone() });
    };
    let reject = |index| Rejection { index, reason: "hostile reading".to_owned() };
    match what {
        "panic" | "panic-bytes" | "panic-texts" => panic!("hostile panic"),
        "count-calls" => count(calls),
        "count-inputs" => count(inputs as u32),
        "mark-first" => count(calls.min(1)),
        // It fails only in an instance that has been used before.
        "panic-later" if calls > 0 => panic!("hostile age"),
        "unreachable" => unreachable(),
        "loop" => forever(),
        "memory" => memory(),
        "stack" => drop(stack(1)),
        "frames" => drop(frames(1)),
        "error" => return Err("hostile batch".to_owned()),
        "retime" => {
            let payload: serde_json::Value =
                serde_json::from_slice(&event.payload).map_err(|e| e.to_string())?;
            out.events.push(Event { time: payload["to"].as_u64().unwrap_or(event.time), ..event.clone() });
        }
        "reject" => out.rejected.push(reject(index)),
        "reject-other" => out.rejected.push(reject(1_000_000)),
        "reject-twice" => out.rejected.extend([reject(index), reject(index)]),
        "output" => out.events.push(Event { payload: vec![b'1'; 48 << 20], ..event.clone() }),
        "many" => out.events.extend(std::iter::repeat_n(event.clone(), 100_000)),
        "log" => {
            for line in 0..10_000 {
                logging::log(logging::Level::Info, &format!("hostile line {line}"));
            }
            logging::log(logging::Level::Warn, &"x".repeat(1 << 20));
        }
        "log-loop" => loop {
            logging::log(logging::Level::Info, "hostile line");
        },
        _ => match world::ask(what) {
            Some(Ok(found)) => out.events.push(Event { payload: found.into_bytes(), ..event.clone() }),
            Some(Err(reason)) => out.rejected.push(Rejection { index, reason }),
            None => out.events.push(event.clone()),
        },
    }
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn unreachable() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn unreachable() {
    std::process::abort()
}

fn forever() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn memory() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

/// Uses up the engine's stack.
#[expect(unconditional_recursion, reason = "it is a stack overflow")]
fn stack(depth: u64) -> u64 {
    stack(std::hint::black_box(depth) + 1) + depth
}

/// Uses up the module's own stack, which is part of its memory.
#[expect(unconditional_recursion, reason = "it is a stack overflow")]
fn frames(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    frames(depth + 1) + frame[0]
}
