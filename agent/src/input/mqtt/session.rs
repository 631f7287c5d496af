//! Keeps the session's row true: whose session it is, and what is granted in it.
//!
//! A CONNECT may find the session lost and make another. If its answer does not reach us, because the
//! connection or the agent dies, the next one finds that other session present, and nothing is
//! subscribed in it. So the row says "not sure" before a CONNECT goes out, and "sure" once the answer is dealt
//! with; with a session that is not sure everything is subscribed again.

use super::{BoxError, Error, Journal};
use crate::blocking::{BlockingThread, Ending};
use crate::store::{Filter, Session};

/// The session, as the journal has it or soon will.
#[derive(Debug)]
pub(super) struct Keeper<J> {
    input: String,
    broker: String,
    journal: J,
    /// Beside the writer, which may wait for room as long as that takes.
    thread: BlockingThread,
    session: Session,
    /// What the journal has, or what is on the way there.
    kept: Session,
    keeping: Option<Ending<Result<(), BoxError>>>,
    /// The CONNECT before this one got its answer.
    sure: bool,
}

/// What a CONNACK means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Our session, with what was granted in it.
    Same,
    /// Our session or one that a CONNECT without an answer made.
    Doubtful,
    /// The first one.
    First,
    /// Another one: the broker lost ours.
    Lost,
}

impl<J: Journal> Keeper<J> {
    pub(super) fn start(input: &str, broker: String, journal: J, session: Session) -> Result<Self, Error> {
        let thread = BlockingThread::start(&format!("session-{input}")).map_err(Error::Thread)?;
        let sure = session.sure && session.broker == broker;
        let kept = session.clone();
        let input = input.to_owned();
        Ok(Self { input, broker, journal, thread, session, kept, keeping: None, sure })
    }

    /// Before a CONNECT: from here on the row is not sure.
    pub(super) async fn doubt(&mut self) -> Result<(), Error> {
        self.session.sure = false;
        self.settle().await
    }

    /// A CONNECT went out and got no answer.
    pub(super) fn unanswered(&mut self) {
        self.sure = false;
    }

    /// After a CONNACK; a session that is new is counted before anything of it can come.
    pub(super) async fn answered(&mut self, session_present: bool) -> Result<Found, Error> {
        let ours = self.session.number > 0 && self.session.broker == self.broker;
        let found = match (session_present && ours, ours) {
            (true, _) if self.sure => Found::Same,
            (true, _) => Found::Doubtful,
            (false, true) => Found::Lost,
            (false, false) => Found::First,
        };
        if matches!(found, Found::First | Found::Lost) {
            self.session.number += 1;
            self.session.broker.clone_from(&self.broker);
            self.session.granted.clear();
            self.settle().await?;
        }
        self.sure = true;
        Ok(found)
    }

    /// The session's number.
    pub(super) fn number(&self) -> u64 {
        self.session.number
    }

    /// What is granted in it, when the broker has answered.
    pub(super) fn granted(&mut self, granted: &[Filter]) {
        self.session.sure = true;
        self.session.granted = granted.to_vec();
        self.keep();
    }

    /// Comes when a row is kept; drives the next one.
    pub(super) async fn kept(&mut self) -> Result<(), Error> {
        let Some(keeping) = &mut self.keeping else { return std::future::pending().await };
        let kept = keeping.await;
        self.keeping = None;
        self.keep();
        kept.map_err(|error| Error::Journal(error.into()))?.map_err(Error::Journal)
    }

    /// Returns once the journal has the session as it is.
    async fn settle(&mut self) -> Result<(), Error> {
        self.keep();
        while self.keeping.is_some() {
            self.kept().await?;
        }
        Ok(())
    }

    /// One at a time.
    fn keep(&mut self) {
        if self.keeping.is_some() || self.kept == self.session {
            return;
        }
        self.kept.clone_from(&self.session);
        let journal = self.journal.clone();
        let input = self.input.clone();
        let session = self.session.clone();
        self.keeping = Some(self.thread.begin(move || journal.keep_session(&input, &session)));
    }
}
