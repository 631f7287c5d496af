//! The two ways a pack is written: RFC 8428, sections 5 and 6.

use crate::record::{RecordValue, SenmlRecord};
use ciborium::Value as Cbor;
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde_json::Value as Json;

/// A field's content, in JSON and CBOR alike.
enum FieldItem {
    Number(f64),
    Text(String),
    Flag(bool),
    Data(Vec<u8>),
    Other,
}

/// The labels of CBOR, and their names in JSON.
const LABELS: [(i64, &str); 15] = [
    (-6, "bs"),
    (-5, "bv"),
    (-4, "bu"),
    (-3, "bt"),
    (-2, "bn"),
    (-1, "bver"),
    (0, "n"),
    (1, "u"),
    (2, "v"),
    (3, "vs"),
    (4, "vb"),
    (5, "s"),
    (6, "t"),
    (7, "ut"),
    (8, "vd"),
];

/// Reads a pack. One in JSON begins with `[`, which none in CBOR does.
pub(crate) fn read(payload: &[u8]) -> Result<Vec<SenmlRecord>, String> {
    let records = match payload.trim_ascii_start() {
        [b'[', ..] => json(payload)?,
        _ => cbor(payload)?,
    };
    match records.is_empty() {
        true => Err("the pack has no records".to_owned()),
        false => Ok(records),
    }
}

fn json(payload: &[u8]) -> Result<Vec<SenmlRecord>, String> {
    let pack: Vec<serde_json::Map<String, Json>> = serde_json::from_slice(payload)
        .map_err(|error| format!("failed to read the payload as SenML in JSON: {error}"))?;
    let items = pack.into_iter().map(|fields| {
        let item = |item| match item {
            Json::Number(number) => number.as_f64().map_or(FieldItem::Other, FieldItem::Number),
            Json::String(text) => FieldItem::Text(text),
            Json::Bool(flag) => FieldItem::Flag(flag),
            _ => FieldItem::Other,
        };
        fields.into_iter().map(move |(name, value)| Ok((name, item(value))))
    });
    records(items)
}

fn cbor(payload: &[u8]) -> Result<Vec<SenmlRecord>, String> {
    let fault = |what: String| format!("failed to read the payload as SenML in CBOR: {what}");
    let mut rest = payload;
    let pack: Cbor = ciborium::from_reader(&mut rest).map_err(|error| fault(error.to_string()))?;
    if !rest.is_empty() {
        return Err(fault(format!("{} bytes too many", rest.len())));
    }
    let pack = pack.into_array().map_err(|_| fault("it is no array".to_owned()))?;
    let maps: Result<Vec<_>, _> = pack.into_iter().map(Cbor::into_map).collect();
    let maps = maps.map_err(|_| fault("a record is no map".to_owned()))?;
    records(
        maps.into_iter()
            .map(|fields| fields.into_iter().map(|(label, value)| Ok((name(label)?, item(value))))),
    )
}

fn name(label: Cbor) -> Result<String, String> {
    match label {
        Cbor::Text(name) => Ok(name),
        Cbor::Integer(number) => {
            let known = LABELS.iter().find(|(label, _)| i128::from(number) == i128::from(*label));
            Ok(known.map_or_else(|| i128::from(number).to_string(), |(_, name)| (*name).to_owned()))
        }
        _ => Err("a field's label is neither a number nor a text".to_owned()),
    }
}

fn item(value: Cbor) -> FieldItem {
    match value {
        Cbor::Integer(number) => FieldItem::Number(i128::from(number) as f64),
        Cbor::Float(number) => FieldItem::Number(number),
        Cbor::Text(text) => FieldItem::Text(text),
        Cbor::Bool(flag) => FieldItem::Flag(flag),
        Cbor::Bytes(bytes) => FieldItem::Data(bytes),
        Cbor::Tag(4, inner) => decimal(&inner).map_or(FieldItem::Other, FieldItem::Number),
        _ => FieldItem::Other,
    }
}

/// Returns a decimal fraction, RFC 8949, 3.4.4: `[exponent, mantissa]`. It is read as text, so that 273.15 is 273.15.
fn decimal(inner: &Cbor) -> Option<f64> {
    match inner.as_array()?.as_slice() {
        [Cbor::Integer(exponent), Cbor::Integer(mantissa)] => {
            format!("{}e{}", i128::from(*mantissa), i128::from(*exponent)).parse().ok()
        }
        _ => None,
    }
}

fn records<R>(pack: impl Iterator<Item = R>) -> Result<Vec<SenmlRecord>, String>
where
    R: Iterator<Item = Result<(String, FieldItem), String>>,
{
    let record = |(index, fields): (usize, R)| {
        let mut record = SenmlRecord::default();
        for field in fields {
            field
                .and_then(|(name, item)| set(&mut record, &name, item))
                .map_err(|reason| format!("record {index}: {reason}"))?;
        }
        Ok(record)
    };
    pack.enumerate().map(record).collect()
}

fn set(record: &mut SenmlRecord, name: &str, item: FieldItem) -> Result<(), String> {
    match name {
        "bver" => record.version = Some(number(name, item)?),
        "bn" => record.base_name = Some(text(name, item)?),
        "bt" => record.base_time = Some(number(name, item)?),
        "bu" => record.base_unit = Some(text(name, item)?),
        "bv" => record.base_value = Some(number(name, item)?),
        "bs" => record.base_sum = Some(number(name, item)?),
        "n" => record.name = Some(text(name, item)?),
        "u" => record.unit = Some(text(name, item)?),
        "s" => record.sum = Some(number(name, item)?),
        "t" => record.time = Some(number(name, item)?),
        "ut" => record.update_time = Some(number(name, item)?),
        "v" | "vs" | "vb" | "vd" => {
            let earlier = record.value.replace(value(name, item)?);
            if earlier.is_some() {
                return Err("it has more than one value".to_owned());
            }
        }
        must if must.ends_with('_') => {
            return Err(format!("field {must:.40?} must be understood, and is not"));
        }
        _ => {}
    }
    Ok(())
}

fn value(name: &str, item: FieldItem) -> Result<RecordValue, String> {
    match (name, item) {
        ("v", item) => number(name, item).map(RecordValue::Number),
        ("vs", item) => text(name, item).map(RecordValue::Text),
        ("vb", FieldItem::Flag(flag)) => Ok(RecordValue::Flag(flag)),
        ("vd", FieldItem::Data(bytes)) => Ok(RecordValue::Data(BASE64URL_NOPAD.encode(&bytes))),
        ("vd", FieldItem::Text(text)) => {
            let bytes =
                BASE64URL_NOPAD.decode(text.as_bytes()).or_else(|_| BASE64URL.decode(text.as_bytes()));
            let bytes = bytes.map_err(|error| format!("field `vd` is no base64url: {error}"))?;
            Ok(RecordValue::Data(BASE64URL_NOPAD.encode(&bytes)))
        }
        _ => Err(format!("field `{name}` is of another type than it has to be")),
    }
}

fn number(name: &str, item: FieldItem) -> Result<f64, String> {
    match item {
        FieldItem::Number(number) if number.is_finite() => Ok(number),
        _ => Err(format!("field `{name}` is no number")),
    }
}

fn text(name: &str, item: FieldItem) -> Result<String, String> {
    match item {
        FieldItem::Text(text) => Ok(text),
        _ => Err(format!("field `{name}` is no text")),
    }
}
