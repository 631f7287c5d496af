//! Count, mean, minimum, maximum and standard deviation of fields of the payload.

mod summary;

use headwater_module::{Aggregate, ClosedWindow, Sample, export_aggregate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use summary::FieldSummary;

/// The settings: the fields to describe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldStats {
    fields: Vec<String>,
}

export_aggregate!(FieldStats);

impl Aggregate for FieldStats {
    type State = BTreeMap<String, FieldSummary>;

    fn prepare(&mut self) -> Result<(), String> {
        self.fields.sort_unstable();
        match self.fields.array_windows().find(|[one, next]| one == next) {
            Some([twice, _]) => Err(format!("`fields` has `{twice}` twice")),
            None if self.fields.is_empty() => Err("`fields` is empty: name at least one".to_owned()),
            None => Ok(()),
        }
    }

    /// A field that is missing or no number is not counted; a sample with none is refused.
    fn update(&self, state: &mut Self::State, sample: &Sample) -> Result<(), String> {
        let object = sample.object()?;
        let mut found = false;
        for field in &self.fields {
            if let Some(number) = object.number(field) {
                match state.get_mut(field) {
                    Some(summary) => summary.add(number),
                    None => drop(state.insert(field.clone(), FieldSummary::of(number))),
                }
                found = true;
            }
        }
        found.then_some(()).ok_or_else(|| format!("no number in any of {:?}", self.fields))
    }

    fn merge(&self, mut a: Self::State, b: Self::State) -> Self::State {
        for (field, summary) in b {
            a.entry(field).and_modify(|other| other.merge(&summary)).or_insert(summary);
        }
        a
    }

    fn finish(&self, _: &ClosedWindow, state: Self::State) -> Result<impl Serialize, String> {
        Ok(state.into_iter().map(|(field, all)| (field, all.report())).collect::<BTreeMap<_, _>>())
    }
}
