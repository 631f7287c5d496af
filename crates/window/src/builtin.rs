//! Aggregates that need no module: count, sums, moments, extremes, ends, sketches, a mean by time.
//!
//! Pure, and equal to a module in what a pipeline sees of it: `update`, `merge` and `finish` over opaque
//! states, of which the empty one is neutral.
//!
//! **Values.** Numbers are doubles, and JSON knows no others: NaN and infinities do not come in, -0 is 0, and
//! a whole number beyond 2^53 is refused where a number is wanted (`distinct` and `top` take it to the last
//! digit). `null` is as good as missing. A reading that lacks a field is skipped by the functions of that
//! field and used by the others; one that lacks all of them is refused, and so is one whose field is of a
//! type that a function does not take: a reading is used by all functions that it concerns, or by none. A
//! payload that is no object is its own field `value`.
//!
//! **Results.** One flat object. `null` where there is nothing to say: no value of that field, a `rate` over no
//! time, a sample's variance of one reading, and what has left the range of doubles on the way.
//!
//! **Invariants.**
//! - How readings are batched does not show: `update(s, [a, b]) == update(update(s, [a]), [b])` bit for bit.
//! - `merge` is exact for count, min, max, first, last, delta, rate, quantile, distinct, histogram; for sums and
//!   moments up to rounding; for `top` and `time_mean` within what [`top`] and [`hold`] say.
//! - No bytes of a state make it panic.
//!
//! **State.** `version u8 = 1`, then for each part that holds something `tag u32 | length | bytes`. The tag stands for
//! function, field and parameters, so that after a change of the configuration what is still asked for goes
//! on, and what is new begins empty. Functions that need the same share a part.
//!
//! **Limits**: [`bins::BINS_MAX`], [`distinct::LISTED_MAX`], [`COUNTERS_MAX`], [`BOUNDS_MAX`] bound each part; the reference
//! says how many bytes. **A crash** costs nothing: there is no state here but the pipeline's.

mod bins;
mod bytes;
mod config;
mod distinct;
mod hold;
mod json;
mod output;
mod part;
mod reading;
mod sums;
mod top;

#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

use bytes::{StateBytes, put_whole};
pub use config::{
    AggregateFunction, BOUNDS_MAX, BuiltinConfig, COUNTERS_MAX, ComputedMember, DISORDER, DISORDER_MAX,
    QUANTILE_ERROR, counters,
};
use headwater_flow::aggregation::{Aggregate, Closed, Group, Rejection, Updated};
use output::ResultMember;
use part::{PartKind, PartState};
use reading::{FieldReader, FieldValue};

const VERSION: u8 = 1;

/// The built-ins of one pipeline, ready.
#[derive(Debug)]
pub struct BuiltinAggregate {
    reader: FieldReader,
    kinds: Vec<PartKind>,
    /// Of each kind: the field's place, and the tag.
    places: Vec<(Option<usize>, u32)>,
    outputs: Vec<ResultMember>,
    digest: String,
    scratch: Vec<u8>,
}

impl BuiltinAggregate {
    /// Prepares the single pass over each payload.
    #[must_use]
    pub fn new(config: &BuiltinConfig) -> Self {
        let digest = Sha256::digest(format!("{VERSION} {}", config.identity()));
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut builtin = Self {
            reader: FieldReader::default(),
            kinds: Vec::new(),
            places: Vec::new(),
            outputs: Vec::new(),
            digest: format!("builtin:{hex}"),
            scratch: Vec::new(),
        };
        for compute in &config.compute {
            let parts = output::kinds(&compute.function).into_iter();
            let parts = parts.map(|kind| builtin.part(kind, compute)).collect();
            builtin.outputs.push(ResultMember::new(compute, parts));
        }
        builtin
    }

    /// `builtin:<hex>` of its configuration: what results carry in place of a module's digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// One answer a group, in their order; what cannot be used comes back as rejections.
    pub fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        groups.iter().map(|group| self.fold(group)).collect()
    }

    /// Two states of one key as one.
    ///
    /// # Errors
    /// When one of them is no state of this version.
    pub fn merge(&mut self, earlier: &[u8], later: &[u8]) -> Result<Vec<u8>, String> {
        let mut parts = self.decode(earlier).ok_or_else(garbled)?;
        let others = self.decode(later).ok_or_else(garbled)?;
        if earlier.is_empty() || later.is_empty() {
            return Ok([earlier, later].concat());
        }
        for ((kind, part), other) in self.kinds.iter().zip(&mut parts).zip(&others) {
            if part.is_empty() {
                part.clone_from(other);
            } else if !other.is_empty() {
                kind.merge(part, other);
            }
        }
        Ok(self.encode(&parts))
    }

    /// One answer a window, in their order: its result as one line of JSON, or why it has none.
    pub fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        windows.iter().map(|window| self.result(window).ok_or_else(garbled)).collect()
    }

    /// The place of the part, which other functions may share.
    fn part(&mut self, kind: PartKind, compute: &ComputedMember) -> usize {
        let takes = kind.takes();
        let function = compute.function.name();
        let slot = compute.field.as_ref().map(|field| self.reader.want(field, takes, function));
        let identity = kind.identity();
        let same = |at: &usize| self.places[*at].0 == slot && self.kinds[*at].identity() == identity;
        if let Some(at) = (0..self.kinds.len()).find(same) {
            return at;
        }
        let mut tag = crc32fast::hash(format!("{identity} {:?}", compute.field).as_bytes());
        while self.places.iter().any(|(_, taken)| *taken == tag) {
            tag = tag.wrapping_add(1);
        }
        self.kinds.push(kind);
        self.places.push((slot, tag));
        self.kinds.len() - 1
    }

    fn fold(&mut self, group: &Group) -> Updated {
        let Some(mut parts) = self.decode(&group.state) else {
            let reject = |index| Rejection { index, reason: garbled() };
            let rejected = (0..group.samples.len()).map(reject).collect();
            return Updated { state: group.state.clone(), rejected };
        };
        let mut values = Vec::new();
        let mut rejected = Vec::new();
        for (index, (time, payload)) in group.samples.iter().enumerate() {
            if let Err(reason) = self.reader.read(payload, &mut values) {
                rejected.push(Rejection { index, reason });
                continue;
            }
            for ((kind, (slot, _)), part) in self.kinds.iter().zip(&self.places).zip(&mut parts) {
                let value = slot.map_or(&FieldValue::Bool(true), |slot| &values[slot]);
                if *value != FieldValue::Missing {
                    kind.add(part, *time, value);
                }
            }
        }
        let unchanged = rejected.len() == group.samples.len();
        let state = if unchanged { group.state.clone() } else { self.encode(&parts) };
        Updated { state, rejected }
    }

    fn result(&self, window: &Closed) -> Option<Vec<u8>> {
        let parts = self.decode(&window.state)?;
        let mut out = Vec::with_capacity(32 * self.outputs.len());
        for output in &self.outputs {
            out.push(if out.is_empty() { b'{' } else { b',' });
            output.write(&mut out, &self.kinds, &parts, window.end).ok()?;
        }
        out.push(b'}');
        Some(out)
    }

    fn decode(&self, state: &[u8]) -> Option<Vec<PartState>> {
        let mut parts: Vec<PartState> = self.kinds.iter().map(PartKind::empty).collect();
        if state.is_empty() {
            return Some(parts);
        }
        let mut bytes = StateBytes(state);
        let mut next = 0;
        if bytes.byte()? != VERSION {
            return None;
        }
        while !bytes.is_empty() {
            let tag = bytes.tag()?;
            let length = bytes.count()?;
            let part = bytes.take(length)?;
            // Mostly they come in the order in which they were written.
            let from = self.places[next.min(self.places.len())..].iter().position(|place| place.1 == tag);
            let Some(at) = from.map(|at| next + at).or_else(|| self.at(tag)) else { continue };
            if !parts[at].is_empty() {
                return None;
            }
            parts[at] = self.kinds[at].decode(part)?;
            next = at + 1;
        }
        Some(parts)
    }

    fn at(&self, tag: u32) -> Option<usize> {
        self.places.iter().position(|place| place.1 == tag)
    }

    fn encode(&mut self, parts: &[PartState]) -> Vec<u8> {
        let mut state = Vec::with_capacity(1 + 32 * parts.len());
        state.push(VERSION);
        for (part, (_, tag)) in parts.iter().zip(&self.places) {
            if part.is_empty() {
                continue;
            }
            self.scratch.clear();
            part.encode(&mut self.scratch);
            state.extend(tag.to_le_bytes());
            put_whole(&mut state, self.scratch.len() as u64);
            state.extend(&self.scratch);
        }
        state
    }
}

impl Aggregate for BuiltinAggregate {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        Self::update(self, groups)
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        Self::merge(self, a, b)
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        Self::finish(self, windows)
    }
}

fn garbled() -> String {
    "the state of this window cannot be read: it is damaged, or of another version or aggregate".to_owned()
}
