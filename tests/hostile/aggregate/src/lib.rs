//! An aggregate that misbehaves on request and else counts.
//!
//! `{"do": "update-panic"}` in its settings gives the misdeed; `"bad":true` in the payload of a sample (or,
//! for `finish-…`, a key that starts with `bad`) triggers it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[allow(missing_docs, reason = "the WIT file is their documentation")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "versioned-aggregate" });
    pub(crate) use headwater::module::{logging, types::Rejection};
}

use bindings::{Closed, Group, Rejection, Updated, logging};

struct HostileAggregate;

bindings::export!(HostileAggregate with_types_in bindings);

static DO: OnceLock<String> = OnceLock::new();
/// The version of its states, from `{"version": 2}`, which it insists on; `{"refuse": true}` migrates none.
static VERSION: OnceLock<(u8, bool)> = OnceLock::new();
static CALLS: AtomicU64 = AtomicU64::new(0);
static HIDDEN: AtomicU64 = AtomicU64::new(0);

impl bindings::Guest for HostileAggregate {
    fn init(config: String) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| {
            logging::log(logging::Level::Error, &panic.to_string());
        }));
        assert_ne!(config, "7", "hostile settings");
        let config: serde_json::Value = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        let what = config["do"].as_str().unwrap_or_default().to_owned();
        let version = config["version"].as_u64().unwrap_or_default() as u8;
        let refuse = config["refuse"].as_bool().unwrap_or_default();
        VERSION.set((version, refuse)).map_err(|_| "initialised twice".to_owned())?;
        DO.set(what).map_err(|_| "initialised twice".to_owned())
    }

    fn update(groups: Vec<Group>) -> Result<Vec<Updated>, String> {
        let mut updated = Vec::new();
        let mut answers = u32::from(what() == "invent" && groups.is_empty());
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        assert!(what() != "update-groups" || groups.len() < 100, "hostile groups");
        for group in &groups {
            if group.state.get(8).is_some_and(|made_by| *made_by != version()) {
                return Err("a state of another version".to_owned());
            }
            let mut count = count(&group.state);
            match what() {
                "panic-state" => assert!(matches!(group.state.len(), 0 | 8), "hostile state"),
                "panic-texts" => assert!(group.key.is_ascii(), "hostile key"),
                "count-calls" => count += calls,
                "count-updates" => count += 1,
                "mark-first" if calls == 0 => count += 1,
                _ => {}
            }
            let mut rejected = Vec::new();
            let mut padding = 0;
            for (index, sample) in (0..).zip(&group.samples) {
                let bad = sample.payload.windows(10).any(|part| part == b"\"bad\":true");
                match what() {
                    "panic-bytes" => drop(std::str::from_utf8(&sample.payload).expect("hostile bytes")),
                    "leak" => std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 13])),
                    // The number is known to this instance alone.
                    "hide" => {
                        HIDDEN.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    "update-panic" if bad => panic!("hostile sample"),
                    "update-loop" if bad => loop {
                        std::hint::black_box(());
                    },
                    "update-error" if bad => return Err("hostile batch".to_owned()),
                    "update-reject" if bad => {
                        rejected.push(Rejection { index, reason: "hostile sample".to_owned() });
                        continue;
                    }
                    "update-reject-other" if bad => {
                        rejected.push(Rejection { index: 77, reason: "nobody".to_owned() });
                    }
                    "update-answers" if bad => answers += 1,
                    "update-state" if bad => padding = 48 << 20,
                    _ => {}
                }
                count += 1;
            }
            let mut state = u64::to_le_bytes(count).to_vec();
            state.resize(8 + padding, 0);
            if padding == 0 && version() > 0 {
                state.push(version());
            }
            updated.push(Updated { state, rejected });
        }
        for _ in 0..answers {
            updated.push(Updated { state: Vec::new(), rejected: Vec::new() });
        }
        Ok(updated)
    }

    fn merge(a: Vec<u8>, b: Vec<u8>) -> Result<Vec<u8>, String> {
        match what() {
            "merge-panic" => panic!("hostile merge"),
            "merge-count" => Ok((count(&a) + count(&b) + 1).to_le_bytes().to_vec()),
            "merge-left" if count(&a) > 0 => Ok(a),
            "merge-error" => Err("hostile pair".to_owned()),
            _ => Ok((count(&a) + count(&b)).to_le_bytes().to_vec()),
        }
    }

    fn state_version() -> u32 {
        version().into()
    }

    fn migrate(from: u32, state: Vec<u8>) -> Result<Vec<u8>, String> {
        match VERSION.get() {
            Some((_, true)) => Err(format!("hostile state of version {from}")),
            _ => Ok([&state[..8], &[version()]].concat()),
        }
    }

    fn finish(windows: Vec<Closed>) -> Result<Vec<Vec<u8>>, String> {
        let mut results = Vec::new();
        for window in &windows {
            let count = count(&window.state) + HIDDEN.load(Ordering::Relaxed);
            match what() {
                _ if !window.key.starts_with("bad") => results.push(count.to_string().into()),
                "finish-panic" => panic!("hostile window"),
                "finish-error" => return Err("hostile windows".to_owned()),
                "finish-answers" => {}
                "finish-text" => results.push(b"{\"count\": ".to_vec()),
                "finish-lines" => results.push(b"{\n\"count\":\r\n1}".to_vec()),
                "finish-deep" => results.push([[b'['; 5_000], [b']'; 5_000]].concat()),
                _ => results.push(count.to_string().into()),
            }
        }
        Ok(results)
    }
}

fn version() -> u8 {
    VERSION.get().map_or(0, |(version, _)| *version)
}

fn what() -> &'static str {
    DO.get().map_or("", |what| what)
}

fn count(state: &[u8]) -> u64 {
    state.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
