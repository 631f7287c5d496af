//! `[modules]`.

use std::time::Duration;

use toml::de::DeValue;

use super::read::{Read, Section, duration, size, texts};
use crate::module::{Config, PublicKey};

pub(super) fn section(mut section: Section<'_>) -> Config {
    let default = Config::default();
    let config = Config {
        keys: section.or("keys", default.keys, keys),
        compile_deadline: section.or(
            "compile_deadline",
            default.compile_deadline,
            duration(Duration::from_secs(1), Duration::from_hours(1)),
        ),
        compile_memory_max: section.or(
            "compile_memory_max",
            default.compile_memory_max,
            size(64 << 20, 64 << 30),
        ),
    };
    if section.has("keys") && config.keys.is_empty() {
        section.fault_at("keys", "holds no key", "name one, or take it out: then no signature is asked for");
    }
    section.finish();
    config
}

fn keys(value: &DeValue<'_>) -> Read<Vec<PublicKey>> {
    let parse = |text: String| {
        text.parse().map_err(|remedy: &str| (format!("holds {text:?}, which is no key"), remedy.into()))
    };
    texts(value)?.into_iter().map(parse).collect()
}
