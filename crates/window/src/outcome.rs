//! The results of windows.

use super::context::{MissingValue, ReadyResult};
use headwater_flow::Timestamp;

/// The use of an observed reading; a reading that is not used comes with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedReading {
    /// A window takes it.
    Used,
    /// None of its windows can change any more.
    Late(Vec<u8>),
    /// The state of its window was lost: a result of the rest would pass for the whole.
    Lost(Vec<u8>),
    /// Too many keys have open windows.
    Full(Vec<u8>),
}

/// A result, or the reason why a window has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOutcome {
    /// The key that the window belongs to.
    pub key: String,
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Tells windows with the same bounds apart: parts of one that was full, and count windows.
    pub part: u32,
    /// 0 the first time, one more with each late reading and after each early result.
    pub revision: u32,
    /// Readings used.
    pub count: u64,
    /// Readings among these that came after the window had first closed.
    pub late: u64,
    /// Readings that the aggregate refused.
    pub rejected: u64,
    /// The watermark that made the result due.
    pub watermark: Timestamp,
    /// The window is still open.
    pub early: bool,
    /// The window is no more: its readings are part of another one. There is no value.
    pub retracted: bool,
    /// The aggregate's JSON; or its words and the state that it could not finish.
    pub value: Result<Vec<u8>, (String, Vec<u8>)>,
    /// The state that it finished.
    pub state: Vec<u8>,
}

/// A reading that the aggregate refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSample {
    /// The key that it belongs to.
    pub key: String,
    /// The event time.
    pub time: Timestamp,
    /// The payload.
    pub payload: Vec<u8>,
    /// The aggregate's words.
    pub reason: String,
}

/// The results of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettledBatch {
    /// A result for each window that closed, was revised or gave an early result.
    pub outcomes: Vec<WindowOutcome>,
    /// Readings that the aggregate refused.
    pub refused: Vec<RefusedSample>,
    /// Readings that it used.
    pub used: u64,
}

/// Finishes a result; `values` are the aggregate's answers for those that have a state.
pub(super) fn outcome(
    ready: ReadyResult,
    values: &mut impl Iterator<Item = Result<Vec<u8>, String>>,
) -> WindowOutcome {
    let ReadyResult { closed, part, rejected, watermark, early, without } = ready;
    let retracted = matches!(without, Some(MissingValue::Retracted));
    let value = match without {
        Some(MissingValue::Retracted) => Ok(b"null".to_vec()),
        Some(MissingValue::Failed(reason)) => Err(reason),
        None => values.next().unwrap_or_else(|| Err("the aggregate gave too few results".to_owned())),
    };
    let (value, state) = match value {
        Ok(value) => (Ok(value), closed.state),
        Err(reason) => (Err((reason, closed.state)), Vec::new()),
    };
    WindowOutcome {
        key: closed.key,
        start: closed.start,
        end: closed.end,
        part,
        revision: closed.revision,
        count: closed.count,
        late: closed.late,
        rejected,
        watermark,
        early,
        retracted,
        value,
        state,
    }
}
