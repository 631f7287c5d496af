//! Messages that a broker sends again although the journal had stored them, because it had no acknowledgement
//! for them when the agent died.
//!
//! If damage took such a message from the journal, a report counts its position as lost, and the message is
//! read at a new position as well: the counts include it twice. These messages are known from both sides,
//! from the journal as it was before the damage and from the broker's log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use headwater_agent::store::Store;

/// The number of segments that are copied: the last one may have been begun just now, and the one before it
/// holds more messages than a broker leaves unacknowledged.
const SEGMENTS: usize = 2;

/// The end of a journal as it was before it was damaged, and the length of the broker's log at that time.
#[derive(Debug)]
pub struct JournalEnd {
    copy: PathBuf,
    broker_log: PathBuf,
    log_bytes: u64,
}

impl JournalEnd {
    /// Copies the last segments of a journal that no process has open into the folder `copy`, which it
    /// empties first, and records the length of the broker's log.
    ///
    /// # Errors
    /// When the store cannot be read, or the copy cannot be written.
    pub fn of(store: &Path, copy: PathBuf, broker_log: &Path) -> anyhow::Result<Self> {
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        let mut segments: Vec<PathBuf> = fs::read_dir(store.join("journal"))
            .context("the store has no journal")?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("j-"))
            .map(|entry| entry.path())
            .collect();
        segments.sort();
        let journal = copy.join("journal");
        for segment in segments.iter().rev().take(SEGMENTS) {
            let name = segment.file_name().context("a segment has a name")?;
            copy_tree(segment, &journal.join(name))?;
        }
        let log_bytes = fs::metadata(broker_log)?.len();
        Ok(Self { copy, broker_log: broker_log.to_owned(), log_bytes })
    }

    /// Counts the messages with one of the numbers `lost` that the broker has sent again since.
    ///
    /// # Errors
    /// When the copy or the broker's log cannot be read.
    pub fn resent(&self, lost: &[RangeInclusive<u64>]) -> anyhow::Result<u64> {
        let mut log = File::open(&self.broker_log)?;
        log.seek(SeekFrom::Start(self.log_bytes))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        let resent = resent_packets(&String::from_utf8_lossy(&text));
        let numbers = self.numbers()?.into_iter();
        let numbers = numbers.filter(|(packet, _)| resent.contains(packet)).map(|(_, number)| number);
        Ok(numbers.filter(|number| lost.iter().any(|range| range.contains(number))).count() as u64)
    }

    /// Returns the position of the last message under each packet identifier.
    fn numbers(&self) -> anyhow::Result<BTreeMap<u16, u64>> {
        let mut numbers = BTreeMap::new();
        Store::dump_journal(&self.copy, 0, usize::MAX, &mut |line| {
            let packet = line["packet"].as_u64().and_then(|packet| u16::try_from(packet).ok());
            numbers.extend(packet.zip(line["number"].as_u64()));
            true
        })?;
        Ok(numbers)
    }
}

/// Returns the packet identifiers of the messages that mosquitto has sent with the DUP flag.
fn resent_packets(log: &str) -> BTreeSet<u16> {
    let packet = |line: &str| {
        let (_, publish) = line.split_once("Sending PUBLISH to ")?;
        let (_, flags) = publish.split_once(" (d1, ")?;
        let (_, packet) = flags.split_once(", m")?;
        packet.split(',').next()?.parse().ok()
    };
    log.lines().filter_map(packet).collect()
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mosquitto_marks_as_sent_before_was_sent_again() {
        let log = "1764392546: Sending PUBLISH to edge-1 (d0, q1, r0, m7, 'plant/a', ... (67 bytes))\n\
                    1764392546: Sending PUBLISH to edge-1 (d1, q2, r0, m8, 'plant/a', ... (67 bytes))\n\
                    1764392546: Received PUBLISH from plant (d1, q1, r0, m9, 'plant/a', ... (67 bytes))\n\
                    1764392546: Sending PUBLISH to edge-1 (d1, q1, r0, m65535, 'plant/a', ... (7 bytes))\n";
        assert_eq!(resent_packets(log), BTreeSet::from([8, 65_535]));
    }
}
