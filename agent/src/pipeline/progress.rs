//! What a pipeline commits beside its windows: the ledger's counts, and the watermark.
//!
//! ```text
//! version u8 = 2 | twelve counts u64, little endian | the windows' own progress
//! ```

const VERSION: u8 = 2;
const COUNTS: usize = 12;

/// The ledger of one pipeline since the state folder was made.
///
/// `events + replayed_events = used + late + rejected_events + pending`, where pending are events given to
/// windows and not yet to the aggregate: none at a commit. Where every transform gives one event for one,
/// `read + replayed_messages = rejected_messages + events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages read.
    pub read: u64,
    /// Messages dead-lettered at decode or by a transform.
    pub rejected_messages: u64,
    /// Events that came out of the transforms.
    pub events: u64,
    /// Events used in a window, or forwarded on their own.
    pub used: u64,
    /// Events that came after their window could no longer change.
    pub late: u64,
    /// Events dead-lettered by the aggregate.
    pub rejected_events: u64,
    /// Results committed to the outbox.
    pub results: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Dead letters of decode and the transforms that were given in again.
    pub replayed_messages: u64,
    /// Dead letters of what comes behind the transforms that were given in again.
    pub replayed_events: u64,
    /// Results and windows' states among the dead letters that were given in again.
    pub replayed_results: u64,
    /// Of all these, those that were used or dropped by a transform: neither late nor refused again.
    pub succeeded_replays: u64,
}

impl Counts {
    fn all(&self) -> [u64; COUNTS] {
        let Self {
            read, rejected_messages, events, used, late, rejected_events, results, dead_letters, ..
        } = *self;
        let Self { replayed_messages, replayed_events, replayed_results, succeeded_replays, .. } = *self;
        [
            read,
            rejected_messages,
            events,
            used,
            late,
            rejected_events,
            results,
            dead_letters,
            replayed_messages,
            replayed_events,
            replayed_results,
            succeeded_replays,
        ]
    }

    fn from_all(all: [u64; COUNTS]) -> Self {
        let [
            read,
            rejected_messages,
            events,
            used,
            late,
            rejected_events,
            results,
            dead_letters,
            replays @ ..,
        ] = all;
        let [replayed_messages, replayed_events, replayed_results, succeeded_replays] = replays;
        Self {
            read,
            rejected_messages,
            events,
            used,
            late,
            rejected_events,
            results,
            dead_letters,
            replayed_messages,
            replayed_events,
            replayed_results,
            succeeded_replays,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let (mine, other) = (self.all(), other.all());
        *self = Self::from_all(std::array::from_fn(|index| mine[index] + other[index]));
    }
}

/// As committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) counts: Counts,
    pub(super) windows: Vec<u8>,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.counts.all().into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(&self.windows);
        bytes
    }

    /// `None` for bytes that no version up to this one wrote; a new pipeline has none at all.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((version, mut rest)) = bytes.split_first() else { return Some(Self::default()) };
        if *version != VERSION {
            return None;
        }
        let mut all = [0; COUNTS];
        for count in &mut all {
            let (head, tail) = rest.split_first_chunk()?;
            *count = u64::from_le_bytes(*head);
            rest = tail;
        }
        Some(Self { counts: Counts::from_all(all), windows: rest.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_back_and_garbage_does_not() {
        let counts = Counts::from_all([1, 2, 3, 4, 5, 6, 7, u64::MAX, 9, 10, 11, 12]);
        let progress = Progress { counts, windows: vec![9, 9] };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        assert_eq!(Progress::decode(&[]), Some(Progress::default()));
        assert_eq!(Progress::decode(&[1, 2, 3]), None);
        assert_eq!(Progress::decode(&[9; 120]), None);
    }
}
