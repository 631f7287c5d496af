//! Another version of a pipeline's modules beside the one that runs: on the same events, compared,
//! and sent nowhere.
//!
//! Each transform gets what the running one at its place gets, and the aggregate the states and samples of the
//! running one, so that a difference is its own and nothing is kept for it. Where it has states of another version, those it
//! gets are migrated, and what it makes of them is compared by the results alone. Bounds:
//! the limits of the modules; [`DIFFERENCES_MAX`] differences are described, the others counted.

use std::time::Instant;

use super::aggregate::Aggregate;
use super::mailbox::{DIFFERENCES_MAX, Offer};
use super::modules::Blame;
use crate::flow::{Event, Timestamp};
use crate::module::{Closed, Group, Rejection, Updated};
use crate::window;

/// Characters shown of a payload.
const SHOWN_CHARS: usize = 200;

/// One version on its way in.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) offer: Box<Offer>,
    /// When it takes over.
    pub(super) until: Instant,
    pub(super) events: u64,
    pub(super) differences: u64,
    pub(super) first: Vec<String>,
    /// Why it does not.
    pub(super) tripped: Option<Blame>,
}

impl Shadow {
    pub(super) fn new(offer: Box<Offer>, until: Instant) -> Self {
        Self { offer, until, events: 0, differences: 0, first: Vec::new(), tripped: None }
    }

    /// The running transform at that place made this of the events.
    pub(super) fn compare(
        &mut self,
        index: usize,
        events: &[Event],
        passed: &[Event],
        rejected: &[Rejection],
    ) {
        let Some(transform) = self.offer.modules.transforms.get_mut(index) else { return };
        let (others, other_rejected) = transform.process(events);
        let place = format!("transform[{index}]");
        let trips = transform.take_trips();
        // Its own memory goes no further than a call: it would be as much as the other's.
        drop(transform.drain());
        if let Some(blame) = Blame::of(format_args!("{place}"), transform.digest(), trips) {
            self.tripped = Some(blame);
        }
        self.events += events.len() as u64;
        for at in 0..passed.len().max(others.len()) {
            let (old, new) = (passed.get(at), others.get(at));
            if old != new {
                self.differ(&place, &described(old), &described(new));
            }
        }
        self.compare_refused(&place, events.len(), rejected, &other_rejected);
    }

    fn compare_refused(&mut self, place: &str, count: usize, old: &[Rejection], new: &[Rejection]) {
        let of = |all: &[Rejection], at| all.iter().find(|one| one.index == at).map(|one| one.reason.clone());
        for at in 0..count {
            let (old, new) = (of(old, at), of(new, at));
            if old.is_some() != new.is_some() {
                let words =
                    |reason: Option<String>| reason.map_or("taken".to_owned(), |it| format!("refused: {it}"));
                self.differ(place, &words(old), &words(new));
            }
        }
    }

    /// The running aggregate, whose states are of that version, made this of the samples.
    fn compare_updates(&mut self, version: u32, groups: &[Group], updated: &[Updated]) {
        let carried = |group: &Group, state| Group { state, ..group.clone() };
        let answers = self.ask(version, groups, updated, carried, |it, groups| it.update(groups));
        for (group, old, new) in answers {
            self.events += group.samples.len() as u64;
            let before = self.differences;
            let place = format!("aggregate, {}", window_named(&group.key, group.start, group.end));
            self.compare_refused(&place, group.samples.len(), &old.rejected, &new.rejected);
            let comparable =
                self.offer.modules.aggregate.as_ref().is_some_and(|it| it.state_version() == version);
            if comparable && before == self.differences && old.state != new.state {
                self.differ(&place, "one state", "another");
            }
        }
    }

    /// The running aggregate, whose states are of that version, made these results.
    fn compare_results(&mut self, version: u32, windows: &[Closed], results: &[Result<Vec<u8>, String>]) {
        let carried = |window: &Closed, state| Closed { state, ..window.clone() };
        let answers = self.ask(version, windows, results, carried, |it, windows| it.finish(windows));
        let words = |result: &Result<Vec<u8>, String>| match result {
            Ok(payload) => shown(payload),
            Err(reason) => format!("refused: {reason}"),
        };
        for (window, old, new) in answers {
            if old.as_ref().ok() != new.as_ref().ok() {
                let place = format!("aggregate, {}", window_named(&window.key, window.start, window.end));
                self.differ(&place, &words(old), &words(&new));
            }
        }
    }

    /// Puts the same question to the other version, but for those with states that it cannot read: they differ.
    fn ask<'a, Q: Stated, A, B>(
        &mut self,
        version: u32,
        questions: &[Q],
        answers: &'a [A],
        carried: impl Fn(&Q, Vec<u8>) -> Q,
        put: impl FnOnce(&mut dyn window::Aggregate, &[Q]) -> Vec<B>,
    ) -> Vec<(Q, &'a A, B)> {
        let Some(aggregate) = self.offer.modules.aggregate.as_mut() else { return Vec::new() };
        let (mut asked, mut of, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (question, answer) in questions.iter().zip(answers) {
            let state = question.state();
            let state = match aggregate.state_version() == version || state.is_empty() {
                true => Ok(state.to_vec()),
                false => aggregate.migrate(version, state),
            };
            match state {
                Ok(state) => {
                    asked.push(carried(question, state));
                    of.push(answer);
                }
                Err(reason) => unread.push(format!("refused: {reason}")),
            }
        }
        let made = put(aggregate.inner(), &asked);
        let (trips, digest) = (aggregate.take_trips(), aggregate.digest().to_owned());
        if let Some(blame) = Blame::of(format_args!("aggregate"), &digest, trips) {
            self.tripped = Some(blame);
        }
        for reason in unread {
            self.differ("aggregate", &format!("a state of version {version}"), &reason);
        }
        asked.into_iter().zip(of).zip(made).map(|((question, old), new)| (question, old, new)).collect()
    }

    fn differ(&mut self, place: &str, old: &str, new: &str) {
        self.differences += 1;
        if self.first.len() < DIFFERENCES_MAX {
            self.first.push(format!("{place}: now {old}, then {new}"));
        }
    }
}

/// What has a state of a window with it.
trait Stated {
    fn state(&self) -> &[u8];
}

impl Stated for Group {
    fn state(&self) -> &[u8] {
        &self.state
    }
}

impl Stated for Closed {
    fn state(&self) -> &[u8] {
        &self.state
    }
}

/// The aggregate that runs, and the version beside it that is shown what it is asked and answers.
pub(super) struct Watched<'a> {
    pub(super) running: &'a mut Aggregate,
    pub(super) shadow: Option<&'a mut Shadow>,
}

impl window::Aggregate for Watched<'_> {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        let updated = self.running.inner().update(groups);
        if let Some(shadow) = &mut self.shadow {
            shadow.compare_updates(self.running.state_version(), groups, &updated);
        }
        updated
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        self.running.inner().merge(a, b)
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        let results = self.running.inner().finish(windows);
        if let Some(shadow) = &mut self.shadow {
            shadow.compare_results(self.running.state_version(), windows, &results);
        }
        results
    }
}

fn window_named(key: &str, start: Timestamp, end: Timestamp) -> String {
    format!("{key:?} from {start} to {end}")
}

fn described(event: Option<&Event>) -> String {
    let Some(event) = event else { return "nothing".to_owned() };
    format!("{:?} at {} {}", event.key, event.time, shown(&event.payload))
}

fn shown(payload: &[u8]) -> String {
    let payload = String::from_utf8_lossy(payload);
    let mut text: String = payload.chars().filter(|it| !it.is_control()).take(SHOWN_CHARS).collect();
    if payload.chars().count() > SHOWN_CHARS {
        text.push('…');
    }
    text
}
