//! Sparkplug B to one event a metric, with the names that its aliases stand for.
//!
//! It has no settings. The pipeline needs `format = "bytes"` and topics like `spBv1.0/#`, the step
//! `capabilities = ["state"]`; QoS 1 keeps messages in order.
//!
//! After a birth on `spBv1.0/plant/DBIRTH/edge/press` that names metric 7 `Temperature`, the data message on
//! `spBv1.0/plant/DDATA/edge/press` with metric 7 of 21.5 becomes the event of the key `plant/edge/press/Temperature`, at
//! the metric's time, `{"metric":"Temperature","value":21.5}`. A metric of a birth is an event too, with `"birth":true`; one that
//! is marked historical has `"historical":true`; where it is null or not a number, `value` is `null`.
//! Data sets, templates and extensions are left out. Of a death comes `{"alive":false}`, of a node's birth `{"alive":true}`,
//! with the key of the node or device.
//!
//! Refused is data without a birth before it or with an alias that it did not name, and what breaks the sequence: a message was
//! lost, and the names may not be what they were until the next birth of the node. `STATE` and commands are dropped.

mod node;
mod payload;

use headwater_module::{Event, ObjectWriter, Transform, export_transform, state};
use node::{AliasPages, KnownMetric, NodeState};
use payload::{EdgeMetric, EdgePayload};
use prost::Message;
use serde::Deserialize;

/// The transform, which has no settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparkplugDecoder {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    NodeBirth,
    DeviceBirth,
    Data,
    NodeDeath,
    DeviceDeath,
}

/// `spBv1.0/group/kind/node` or `spBv1.0/group/kind/node/device`.
#[derive(Debug)]
struct NodeAddress {
    kind: MessageKind,
    /// `group/node`: the name of the state.
    node: String,
    /// The same with the device, if there is one: the beginning of the events' keys.
    origin: String,
}

impl Transform for SparkplugDecoder {
    fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let Some(address) = address(&event.topic)? else { return Ok(Vec::new()) };
        let payload = EdgePayload::decode(event.payload.as_slice())
            .map_err(|error| format!("failed to read the payload as Sparkplug B: {error}"))?;
        let mut node: NodeState = state::get(&address.node)?.unwrap_or_default();
        if !expected(&mut node, address.kind, &payload)? {
            node.born = false;
            let expected = node.seq;
            state::set(&address.node, &node)?;
            let found = payload.seq.map_or("none".to_owned(), |seq| seq.to_string());
            return Err(format!(
                "the sequence number is {found}, not {expected}: a message was lost; its node has to give birth again"
            ));
        }
        let read = match address.kind == MessageKind::NodeDeath && payload.bd_seq() != node.bd_seq {
            // The will of a connection that another one has taken the place of.
            true => return Ok(Vec::new()),
            false => read(&event, &address, &node, payload),
        };
        // A birth that was only half read is none; data that cannot be used has still come.
        node.born &= read.is_ok() || !address.kind.births();
        state::set(&address.node, &node)?;
        read
    }
}
export_transform!(SparkplugDecoder);

/// Returns the events of a message that is the next one of its node.
fn read(
    event: &Event,
    address: &NodeAddress,
    node: &NodeState,
    payload: EdgePayload,
) -> Result<Vec<Event>, String> {
    let mut aliases = AliasPages::new(&address.node, node.birth);
    let mut events = Vec::with_capacity(payload.metrics.len() + 1);
    if let Some(alive) = address.kind.alive() {
        let mut object = ObjectWriter::new();
        object.value("alive", &alive)?;
        events.push(Event {
            topic: event.topic.clone(),
            key: address.origin.clone(),
            time: micros(payload.timestamp, event.time),
            payload: object.finish(),
        });
    }
    for metric in &payload.metrics {
        let known = known(metric, address.kind.births(), &mut aliases)?;
        // It counts a node's connections, and is no reading.
        if known.name != payload::BD_SEQ {
            events.extend(reading(event, address, metric, &known, payload.timestamp)?);
        }
    }
    if address.kind.births() {
        aliases.keep()?;
    }
    Ok(events)
}

impl MessageKind {
    fn births(self) -> bool {
        matches!(self, Self::NodeBirth | Self::DeviceBirth)
    }

    fn alive(self) -> Option<bool> {
        match self {
            Self::NodeBirth | Self::DeviceBirth => Some(true),
            Self::NodeDeath | Self::DeviceDeath => Some(false),
            Self::Data => None,
        }
    }
}

/// Reads the topic; `None` for what is no message of a node.
fn address(topic: &str) -> Result<Option<NodeAddress>, String> {
    let levels: Vec<&str> = topic.split('/').collect();
    let (group, kind, rest) = match levels.as_slice() {
        ["spBv1.0", "STATE", ..] | ["spBv1.0", _, "NCMD" | "DCMD", ..] => return Ok(None),
        ["spBv1.0", group, kind, rest @ ..] => (*group, *kind, rest),
        _ => return Err(format!("the topic {topic:.80?} is none of Sparkplug B: it begins with `spBv1.0/`")),
    };
    let (kind, node, device) = match (kind, rest) {
        ("NBIRTH", [node]) => (MessageKind::NodeBirth, node, None),
        ("NDATA", [node]) => (MessageKind::Data, node, None),
        ("NDEATH", [node]) => (MessageKind::NodeDeath, node, None),
        ("DBIRTH", [node, device]) => (MessageKind::DeviceBirth, node, Some(device)),
        ("DDATA", [node, device]) => (MessageKind::Data, node, Some(device)),
        ("DDEATH", [node, device]) => (MessageKind::DeviceDeath, node, Some(device)),
        _ => return Err(format!("the topic {topic:.80?} is none of Sparkplug B")),
    };
    let node = format!("{group}/{node}");
    let origin = device.map_or_else(|| node.clone(), |device| format!("{node}/{device}"));
    Ok(Some(NodeAddress { kind, node, origin }))
}

/// Returns true if the message is the next one of its node, which then goes on to the one after it.
fn expected(node: &mut NodeState, kind: MessageKind, payload: &EdgePayload) -> Result<bool, String> {
    let seq = payload.seq;
    match kind {
        // A birth begins a new sequence, most often at 0; a death is a will, and has no number of its own.
        MessageKind::NodeBirth => {
            let seq = seq.and_then(|seq| u8::try_from(seq).ok());
            let seq = seq.ok_or("a birth needs a sequence number from 0 to 255")?;
            let seq = seq.wrapping_add(1);
            *node = NodeState { birth: node.birth + 1, born: true, seq, bd_seq: payload.bd_seq() };
        }
        MessageKind::NodeDeath => node.born &= payload.bd_seq() != node.bd_seq,
        _ if !node.born => return Err("its node has not given birth, or a message was lost since".to_owned()),
        _ if seq != Some(u64::from(node.seq)) => return Ok(false),
        _ => node.seq = node.seq.wrapping_add(1),
    }
    Ok(true)
}

/// Returns the metric's name and type: a birth has both, and data may have no more than an alias.
fn known(metric: &EdgeMetric, births: bool, aliases: &mut AliasPages<'_>) -> Result<KnownMetric, String> {
    match (&metric.name, metric.alias) {
        (Some(name), alias) if !name.is_empty() => {
            let known = KnownMetric { name: name.clone(), datatype: metric.datatype.unwrap_or(0) };
            if let Some(alias) = alias.filter(|_| births) {
                aliases.insert(alias, known.clone())?;
            }
            Ok(known)
        }
        (_, Some(alias)) if !births => {
            let known = aliases.get(alias)?.ok_or_else(|| format!("the birth named no metric {alias}"))?;
            Ok(KnownMetric { datatype: metric.datatype.unwrap_or(known.datatype), ..known })
        }
        _ => Err("a metric has no name".to_owned()),
    }
}

fn reading(
    event: &Event,
    address: &NodeAddress,
    metric: &EdgeMetric,
    known: &KnownMetric,
    timestamp: Option<u64>,
) -> Result<Option<Event>, String> {
    let value = match &metric.value {
        Some(value) if metric.is_null != Some(true) => payload::json(value, known.datatype),
        _ => Some("null".to_owned()),
    };
    let Some(value) = value else { return Ok(None) };
    let mut object = ObjectWriter::new();
    object.value("metric", &known.name)?;
    object.raw("value", &value);
    if address.kind.births() {
        object.value("birth", &true)?;
    }
    if metric.is_historical == Some(true) {
        object.value("historical", &true)?;
    }
    let key = format!("{}/{}", address.origin, known.name);
    let time = micros(metric.timestamp.or(timestamp), event.time);
    Ok(Some(Event { topic: event.topic.clone(), key, time, payload: object.finish() }))
}

/// Returns the microseconds of a time in milliseconds; one beyond all calendars is the agent's to refuse.
fn micros(milliseconds: Option<u64>, otherwise: u64) -> u64 {
    milliseconds.map_or(otherwise, |milliseconds| milliseconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests;
