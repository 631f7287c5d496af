//! `aggregate = { module = … }` or `{ compute = [...] }`.

use std::path::Path;

use toml::de::DeValue;

use super::pipeline::module;
use super::read::{Item, Read, Section, integer, kind, text};
use crate::builtin::{
    AggregateFunction, BOUNDS_MAX, BuiltinConfig, COUNTERS_MAX, ComputedMember, DISORDER, DISORDER_MAX,
    QUANTILE_ERROR, counters,
};
use crate::pipeline::AggregateConfig;

/// Functions of one aggregate.
const COMPUTE_MAX: usize = 64;

/// Functions of a field, as they are written.
const FUNCTIONS: [&str; 18] = [
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "variance",
    "variance_sample",
    "stddev",
    "stddev_sample",
    "first",
    "last",
    "delta",
    "rate",
    "quantile",
    "distinct",
    "top",
    "histogram",
    "time_mean",
];

pub(super) fn section(section: Section<'_>, folder: &Path) -> Option<AggregateConfig> {
    match (section.has("module"), section.has("compute")) {
        (true, false) => module(section, folder).map(AggregateConfig::Module),
        (false, true) => compute(section).map(AggregateConfig::Builtin),
        (true, true) => {
            section.fault_at("compute", "stands beside `module`", "keep one of the two");
            None
        }
        (false, false) => {
            let remedy =
                "add `compute = [\"count\", { mean = \"temperature\" }]` or `module = \"stats.wasm\"`";
            section.fault("has neither `compute` nor `module`", remedy);
            None
        }
    }
}

fn compute(mut section: Section<'_>) -> Option<BuiltinConfig> {
    let items = section.items("compute");
    if items.len() > COMPUTE_MAX {
        let remedy = format!("{COMPUTE_MAX} are allowed: spread them over several pipelines");
        section.fault_at("compute", format!("holds {} functions", items.len()), remedy);
    }
    section.finish();
    let mut config = BuiltinConfig::default();
    let mut good = !items.is_empty();
    for item in items {
        let Some(compute) = function(&item) else {
            good = false;
            continue;
        };
        if config.compute.iter().any(|other| other.name == compute.name) {
            let message = format!("gives a second result `{}`", compute.name);
            item.fault(message, "give it another name: `as = \"...\"`");
        }
        config.compute.push(compute);
    }
    good.then_some(config)
}

fn function(item: &Item<'_>) -> Option<ComputedMember> {
    match item.value() {
        DeValue::String(name) if name == "count" => Some(ComputedMember::new(AggregateFunction::Count, None)),
        DeValue::String(name) if FUNCTIONS.contains(&name.as_ref()) => {
            item.fault(format!("is {name:?} of no field"), format!("write {{ {name} = \"FIELD\" }}"));
            None
        }
        DeValue::String(name) => {
            item.fault(format!("is {name:?}, and there is no such function"), known());
            None
        }
        _ => of_field(item.section()?),
    }
}

fn known() -> String {
    format!("write \"count\", or {{ FUNCTION = \"FIELD\" }} with one of: {}", FUNCTIONS.join(", "))
}

fn of_field(mut section: Section<'_>) -> Option<ComputedMember> {
    let mut named = FUNCTIONS.iter().copied().filter(|name| section.has(name));
    let (first, second) = (named.next(), named.next());
    let Some(name) = first else {
        section.fault("names no function", known());
        return None;
    };
    if let Some(second) = second {
        section.fault_at(second, format!("stands beside `{name}`"), "write each in a table of its own");
        return None;
    }
    let field = section.required(name, path);
    let function = parameters(name, &mut section);
    let renamed = section.optional("as", |value| {
        let name = text(value)?;
        let remedy = || "use up to 128 bytes".to_owned();
        if name.len() <= 128 { Ok(name) } else { Err(("is too long".into(), remedy())) }
    });
    section.finish();
    let mut compute = ComputedMember::new(function?, Some(field?));
    compute.name = renamed.unwrap_or(compute.name);
    Some(compute)
}

fn parameters(name: &str, section: &mut Section<'_>) -> Option<AggregateFunction> {
    let count = |from: usize, to: usize| {
        move |value: &DeValue<'_>| {
            integer(from as u64..=to as u64)(value).map(|count| usize::try_from(count).unwrap_or(to))
        }
    };
    Some(match name {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "mean" => AggregateFunction::Mean,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "variance" => AggregateFunction::Variance,
        "variance_sample" => AggregateFunction::VarianceSample,
        "stddev" => AggregateFunction::Stddev,
        "stddev_sample" => AggregateFunction::StddevSample,
        "first" => AggregateFunction::First,
        "last" => AggregateFunction::Last,
        "delta" => AggregateFunction::Delta,
        "rate" => AggregateFunction::Rate,
        "quantile" => {
            let at = section.required("at", quantiles);
            let error = section.or("error", QUANTILE_ERROR, |value| within(value, 0.001, 0.1));
            AggregateFunction::Quantile { at: at?, error }
        }
        "distinct" => AggregateFunction::Distinct,
        "top" => {
            let k = section.or("k", 10, count(1, 100));
            let counters = section.or("counters", counters(k), count(k, COUNTERS_MAX));
            AggregateFunction::Top { k, counters }
        }
        "histogram" => AggregateFunction::Histogram { bounds: section.required("bounds", bounds)? },
        _ => {
            AggregateFunction::TimeMean { disorder: section.or("disorder", DISORDER, count(0, DISORDER_MAX)) }
        }
    })
}

/// A path into the payload, its names joined by dots.
fn path(value: &DeValue<'_>) -> Read<Vec<String>> {
    let path: Vec<String> = text(value)?.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err(("has an empty name".into(), "write the names joined by dots: \"wind.speed\"".into()));
    }
    Ok(path)
}

fn quantiles(value: &DeValue<'_>) -> Read<Vec<f64>> {
    let remedy = || "write numbers from 0 to 1: [0.5, 0.99]".to_owned();
    let at = match value {
        DeValue::Array(_) => numbers(value, &remedy())?,
        one => vec![number(one).map_err(|(message, _)| (message, remedy()))?],
    };
    if let Some(wrong) = at.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        return Err((format!("holds {wrong}, which is no quantile"), remedy()));
    }
    for (index, q) in at.iter().enumerate() {
        if at[..index].contains(q) {
            return Err((format!("holds {q} twice"), "take one out".into()));
        }
    }
    Ok(at)
}

fn bounds(value: &DeValue<'_>) -> Read<Vec<f64>> {
    let remedy = format!("write up to {BOUNDS_MAX} numbers, each greater than the one before: [0, 10, 20.5]");
    let bounds = numbers(value, &remedy)?;
    if bounds.len() > BOUNDS_MAX {
        return Err((format!("holds {}", bounds.len()), remedy));
    }
    if !bounds.is_sorted_by(|a, b| a < b) {
        return Err(("does not ascend".into(), remedy));
    }
    Ok(bounds)
}

fn numbers(value: &DeValue<'_>, remedy: &str) -> Read<Vec<f64>> {
    let items = value.as_array().ok_or_else(|| (format!("is {}", kind(value)), remedy.to_owned()))?;
    if items.is_empty() {
        return Err(("is empty".into(), remedy.to_owned()));
    }
    let numbers = items.iter().map(|item| number(item.get_ref()));
    numbers.collect::<Read<Vec<f64>>>().map_err(|(message, _)| (message, remedy.to_owned()))
}

fn within(value: &DeValue<'_>, min: f64, max: f64) -> Read<f64> {
    let (number, remedy) = (number(value)?, format!("write a number from {min} to {max}"));
    if (min..=max).contains(&number) { Ok(number) } else { Err((format!("is {number}"), remedy)) }
}

/// A finite number; -0 is 0.
fn number(value: &DeValue<'_>) -> Read<f64> {
    let text = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        DeValue::Float(float) => float.as_str(),
        other => return Err((format!("is or holds {}", kind(other)), "write a number".into())),
    };
    let number = text.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite());
    number
        .map(|number| number + 0.0)
        .ok_or_else(|| (format!("is or holds {text}"), "write a finite number".into()))
}
