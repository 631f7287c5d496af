//! What an input remembers of its broker: the session's number and what was subscribed in it.

use super::codec::{self, Row};
use super::folder::check_name;
use super::{Error, Store};

/// An input's session at its broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Counts sessions: a new one whenever the broker lost the last. 0 before the first.
    pub number: u64,
    /// Whose session at which broker it is.
    pub broker: String,
    /// Whether the broker is known to hold this session. Not so while there is no connection: the next
    /// CONNECT may make another session, and a crash may keep its answer from us.
    pub sure: bool,
    /// What the broker granted.
    pub granted: Vec<Filter>,
}

/// A topic filter and the QoS it was asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// As configured, `$share/…` included.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
}

impl Store {
    /// The input's session, the default before the first.
    pub fn session(&self, input: &str) -> Result<Session, Error> {
        check_name(input)?;
        let row = self.0.meta.get(&Row::session(input))?;
        let session = row.map(|row| codec::session(&row)).transpose();
        Ok(session.map_err(|garbled| self.garbled(garbled))?.unwrap_or_default())
    }

    /// Keeps the input's session durably.
    pub fn keep_session(&self, input: &str, session: &Session) -> Result<(), Error> {
        check_name(input)?;
        self.0.meta.apply(&[(Row::session(input), Some(codec::put_session(session)))])?;
        crate::fail::point("session.kept");
        Ok(())
    }
}
