//! The form in which a record is kept in an outbox.
//!
//! ```text
//! window    version, 1  kind, 1  agent, pipeline, key  start, end, part, revision  state      module
//!              1           1         texts                  varints                 1
//!           count, late, rejected  watermark?  value…
//!               varints              varint    the rest
//! event     version, 1  kind, 2  agent, pipeline, key  time    module  value…
//!              1           1         texts             varint          the rest
//! late      version, 1  kind, 3  agent, pipeline, topic, key  time    module  value…
//!              1           1         texts                    varint          the rest
//! report    version, 1  kind, 4  agent  pipeline?  time    loss  stage  count?, first?, last?, from?, to?  reason…
//!              1           1     text    text     varint    1    text       varints                      the rest
//! opaque    version, 1  kind, 5  pipeline, key  line…
//!              1           1         texts      the rest
//! module    0 | 1, SHA-256 (32) | 2, digest of built-ins (8) | 3, text
//! ```
//!
//! A varint is LEB128, a text its length (varint) and UTF-8. What has a `?` follows a byte that says whether
//! it is there. States: 0 closed, 1 early, 2 retracted. Losses: 0 lost, 1 dropped, 2 coarsened, 3 expired.
//! A kind above 5 is of a newer version.

use std::borrow::Cow;

use headwater_flow::{LossReport, ReportKind, Timestamp};

use super::{
    AgentReport, EventResult, LateReading, OpaqueLine, Record, RecordError, ResultState, WindowResult,
};
use crate::bytes::{ByteReader, put_optional, put_text, put_varint};
use crate::digest::ModuleDigest;
use crate::json::JsonText;

const VERSION: u8 = 1;
const WINDOW: u8 = 1;
const EVENT: u8 = 2;
const LATE: u8 = 3;
const REPORT: u8 = 4;
const OPAQUE: u8 = 5;

/// Losses by their number.
const LOSSES: [ReportKind; 4] =
    [ReportKind::Lost, ReportKind::Dropped, ReportKind::Coarsened, ReportKind::Expired];

impl Record<'_> {
    /// The record as an outbox keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes_about());
        match self {
            Self::Window(result) => put_window(&mut out, result),
            Self::Event(event) => put_event(&mut out, event),
            Self::Late(reading) => put_late(&mut out, reading),
            Self::Report(report) => put_report(&mut out, report),
            Self::Opaque(opaque) => {
                out.extend_from_slice(&[VERSION, OPAQUE]);
                put_text(&mut out, &opaque.pipeline);
                put_text(&mut out, &opaque.key);
                out.extend_from_slice(&opaque.line);
            }
        }
        out
    }

    /// About how many bytes it takes there.
    fn bytes_about(&self) -> usize {
        const NUMBERS: usize = 128;
        let text = match self {
            Self::Window(result) => result.agent.len() + result.value.as_str().len(),
            Self::Event(event) => event.agent.len() + event.value.as_str().len(),
            Self::Late(reading) => reading.agent.len() + reading.topic.len() + reading.value.as_str().len(),
            Self::Report(report) => report.agent.len() + report.report.reason.len(),
            Self::Opaque(opaque) => opaque.line.len(),
        };
        NUMBERS + self.pipeline().len() + self.key().len() + text
    }
}

impl<'a> Record<'a> {
    /// Reads the record that was kept.
    ///
    /// # Errors
    /// When no version up to this one wrote such bytes.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = ByteReader(bytes);
        if reader.byte()? != VERSION {
            return Err(RecordError("its version is not known"));
        }
        Ok(match reader.byte()? {
            WINDOW => Self::Window(window(reader)?),
            EVENT => Self::Event(event(reader)?),
            LATE => Self::Late(late(reader)?),
            REPORT => Self::Report(report(reader)?),
            OPAQUE => {
                let pipeline = reader.text()?.into();
                let key = reader.text()?.into();
                Self::Opaque(OpaqueLine { pipeline, key, line: reader.0.into() })
            }
            _ => return Err(RecordError("its kind is not known")),
        })
    }
}

fn put_window(out: &mut Vec<u8>, result: &WindowResult<'_>) {
    out.extend_from_slice(&[VERSION, WINDOW]);
    put_text(out, &result.agent);
    put_text(out, &result.pipeline);
    put_text(out, &result.key);
    put_varint(out, result.start.0);
    put_varint(out, result.end.0);
    put_varint(out, result.part.into());
    put_varint(out, result.revision.into());
    out.push(match result.state {
        ResultState::Closed => 0,
        ResultState::Early => 1,
        ResultState::Retracted => 2,
    });
    put_module(out, result.module.as_ref());
    put_varint(out, result.count);
    put_varint(out, result.late);
    put_varint(out, result.rejected);
    put_optional(out, result.watermark.map(|time| time.0));
    out.extend_from_slice(result.value.as_str().as_bytes());
}

fn window<'a>(mut reader: ByteReader<'a>) -> Result<WindowResult<'a>, RecordError> {
    Ok(WindowResult {
        agent: reader.text()?.into(),
        pipeline: reader.text()?.into(),
        key: reader.text()?.into(),
        start: Timestamp(reader.varint()?),
        end: Timestamp(reader.varint()?),
        part: reader.small()?,
        revision: reader.small()?,
        state: match reader.byte()? {
            0 => ResultState::Closed,
            1 => ResultState::Early,
            2 => ResultState::Retracted,
            _ => return Err(RecordError("the state of its window is not known")),
        },
        module: module(&mut reader)?,
        count: reader.varint()?,
        late: reader.varint()?,
        rejected: reader.varint()?,
        watermark: reader.optional()?.map(Timestamp),
        value: JsonText::kept(reader.rest()?.into()),
    })
}

fn put_event(out: &mut Vec<u8>, event: &EventResult<'_>) {
    out.extend_from_slice(&[VERSION, EVENT]);
    put_text(out, &event.agent);
    put_text(out, &event.pipeline);
    put_text(out, &event.key);
    put_varint(out, event.time.0);
    put_module(out, event.module.as_ref());
    out.extend_from_slice(event.value.as_str().as_bytes());
}

fn event<'a>(mut reader: ByteReader<'a>) -> Result<EventResult<'a>, RecordError> {
    Ok(EventResult {
        agent: reader.text()?.into(),
        pipeline: reader.text()?.into(),
        key: reader.text()?.into(),
        time: Timestamp(reader.varint()?),
        module: module(&mut reader)?,
        value: JsonText::kept(reader.rest()?.into()),
    })
}

fn put_late(out: &mut Vec<u8>, reading: &LateReading<'_>) {
    out.extend_from_slice(&[VERSION, LATE]);
    put_text(out, &reading.agent);
    put_text(out, &reading.pipeline);
    put_text(out, &reading.topic);
    put_text(out, &reading.key);
    put_varint(out, reading.time.0);
    put_module(out, reading.module.as_ref());
    out.extend_from_slice(reading.value.as_str().as_bytes());
}

fn late<'a>(mut reader: ByteReader<'a>) -> Result<LateReading<'a>, RecordError> {
    Ok(LateReading {
        agent: reader.text()?.into(),
        pipeline: reader.text()?.into(),
        topic: reader.text()?.into(),
        key: reader.text()?.into(),
        time: Timestamp(reader.varint()?),
        module: module(&mut reader)?,
        value: JsonText::kept(reader.rest()?.into()),
    })
}

fn put_report(out: &mut Vec<u8>, report: &AgentReport<'_>) {
    out.extend_from_slice(&[VERSION, REPORT]);
    put_text(out, &report.agent);
    out.push(report.pipeline.is_some().into());
    if let Some(pipeline) = &report.pipeline {
        put_text(out, pipeline);
    }
    put_varint(out, report.time.0);
    let LossReport { kind, stage, count, first, last, from, to, reason } = &report.report;
    let loss = LOSSES.iter().position(|known| known == kind).expect("every kind has a number");
    out.push(u8::try_from(loss).expect("there are four"));
    put_text(out, stage);
    for number in [*count, *first, *last, from.map(|time| time.0), to.map(|time| time.0)] {
        put_optional(out, number);
    }
    out.extend_from_slice(reason.as_bytes());
}

fn report<'a>(mut reader: ByteReader<'a>) -> Result<AgentReport<'a>, RecordError> {
    let agent = reader.text()?.into();
    let pipeline = match reader.byte()? {
        0 => None,
        1 => Some(reader.text()?.into()),
        _ => return Err(RecordError("a field is neither there nor not")),
    };
    let time = Timestamp(reader.varint()?);
    let kind =
        LOSSES.get(usize::from(reader.byte()?)).copied().ok_or(RecordError("its loss is not known"))?;
    let report = LossReport {
        kind,
        stage: Cow::Owned(reader.text()?.to_owned()),
        count: reader.optional()?,
        first: reader.optional()?,
        last: reader.optional()?,
        from: reader.optional()?.map(Timestamp),
        to: reader.optional()?.map(Timestamp),
        reason: reader.rest()?.to_owned(),
    };
    Ok(AgentReport { agent, pipeline, time, report })
}

fn put_module(out: &mut Vec<u8>, module: Option<&ModuleDigest<'_>>) {
    match module {
        None => out.push(0),
        Some(ModuleDigest::Sha256(digest)) => {
            out.push(1);
            out.extend_from_slice(digest);
        }
        Some(ModuleDigest::Builtin(digest)) => {
            out.push(2);
            out.extend_from_slice(digest);
        }
        Some(ModuleDigest::Text(text)) => {
            out.push(3);
            put_text(out, text);
        }
    }
}

fn module<'a>(reader: &mut ByteReader<'a>) -> Result<Option<ModuleDigest<'a>>, RecordError> {
    Ok(match reader.byte()? {
        0 => None,
        1 => Some(ModuleDigest::Sha256(reader.array()?)),
        2 => Some(ModuleDigest::Builtin(reader.array()?)),
        3 => Some(ModuleDigest::Text(reader.text()?.into())),
        _ => return Err(RecordError("the digest of its module is of a kind not known")),
    })
}
