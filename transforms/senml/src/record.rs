//! A record, and what the base fields before it make of it: RFC 8428, section 4.

/// The length of the longest name, which is that of a key.
const NAME_BYTES_MAX: usize = 1024;
const UNIT_BYTES_MAX: usize = 64;
/// The version of RFC 8428.
const VERSION: f64 = 10.0;
/// The number of seconds below which a time is relative.
const ABSOLUTE: f64 = 268_435_456.0;

/// A record as it is written, or the base so far in the fields that begin with `b`.
#[derive(Clone, Debug, Default)]
pub(crate) struct SenmlRecord {
    pub(crate) version: Option<f64>,
    pub(crate) base_name: Option<String>,
    pub(crate) base_time: Option<f64>,
    pub(crate) base_unit: Option<String>,
    pub(crate) base_value: Option<f64>,
    pub(crate) base_sum: Option<f64>,
    pub(crate) name: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) value: Option<RecordValue>,
    pub(crate) sum: Option<f64>,
    pub(crate) time: Option<f64>,
    pub(crate) update_time: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RecordValue {
    Number(f64),
    Text(String),
    Flag(bool),
    /// Bytes as base64url.
    Data(String),
}

/// A record that stands for itself.
#[derive(Debug)]
pub(crate) struct ResolvedRecord {
    pub(crate) name: String,
    pub(crate) unit: Option<String>,
    pub(crate) value: Option<RecordValue>,
    pub(crate) sum: Option<f64>,
    /// The time in microseconds since 1970.
    pub(crate) time: u64,
    pub(crate) update_time: Option<f64>,
}

/// Resolves a record; `base` becomes that of the next record.
pub(crate) fn resolve(
    base: &mut SenmlRecord,
    record: SenmlRecord,
    now: u64,
) -> Result<ResolvedRecord, String> {
    take(&mut base.version, record.version);
    take(&mut base.base_name, record.base_name);
    take(&mut base.base_time, record.base_time);
    take(&mut base.base_unit, record.base_unit);
    take(&mut base.base_value, record.base_value);
    take(&mut base.base_sum, record.base_sum);
    if let Some(version) = base.version.filter(|version| *version > VERSION) {
        return Err(format!("version {version} is newer than {VERSION}"));
    }
    let value = match (record.value, base.base_value) {
        (Some(RecordValue::Number(number)), Some(base)) => Some(RecordValue::Number(finite(base + number)?)),
        (value, _) => value,
    };
    let sum = match (record.sum, base.base_sum) {
        (None, None) => None,
        (sum, base) => Some(finite(base.unwrap_or(0.0) + sum.unwrap_or(0.0))?),
    };
    if value.is_none() && sum.is_none() {
        return Err("it has neither a value nor a sum".to_owned());
    }
    let unit = record.unit.or_else(|| base.base_unit.clone());
    if let Some(bytes) = unit.as_ref().map(String::len).filter(|bytes| *bytes > UNIT_BYTES_MAX) {
        return Err(format!("its unit has {bytes} bytes, {UNIT_BYTES_MAX} are allowed"));
    }
    let name = name(base.base_name.as_deref().unwrap_or(""), record.name.as_deref().unwrap_or(""))?;
    let time = time(base.base_time.unwrap_or(0.0) + record.time.unwrap_or(0.0), now)?;
    Ok(ResolvedRecord { name, unit, value, sum, time, update_time: record.update_time })
}

fn take<T>(base: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *base = new;
    }
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("with its base a value becomes {number}")) }
}

fn name(base: &str, own: &str) -> Result<String, String> {
    let bytes = base.len() + own.len();
    if bytes > NAME_BYTES_MAX {
        return Err(format!("its name has {bytes} bytes, {NAME_BYTES_MAX} are allowed"));
    }
    let name = format!("{base}{own}");
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
    match name.as_bytes() {
        [] => Err("it has no name".to_owned()),
        [first, rest @ ..] if first.is_ascii_alphanumeric() && rest.iter().all(|byte| allowed(*byte)) => {
            Ok(name)
        }
        _ => {
            Err(format!("the name {name:.80?} must be letters, digits and `-:./_`, a letter or digit first"))
        }
    }
}

fn time(seconds: f64, now: u64) -> Result<u64, String> {
    let micros = (seconds * 1e6).round();
    let micros = if seconds < ABSOLUTE { now as f64 + micros } else { micros };
    // Beyond the year 9999 the agent refuses it, in its own words.
    match (0.0..9e18).contains(&micros) {
        true => Ok(micros as u64),
        false => Err(format!("its time is {seconds} s")),
    }
}
