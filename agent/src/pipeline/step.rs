//! The step: journal messages in; results, dead letters, window changes and counts out.

use std::sync::Arc;
use std::time::Duration;

use super::line;
use super::progress::Counts;
use crate::decode::{self, Decode};
use crate::flow::{DeadLetter, Event, Message, Seq, Timestamp};
use crate::module;
use crate::store::Change;
use crate::window::{Aggregate, Fate, Settled, Windows};

/// What steps have made since the last commit.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) results: Vec<Vec<u8>>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) counts: Counts,
    /// Bytes of results and dead letters.
    pub(super) bytes: usize,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        self.counts == Counts::default()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.results.is_empty() || !self.dead_letters.is_empty()
    }

    fn result(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.counts.results += 1;
        self.results.push(line);
    }

    fn dead_letter(&mut self, mut letter: DeadLetter) {
        letter.key.truncate(letter.key.floor_char_boundary(decode::KEY_BYTES_MAX));
        self.bytes += letter.payload.len() + letter.reason.len();
        self.counts.dead_letters += 1;
        self.dead_letters.push(letter);
    }
}

/// What makes the steps of one pipeline.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) agent: String,
    pub(super) pipeline: String,
    pub(super) input: Arc<str>,
    pub(super) decode: Decode,
    pub(super) transforms: Vec<module::Transform>,
    pub(super) stage: Stage,
}

/// What events become.
#[derive(Debug)]
pub(super) enum Stage {
    /// Each a result.
    Each,
    /// A result for each key and window.
    Windowed { windows: Windows, aggregate: Box<module::Aggregate> },
}

impl Steps {
    /// One page of the journal.
    pub(super) fn run(&mut self, page: Vec<(Seq, Message)>, now: Timestamp, step: &mut Step) {
        let clock = page.iter().map(|(_, message)| message.received).max().unwrap_or(now);
        let events = self.decode(page, now, step);
        let events = self.transform(events, now, step);
        step.counts.events += events.len() as u64;
        let events = self.check(events, clock, now, step);
        match &mut self.stage {
            Stage::Each => self.forward_each(events, now, step),
            Stage::Windowed { windows, aggregate } => {
                let settled = observe(windows, aggregate.as_mut(), events, &mut step.counts.late);
                self.take_settled(settled, now, step);
            }
        }
    }

    /// Nothing came for this long though nothing was waiting.
    pub(super) fn idle(&mut self, quiet: Duration, step: &mut Step) {
        let Stage::Windowed { windows, aggregate } = &mut self.stage else { return };
        windows.idle(quiet);
        if windows.due() {
            let settled = windows.settle(aggregate.as_mut());
            self.take_settled(settled, Timestamp::now(), step);
        }
    }

    /// The windows' progress and changed state since the last call.
    pub(super) fn changes(&mut self) -> (Vec<u8>, Vec<Change>) {
        match &mut self.stage {
            Stage::Each => Default::default(),
            Stage::Windowed { windows, .. } => (windows.progress(), windows.drain_changes()),
        }
    }

    pub(super) fn windows(&self) -> Option<&Windows> {
        match &self.stage {
            Stage::Each => None,
            Stage::Windowed { windows, .. } => Some(windows),
        }
    }

    fn decode(&self, page: Vec<(Seq, Message)>, now: Timestamp, step: &mut Step) -> Vec<Event> {
        let mut events = Vec::with_capacity(page.len());
        for (_, message) in page {
            if message.input != self.input || !self.decode.takes(&message.topic) {
                continue;
            }
            step.counts.read += 1;
            match self.decode.decode(&message) {
                Ok(event) => events.push(event),
                Err(error) => {
                    step.counts.rejected_messages += 1;
                    let letter = self.letter("decode", error.to_string(), now);
                    step.dead_letter(DeadLetter {
                        topic: message.topic,
                        payload: message.payload.into(),
                        ..letter
                    });
                }
            }
        }
        events
    }

    fn transform(&mut self, mut events: Vec<Event>, now: Timestamp, step: &mut Step) -> Vec<Event> {
        for index in 0..self.transforms.len() {
            let (passed, rejections) = self.transforms[index].process(&events);
            for rejection in rejections {
                step.counts.rejected_messages += 1;
                let letter = self.letter(&format!("transform[{index}]"), rejection.reason, now);
                let Event { topic, key, payload, .. } = std::mem::take(&mut events[rejection.index]);
                let module = Some(self.transforms[index].digest().to_owned());
                step.dead_letter(DeadLetter { module, topic, key, payload, ..letter });
            }
            events = passed;
        }
        events
    }

    /// A transform may change key and time: they must keep to the same bounds as what was decoded.
    fn check(&self, events: Vec<Event>, clock: Timestamp, now: Timestamp, step: &mut Step) -> Vec<Event> {
        let Some(last) = self.transforms.last() else { return events };
        let mut good = Vec::with_capacity(events.len());
        for event in events {
            match self.decode.check(&event, clock) {
                Ok(()) => good.push(event),
                Err(error) => {
                    step.counts.rejected_events += 1;
                    let letter = self.letter("check", error.to_string(), now);
                    let module = Some(last.digest().to_owned());
                    let Event { topic, key, payload, .. } = event;
                    step.dead_letter(DeadLetter { module, topic, key, payload, ..letter });
                }
            }
        }
        good
    }

    fn forward_each(&self, events: Vec<Event>, now: Timestamp, step: &mut Step) {
        let module = self.transforms.last().map(module::Transform::digest);
        for event in events {
            match line::event(&self.agent, &self.pipeline, module, &event) {
                Ok(line) => {
                    step.counts.used += 1;
                    step.result(line);
                }
                Err(error) => {
                    step.counts.rejected_events += 1;
                    let reason = format!("failed to read the transforms' output as JSON: {error}");
                    let letter = self.letter("encode", reason, now);
                    let module = module.map(str::to_owned);
                    let Event { topic, key, payload, .. } = event;
                    step.dead_letter(DeadLetter { module, topic, key, payload, ..letter });
                }
            }
        }
    }

    fn take_settled(&self, settled: Settled, now: Timestamp, step: &mut Step) {
        let Stage::Windowed { aggregate, .. } = &self.stage else { return };
        let digest = || Some(aggregate.digest().to_owned());
        step.counts.used += settled.used;
        for refused in settled.refused {
            step.counts.rejected_events += 1;
            let letter = self.letter("aggregate", refused.reason, now);
            let (key, payload) = (refused.key, refused.payload);
            step.dead_letter(DeadLetter { module: digest(), key, payload, ..letter });
        }
        for outcome in settled.outcomes {
            match line::result(&self.agent, &self.pipeline, aggregate.digest(), &outcome) {
                Ok(line) => step.result(line),
                Err((reason, state)) => {
                    let reason = format!(
                        "failed to finish window {} to {} with {} readings; this is its state: {reason}",
                        outcome.start, outcome.end, outcome.count
                    );
                    let letter = self.letter("finish", reason, now);
                    let (key, payload) = (outcome.key.clone(), state.to_vec());
                    step.dead_letter(DeadLetter { module: digest(), key, payload, ..letter });
                }
            }
        }
    }

    fn letter(&self, stage: &str, reason: String, now: Timestamp) -> DeadLetter {
        DeadLetter {
            pipeline: self.pipeline.clone(),
            stage: stage.to_owned(),
            reason,
            module: None,
            topic: String::new(),
            key: String::new(),
            time: now.0,
            payload: Vec::new(),
        }
    }
}

/// Observes in order; windows close exactly where the watermark passes them.
fn observe(
    windows: &mut Windows,
    aggregate: &mut impl Aggregate,
    events: Vec<Event>,
    late: &mut u64,
) -> Settled {
    let mut all = Settled::default();
    for event in events {
        match windows.observe(&event.key, event.time, event.payload) {
            Fate::Used => {}
            Fate::Late => *late += 1,
        }
        if windows.due() {
            all.append(windows.settle(aggregate));
        }
    }
    all.append(windows.apply(aggregate));
    all
}

impl Aggregate for module::Aggregate {
    fn update(&mut self, groups: &[module::Group]) -> Vec<module::Updated> {
        Self::update(self, groups)
    }

    fn finish(&mut self, windows: &[module::Closed]) -> Vec<Result<Vec<u8>, String>> {
        Self::finish(self, windows)
    }
}
