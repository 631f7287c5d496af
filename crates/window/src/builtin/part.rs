//! One part of a state: what a function, or several that need the same, keep of a field.

use super::bins::{Bins, Scale};
use super::bytes::{Bytes, put_float, put_whole};
use super::distinct::{self, Distinct};
use super::hold::Hold;
use super::reading::{Takes, Value};
use super::sums::{Moments, Sum};
use super::top::Top;
use headwater_flow::Timestamp;

/// What is kept, and the parameters that it depends on.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Count,
    Sum,
    Min,
    Max,
    Moments,
    First,
    Last,
    Bins { error: f64, scale: Scale },
    Distinct,
    Top { counters: usize },
    Histogram { bounds: Vec<f64> },
    Hold { disorder: usize },
}

/// What is kept of the readings.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Count(u64),
    Sum(Sum),
    /// Least, greatest.
    Extreme(Option<f64>),
    Moments(Moments),
    /// First, last.
    End(Option<(u64, f64)>),
    Bins(Bins),
    Distinct(Distinct),
    Top(Top),
    Histogram(Vec<u64>),
    Hold(Hold),
}

impl Kind {
    /// What makes its bytes mean what they mean, as text.
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

    pub(super) fn takes(&self) -> Takes {
        match self {
            Self::Count => Takes::Anything,
            Self::Distinct => Takes::Scalars,
            Self::Top { .. } => Takes::Short,
            _ => Takes::Numbers,
        }
    }

    /// Of no readings: the neutral element.
    pub(super) fn empty(&self) -> Part {
        match self {
            Self::Count => Part::Count(0),
            Self::Sum => Part::Sum(Sum::default()),
            Self::Min | Self::Max => Part::Extreme(None),
            Self::Moments => Part::Moments(Moments::default()),
            Self::First | Self::Last => Part::End(None),
            Self::Bins { .. } => Part::Bins(Bins::default()),
            Self::Distinct => Part::Distinct(Distinct::default()),
            Self::Top { .. } => Part::Top(Top::default()),
            Self::Histogram { bounds } => Part::Histogram(vec![0; bounds.len() + 1]),
            Self::Hold { .. } => Part::Hold(Hold::default()),
        }
    }

    /// All of the bytes; `None` if they are not of this kind.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Part> {
        let mut bytes = Bytes(bytes);
        let part = match self {
            Self::Count => Part::Count(bytes.whole()?),
            Self::Sum => Part::Sum(Sum::decode(&mut bytes)?),
            Self::Min | Self::Max => Part::Extreme(Some(bytes.float()?)),
            Self::Moments => Part::Moments(Moments::decode(&mut bytes)?),
            Self::First | Self::Last => Part::End(Some((bytes.fixed()?, bytes.float()?))),
            Self::Bins { .. } => Part::Bins(Bins::decode(&mut bytes)?),
            Self::Distinct => Part::Distinct(Distinct::decode(&mut bytes)?),
            Self::Top { counters } => Part::Top(Top::decode(&mut bytes, *counters)?),
            Self::Histogram { bounds } => {
                let counts = (0..=bounds.len()).map(|_| bytes.whole());
                Part::Histogram(counts.collect::<Option<_>>()?)
            }
            Self::Hold { .. } => Part::Hold(Hold::decode(&mut bytes)?),
        };
        bytes.is_empty().then_some(part)
    }

    /// One more reading, which has the field or needs none; what the kind does not take is not given.
    pub(super) fn add(&self, part: &mut Part, time: Timestamp, value: &Value<'_>) {
        match (self, part, value) {
            (_, Part::Count(count), _) => *count = count.saturating_add(1),
            (_, Part::Distinct(distinct), value) => distinct.add(distinct::hash(&json(value))),
            (Self::Top { counters }, Part::Top(top), value) => top.add(*counters, &json(value)),
            (_, part, Value::Number(value)) => self.add_number(part, time, *value),
            _ => {}
        }
    }

    fn add_number(&self, part: &mut Part, time: Timestamp, value: f64) {
        match (self, part) {
            (_, Part::Sum(sum)) => sum.add(value),
            (_, Part::Moments(moments)) => moments.add(value),
            (_, Part::Extreme(extreme)) => *extreme = self.more_extreme(*extreme, Some(value)),
            (_, Part::End(end)) => *end = self.nearer_end(*end, Some((time.0, value))),
            (Self::Bins { scale, .. }, Part::Bins(bins)) => bins.add(scale, value),
            (Self::Histogram { bounds }, Part::Histogram(counts)) => {
                let at = bounds.partition_point(|bound| *bound < value);
                counts[at] = counts[at].saturating_add(1);
            }
            (Self::Hold { disorder }, Part::Hold(hold)) => hold.add(*disorder, time.0, value),
            _ => {}
        }
    }

    /// What came later, put to it.
    pub(super) fn merge(&self, part: &mut Part, later: &Part) {
        match (part, later) {
            (Part::Count(count), Part::Count(later)) => *count = count.saturating_add(*later),
            (Part::Sum(sum), Part::Sum(later)) => sum.merge(later),
            (Part::Moments(moments), Part::Moments(later)) => moments.merge(later),
            (Part::Extreme(extreme), Part::Extreme(later)) => *extreme = self.more_extreme(*extreme, *later),
            (Part::End(end), Part::End(later)) => *end = self.nearer_end(*end, *later),
            (Part::Bins(bins), Part::Bins(later)) => bins.merge(later),
            (Part::Distinct(distinct), Part::Distinct(later)) => distinct.merge(later),
            (Part::Top(top), Part::Top(later)) => {
                let Self::Top { counters } = self else { return };
                top.merge(*counters, later);
            }
            (Part::Histogram(counts), Part::Histogram(later)) => {
                counts.iter_mut().zip(later).for_each(|(count, later)| *count = count.saturating_add(*later));
            }
            (Part::Hold(hold), Part::Hold(later)) => {
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

    /// Of equal times the later arrival is the last one and the earlier the first.
    fn nearer_end(&self, a: Option<(u64, f64)>, b: Option<(u64, f64)>) -> Option<(u64, f64)> {
        let (Some((before, _)), Some((time, _))) = (a, b) else { return a.or(b) };
        let nearer = if matches!(self, Self::First) { time < before } else { time >= before };
        if nearer { b } else { a }
    }
}

impl Part {
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

fn json(value: &Value<'_>) -> Vec<u8> {
    let mut json = Vec::with_capacity(24);
    value.json(&mut json);
    json
}
