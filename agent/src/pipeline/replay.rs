//! A dead letter on its way again: it enters where it was refused, and is judged like any other.
//!
//! What was published enters at decode, what transforms had made where they had it, a window's state
//! is finished, a result goes to the outbox. Its stamp is held against the clock of now, and it is late
//! when its window is over. Letters come one at a time, so that what became of each is known.

use super::step::{Stage, Step, Steps, Times};
use crate::decode::{Arrival, check_json};
use crate::flow::{DeadLetter, Event, Message, MqttDelivery, Seq, Timestamp};
use crate::module;
use crate::store::CLOCK_SET;
use crate::window::{self, WindowOutcome};
use crate::wire::{OpaqueLine, Record};

/// Where a letter enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Decode,
    Transform(usize),
    Conclude,
    Result,
    Finish,
    Outbox,
}

impl Entry {
    fn of(letter: &DeadLetter) -> Option<Self> {
        match letter.stage.as_str() {
            "decode" | "transform[0]" => Some(Self::Decode),
            "check" | "aggregate" => Some(Self::Conclude),
            "encode" if letter.window.is_some() => Some(Self::Result),
            "encode" => Some(Self::Conclude),
            "finish" if letter.window.is_some() => Some(Self::Finish),
            _ if letter.is_of_stage("output") => Some(Self::Outbox),
            stage => {
                let index = stage.strip_prefix("transform[")?.strip_suffix(']')?;
                index.parse().ok().map(Self::Transform)
            }
        }
    }
}

/// Whether a pipeline can take such a letter again.
#[must_use]
pub fn is_replayable(letter: &DeadLetter) -> bool {
    Entry::of(letter).is_some()
}

impl Steps {
    /// The letter of that number, once more.
    pub(super) fn replay(
        &mut self,
        number: Seq,
        letter: DeadLetter,
        now: Timestamp,
        step: &mut Step,
    ) -> Result<(), window::WindowError> {
        let Some(entry) = Entry::of(&letter) else {
            tracing::error!(
                pipeline = self.pipeline,
                number,
                stage = letter.stage,
                "unknown stage: not replayed"
            );
            return Ok(());
        };
        let (letters, late) = (step.dead_letters.len(), step.counts.late + step.counts.lost_events);
        let at = Times { clock: self.clock.at(now), now };
        match entry {
            Entry::Decode | Entry::Transform(_) => step.counts.replayed_messages += 1,
            Entry::Conclude => step.counts.replayed_events += 1,
            Entry::Result | Entry::Finish | Entry::Outbox => step.counts.replayed_results += 1,
        }
        match entry {
            Entry::Decode => {
                let (mut events, mut origins) = (Vec::new(), Vec::new());
                let unset = letter.received < CLOCK_SET;
                let time = if unset { self.clock.at(letter.received) } else { letter.received };
                let arrival = Arrival { time, clock: at.clock.max(time) };
                self.decode(message(letter), arrival, now, step, &mut events, &mut origins);
                self.transform(0, events, &origins, at, step)?;
            }
            Entry::Transform(index) => self.transform(index, vec![event(letter)], &[], at, step)?,
            Entry::Conclude => self.conclude(vec![event(letter)], at, step)?,
            Entry::Result | Entry::Finish => self.finish(letter, entry, at, step),
            Entry::Outbox => self.send(letter, at, step),
        }
        let own = |new: &&mut DeadLetter| entry == Entry::Finish || new.stage != "finish";
        let mut refused = false;
        for new in step.dead_letters[letters..].iter_mut().filter(own) {
            (new.replay_of, refused) = (Some(number), true);
        }
        if !refused && step.counts.late + step.counts.lost_events == late {
            step.counts.succeeded_replays += 1;
        }
        Ok(())
    }

    /// A window's state or result.
    fn finish(&mut self, letter: DeadLetter, entry: Entry, at: Times, step: &mut Step) {
        let (Stage::Windowed { aggregate, .. }, Some(window)) = (&mut self.stage, letter.window) else {
            let reason = "failed to finish a window: the pipeline has no windows any more";
            return step.dead_letter(DeadLetter { reason: reason.to_owned(), time: at.now.0, ..letter });
        };
        let digest = aggregate.digest().to_owned();
        let closed = module::Closed {
            key: letter.key,
            start: window.start,
            end: window.end,
            state: letter.payload,
            count: window.count,
            late: window.late,
            revision: window.revision,
        };
        let value = match entry {
            Entry::Result => Ok(closed.state.clone()),
            _ => aggregate
                .inner()
                .finish(std::slice::from_ref(&closed))
                .pop()
                .unwrap_or_else(|| Err(String::new())),
        };
        let outcome = WindowOutcome {
            key: closed.key,
            start: closed.start,
            end: closed.end,
            part: window.part,
            revision: closed.revision,
            count: closed.count,
            late: closed.late,
            rejected: window.rejected,
            watermark: window.end,
            early: false,
            retracted: false,
            value: value.map_err(|reason| (reason, closed.state)),
            state: Vec::new(),
        };
        self.take_outcome(outcome, &digest, at, step);
    }

    /// Puts what the destination refused into the pipeline's output of today; a late reading into the one for
    /// those, if there is one. The payload is a line that somebody may have mended: one that is no record's is
    /// sent as it is.
    fn send(&self, letter: DeadLetter, at: Times, step: &mut Step) {
        match Record::from_line(&letter.payload) {
            Ok(reading @ Record::Late(_)) if self.sends_late => return step.late(&reading),
            Ok(record) => return step.result(&record),
            Err(_) => {}
        }
        match check_json(&letter.payload) {
            Ok(()) if !letter.payload.contains(&b'\n') => step.result(&Record::Opaque(OpaqueLine {
                pipeline: (&*self.pipeline).into(),
                key: letter.key.into(),
                line: letter.payload.into(),
            })),
            other => {
                let words = other
                    .err()
                    .map_or_else(|| "it is more than one line".to_owned(), |error| error.to_string());
                let reason = format!("failed to read the result as a line of JSON: {words}");
                step.dead_letter(DeadLetter { reason, time: at.now.0, stage: "output".to_owned(), ..letter });
            }
        }
    }
}

fn message(letter: DeadLetter) -> Message {
    Message {
        input: letter.input.into(),
        topic: letter.topic,
        payload: letter.payload.into(),
        properties: letter.properties,
        received: letter.received,
        delivery: MqttDelivery::default(),
    }
}

fn event(letter: DeadLetter) -> Event {
    let time = letter.event_time.unwrap_or(letter.received);
    Event { topic: letter.topic, key: letter.key, time, payload: letter.payload }
}
