//! `[output.NAME]`.

use std::path::Path;
use std::time::Duration;

use super::read::{Section, boolean, duration, integer, size, text, word};
use super::{quota, secret, tls};
use crate::output::{Compression, Config, Expect};
use crate::store::Quota;

pub(super) fn section(mut section: Section<'_>, folder: &Path) -> Option<Config> {
    let http = section.section("http");
    let outbox = section.optional_section("outbox").map(|section| quota(section, Quota::OUTBOX));
    let late = section.optional_section("late").map(|section| quota(section, Quota::LATE));
    section.finish();
    let config = http_section(http?, folder)?;
    Some(Config { outbox: outbox.unwrap_or(config.outbox), late: late.unwrap_or(config.late), ..config })
}

fn http_section(mut section: Section<'_>, folder: &Path) -> Option<Config> {
    let url = section.required("url", |value| {
        let text = text(value)?;
        url::Url::parse(&text)
            .map_err(|error| (format!("is {text:?}: {error}"), "write \"https://host/path\"".into()))
    });
    let second = Duration::from_secs(1);
    let mut config = Config::new(
        url.clone().unwrap_or_else(|| url::Url::parse("https://unknown.invalid/").expect("it is a URL")),
    );
    config.token = section.optional_section("token").and_then(|section| secret(section, folder));
    config.tls = section.optional_section("tls").and_then(|section| tls(section, folder));
    config.expect = section.or(
        "expect",
        config.expect,
        word(&[("receipt", Expect::Receipt), ("status", Expect::Status)]),
    );
    config.compression = section.or(
        "compression",
        config.compression,
        word(&[("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)]),
    );
    let results_max = section.or("results_max", config.results_max as u64, integer(1..=100_000));
    config.results_max = usize::try_from(results_max).unwrap_or(usize::MAX);
    config.bytes_max = section.or("bytes_max", config.bytes_max, size(4 << 10, 16 << 20));
    config.timeout = section.or("timeout", config.timeout, duration(second, Duration::from_hours(1)));
    config.connect_timeout =
        section.or("connect_timeout", config.connect_timeout, duration(second, Duration::from_hours(1)));
    config.read_timeout =
        section.or("read_timeout", config.read_timeout, duration(second, Duration::from_hours(1)));
    config.backoff_min = section.or(
        "backoff_min",
        config.backoff_min,
        duration(Duration::from_millis(10), Duration::from_hours(1)),
    );
    config.backoff_max = section.or(
        "backoff_max",
        config.backoff_max,
        duration(Duration::from_millis(10), Duration::from_hours(24)),
    );
    config.retry_after_max =
        section.or("retry_after_max", config.retry_after_max, duration(second, Duration::from_hours(24)));
    let failures = section.or("breaker_failures", config.breaker_failures.into(), integer(1..=1_000));
    config.breaker_failures = u32::try_from(failures).unwrap_or(u32::MAX);
    let in_row = section.or("refused_in_row_max", config.refused_in_row_max.into(), integer(1..=1_000_000));
    config.refused_in_row_max = u32::try_from(in_row).unwrap_or(u32::MAX);
    config.drain = section.or("drain", config.drain, duration(Duration::ZERO, Duration::from_mins(10)));
    config.linger = section.or("linger", config.linger, duration(Duration::ZERO, Duration::from_mins(10)));
    config.allow_plaintext = section.or("allow_plaintext", config.allow_plaintext, boolean);
    if url.is_some() {
        for fault in config.faults() {
            let (message, remedy) = fault.split_once(": ").unwrap_or((&fault, "correct it"));
            section.fault(format_args!("cannot be used: {message}"), remedy);
        }
    }
    section.finish();
    url.map(|_| config)
}
