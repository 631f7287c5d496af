//! The step: journal messages in; results, dead letters, window changes and counts out.

use std::sync::Arc;
use std::time::Duration;

use super::modules::{Blame, Modules};
use super::progress::{Counts, MadeBy};
use super::records;
use super::remembered;
use super::shadow::{Shadow, Watched};
use super::tally::LossTally;
use crate::decode::{self, Arrival, Clock, Decode};
use crate::flow::{DeadLetter, Event, LossReport, Message, Seq, Timestamp, UnfinishedWindow, UserProperties};
use crate::module;
use crate::store::{CLOCK_SET, Change};
use crate::window::{self, ObservedReading, OpenWindows, SettledBatch, WindowOutcome};
use crate::wire::{AgentReport, Record};

/// Results given at once.
const RESULTS_MAX: usize = 256;
/// Arrivals in the same stretch of so many microseconds are one to a stamp that a transform sets: of such an
/// event nobody knows which message it was, and the stretch, unlike the batch, does not depend on who read when.
const STRETCH: u64 = 100_000;

/// What steps have made since the last commit.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Records of results, as the outbox keeps them.
    pub(super) results: Vec<Vec<u8>>,
    /// States of the results, where they may be merged later; otherwise none.
    pub(super) states: Vec<Vec<u8>>,
    /// Records for the late output.
    pub(super) late: Vec<Vec<u8>>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) counts: Counts,
    /// What went another way.
    pub(super) tally: LossTally,
    /// Bytes of results and dead letters.
    pub(super) bytes: usize,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        self.counts == Counts::default() && self.tally == LossTally::default()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.results.is_empty() || !self.late.is_empty() || !self.dead_letters.is_empty()
    }

    pub(super) fn result(&mut self, record: &Record<'_>) {
        let record = record.to_bytes();
        self.bytes += record.len();
        self.counts.results += 1;
        self.results.push(record);
    }

    pub(super) fn late(&mut self, record: &Record<'_>) {
        let record = record.to_bytes();
        self.bytes += record.len();
        self.counts.sent_late += 1;
        self.late.push(record);
    }

    /// What the last result can be merged by.
    fn state(&mut self, state: Vec<u8>) {
        self.bytes += state.len();
        self.states.resize(self.results.len() - 1, Vec::new());
        self.states.push(state);
    }

    pub(super) fn dead_letter(&mut self, mut letter: DeadLetter) {
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
    /// Of the messages so far.
    pub(super) clock: Clock,
    /// The host's was not set or behind when the last message came.
    pub(super) clock_is_behind: bool,
    pub(super) transforms: Vec<module::TransformModule>,
    /// Of what transforms remembered, what is to be removed with the next commit.
    pub(super) forgotten: Vec<Change>,
    pub(super) stage: Stage,
    /// Another version, which runs beside this one and sends nothing.
    pub(super) shadow: Option<Shadow>,
    /// Results may be merged later.
    pub(super) keeps_states: bool,
    /// Late readings go to an output.
    pub(super) sends_late: bool,
}

/// What events become.
#[derive(Debug)]
pub(super) enum Stage {
    /// Each a result.
    Each,
    /// A result for each key and window.
    Windowed { windows: Box<OpenWindows>, aggregate: Box<super::aggregate::Aggregate> },
}

impl Stage {
    pub(super) fn aggregate(&mut self) -> Option<&mut super::aggregate::Aggregate> {
        match self {
            Self::Each => None,
            Self::Windowed { aggregate, .. } => Some(aggregate),
        }
    }
}

/// A message on its way through the first transform.
#[derive(Debug)]
pub(super) struct Origin {
    received: Timestamp,
    /// As it was published: what a number became is not what the device said.
    payload: bytes::Bytes,
    properties: UserProperties,
}

/// The times that a step goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The arrival: what stamps are held against.
    pub(super) clock: Timestamp,
    pub(super) now: Timestamp,
}

impl Times {
    /// For what arrived in the same stretch: its beginning can stand for a stamp, none may be far ahead of its end.
    fn arrival(self) -> Arrival {
        let time = self.clock.0 - self.clock.0 % STRETCH;
        Arrival { time: Timestamp(time), clock: Timestamp(time.saturating_add(STRETCH - 1)) }
    }
}

impl Steps {
    /// The trips of its modules since the last call of this.
    pub(super) fn take_trips(&mut self) -> Vec<Blame> {
        let mut all = Vec::new();
        for (index, transform) in self.transforms.iter_mut().enumerate() {
            let trips = transform.take_trips();
            all.extend(Blame::of(format_args!("transform[{index}]"), transform.digest(), trips));
        }
        if let Some(aggregate) = self.stage.aggregate() {
            let trips = aggregate.take_trips();
            all.extend(Blame::of(format_args!("aggregate"), aggregate.digest(), trips));
        }
        all
    }

    /// What makes the states of its windows.
    pub(super) fn made_by(&self) -> MadeBy {
        match &self.stage {
            Stage::Each => MadeBy::default(),
            Stage::Windowed { aggregate, .. } => MadeBy::of(aggregate),
        }
    }

    /// Takes the modules out; without them it makes no step.
    pub(super) fn take_modules(&mut self) -> Modules {
        let aggregate = match std::mem::replace(&mut self.stage, Stage::Each) {
            Stage::Each => None,
            Stage::Windowed { aggregate, .. } => Some(*aggregate),
        };
        Modules { transforms: std::mem::take(&mut self.transforms), aggregate }
    }

    /// Whether the message is for this pipeline.
    pub(super) fn takes(&self, message: &Message) -> bool {
        message.input == self.input && self.decode.takes(&message.topic)
    }

    /// One page of the journal.
    pub(super) fn run(
        &mut self,
        page: Vec<(Seq, Message)>,
        now: Timestamp,
        step: &mut Step,
    ) -> Result<(), window::WindowError> {
        let (mut events, mut origins) = (Vec::with_capacity(page.len()), Vec::with_capacity(page.len()));
        let (mut at, mut passed) = (Times { clock: Timestamp::default(), now }, Vec::new());
        for (_, message) in page {
            let clock = self.tick(message.received, step);
            if !self.takes(&message) {
                step.counts.skipped += 1;
                continue;
            }
            step.counts.read += 1;
            let next = Times { clock, now };
            let apart = next.arrival() != at.arrival() && !self.transforms.is_empty();
            if apart && !events.is_empty() {
                passed.append(&mut self.pass(0, std::mem::take(&mut events), &origins, at, step));
                origins.clear();
            }
            at = next;
            self.decode(message, clock.into(), now, step, &mut events, &mut origins);
        }
        passed.append(&mut self.pass(0, events, &origins, at, step));
        self.take(passed, at, step)
    }

    /// The state of windows was lost, all of it or some; which times are concerned. `began` is the newest
    /// time a reading may have had, where that was lost as well.
    pub(super) fn lose_windows(
        &mut self,
        began: Option<Timestamp>,
    ) -> Result<Option<(Timestamp, Timestamp)>, window::WindowError> {
        match &mut self.stage {
            Stage::Each => Ok(None),
            Stage::Windowed { windows, .. } => windows.lose(began),
        }
    }

    /// Says upstream what is lost.
    pub(super) fn report(&self, report: LossReport, now: Timestamp, step: &mut Step) {
        let agent = (&*self.agent).into();
        let pipeline = Some((&*self.pipeline).into());
        step.result(&Record::Report(AgentReport { agent, pipeline, time: now, report }));
    }

    /// Nothing came for this long though nothing was waiting.
    pub(super) fn idle(&mut self, quiet: Duration) {
        if let Stage::Windowed { windows, .. } = &mut self.stage {
            windows.idle(quiet);
        }
    }

    /// Gives some of the results that are due; whether there may be more.
    pub(super) fn settle(&mut self, now: Timestamp, step: &mut Step) -> Result<bool, window::WindowError> {
        let Stage::Windowed { windows, aggregate } = &mut self.stage else { return Ok(false) };
        if !windows.due() {
            return Ok(false);
        }
        let mut aggregate = Watched { running: aggregate, shadow: self.shadow.as_mut() };
        let settled = windows.settle(&mut aggregate, RESULTS_MAX)?;
        let due = windows.due();
        self.take_settled(settled, Times { clock: now, now }, step);
        Ok(due)
    }

    /// The windows' progress and changed state since the last call.
    pub(super) fn changes(&mut self) -> (Vec<u8>, Vec<Change>) {
        let (progress, mut changes) = match &mut self.stage {
            Stage::Each => Default::default(),
            Stage::Windowed { windows, .. } => (windows.progress(), windows.drain_changes()),
        };
        changes.append(&mut self.forgotten);
        changes.extend(remembered::changes(&mut self.transforms));
        (progress, changes)
    }

    /// Bytes that transforms have to remember since the last call.
    pub(super) fn remembered_bytes(&self) -> usize {
        self.transforms.iter().map(module::TransformModule::changed_bytes).sum()
    }

    /// How many names the transforms remember.
    pub(super) fn names(&self) -> u64 {
        self.transforms.iter().map(module::TransformModule::names).sum()
    }

    /// Why what a transform remembered could not be read: the step is not to be committed.
    pub(super) fn broken(&mut self) -> Option<String> {
        self.transforms.iter_mut().find_map(module::TransformModule::broken)
    }

    pub(super) fn windows(&self) -> Option<&OpenWindows> {
        match &self.stage {
            Stage::Each => None,
            Stage::Windowed { windows, .. } => Some(windows),
        }
    }

    /// The next message of the journal arrived then, by the host's clock; by which time to judge it.
    fn tick(&mut self, received: Timestamp, step: &mut Step) -> Timestamp {
        let clock = self.clock.tick(received);
        let behind = clock != received || received < CLOCK_SET;
        step.counts.clock_behind += u64::from(behind);
        if behind != std::mem::replace(&mut self.clock_is_behind, behind) {
            let (pipeline, latest) = (&self.pipeline, self.clock.latest());
            tracing::warn!(pipeline, %received, %latest, behind, "host clock not set or behind the journal");
        }
        clock
    }

    /// One message.
    pub(super) fn decode(
        &self,
        message: Message,
        arrival: Arrival,
        now: Timestamp,
        step: &mut Step,
        events: &mut Vec<Event>,
        origins: &mut Vec<Origin>,
    ) {
        match self.decode.decode(&message, arrival) {
            Ok((event, found)) => {
                step.counts.found(found);
                events.push(event);
                origins.push(Origin {
                    received: message.received,
                    payload: message.payload,
                    properties: message.properties,
                });
            }
            Err(error) => {
                step.counts.rejected_messages += 1;
                step.counts.found(error.found());
                let received = Times { clock: message.received, now };
                let letter = self.letter("decode", error.to_string(), received);
                step.dead_letter(DeadLetter {
                    input: message.input.to_string(),
                    topic: message.topic,
                    properties: message.properties,
                    payload: message.payload.into(),
                    ..letter
                });
            }
        }
    }

    /// Through the transforms from number `first` on, and all that is behind them.
    pub(super) fn transform(
        &mut self,
        first: usize,
        events: Vec<Event>,
        origins: &[Origin],
        at: Times,
        step: &mut Step,
    ) -> Result<(), window::WindowError> {
        let events = self.pass(first, events, origins, at, step);
        self.take(events, at, step)
    }

    /// Through the transforms alone. What is refused by the first one is kept as it was published, if its origin
    /// is known.
    fn pass(
        &mut self,
        first: usize,
        mut events: Vec<Event>,
        origins: &[Origin],
        at: Times,
        step: &mut Step,
    ) -> Vec<Event> {
        for index in first..self.transforms.len() {
            let (passed, rejections) = self.transforms[index].process(&events);
            if let Some(shadow) = &mut self.shadow {
                shadow.compare(index, &events, &passed, &rejections);
            }
            step.counts.transformed(events.len().saturating_sub(rejections.len()), passed.len());
            for rejection in rejections {
                step.counts.rejected_messages += 1;
                let event = std::mem::take(&mut events[rejection.index]);
                let letter = self.letter(&format!("transform[{index}]"), rejection.reason, at);
                let mut letter = DeadLetter { module: self.digest(index), ..of_event(letter, event) };
                if let Some(origin) = origins.get(rejection.index).filter(|_| index == 0) {
                    (letter.received, letter.payload) = (origin.received, origin.payload.to_vec());
                    letter.properties = origin.properties.clone();
                }
                step.dead_letter(letter);
            }
            events = passed;
        }
        step.counts.events += events.len() as u64;
        self.check(events, at, step)
    }

    /// Behind the transforms.
    pub(super) fn conclude(
        &mut self,
        events: Vec<Event>,
        at: Times,
        step: &mut Step,
    ) -> Result<(), window::WindowError> {
        let events = self.check(events, at, step);
        self.take(events, at, step)
    }

    /// Events become results, or part of their windows.
    fn take(&mut self, events: Vec<Event>, at: Times, step: &mut Step) -> Result<(), window::WindowError> {
        let Stage::Windowed { windows, aggregate } = &mut self.stage else {
            self.forward_each(events, at, step);
            return Ok(());
        };
        let mut aggregate = Watched { running: aggregate, shadow: self.shadow.as_mut() };
        let (mut refused, mut late) = (Vec::new(), Vec::new());
        for mut event in events {
            let payload = std::mem::take(&mut event.payload);
            match windows.observe(&mut aggregate, &event.key, event.time, payload)? {
                ObservedReading::Used => {}
                ObservedReading::Full(payload) => refused.push(Event { payload, ..event }),
                ObservedReading::Lost(_) => step.counts.lost_events += 1,
                ObservedReading::Late(payload) => late.push(Event { payload, ..event }),
            }
        }
        let settled = windows.apply(&mut aggregate)?;
        self.take_settled(settled, at, step);
        for event in late {
            self.take_late(event, at, step);
        }
        for event in refused {
            let reason = "too many keys have open windows: raise `keys_max`, or set `when_keys_full`";
            self.refuse("window", reason.to_owned(), event, at, step);
        }
        Ok(())
    }

    /// A transform may change key and time: they must keep to the same bounds as what was decoded.
    fn check(&self, events: Vec<Event>, at: Times, step: &mut Step) -> Vec<Event> {
        if self.transforms.is_empty() {
            return events;
        }
        let mut good = Vec::with_capacity(events.len());
        for mut event in events {
            match self.decode.check(&mut event, at.arrival()) {
                Ok(found) => {
                    step.counts.found(found);
                    good.push(event);
                }
                Err(error) => {
                    step.counts.found(error.found());
                    self.refuse("check", error.to_string(), event, at, step);
                }
            }
        }
        good
    }

    fn forward_each(&self, events: Vec<Event>, at: Times, step: &mut Step) {
        let module = self.transforms.last().map(module::TransformModule::digest);
        for event in events {
            match records::event(&self.agent, &self.pipeline, module, &event) {
                Ok(event) => {
                    step.counts.used += 1;
                    step.result(&event);
                }
                Err(error) => {
                    let reason = format!("failed to read the transforms' output as JSON: {error}");
                    self.refuse("encode", reason, event, at, step);
                }
            }
        }
    }

    /// An event that came after its window could no longer change.
    fn take_late(&self, event: Event, at: Times, step: &mut Step) {
        if !self.sends_late {
            step.counts.late += 1;
            return;
        }
        let module = self.transforms.last().map(module::TransformModule::digest);
        match records::late(&self.agent, &self.pipeline, module, &event) {
            Ok(reading) => {
                step.counts.late += 1;
                step.late(&reading);
            }
            Err(error) => {
                let reason = format!("failed to read the late reading as JSON: {error}");
                self.refuse("encode", reason, event, at, step);
            }
        }
    }

    /// An event that the transforms made and nothing behind them can use.
    fn refuse(&self, stage: &str, reason: String, event: Event, at: Times, step: &mut Step) {
        step.counts.rejected_events += 1;
        let module = self.transforms.last().map(|last| last.digest().to_owned());
        step.dead_letter(DeadLetter { module, ..of_event(self.letter(stage, reason, at), event) });
    }

    fn take_settled(&self, settled: SettledBatch, at: Times, step: &mut Step) {
        let Stage::Windowed { aggregate, .. } = &self.stage else { return };
        let digest = || Some(aggregate.digest().to_owned());
        step.counts.used += settled.used;
        for refused in settled.refused {
            step.counts.rejected_events += 1;
            let letter = self.letter("aggregate", refused.reason, at);
            let (key, payload, event_time) = (refused.key, refused.payload, Some(refused.time));
            step.dead_letter(DeadLetter { module: digest(), key, payload, event_time, ..letter });
        }
        for outcome in settled.outcomes {
            self.take_outcome(outcome, aggregate.digest(), at, step);
        }
    }

    /// A finished window's result, or its state as a dead letter.
    pub(super) fn take_outcome(&self, outcome: WindowOutcome, module: &str, at: Times, step: &mut Step) {
        match records::window(&self.agent, &self.pipeline, module, &outcome) {
            Ok(result) => {
                step.result(&result);
                if self.keeps_states && !outcome.early && outcome.part == 0 {
                    step.state(outcome.state);
                }
            }
            Err((reason, payload)) => {
                let (stage, what) = match outcome.value {
                    Ok(_) => ("encode", "result"),
                    Err(_) => ("finish", "state"),
                };
                let reason = format!(
                    "failed to finish window {} to {} with {} readings; this is its {what}: {reason}",
                    outcome.start, outcome.end, outcome.count
                );
                let WindowOutcome { key, start, end, part, revision, count, late, rejected, .. } = outcome;
                step.dead_letter(DeadLetter {
                    module: Some(module.to_owned()),
                    key,
                    payload,
                    window: Some(UnfinishedWindow { start, end, part, revision, count, late, rejected }),
                    ..self.letter(stage, reason, at)
                });
            }
        }
    }

    pub(super) fn letter(&self, stage: &str, reason: String, at: Times) -> DeadLetter {
        DeadLetter {
            pipeline: self.pipeline.clone(),
            stage: stage.to_owned(),
            reason,
            input: self.input.to_string(),
            time: at.now.0,
            received: at.clock,
            ..DeadLetter::default()
        }
    }

    fn digest(&self, transform: usize) -> Option<String> {
        self.transforms.get(transform).map(|module| module.digest().to_owned())
    }
}

/// The letter with what the event says of itself.
fn of_event(letter: DeadLetter, event: Event) -> DeadLetter {
    let Event { topic, key, time, payload } = event;
    DeadLetter { topic, key, event_time: Some(time), payload, ..letter }
}
