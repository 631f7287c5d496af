//! The recorded series, read from the folder that the environment names.

use std::path::PathBuf;

use crate::oracle::PlantReading;

/// The name of the variable with the folder.
pub const VARIABLE: &str = "HEADWATER_DATA";

/// The files of the five series under `nab/`, without their ending.
pub const SERIES: [&str; 5] =
    ["machine_temperature_system_failure", "TravelTime_387", "occupancy_t4013", "speed_6005", "speed_7578"];

/// Returns one series in the order of its recording; its name is its key.
///
/// # Panics
/// When the variable is not set or a file is not as recorded.
#[must_use]
pub fn series(name: &str) -> Vec<PlantReading> {
    let folder = std::env::var_os(VARIABLE)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{VARIABLE} must name the folder of the recorded series"));
    let path = folder.join("nab").join(format!("{name}.csv"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", path.display()));
    text.lines()
        .skip(1)
        .map(|line| parse(name, line).unwrap_or_else(|| panic!("{}: {line}", path.display())))
        .collect()
}

fn parse(key: &str, line: &str) -> Option<PlantReading> {
    let (time, value) = line.split_once(',')?;
    let time: jiff::Timestamp = format!("{}Z", time.replace(' ', "T")).parse().ok()?;
    Some(PlantReading {
        key: key.to_owned(),
        time: time.as_millisecond().try_into().ok()?,
        value: value.parse().ok()?,
    })
}
