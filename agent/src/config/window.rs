//! `window = { … }`.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::read::{Section, duration, integer, size, text, word};
use crate::window::{
    CountWindow, DayWindow, HoppingWindow, KEYS_MAX, SessionWindow, SlidingWindow, TumblingWindow,
    WhenKeysFull, WindowConfig, WindowKind,
};

const DAY: Duration = Duration::from_hours(24);
/// The longest window.
const LONGEST: Duration = Duration::from_hours(366 * 24);
/// Windows that one reading may be in, and panes of a window.
const OVERLAPS_MAX: u128 = 1_440;
const PANES_MAX: u128 = 10_000;
/// Readings of a count window.
const COUNT_MAX: u64 = 1_000_000;

/// Reads the options of one kind.
type KindReader = fn(&mut Section<'_>) -> Option<WindowKind>;
/// The kinds, each by the option that names it.
const KINDS: [(&str, KindReader); 5] = [
    ("tumbling", tumbling),
    ("hopping", hopping),
    ("sliding", sliding),
    ("session", session),
    ("count", count),
];
/// The options that belong to some kinds only.
const OF_SOME: [(&str, &[&str]); 9] = [
    ("offset", &["tumbling", "hopping"]),
    ("zone", &["tumbling"]),
    ("slide", &["hopping", "count"]),
    ("longest", &["session"]),
    ("revise", &["tumbling", "hopping", "session"]),
    ("early", &["tumbling", "session"]),
    ("readings_max", &["tumbling"]),
    ("bytes_max", &["tumbling"]),
    ("forget", &["count"]),
];

pub(super) fn section(mut section: Section<'_>) -> Option<WindowConfig> {
    let mut named = KINDS.into_iter().filter(|(name, _)| section.has(name));
    let first = named.next();
    let second = named.next();
    let Some((name, read)) = first else {
        let others: Vec<_> = KINDS[1..].iter().map(|(name, _)| *name).collect();
        let remedy = format!("add `tumbling = \"1m\"`, or one of {}", others.join(", "));
        section.fault("names no kind of window", remedy);
        return None;
    };
    if let Some((second, _)) = second {
        section.fault_at(
            second,
            format!("stands beside `{name}`"),
            "keep one: a pipeline has one kind of window",
        );
        return None;
    }
    for (option, kinds) in OF_SOME {
        if section.has(option) && !kinds.contains(&name) {
            section.fault_at(
                option,
                format!("is not for `{name}` windows"),
                format!("it is for: {}", kinds.join(", ")),
            );
            return None;
        }
    }
    let kind = read(&mut section);
    let span = || duration(Duration::ZERO, LONGEST);
    let config = WindowConfig {
        lateness: section.or("lateness", Duration::ZERO, span()),
        idle: section.optional("idle", duration(Duration::from_millis(100), LONGEST)),
        revise: section.or("revise", Duration::ZERO, span()),
        patience: patience(&mut section),
        early: section.optional("early", duration(Duration::from_millis(1), LONGEST)),
        readings_max: section.or("readings_max", u64::MAX, integer(1..=u64::MAX)),
        bytes_max: section
            .optional("bytes_max", size(1 << 10, 1 << 40))
            .map_or(u64::MAX, |bytes| bytes as u64),
        forget: section.optional("forget", duration(Duration::from_secs(1), LONGEST)),
        keys_max: section.or("keys_max", KEYS_MAX as u64, integer(1..=10_000_000)) as usize,
        when_keys_full: section.or(
            "when_keys_full",
            WhenKeysFull::default(),
            word(&[("reject", WhenKeysFull::Reject), ("overflow", WhenKeysFull::Overflow)]),
        ),
        // Replaced, or there was a fault.
        ..WindowConfig::new(WindowKind::Sliding(SlidingWindow { size: DAY }))
    };
    section.finish();
    Some(WindowConfig { kind: kind?, ..config })
}

fn length(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    section.required(key, duration(Duration::from_millis(1), LONGEST))
}

fn tumbling(section: &mut Section<'_>) -> Option<WindowKind> {
    let size = length(section, "tumbling")?;
    if !section.has("zone") {
        return Some(WindowKind::Tumbling(TumblingWindow { size, offset: offset(section, size)? }));
    }
    let zone = section.required("zone", |value| {
        let name = text(value)?;
        TimeZone::get(&name).map_err(|_| {
            (
                format!("is {name:?}, which is no time zone"),
                "write one such as \"Europe/Berlin\" or \"UTC\"".into(),
            )
        })
    })?;
    if size != DAY {
        section.fault_at(
            "zone",
            "is for calendar days only",
            "write `tumbling = \"24h\"`, or take out `zone`",
        );
        return None;
    }
    if section.has("offset") {
        section.fault_at("offset", "stands beside `zone`", "keep one: calendar days begin at midnight");
        return None;
    }
    Some(WindowKind::Day(DayWindow { zone }))
}

fn offset(section: &mut Section<'_>, below: Duration) -> Option<Duration> {
    let offset = section.or("offset", Duration::ZERO, duration(Duration::ZERO, LONGEST));
    if offset < below {
        return Some(offset);
    }
    section.fault_at(
        "offset",
        "is no shorter than what it moves",
        "write what is left of it after whole windows",
    );
    None
}

fn hopping(section: &mut Section<'_>) -> Option<WindowKind> {
    let size = length(section, "hopping")?;
    let slide = length(section, "slide")?;
    let panes = size.as_micros() / gcd(size.as_micros(), slide.as_micros());
    if slide > size {
        section.fault_at("slide", "is longer than the window", "a slide is at most as long as the window");
        return None;
    }
    if size.as_micros() / slide.as_micros() > OVERLAPS_MAX || panes > PANES_MAX {
        let message = format!(
            "makes {} windows of each reading, out of {panes} panes",
            size.as_micros().div_ceil(slide.as_micros())
        );
        let remedy = format!(
            "up to {OVERLAPS_MAX} windows and {PANES_MAX} panes: choose a slide that divides the window"
        );
        section.fault_at("slide", message, remedy);
        return None;
    }
    Some(WindowKind::Hopping(HoppingWindow { size, slide, offset: offset(section, slide)? }))
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn sliding(section: &mut Section<'_>) -> Option<WindowKind> {
    let size = length(section, "sliding")?;
    Some(WindowKind::Sliding(SlidingWindow { size }))
}

fn session(section: &mut Section<'_>) -> Option<WindowKind> {
    let gap = length(section, "session")?;
    let longest = section.optional("longest", duration(Duration::from_millis(1), LONGEST));
    if longest.is_some_and(|longest| longest < gap) {
        section.fault_at("longest", "is shorter than the gap", "make it at least as long as `session`");
        return None;
    }
    Some(WindowKind::Session(SessionWindow { gap, longest }))
}

fn count(section: &mut Section<'_>) -> Option<WindowKind> {
    let size = section.required("count", integer(1..=COUNT_MAX))?;
    let slide = section.or("slide", size, integer(1..=COUNT_MAX));
    if slide > size {
        section.fault_at("slide", "is more than the window", "a slide is at most `count`");
        return None;
    }
    Some(WindowKind::Count(CountWindow { size, slide }))
}

/// Reads the time by which a key may be behind, where each key has a watermark of its own.
fn patience(section: &mut Section<'_>) -> Option<Duration> {
    let of_keys = section.or("watermark", false, word(&[("pipeline", false), ("key", true)]));
    let patience = section.optional("patience", duration(Duration::ZERO, LONGEST));
    match (of_keys, patience) {
        (true, None) => section.fault_at(
            "watermark",
            "is \"key\", and nothing says when a silent key's windows close",
            "add `patience = \"24h\"`: how far a key may be behind the others",
        ),
        (false, Some(_)) => {
            section.fault_at("patience", "is for `watermark = \"key\"`", "add that, or take it out")
        }
        _ => {}
    }
    patience
}

#[cfg(test)]
mod tests;
