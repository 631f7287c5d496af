//! One part of a state: what a function, or several that need the same, keep of a field.

use super::bins::{BinScale, QuantileSketch};
use super::bytes::{StateBytes, put_float, put_whole};
use super::distinct::{self, DistinctValues};
use super::hold::HoldIntegral;
use super::reading::{FieldDemand, FieldValue};
use super::sums::{CompensatedSum, RunningMoments};
use super::top::TopCounters;
use headwater_flow::Timestamp;

/// The kind of a part, with the parameters that it depends on.
#[derive(Clone, Debug)]
pub(super) enum PartKind {
    Count,
    Sum,
    Min,
    Max,
    Moments,
    First,
    Last,
    Bins { error: f64, scale: BinScale },
    Distinct,
    Top { counters: usize },
    Histogram { bounds: Vec<f64> },
    Hold { disorder: usize },
}

/// The values that a part keeps of the readings.
#[derive(Clone, Debug)]
pub(super) enum PartState {
    Count(u64),
    Sum(CompensatedSum),
    /// Least, greatest.
    Extreme(Option<f64>),
    Moments(RunningMoments),
    /// First, last.
    End(Option<(u64, f64)>),
    Bins(QuantileSketch),
    Distinct(DistinctValues),
    Top(TopCounters),
    Histogram(Vec<u64>),
    Hold(HoldIntegral),
}

impl PartKind {
    /// Returns everything that the meaning of its bytes depends on, as text.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Count => "count".to_owned(),
            Self::Sum => "sum".to_owned(),
            Self::Min => "min".to_owned(),
            Self::Max => "max".to_owned(),
            Self::Moments => "moments".to_owned(),
            Self::First => "first".to_owned(),
            Self::Last => "last".to_owned(),
            Self::Bins { error, .. } => format!("bins {error:?}"),
            Self::Distinct => "distinct".to_owned(),
            Self::Top { counters } => format!("top {counters}"),
            Self::Histogram { bounds } => format!("histogram {bounds:?}"),
            Self::Hold { disorder } => format!("hold {disorder}"),
        }
    }

    pub(super) fn takes(&self) -> FieldDemand {
        match self {
            Self::Count => FieldDemand::Anything,
            Self::Distinct => FieldDemand::Scalars,
            Self::Top { .. } => FieldDemand::Short,
            _ => FieldDemand::Numbers,
        }
    }

    /// Returns the part of no readings, the neutral element.
    pub(super) fn empty(&self) -> PartState {
        match self {
            Self::Count => PartState::Count(0),
            Self::Sum => PartState::Sum(CompensatedSum::default()),
            Self::Min | Self::Max => PartState::Extreme(None),
            Self::Moments => PartState::Moments(RunningMoments::default()),
            Self::First | Self::Last => PartState::End(None),
            Self::Bins { .. } => PartState::Bins(QuantileSketch::default()),
            Self::Distinct => PartState::Distinct(DistinctValues::default()),
            Self::Top { .. } => PartState::Top(TopCounters::default()),
            Self::Histogram { bounds } => PartState::Histogram(vec![0; bounds.len() + 1]),
            Self::Hold { .. } => PartState::Hold(HoldIntegral::default()),
        }
    }

    /// Decodes all of the bytes; `None` if they are not of this kind.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<PartState> {
        let mut bytes = StateBytes(bytes);
        let part = match self {
            Self::Count => PartState::Count(bytes.whole()?),
            Self::Sum => PartState::Sum(CompensatedSum::decode(&mut bytes)?),
            Self::Min | Self::Max => PartState::Extreme(Some(bytes.float()?)),
            Self::Moments => PartState::Moments(RunningMoments::decode(&mut bytes)?),
            Self::First | Self::Last => PartState::End(Some((bytes.fixed()?, bytes.float()?))),
            Self::Bins { .. } => PartState::Bins(QuantileSketch::decode(&mut bytes)?),
            Self::Distinct => PartState::Distinct(DistinctValues::decode(&mut bytes)?),
            Self::Top { counters } => PartState::Top(TopCounters::decode(&mut bytes, *counters)?),
            Self::Histogram { bounds } => {
                let counts = (0..=bounds.len()).map(|_| bytes.whole());
                PartState::Histogram(counts.collect::<Option<_>>()?)
            }
            Self::Hold { .. } => PartState::Hold(HoldIntegral::decode(&mut bytes)?),
        };
        bytes.is_empty().then_some(part)
    }

    /// Adds a reading that has the field, or needs none; the caller has refused values that the kind does not take.
    pub(super) fn add(&self, part: &mut PartState, time: Timestamp, value: &FieldValue<'_>) {
        match (self, part, value) {
            (_, PartState::Count(count), _) => *count = count.saturating_add(1),
            (_, PartState::Distinct(distinct), value) => distinct.add(distinct::hash(&json(value))),
            (Self::Top { counters }, PartState::Top(top), value) => top.add(*counters, &json(value)),
            (_, part, FieldValue::Number(value)) => self.add_number(part, time, *value),
            _ => {}
        }
    }

    fn add_number(&self, part: &mut PartState, time: Timestamp, value: f64) {
        match (self, part) {
            (_, PartState::Sum(sum)) => sum.add(value),
            (_, PartState::Moments(moments)) => moments.add(value),
            (_, PartState::Extreme(extreme)) => *extreme = self.more_extreme(*extreme, Some(value)),
            (_, PartState::End(end)) => *end = self.nearer_end(*end, Some((time.0, value))),
            (Self::Bins { scale, .. }, PartState::Bins(bins)) => bins.add(scale, value),
            (Self::Histogram { bounds }, PartState::Histogram(counts)) => {
                let at = bounds.partition_point(|bound| *bound < value);
                counts[at] = counts[at].saturating_add(1);
            }
            (Self::Hold { disorder }, PartState::Hold(hold)) => hold.add(*disorder, time.0, value),
            _ => {}
        }
    }

    /// Merges a part of later readings.
    pub(super) fn merge(&self, part: &mut PartState, later: &PartState) {
        match (part, later) {
            (PartState::Count(count), PartState::Count(later)) => *count = count.saturating_add(*later),
            (PartState::Sum(sum), PartState::Sum(later)) => sum.merge(later),
            (PartState::Moments(moments), PartState::Moments(later)) => moments.merge(later),
            (PartState::Extreme(extreme), PartState::Extreme(later)) => {
                *extreme = self.more_extreme(*extreme, *later)
            }
            (PartState::End(end), PartState::End(later)) => *end = self.nearer_end(*end, *later),
            (PartState::Bins(bins), PartState::Bins(later)) => bins.merge(later),
            (PartState::Distinct(distinct), PartState::Distinct(later)) => distinct.merge(later),
            (PartState::Top(top), PartState::Top(later)) => {
                let Self::Top { counters } = self else { return };
                top.merge(*counters, later);
            }
            (PartState::Histogram(counts), PartState::Histogram(later)) => {
                counts.iter_mut().zip(later).for_each(|(count, later)| *count = count.saturating_add(*later));
            }
            (PartState::Hold(hold), PartState::Hold(later)) => {
                let Self::Hold { disorder } = self else { return };
                hold.merge(*disorder, later);
            }
            _ => {}
        }
    }

    fn more_extreme(&self, a: Option<f64>, b: Option<f64>) -> Option<f64> {
        match (a, b) {
            (Some(a), Some(b)) if matches!(self, Self::Min) => Some(a.min(b)),
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// Returns the nearer of two ends. Of equal times the later arrival is the last one, and the earlier the first.
    fn nearer_end(&self, a: Option<(u64, f64)>, b: Option<(u64, f64)>) -> Option<(u64, f64)> {
        let (Some((before, _)), Some((time, _))) = (a, b) else { return a.or(b) };
        let nearer = if matches!(self, Self::First) { time < before } else { time >= before };
        if nearer { b } else { a }
    }
}

impl PartState {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Count(count) => *count == 0,
            Self::Sum(sum) => sum.is_empty(),
            Self::Extreme(extreme) => extreme.is_none(),
            Self::Moments(moments) => moments.is_empty(),
            Self::End(end) => end.is_none(),
            Self::Bins(bins) => bins.is_empty(),
            Self::Distinct(distinct) => distinct.is_empty(),
            Self::Top(top) => top.is_empty(),
            Self::Histogram(counts) => counts.iter().all(|count| *count == 0),
            Self::Hold(hold) => hold.is_empty(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(count) => put_whole(out, *count),
            Self::Sum(sum) => sum.encode(out),
            Self::Extreme(extreme) => extreme.iter().for_each(|value| put_float(out, *value)),
            Self::Moments(moments) => moments.encode(out),
            Self::End(end) => {
                let Some((time, value)) = end else { return };
                out.extend(time.to_le_bytes());
                put_float(out, *value);
            }
            Self::Bins(bins) => bins.encode(out),
            Self::Distinct(distinct) => distinct.encode(out),
            Self::Top(top) => top.encode(out),
            Self::Histogram(counts) => counts.iter().for_each(|count| put_whole(out, *count)),
            Self::Hold(hold) => hold.encode(out),
        }
    }
}

fn json(value: &FieldValue<'_>) -> Vec<u8> {
    let mut json = Vec::with_capacity(24);
    value.json(&mut json);
    json
}
