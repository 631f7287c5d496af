//! The checks of any aggregate.

use super::groups::{AggregateTrial, Samples, group, samples};
use super::number::close;
use super::{Check, MANY, answers_bad_settings, clipped, inputs, shown};
use headwater_agent::flow::Event;
use headwater_agent::module::{AggregateModule, Group, Updated};
use serde_json::Value;

pub(super) fn checks(module: AggregateModule, settings: &str, events: &[Event]) -> Vec<Check> {
    let mut trial = AggregateTrial::new(module, settings);
    let mixed = inputs::mixed(events);
    let all = samples(&mixed);
    vec![
        ("no groups give nothing", trial.takes_no_groups()),
        ("takes any bytes", trial.takes(&inputs::bytes())),
        ("takes texts of any script", trial.takes(&inputs::texts())),
        ("takes the samples", trial.takes(events)),
        ("takes 10,000 samples", trial.takes_many(&mixed)),
        ("takes 10,000 groups", trial.takes_many_groups(&mixed)),
        ("names its rejections rightly", trial.update_whole(&group(&[], &all)).map(drop)),
        ("gives the same again", trial.gives_the_same_again(&all)),
        ("gives the same on a fresh instance", trial.gives_the_same_afresh(&all)),
        ("gives the same however it is batched", trial.gives_the_same_in_parts(&all)),
        ("keeps nothing but its state", trial.keeps_nothing_else(&all)),
        ("an empty state is neutral", trial.takes_an_empty_state_as_neutral(&all)),
        ("merging is associative, and as updating in one go", trial.merges(&all)),
        ("stands states that it has not made", trial.stands_other_states(&all)),
        ("answers settings that are wrong", trial.answers_bad_settings()),
    ]
}

impl AggregateTrial {
    fn takes_no_groups(&mut self) -> Result<(), String> {
        let updated = self.update(&[])?;
        let finished = self.module.finish_once(&[])?;
        match (updated.len(), finished.len()) {
            (0, 0) => Ok(()),
            (updated, finished) => Err(format!("expected no answers, found {updated} and {finished}")),
        }
    }

    fn takes(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            let group = Group { key: event.key.clone(), ..group(&[], &samples(std::slice::from_ref(event))) };
            let state = self.update_whole(&group)?.state;
            self.finish(&state)?.ok();
        }
        Ok(())
    }

    fn takes_many(&mut self, events: &[Event]) -> Result<(), String> {
        let many: Samples = samples(&inputs::small(events)).into_iter().cycle().take(MANY).collect();
        let large = self.update_in_parts(&group(&[], &many), MANY / 10)?;
        same(&self.update_in_parts(&group(&[], &many), 100)?, &large)
    }

    fn takes_many_groups(&mut self, events: &[Event]) -> Result<(), String> {
        let alone: Vec<Group> = samples(&inputs::small(events))
            .iter()
            .map(|sample| group(&[], std::slice::from_ref(sample)))
            .collect();
        let mut expected = Vec::with_capacity(alone.len());
        for group in &alone {
            expected.push(self.update_whole(group)?);
        }
        let many: Vec<Group> = alone.iter().cycle().take(MANY).cloned().collect();
        let mut found = Vec::with_capacity(MANY);
        for groups in many.chunks(super::BATCH) {
            found.extend(self.update(groups)?);
        }
        found.iter().zip(expected.iter().cycle()).try_for_each(|(found, expected)| same(found, expected))
    }

    fn gives_the_same_again(&mut self, all: &Samples) -> Result<(), String> {
        let first = self.update_whole(&group(&[], all))?;
        same(&self.update_whole(&group(&[], all))?, &first)
    }

    fn gives_the_same_afresh(&mut self, all: &Samples) -> Result<(), String> {
        let used = self.update_whole(&group(&[], all))?;
        self.module.renew(&self.settings)?;
        same(&self.update_whole(&group(&[], all))?, &used)
    }

    fn gives_the_same_in_parts(&mut self, all: &Samples) -> Result<(), String> {
        let whole = self.update_whole(&group(&[], all))?;
        [1, 2, 7, 100].into_iter().try_for_each(|size| {
            same(&self.update_in_parts(&group(&[], all), size)?, &whole)
                .map_err(|found| format!("in calls of {size}: {found}"))
        })
    }

    /// Checks the first half of the samples on one instance, the second and the result on others.
    fn keeps_nothing_else(&mut self, all: &Samples) -> Result<(), String> {
        let whole = self.update_whole(&group(&[], all))?;
        let result = self.finish(&whole.state)?;
        let (first, second) = all.split_at(all.len() / 2);
        self.module.renew(&self.settings)?;
        let state = self.state(first)?;
        self.module.renew(&self.settings)?;
        let state = self.update_whole(&group(&state, second))?.state;
        if state != whole.state {
            return Err(format!("expected the state {}, found {}", shown(&whole.state), shown(&state)));
        }
        self.module.renew(&self.settings)?;
        same_result(&self.finish(&state)?, &result)
    }

    fn takes_an_empty_state_as_neutral(&mut self, all: &Samples) -> Result<(), String> {
        let state = self.state(all)?;
        let alone = self.finish(&state)?;
        for (a, b) in [(&[][..], state.as_slice()), (&state, &[])] {
            let merged = self.merge(a, b)?;
            same_result(&self.finish(&merged)?, &alone)?;
        }
        let nothing = self.merge(&[], &[])?;
        let empty = self.state(&[])?;
        same_result(&self.finish(&nothing)?, &self.finish(&empty)?)
    }

    fn merges(&mut self, all: &Samples) -> Result<(), String> {
        let whole = self.state(all)?;
        let whole = self.finish(&whole)?;
        for (from, to) in [(all.len() / 3, 2 * all.len() / 3), (1, 2), (0, all.len() / 2)] {
            let a = self.state(&all[..from])?;
            let b = self.state(&all[from..to])?;
            let c = self.state(&all[to..])?;
            let ab = self.merge(&a, &b)?;
            let left = self.merge(&ab, &c)?;
            let left = self.finish(&left)?;
            let bc = self.merge(&b, &c)?;
            let right = self.merge(&a, &bc)?;
            let right = self.finish(&right)?;
            same_result(&right, &left).map_err(|found| format!("(a b) c against a (b c): {found}"))?;
            same_result(&left, &whole).map_err(|found| format!("updated against merged: {found}"))?;
        }
        Ok(())
    }

    fn stands_other_states(&mut self, all: &Samples) -> Result<(), String> {
        let state = self.state(all)?;
        let mut states: Vec<Vec<u8>> =
            inputs::payloads().into_iter().filter(|bytes| !bytes.is_empty()).collect();
        states.extend([vec![0; 8], vec![0xff; 8], vec![0xff; 40], vec![0; 1000], vec![0x80; 1000]]);
        for cut in [1, state.len() / 2, state.len().saturating_sub(1)] {
            states.push(state[..cut.min(state.len())].to_vec());
        }
        states.push([state.as_slice(), b"\0"].concat());
        for at in 0..state.len().min(64) {
            let mut flipped = state.clone();
            flipped[at] ^= 0xff;
            states.push(flipped);
        }
        states.iter().try_for_each(|state| self.answers(state))
    }

    fn answers_bad_settings(&mut self) -> Result<(), String> {
        answers_bad_settings(|config| {
            let traps = self.module.traps();
            let renewed = self.module.renew(config);
            (renewed, self.module.traps() > traps)
        })
    }
}

/// Checks that two answers are the same, byte for byte.
fn same(found: &Updated, expected: &Updated) -> Result<(), String> {
    if found.state != expected.state {
        return Err(format!("expected the state {}, found {}", shown(&expected.state), shown(&found.state)));
    }
    if found.rejected != expected.rejected {
        let told = |updated: &Updated| clipped(&format!("{:?}", updated.rejected));
        return Err(format!("expected the rejections {}, found {}", told(expected), told(found)));
    }
    Ok(())
}

fn same_result(found: &Result<Value, String>, expected: &Result<Value, String>) -> Result<(), String> {
    let same = match (found, expected) {
        (Ok(found), Ok(expected)) => close(found, expected),
        (Err(_), Err(_)) => true,
        _ => false,
    };
    let told = |result: &Result<Value, String>| match result {
        Ok(value) => clipped(&value.to_string()),
        Err(reason) => format!("an error: {reason}"),
    };
    same.then_some(()).ok_or_else(|| format!("expected {}, found {}", told(expected), told(found)))
}
