//! Another version of a pipeline's transforms beside the one that runs: on the same events, compared,
//! and sent nowhere.
//!
//! Each transform gets what the running one at its place gets, so that a difference is its own. Bounds:
//! the limits of the modules; [`DIFFERENCES_MAX`] differences are described, the others counted.

use std::fmt::Write as _;
use std::time::Instant;

use super::modules::Blame;
use super::post::{DIFFERENCES_MAX, Offer};
use crate::flow::Event;
use crate::module::Rejection;

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
        for event in 0..events.len() {
            let reason =
                |all: &[Rejection]| all.iter().find(|one| one.index == event).map(|one| one.reason.clone());
            let (old, new) = (reason(rejected), reason(&other_rejected));
            if old.is_some() != new.is_some() {
                let words =
                    |reason: Option<String>| reason.map_or("taken".to_owned(), |it| format!("refused: {it}"));
                self.differ(&place, &words(old), &words(new));
            }
        }
    }

    fn differ(&mut self, place: &str, old: &str, new: &str) {
        self.differences += 1;
        if self.first.len() < DIFFERENCES_MAX {
            self.first.push(format!("{place}: now {old}, then {new}"));
        }
    }
}

fn described(event: Option<&Event>) -> String {
    let Some(event) = event else { return "nothing".to_owned() };
    let payload = String::from_utf8_lossy(&event.payload);
    let mut text = format!("{:?} at {} ", event.key, event.time);
    text.extend(payload.chars().filter(|it| !it.is_control()).take(SHOWN_CHARS));
    if payload.chars().count() > SHOWN_CHARS {
        write!(text, "…").ok();
    }
    text
}
