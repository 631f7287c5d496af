//! What the broker holds for us and what it should hold; pure but for the log.
//!
//! The filters that were granted are kept durably with the session, so that a SUBSCRIBE is sent for
//! those alone that the session lacks: brokers of MQTT 3.1.1 replay retained messages at each. Filters
//! that are no longer configured are unsubscribed.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Config, wire};
use crate::store::Filter;

/// The subscriptions of one session.
#[derive(Debug)]
pub(super) struct Subscriptions {
    input: String,
    wanted: Vec<Filter>,
    granted: Vec<Filter>,
    /// Perhaps granted: asked for again, or left.
    doubtful: Vec<Filter>,
    state: State,
    /// Under way, in the order of the packet.
    asked: Vec<Filter>,
    /// An UNSUBSCRIBE for these is under way.
    leaving: Vec<Filter>,
    packet: u16,
    answer_max: Duration,
    retry: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Settled,
    /// A SUBSCRIBE is under way until then.
    Asked(Instant),
    /// Asked again then.
    Refused(Instant),
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) packet: u16,
    pub(super) topics: Vec<String>,
}

impl Subscriptions {
    pub(super) fn new(input: &str, config: &Config, granted: Vec<Filter>) -> Self {
        let wanted = |topic: &String| Filter { topic: topic.clone(), qos: config.qos };
        Self {
            input: input.to_owned(),
            wanted: config.topics.iter().map(wanted).collect(),
            granted,
            doubtful: Vec::new(),
            state: State::Settled,
            asked: Vec::new(),
            leaving: Vec::new(),
            packet: 0,
            answer_max: config.connect_timeout,
            retry: config.reconnect_max,
        }
    }

    /// The broker has none of them.
    pub(super) fn lost(&mut self) {
        self.granted.clear();
    }

    /// The broker may have none of them.
    pub(super) fn doubted(&mut self) {
        self.doubtful.append(&mut self.granted);
    }

    /// Those that the session has.
    pub(super) fn granted(&self) -> &[Filter] {
        &self.granted
    }

    /// Whether nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.iter().all(|filter| self.granted.contains(filter))
    }

    /// Whether the broker owes no answer to a SUBSCRIBE.
    pub(super) fn is_answered(&self) -> bool {
        !matches!(self.state, State::Asked(_))
    }

    /// The UNSUBSCRIBE for what is no longer wanted, if there is such: at the begin of a connection.
    pub(super) fn leave(&mut self) -> Option<Request> {
        let wanted = |filter: &Filter| self.wanted.iter().any(|wanted| wanted.topic == filter.topic);
        let had = self.granted.iter().chain(&self.doubtful);
        self.leaving = had.filter(|filter| !wanted(filter)).cloned().collect();
        let topics: Vec<_> = self.leaving.iter().map(|filter| filter.topic.clone()).collect();
        (!topics.is_empty()).then(|| Request { packet: self.number(), topics })
    }

    /// The broker took the UNSUBSCRIBE.
    pub(super) fn left(&mut self) {
        self.granted.retain(|granted| !self.leaving.contains(granted));
        self.leaving.clear();
        self.doubtful.clear();
    }

    /// The SUBSCRIBE for what is missing, if anything is: at the begin of a connection, and when due.
    pub(super) fn ask(&mut self) -> Option<Request> {
        self.asked = self.wanted.iter().filter(|filter| !self.granted.contains(filter)).cloned().collect();
        if self.asked.is_empty() {
            self.state = State::Settled;
            return None;
        }
        self.state = State::Asked(Instant::now() + self.answer_max);
        let topics = self.asked.iter().map(|filter| filter.topic.clone()).collect();
        Some(Request { packet: self.number(), topics })
    }

    /// The time in which the broker must answer, when it has passed without an answer.
    pub(super) fn overdue(&self) -> Option<Duration> {
        matches!(self.state, State::Asked(_)).then_some(self.answer_max)
    }

    /// The broker's answer, filter by filter; those refused are asked for again, the others flow.
    ///
    /// # Errors
    /// When it answers nothing that was asked.
    pub(super) fn answered(&mut self, codes: &[Result<u8, String>]) -> Result<(), wire::Error> {
        if !matches!(self.state, State::Asked(_)) || codes.len() != self.asked.len() {
            return Err(wire::Error::Unexpected("a SUBACK that answers nothing"));
        }
        self.state = State::Settled;
        for (filter, code) in std::mem::take(&mut self.asked).into_iter().zip(codes) {
            match code {
                Ok(qos) => self.grant(filter, *qos),
                Err(reason) => {
                    tracing::error!(
                        input = self.input,
                        topic = filter.topic,
                        reason,
                        retry = ?self.retry,
                        "failed to subscribe: the broker refused; check the topic and the client's rights"
                    );
                    self.state = State::Refused(Instant::now() + self.retry);
                }
            }
        }
        Ok(())
    }

    /// Comes when something is to be done about them.
    pub(super) async fn due(&self) {
        match self.state {
            State::Settled => std::future::pending().await,
            State::Asked(at) | State::Refused(at) => sleep_until(at).await,
        }
    }

    fn grant(&mut self, filter: Filter, qos: u8) {
        if qos < filter.qos {
            tracing::warn!(
                input = self.input,
                topic = filter.topic,
                granted = qos,
                asked = filter.qos,
                "broker grants a lower qos: these messages are outside the promise"
            );
        }
        self.granted.retain(|granted| granted.topic != filter.topic);
        self.granted.push(filter);
    }

    fn number(&mut self) -> u16 {
        self.packet = self.packet.checked_add(1).unwrap_or(1);
        self.packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(topics: &[&str], qos: u8) -> Vec<Filter> {
        topics.iter().map(|topic| Filter { topic: (*topic).to_owned(), qos }).collect()
    }

    /// Configured `wanted` at QoS 1; the session has `granted`.
    #[track_caller]
    fn check(wanted: &[&str], granted: Vec<Filter>, asked: &[&str], left: &[&str]) {
        let config = Config::new("", "", wanted.iter().map(|topic| (*topic).to_owned()).collect());
        let mut subscriptions = Subscriptions::new("plant", &config, granted);
        let topics = |request: Option<Request>| request.map_or_else(Vec::new, |request| request.topics);
        assert_eq!(topics(subscriptions.leave()), left);
        assert_eq!(topics(subscriptions.ask()), asked);
        subscriptions.left();
        if !asked.is_empty() {
            subscriptions.answered(&vec![Ok(1); asked.len()]).unwrap();
        }
        assert!(subscriptions.is_complete());
        let mut topics: Vec<_> = subscriptions.granted().iter().map(|filter| &filter.topic).collect();
        topics.sort_unstable();
        assert_eq!(topics, wanted);
    }

    #[test]
    fn asks_for_what_the_session_lacks_and_leaves_what_is_not_wanted() {
        check(&["a", "b"], filters(&[], 1), &["a", "b"], &[]);
        check(&["a", "b"], filters(&["b", "a"], 1), &[], &[]);
        check(&["a", "b"], filters(&["a"], 1), &["b"], &[]);
        check(&["a"], filters(&["a", "b"], 1), &[], &["b"]);
        check(&["a"], filters(&["c"], 1), &["a"], &["c"]);
        check(&["a"], filters(&["a"], 2), &["a"], &[]);
    }

    #[test]
    fn of_a_doubtful_session_all_is_asked_for_or_left() {
        let config = Config::new("", "", vec!["a".into()]);
        let mut subscriptions = Subscriptions::new("plant", &config, filters(&["a", "b"], 1));
        subscriptions.doubted();
        assert_eq!(subscriptions.leave().unwrap().topics, ["b"]);
        assert_eq!(subscriptions.ask().unwrap().topics, ["a"]);
        subscriptions.answered(&[Ok(1)]).unwrap();
        assert_eq!(subscriptions.granted(), filters(&["a"], 1));
    }
}
