//! The results of functions, computed from the parts that they need.

use super::config::AggregateFunction;
use super::json::{number, whole};
use super::part::{PartKind, PartState};
use super::{bins::BinScale, config::ComputedMember};
use headwater_flow::Timestamp;

/// A member of the result, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct ResultMember {
    /// `"name":`.
    label: Vec<u8>,
    function: AggregateFunction,
    /// The positions of the parts; most functions need one.
    parts: Vec<usize>,
}

/// Returns the kinds of parts that a function needs.
pub(super) fn kinds(function: &AggregateFunction) -> Vec<PartKind> {
    match function {
        AggregateFunction::Count => vec![PartKind::Count],
        AggregateFunction::Sum | AggregateFunction::Mean => vec![PartKind::Sum],
        AggregateFunction::Min => vec![PartKind::Min],
        AggregateFunction::Max => vec![PartKind::Max],
        AggregateFunction::Variance
        | AggregateFunction::VarianceSample
        | AggregateFunction::Stddev
        | AggregateFunction::StddevSample => {
            vec![PartKind::Moments]
        }
        AggregateFunction::First => vec![PartKind::First],
        AggregateFunction::Last => vec![PartKind::Last],
        AggregateFunction::Delta | AggregateFunction::Rate => vec![PartKind::First, PartKind::Last],
        AggregateFunction::Quantile { error, .. } => {
            vec![PartKind::Bins { error: *error, scale: BinScale::new(*error) }]
        }
        AggregateFunction::Distinct => vec![PartKind::Distinct],
        AggregateFunction::Top { counters, .. } => vec![PartKind::Top { counters: *counters }],
        AggregateFunction::Histogram { bounds } => vec![PartKind::Histogram { bounds: bounds.clone() }],
        AggregateFunction::TimeMean { disorder } => vec![PartKind::Hold { disorder: *disorder }],
    }
}

impl ResultMember {
    pub(super) fn new(compute: &ComputedMember, parts: Vec<usize>) -> Self {
        let mut label = Vec::new();
        super::json::text(&mut label, &compute.name);
        label.push(b':');
        Self { label, function: compute.function.clone(), parts }
    }

    /// Appends name and value to the text.
    ///
    /// # Errors
    /// When the part was damaged and could be read nevertheless.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        kinds: &[PartKind],
        parts: &[PartState],
        end: Timestamp,
    ) -> Result<(), ()> {
        out.extend(&self.label);
        let part = |at: usize| &parts[self.parts[at]];
        match (&self.function, part(0)) {
            (AggregateFunction::Distinct, PartState::Distinct(distinct)) => whole(out, distinct.count()),
            (_, PartState::Count(count)) => whole(out, count),
            (AggregateFunction::Quantile { at, .. }, PartState::Bins(bins)) => {
                let PartKind::Bins { scale, .. } = &kinds[self.parts[0]] else { return Err(()) };
                object(out, at, |out, q| {
                    out.extend(percent(*q).bytes());
                    value(out, bins.quantile(scale, *q));
                });
            }
            (AggregateFunction::Top { k, counters }, PartState::Top(top)) => {
                let short = top.short(*counters);
                for (item, _) in top.first(*k) {
                    headwater_flow::json::check_json(item).map_err(drop)?;
                }
                list(out, top.first(*k), |out, (item, count)| {
                    out.extend(b"{\"value\":");
                    out.extend(item);
                    let most = count.saturating_add(short);
                    out.extend(format!(",\"count\":{count},\"count_max\":{most}}}").bytes());
                });
            }
            (AggregateFunction::Histogram { bounds }, PartState::Histogram(counts)) => {
                out.extend(b"{\"bounds\":");
                list(out, bounds, |out, bound| number(out, *bound));
                out.extend(b",\"counts\":");
                list(out, counts, whole);
                out.push(b'}');
            }
            (function, first) => {
                let second = self.parts.get(1).map(|at| &parts[*at]);
                value(out, scalar(function, first, second, end));
            }
        }
        Ok(())
    }
}

fn scalar(
    function: &AggregateFunction,
    part: &PartState,
    second: Option<&PartState>,
    end: Timestamp,
) -> Option<f64> {
    match (function, part, second) {
        (AggregateFunction::Sum, PartState::Sum(sum), _) => sum.sum(),
        (AggregateFunction::Mean, PartState::Sum(sum), _) => sum.mean(),
        (AggregateFunction::Variance, PartState::Moments(moments), _) => moments.variance(),
        (AggregateFunction::VarianceSample, PartState::Moments(moments), _) => moments.variance_sample(),
        (AggregateFunction::Stddev, PartState::Moments(moments), _) => moments.variance().map(f64::sqrt),
        (AggregateFunction::StddevSample, PartState::Moments(moments), _) => {
            moments.variance_sample().map(f64::sqrt)
        }
        (_, PartState::Extreme(extreme), _) => *extreme,
        (AggregateFunction::Delta, PartState::End(first), Some(PartState::End(last))) => {
            Some((*last)?.1 - (*first)?.1)
        }
        (AggregateFunction::Rate, PartState::End(first), Some(PartState::End(last))) => {
            rate((*first)?, (*last)?)
        }
        (_, PartState::End(end), _) => end.map(|(_, value)| value),
        (_, PartState::Hold(hold), _) => hold.mean(end.0),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn rate((from, first): (u64, f64), (to, last): (u64, f64)) -> Option<f64> {
    (to > from).then(|| (last - first) / ((to - from) as f64 / 1e6))
}

fn value(out: &mut Vec<u8>, value: Option<f64>) {
    // Adding 0 makes 0 of -0.
    number(out, value.unwrap_or(f64::NAN) + 0.0);
}

/// Returns Returns `"p99.9":` for 0.999.
fn percent(q: f64) -> String {
    format!("\"p{}\":", (q * 1e12).round() / 1e10)
}

fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    between(out, [b'[', b']'], items, write);
}

fn object<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    between(out, [b'{', b'}'], items, write);
}

fn between<T>(
    out: &mut Vec<u8>,
    [open, close]: [u8; 2],
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.push(open);
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(close);
}
