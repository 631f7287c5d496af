//! `[input.NAME]`.

use std::path::Path;
use std::time::Duration;

use super::read::{Section, duration, integer, size, text, texts, word};
use super::{secret, tls};
use crate::input::mqtt::{Config, Version};

pub(super) fn section(mut section: Section<'_>, name: &str, agent: &str, folder: &Path) -> Option<Config> {
    let mqtt = section.section("mqtt");
    section.finish();
    mqtt_section(mqtt?, name, agent, folder)
}

fn mqtt_section(mut section: Section<'_>, name: &str, agent: &str, folder: &Path) -> Option<Config> {
    let address = section.required("url", |value| {
        let text = text(value)?;
        address(&text).ok_or_else(|| {
            (
                format!("is {text:?}"),
                "write \"mqtt://host:port\", \"mqtts://host:port\", \"ws://host:port/path\" or \
                 \"wss://host:port/path\"; user and password are keys of their own"
                    .into(),
            )
        })
    });
    let topics = section.required("topics", |value| {
        let topics = texts(value)?;
        match topics.iter().find_map(|topic| Some((topic, filter_fault(topic)?))) {
            Some((topic, fault)) => Err((format!("holds {topic:?}, which is no topic filter"), fault.into())),
            None => Ok(topics),
        }
    });
    let client_id = format!("headwater-{agent}-{name}");
    let mut config = Config::new("", &client_id, Vec::new());
    let qos = section.or("qos", 1, integer(0..=2));
    config.qos = u8::try_from(qos).unwrap_or(1);
    config.version =
        section.or("version", config.version, word(&[("3.1.1", Version::V311), ("5", Version::V5)]));
    config.client_id = section.or("client_id", config.client_id, text);
    config.username = section.optional("username", text);
    config.password = section.optional_section("password").and_then(|section| secret(section, folder));
    let tls = section.optional_section("tls").and_then(|section| tls(section, folder));
    if tls.is_some() && address.as_ref().is_some_and(|address| !address.secured) {
        section.fault_at("tls", "needs a url with TLS", "write mqtts:// or wss://, or remove it");
    }
    config.keep_alive = section.or(
        "keep_alive",
        config.keep_alive,
        duration(Duration::from_secs(5), Duration::from_mins(18)),
    );
    config.packet_bytes_max = section.or("packet_bytes_max", config.packet_bytes_max, size(1 << 10, 8 << 20));
    config.in_flight_bytes_max =
        section.or("in_flight_bytes_max", config.in_flight_bytes_max, size(64 << 10, 1 << 30));
    if config.packet_bytes_max > config.in_flight_bytes_max {
        section.fault_at(
            "packet_bytes_max",
            "is more than `in_flight_bytes_max`",
            "lower it, or raise the other",
        );
    }
    section.finish();
    let address = address?;
    (config.host, config.port, config.websocket) = (address.host, address.port, address.path);
    config.tls = address.secured.then(|| tls.unwrap_or_default());
    config.topics = topics?;
    Some(config)
}

/// A broker to listen to at QoS 0, in a session that ends with the connection.
///
/// # Errors
/// What is wrong with url or topics, and the remedy.
#[cfg(feature = "author")]
pub fn listener(url: &str, client_id: &str, topics: Vec<String>) -> Result<Config, String> {
    let address = address(url).ok_or_else(|| {
        format!(
            "{url:?} is no broker: write mqtt://host:port, mqtts://host:port, ws://host:port/path or wss://…"
        )
    })?;
    if let Some((topic, fault)) = topics.iter().find_map(|topic| Some((topic, filter_fault(topic)?))) {
        return Err(format!("{topic:?} is no topic filter: {fault}"));
    }
    let mut config = Config::new(&address.host, client_id, topics);
    (config.port, config.websocket) = (address.port, address.path);
    config.tls = address.secured.then(Default::default);
    (config.qos, config.session_expiry_secs) = (0, 0);
    Ok(config)
}

/// What a broker's url says.
struct Address {
    host: String,
    port: u16,
    secured: bool,
    /// For a WebSocket.
    path: Option<String>,
}

fn address(text: &str) -> Option<Address> {
    let url = url::Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|host| !host.is_empty() && plain)?;
    let (secured, websocket, port) = match url.scheme() {
        "mqtt" => (false, false, 1883),
        "mqtts" => (true, false, 8883),
        "ws" => (false, true, 80),
        "wss" => (true, true, 443),
        _ => return None,
    };
    let bare = matches!(url.path(), "" | "/") && url.query().is_none();
    if !websocket && !bare {
        return None;
    }
    let path = websocket.then(|| url[url::Position::BeforePath..].to_owned());
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Address { host, port: url.port().unwrap_or(port), secured, path })
}

/// Why it is no topic filter (MQTT 3.1.1, section 4.7.1).
fn filter_fault(filter: &str) -> Option<&'static str> {
    if filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return Some("use at most 65,535 bytes and no NUL");
    }
    let filter = match filter.strip_prefix("$share/").map(|shared| shared.split_once('/')) {
        None => filter,
        Some(Some((group, filter)))
            if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() =>
        {
            filter
        }
        Some(_) => return Some("a shared subscription is written $share/<group>/<filter>"),
    };
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    for (index, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || index != last) {
            return Some("`#` stands alone, as the last level");
        }
        if level.contains('+') && *level != "+" {
            return Some("`+` stands alone in its level");
        }
    }
    None
}
