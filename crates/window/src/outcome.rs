//! What comes out of windows.

use super::scene::{Ready, Without};
use headwater_flow::Timestamp;

/// What became of an observed reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It belongs to a window that takes it.
    Used,
    /// None of its windows can change any more.
    Late,
    /// The state of its window was lost: what is left would pass for the whole.
    Lost,
    /// Too many keys have open windows.
    Full,
}

/// A result, or the reason why a window has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the window belongs to.
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
    /// Of these, readings that came after the window had first closed.
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
pub struct Refused {
    /// What it belongs to.
    pub key: String,
    /// Its event time.
    pub time: Timestamp,
    /// Its content.
    pub payload: Vec<u8>,
    /// The aggregate's words.
    pub reason: String,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// One for each window that closed, was revised or gave an early result.
    pub outcomes: Vec<Outcome>,
    /// Readings that the aggregate refused.
    pub refused: Vec<Refused>,
    /// Readings that it used.
    pub used: u64,
}

/// A finished result; `values` are the aggregate's answers for those that have a state.
pub(super) fn outcome(ready: Ready, values: &mut impl Iterator<Item = Result<Vec<u8>, String>>) -> Outcome {
    let Ready { closed, part, rejected, watermark, early, without } = ready;
    let retracted = matches!(without, Some(Without::Retracted));
    let value = match without {
        Some(Without::Retracted) => Ok(b"null".to_vec()),
        Some(Without::Failed(reason)) => Err(reason),
        None => values.next().unwrap_or_else(|| Err("the aggregate gave too few results".to_owned())),
    };
    let (value, state) = match value {
        Ok(value) => (Ok(value), closed.state),
        Err(reason) => (Err((reason, closed.state)), Vec::new()),
    };
    Outcome {
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
