//! An aggregate that misbehaves on request; else it counts.
//!
//! `{"do": "update-panic"}` in its settings says how, `"bad":true` in a sample's payload (or, for
//! `finish-…`, a key that starts with `bad`) says when.

use std::sync::OnceLock;

#[allow(missing_docs, reason = "the WIT file is their documentation")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "aggregate" });
    pub(crate) use headwater::module::{logging, types::Rejection};
}

use bindings::{Closed, Group, Rejection, Updated, logging};

struct Hostile;

bindings::export!(Hostile with_types_in bindings);

static DO: OnceLock<String> = OnceLock::new();

impl bindings::Guest for Hostile {
    fn init(config: String) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| {
            logging::log(logging::Level::Error, &panic.to_string());
        }));
        let config: serde_json::Value = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        let what = config["do"].as_str().unwrap_or_default().to_owned();
        DO.set(what).map_err(|_| "initialised twice".to_owned())
    }

    fn update(groups: Vec<Group>) -> Result<Vec<Updated>, String> {
        let mut updated = Vec::new();
        let mut answers = 0;
        for group in &groups {
            let mut count = count(&group.state);
            let mut rejected = Vec::new();
            let mut padding = 0;
            for (index, sample) in (0..).zip(&group.samples) {
                let bad = sample.payload.windows(10).any(|part| part == b"\"bad\":true");
                match what() {
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
            "merge-error" => Err("hostile pair".to_owned()),
            _ => Ok((count(&a) + count(&b)).to_le_bytes().to_vec()),
        }
    }

    fn finish(windows: Vec<Closed>) -> Result<Vec<Vec<u8>>, String> {
        let mut results = Vec::new();
        for window in &windows {
            let count = count(&window.state);
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

fn what() -> &'static str {
    DO.get().map_or("", |what| what)
}

fn count(state: &[u8]) -> u64 {
    state.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
