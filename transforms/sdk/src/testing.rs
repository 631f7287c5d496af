//! Support for an author's own native tests: a module without an agent, with a state of its own thread, and input
//! that means harm.
//!
//! ```
//! use headwater_module::testing::TransformProbe;
//! use headwater_module::{Event, Transform};
//!
//! #[derive(serde::Deserialize)]
//! struct Scale {
//!     factor: f64,
//! }
//!
//! impl Transform for Scale {
//!     fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
//!         event.map_number("v", |number| number * self.factor)?;
//!         Ok(Some(event))
//!     }
//! }
//!
//! let mut probe = TransformProbe::<Scale>::new(r#"{"factor":10}"#).unwrap();
//! assert_eq!(probe.payloads(r#"{"v":1.5}"#).unwrap(), [r#"{"v":15.0}"#]);
//! assert_eq!(probe.payloads("{}").unwrap_err(), "field `v` is missing");
//! ```

use crate::settings;
use crate::transform::{Event, Transform};

/// A transform, called with one event at a time.
#[derive(Debug)]
pub struct TransformProbe<T>(T);

impl<T: Transform> TransformProbe<T> {
    /// Starts a transform with settings in JSON, and nothing remembered.
    ///
    /// # Errors
    /// The fault of the configuration that the agent would show.
    pub fn new(config: &str) -> Result<Self, String> {
        state::clear();
        Self::again(config)
    }

    /// Starts a transform with other settings and the values remembered so far, as a change of the configuration does.
    ///
    /// # Errors
    /// The fault of the configuration that the agent would show.
    pub fn again(config: &str) -> Result<Self, String> {
        let mut transform: T = settings(config)?;
        transform.prepare()?;
        Ok(Self(transform))
    }

    /// Returns the events that the event becomes.
    ///
    /// # Errors
    /// The reason with which it would go to the dead letters.
    pub fn process(&mut self, event: Event) -> Result<Vec<Event>, String> {
        Ok(self.0.process(event)?.into_iter().collect())
    }

    /// Returns the payloads of the events that an event with this payload becomes.
    ///
    /// # Errors
    /// The reason with which it would go to the dead letters.
    ///
    /// # Panics
    /// If a payload that comes out is not UTF-8.
    pub fn payloads(&mut self, payload: impl AsRef<[u8]>) -> Result<Vec<String>, String> {
        let events = self.process(event(payload))?;
        Ok(events.into_iter().map(|event| String::from_utf8(event.payload).expect("UTF-8")).collect())
    }

    /// Gives the transform `count` payloads that are like the samples and yet are not: bits flipped, pieces cut out,
    /// put in, repeated and taken from elsewhere, and bytes of no kind; the same ones each time. `check` gets
    /// each payload and its answer.
    pub fn provoke(
        &mut self,
        samples: &[&[u8]],
        count: u64,
        mut check: impl FnMut(&[u8], Result<Vec<Event>, String>),
    ) {
        let mut random = RandomNumbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..count {
            let payload = mutated(samples, &mut random);
            let answer = self.process(event(&payload));
            check(&payload, answer);
        }
    }
}

/// Returns an event of the key `k` and the topic `t`, at 2026-01-01T00:00:00Z.
#[must_use]
pub fn event(payload: impl AsRef<[u8]>) -> Event {
    let payload = payload.as_ref().to_vec();
    Event { topic: "t".to_owned(), key: "k".to_owned(), time: 1_767_225_600_000_000, payload }
}

/// Marsaglia, "Xorshift RNGs", 2003.
struct RandomNumbers(u64);

impl RandomNumbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start + 1).min(17))
    }
}

/// Pieces that readers of formats fail on: lengths that lie, numbers beyond every type, nesting, half characters.
const BAITS: [&[u8]; 12] = [
    b"1e999",
    b"-9223372036854775809",
    b"99999999999999999999999999",
    b"null",
    b"\"\\ud800\"",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xc3\x28",
    b"\0\0\0\0",
];

fn mutated(samples: &[&[u8]], random: &mut RandomNumbers) -> Vec<u8> {
    let Some(sample) = samples.get(random.below(samples.len())) else { return Vec::new() };
    let mut payload = sample.to_vec();
    for _ in 0..=random.below(4) {
        let range = random.range(payload.len());
        match random.below(7) {
            0 if !payload.is_empty() => {
                let at = random.below(payload.len());
                payload[at] ^= 1 << random.below(8);
            }
            1 if !payload.is_empty() => {
                let at = random.below(payload.len());
                payload[at] = random.below(256) as u8;
            }
            2 => drop(payload.drain(range)),
            3 => payload.truncate(range.start),
            4 => {
                let piece = payload[range.clone()].to_vec();
                payload.splice(range.start..range.start, piece);
            }
            5 => drop(payload.splice(range, BAITS[random.below(BAITS.len())].iter().copied())),
            _ => {
                let other = samples[random.below(samples.len())];
                let piece = other[random.range(other.len())].to_vec();
                drop(payload.splice(range, piece));
            }
        }
    }
    payload
}

/// A stand-in for the agent's state: one map a thread, with the agent's bounds of a name and a value.
pub(crate) mod state {
    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        static VALUES: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
    }

    const NAME_BYTES_MAX: usize = 512;
    const VALUE_BYTES_MAX: usize = 64 << 10;

    pub(crate) fn clear() {
        VALUES.with_borrow_mut(HashMap::clear);
    }

    pub(crate) fn get(name: &str) -> Option<Vec<u8>> {
        VALUES.with_borrow(|values| values.get(name).cloned())
    }

    pub(crate) fn set(name: &str, value: &[u8]) -> Result<(), String> {
        for (what, bytes, max) in
            [("name", name.len(), NAME_BYTES_MAX), ("value", value.len(), VALUE_BYTES_MAX)]
        {
            if bytes > max {
                return Err(format!("the {what} has {bytes} bytes, at most {max} are kept"));
            }
        }
        VALUES.with_borrow_mut(|values| values.insert(name.to_owned(), value.to_vec()));
        Ok(())
    }

    pub(crate) fn remove(name: &str) {
        VALUES.with_borrow_mut(|values| values.remove(name));
    }
}
