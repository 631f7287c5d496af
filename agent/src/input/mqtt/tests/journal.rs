//! A journal in memory that can be held, can fail, and outlives an input as a disk does.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::broker::PATIENCE;
use crate::flow::Message;
use crate::input::mqtt::{BoxError, Journal};
use crate::store::{Delivered, Session};

#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    session: Session,
    held: bool,
    slow: Duration,
    failing: bool,
    waiting: bool,
}

impl Memory {
    /// Appends block, until released.
    pub(super) fn hold(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Appends take this long.
    pub(super) fn slow(&self, time: Duration) {
        self.change(|state| state.slow = time);
    }

    /// Appends fail.
    pub(super) fn fail(&self) {
        self.change(|state| state.failing = true);
    }

    /// Returns once an append is blocked.
    pub(super) async fn blocked(&self) {
        self.wait(|state| state.waiting).await;
    }

    /// Returns once the session is kept as one that the broker holds.
    pub(super) async fn sure(&self) {
        self.wait(|state| state.session.sure).await;
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.0.0.lock().unwrap().messages.clone()
    }

    pub(super) fn payloads(&self) -> Vec<String> {
        let state = self.0.0.lock().unwrap();
        state.messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    async fn wait(&self, until: impl Fn(&State) -> bool + Send + 'static) {
        let this = self.clone();
        let waited = tokio::task::spawn_blocking(move || {
            let (state, changed) = &*this.0;
            let state = state.lock().unwrap();
            let (state, timeout) =
                changed.wait_timeout_while(state, PATIENCE, |state| !until(state)).unwrap();
            drop(state);
            !timeout.timed_out()
        });
        assert!(waited.await.unwrap(), "the journal never came to that");
    }
}

impl Journal for Memory {
    fn append(&self, messages: &[Message]) -> Result<(), BoxError> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.held {
            state.waiting = true;
            changed.notify_all();
            state = changed.wait(state).unwrap();
        }
        state.waiting = false;
        let slow = state.slow;
        drop(state);
        std::thread::sleep(slow);
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        if state.failing {
            return Err("no space left on device".into());
        }
        state.messages.extend_from_slice(messages);
        changed.notify_all();
        Ok(())
    }

    fn recent(&self, _input: &str, each: &mut dyn FnMut(&Message)) -> Result<(), BoxError> {
        self.0.0.lock().unwrap().messages.iter().for_each(each);
        Ok(())
    }

    fn delivered(&self, _input: &str) -> Result<Vec<Delivered>, BoxError> {
        Ok(Vec::new())
    }

    fn session(&self, _input: &str) -> Result<Session, BoxError> {
        Ok(self.0.0.lock().unwrap().session.clone())
    }

    fn keep_session(&self, _input: &str, session: &Session) -> Result<(), BoxError> {
        self.change(|state| state.session = session.clone());
        Ok(())
    }
}
