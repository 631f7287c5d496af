//! The checks of any transform.

use super::{BATCH, Check, MANY, answers_bad_settings, clipped, inputs, shown};
use headwater_agent::flow::Event;
use headwater_agent::module::{Rejection, TransformModule};

/// The events of a call, and its rejections.
pub(super) type Outcome = (Vec<Event>, Vec<Rejection>);

/// A transform under test.
pub(super) struct TransformTrial {
    module: TransformModule,
    settings: String,
}

pub(super) fn checks(module: TransformModule, settings: &str, samples: &[Event]) -> Vec<Check> {
    let mut trial = TransformTrial::new(module, settings);
    let mixed = inputs::mixed(samples);
    vec![
        ("an empty batch gives nothing", trial.takes_an_empty_batch()),
        ("takes any bytes", trial.takes(&inputs::bytes())),
        ("takes texts of any script", trial.takes(&inputs::texts())),
        ("takes the samples", trial.takes(samples)),
        ("takes 10,000 events", trial.takes_many(&mixed)),
        ("names its rejections rightly", trial.call(&mixed).map(drop)),
        ("gives the same again", trial.gives_the_same_again(&mixed)),
        ("gives the same on a fresh instance", trial.gives_the_same_afresh(&mixed)),
        ("gives the same however it is batched", trial.gives_the_same_in_parts(&mixed)),
        ("answers settings that are wrong", trial.answers_bad_settings()),
    ]
}

impl TransformTrial {
    pub(super) fn new(module: TransformModule, settings: &str) -> Self {
        Self { module, settings: settings.to_owned() }
    }

    /// Makes one call; if it fails as a whole, one for each event. A trap and a broken contract are faults.
    pub(super) fn call(&mut self, events: &[Event]) -> Result<Outcome, String> {
        let traps = self.module.traps();
        let reason = match self.module.once(events) {
            Ok(outcome) => return Ok(outcome),
            Err(reason) => reason,
        };
        let found = if self.module.traps() > traps { "a trap" } else { "an error" };
        if events.len() == 1 && found == "an error" && !breaks_contract(&reason) {
            return Ok((Vec::new(), vec![Rejection { index: 0, reason }]));
        }
        if events.len() < 2 {
            let payload = events.first().map_or(String::new(), |event| shown(&event.payload));
            return Err(format!(
                "expected `process` to answer the payload {payload}, found {found}: {reason}"
            ));
        }
        let mut out = Vec::new();
        let mut rejected = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let (events, refused) = self.call(std::slice::from_ref(event))?;
            out.extend(events);
            rejected.extend(refused.into_iter().map(|one| Rejection { index, ..one }));
        }
        if rejected.is_empty() || found == "a trap" || breaks_contract(&reason) {
            let inputs = events.len();
            return Err(format!(
                "expected `process` to answer {inputs} events in one call, found {found}: {reason}"
            ));
        }
        Ok((out, rejected))
    }

    /// Makes calls of so many events each.
    pub(super) fn call_in_parts(&mut self, events: &[Event], size: usize) -> Result<Outcome, String> {
        let mut out = Vec::new();
        let mut rejected = Vec::new();
        for (part, events) in events.chunks(size).enumerate() {
            let (events, refused) = self.call(events)?;
            out.extend(events);
            rejected
                .extend(refused.into_iter().map(|one| Rejection { index: part * size + one.index, ..one }));
        }
        // In a call their order is the module's.
        rejected.sort_by_key(|one| one.index);
        Ok((out, rejected))
    }

    pub(super) fn renew(&mut self, settings: &str) -> Result<(), String> {
        self.module.renew(settings)
    }

    fn takes_an_empty_batch(&mut self) -> Result<(), String> {
        match self.call(&[])? {
            (events, rejected) if events.is_empty() && rejected.is_empty() => Ok(()),
            (events, rejected) => Err(format!(
                "expected no events and no rejections, found {} and {}",
                events.len(),
                rejected.len()
            )),
        }
    }

    fn takes(&mut self, events: &[Event]) -> Result<(), String> {
        events.iter().try_for_each(|event| self.call(std::slice::from_ref(event)).map(drop))
    }

    /// Checks that each of many events gives the same as alone.
    fn takes_many(&mut self, events: &[Event]) -> Result<(), String> {
        let events = inputs::small(events);
        let alone = events.iter().map(|event| self.call(std::slice::from_ref(event)));
        let alone = alone.collect::<Result<Vec<_>, _>>()?;
        let mut expected: Outcome = Default::default();
        for (index, (events, rejected)) in alone.iter().cycle().take(MANY).enumerate() {
            expected.0.extend(events.iter().cloned());
            expected.1.extend(rejected.iter().map(|one| Rejection { index, ..one.clone() }));
        }
        let many: Vec<Event> = events.into_iter().cycle().take(MANY).collect();
        same(&self.call_in_parts(&many, BATCH)?, &expected)
    }

    fn gives_the_same_again(&mut self, events: &[Event]) -> Result<(), String> {
        let first = self.call_in_parts(events, BATCH)?;
        same(&self.call_in_parts(events, BATCH)?, &first)
    }

    fn gives_the_same_afresh(&mut self, events: &[Event]) -> Result<(), String> {
        let used = self.call_in_parts(events, BATCH)?;
        self.renew(&self.settings.clone())?;
        same(&self.call_in_parts(events, BATCH)?, &used)
    }

    fn gives_the_same_in_parts(&mut self, events: &[Event]) -> Result<(), String> {
        let whole = self.call_in_parts(events, BATCH)?;
        [1, 2, 7, 100].into_iter().try_for_each(|size| {
            same(&self.call_in_parts(events, size)?, &whole)
                .map_err(|found| format!("in calls of {size}: {found}"))
        })
    }

    fn answers_bad_settings(&mut self) -> Result<(), String> {
        answers_bad_settings(|config| {
            let traps = self.module.traps();
            let renewed = self.module.renew(config);
            (renewed, self.module.traps() > traps)
        })
    }
}

/// Returns true if the reason is the host's for an answer that the contract does not allow.
pub(super) fn breaks_contract(reason: &str) -> bool {
    reason.starts_with("the module rejected input") || reason.starts_with("the module gave")
}

/// Checks that two outcomes are the same, byte for byte.
pub(super) fn same(found: &Outcome, expected: &Outcome) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let difference = expected.0.iter().zip(&found.0).find(|(expected, found)| expected != found);
    if let Some((expected, found)) = difference {
        return Err(format!("expected the event {}, found {}", told(expected), told(found)));
    }
    if expected.0.len() != found.0.len() {
        return Err(format!("expected {} events, found {}", expected.0.len(), found.0.len()));
    }
    let told = |outcome: &Outcome| clipped(&format!("{:?}", outcome.1));
    Err(format!("expected the rejections {}, found {}", told(expected), told(found)))
}

/// Returns an event on one line.
pub(super) fn told(event: &Event) -> String {
    let Event { topic, key, time, payload } = event;
    format!("{topic:?} {key:?} {} {}", time.0, shown(payload))
}
