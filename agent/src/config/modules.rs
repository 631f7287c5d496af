//! `[modules]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::read::{Read, Section, duration, size, text, texts};
use super::secret;
use crate::module::{FetchConfig, HostConfig, PublicKey, ServerCredentials};

pub(super) fn section(mut section: Section<'_>, folder: &Path) -> HostConfig {
    let default = HostConfig::default();
    let config = HostConfig {
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
        fetch: section.optional_section("fetch").map_or(default.fetch, |section| fetch(section, folder)),
    };
    if section.has("keys") && config.keys.is_empty() {
        section.fault_at("keys", "holds no key", "name one, or take it out: then no signature is asked for");
    }
    section.finish();
    config
}

fn fetch(mut section: Section<'_>, folder: &Path) -> FetchConfig {
    let default = FetchConfig::default();
    let bytes = |max: u64| usize::try_from(max).unwrap_or(usize::MAX);
    let mut config = FetchConfig {
        deadline: section.or(
            "deadline",
            default.deadline,
            duration(Duration::from_secs(1), Duration::from_hours(1)),
        ),
        bytes_max: section.or("bytes_max", bytes(default.bytes_max), size(1 << 10, 256 << 20)) as u64,
        kept_bytes_max: section.or("kept_bytes_max", bytes(default.kept_bytes_max), size(1 << 20, 1 << 40))
            as u64,
        ca: section.optional("ca", text).map(|file| folder.join(file)),
        credentials: BTreeMap::new(),
    };
    for mut each in section.sections("credentials") {
        let host = each.required("host", text);
        let username = each.required("username", text);
        let password = each.section("password").and_then(|section| secret(section, folder));
        if host.as_ref().is_some_and(|host| host.contains('/')) {
            each.fault_at("host", "is no host", "write \"registry.example\" or \"registry.example:5000\"");
        }
        each.finish();
        if let (Some(host), Some(username), Some(password)) = (host, username, password) {
            config.credentials.insert(host, ServerCredentials { username, password });
        }
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
