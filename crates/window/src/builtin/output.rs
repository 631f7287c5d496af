//! What a function says of the parts that it needs.

use super::config::Function;
use super::json::{number, whole};
use super::part::{Kind, Part};
use super::{bins::Scale, config::Compute};
use headwater_flow::Timestamp;

/// One member of the result.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// `"name":`.
    label: Vec<u8>,
    function: Function,
    /// Places of the parts; most functions need one.
    parts: Vec<usize>,
}

/// The kinds of parts that a function needs.
pub(super) fn kinds(function: &Function) -> Vec<Kind> {
    match function {
        Function::Count => vec![Kind::Count],
        Function::Sum | Function::Mean => vec![Kind::Sum],
        Function::Min => vec![Kind::Min],
        Function::Max => vec![Kind::Max],
        Function::Variance | Function::VarianceSample | Function::Stddev | Function::StddevSample => {
            vec![Kind::Moments]
        }
        Function::First => vec![Kind::First],
        Function::Last => vec![Kind::Last],
        Function::Delta | Function::Rate => vec![Kind::First, Kind::Last],
        Function::Quantile { error, .. } => vec![Kind::Bins { error: *error, scale: Scale::new(*error) }],
        Function::Distinct => vec![Kind::Distinct],
        Function::Top { counters, .. } => vec![Kind::Top { counters: *counters }],
        Function::Histogram { bounds } => vec![Kind::Histogram { bounds: bounds.clone() }],
        Function::TimeMean { disorder } => vec![Kind::Hold { disorder: *disorder }],
    }
}

impl Output {
    pub(super) fn new(compute: &Compute, parts: Vec<usize>) -> Self {
        let mut label = Vec::new();
        super::json::text(&mut label, &compute.name);
        label.push(b':');
        Self { label, function: compute.function.clone(), parts }
    }

    /// Adds name and value to the text.
    ///
    /// # Errors
    /// When the part was garbled and yet readable.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        kinds: &[Kind],
        parts: &[Part],
        end: Timestamp,
    ) -> Result<(), ()> {
        out.extend(&self.label);
        let part = |at: usize| &parts[self.parts[at]];
        match (&self.function, part(0)) {
            (Function::Distinct, Part::Distinct(distinct)) => whole(out, distinct.count()),
            (_, Part::Count(count)) => whole(out, count),
            (Function::Quantile { at, .. }, Part::Bins(bins)) => {
                let Kind::Bins { scale, .. } = &kinds[self.parts[0]] else { return Err(()) };
                object(out, at, |out, q| {
                    out.extend(percent(*q).bytes());
                    value(out, bins.quantile(scale, *q));
                });
            }
            (Function::Top { k, counters }, Part::Top(top)) => {
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
            (Function::Histogram { bounds }, Part::Histogram(counts)) => {
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

fn scalar(function: &Function, part: &Part, second: Option<&Part>, end: Timestamp) -> Option<f64> {
    match (function, part, second) {
        (Function::Sum, Part::Sum(sum), _) => sum.sum(),
        (Function::Mean, Part::Sum(sum), _) => sum.mean(),
        (Function::Variance, Part::Moments(moments), _) => moments.variance(),
        (Function::VarianceSample, Part::Moments(moments), _) => moments.variance_sample(),
        (Function::Stddev, Part::Moments(moments), _) => moments.variance().map(f64::sqrt),
        (Function::StddevSample, Part::Moments(moments), _) => moments.variance_sample().map(f64::sqrt),
        (_, Part::Extreme(extreme), _) => *extreme,
        (Function::Delta, Part::End(first), Some(Part::End(last))) => Some((*last)?.1 - (*first)?.1),
        (Function::Rate, Part::End(first), Some(Part::End(last))) => rate((*first)?, (*last)?),
        (_, Part::End(end), _) => end.map(|(_, value)| value),
        (_, Part::Hold(hold), _) => hold.mean(end.0),
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

/// `"p99.9":` for 0.999.
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
