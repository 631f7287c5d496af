//! The protobuf messages of Sparkplug B (Eclipse Sparkplug 3.0, section 6.4), as far as they are read: a field that
//! is not here is skipped.

/// The metric that counts a node's connections.
pub(crate) const BD_SEQ: &str = "bdSeq";

/// The message of an edge node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EdgePayload {
    /// Milliseconds since 1970.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) metrics: Vec<EdgeMetric>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) seq: Option<u64>,
}

impl EdgePayload {
    /// Returns the number of its node's connection, which is in a birth and a death.
    pub(crate) fn bd_seq(&self) -> Option<u64> {
        let metric = self.metrics.iter().find(|metric| metric.name.as_deref() == Some(BD_SEQ))?;
        match metric.value {
            Some(MetricValue::Int(number)) => Some(u64::from(number)),
            Some(MetricValue::Long(number)) => Some(number),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EdgeMetric {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) datatype: Option<u32>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) is_historical: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) is_null: Option<bool>,
    #[prost(oneof = "MetricValue", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub(crate) value: Option<MetricValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum MetricValue {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Flag(bool),
    #[prost(string, tag = "15")]
    Text(String),
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
    #[prost(bytes = "vec", tag = "17")]
    DataSet(Vec<u8>),
    #[prost(bytes = "vec", tag = "18")]
    Template(Vec<u8>),
    #[prost(bytes = "vec", tag = "19")]
    Extension(Vec<u8>),
}

/// Returns a value as JSON: signed types are sent as their two's complement, and narrower ones may be sent as wider.
/// `None` where there is none, or it is of a kind that is not read.
pub(crate) fn json(value: &MetricValue, datatype: u32) -> Option<String> {
    let signed = |bits: u64| match datatype {
        1 => i64::from(bits as i8),
        2 => i64::from(bits as i16),
        3 => i64::from(bits as i32),
        _ => bits as i64,
    };
    Some(match value {
        MetricValue::Int(bits) if matches!(datatype, 1..=3) => signed(u64::from(*bits)).to_string(),
        MetricValue::Int(number) => number.to_string(),
        MetricValue::Long(bits) if matches!(datatype, 1..=4) => signed(*bits).to_string(),
        MetricValue::Long(number) => number.to_string(),
        MetricValue::Float(number) if number.is_finite() => format!("{number:?}"),
        MetricValue::Double(number) if number.is_finite() => format!("{number:?}"),
        MetricValue::Float(_) | MetricValue::Double(_) => "null".to_owned(),
        MetricValue::Flag(flag) => flag.to_string(),
        MetricValue::Text(text) => return quoted(text),
        MetricValue::Bytes(bytes) => return quoted(&data_encoding::BASE64URL_NOPAD.encode(bytes)),
        MetricValue::DataSet(_) | MetricValue::Template(_) | MetricValue::Extension(_) => return None,
    })
}

fn quoted(text: &str) -> Option<String> {
    serde_json::to_string(text).ok()
}
