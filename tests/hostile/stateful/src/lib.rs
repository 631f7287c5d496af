//! A stateful transform that does what its events say: `[["set", "a", 1], ["get", "a"], ["panic"]]`. Its
//! output event has the values that it got.

use headwater_module::{Event, Transform, export_transform, state};

/// The settings, of which there are none.
#[derive(Debug, serde::Deserialize)]
pub struct StatefulTransform {}

impl Transform for StatefulTransform {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let acts: Vec<Vec<String>> =
            serde_json::from_slice(&event.payload).map_err(|error| error.to_string())?;
        let mut got: Vec<Option<String>> = Vec::new();
        for act in acts {
            match act.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["set", name, value] => state::set(name, &value)?,
                ["flood", value] => {
                    for number in 0..1_000_000 {
                        state::set(&number.to_string(), &value.repeat(1000))?;
                    }
                }
                ["add", name] => {
                    let count = state::get(name)?.unwrap_or(0_u64) + 1;
                    state::set(name, &count)?;
                    got.push(Some(count.to_string()));
                }
                ["get", name] => got.push(state::get(name)?),
                ["remove", name] => state::remove(name),
                ["reject"] => return Err("as told".to_owned()),
                _ => panic!("hostile {act:?}"),
            }
        }
        event.payload = serde_json::to_vec(&got).map_err(|error| error.to_string())?;
        Ok(Some(event))
    }
}
export_transform!(StatefulTransform);
