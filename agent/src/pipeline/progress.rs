//! What a pipeline commits beside its windows: the ledger's counts, the latest arrival, and the watermark.
//!
//! ```text
//! version u8 = 6 | the counts u64, little endian | the latest believable arrival u64
//! | of the window states: version u32, digest's length u8, digest | the windows' own progress
//! ```

use super::aggregate::Aggregate;
use crate::decode::{Clock, Found, WhenOff};
use crate::flow::Timestamp;

const VERSION: u8 = 6;

/// Declares the counts once: another one is a line here, another version, and a line where the
/// pipeline brings its metrics up to date.
macro_rules! counts {
    ($($(#[doc = $help:literal])* $count:ident,)*) => {
        /// The ledger of one pipeline since the state folder was made; its equations are in
        /// [`crate::ledger`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $help])* pub $count: u64,)* }

        const COUNTS: usize = [$(stringify!($count)),*].len();

        impl Counts {
            fn all(&self) -> [u64; COUNTS] {
                [$(self.$count),*]
            }

            fn from_all([$($count),*]: [u64; COUNTS]) -> Self {
                Self { $($count),* }
            }
        }
    };
}

counts! {
    /// Messages read.
    read,
    /// Messages that are not for it: another input's, other topics; those before its first start too.
    skipped,
    /// Messages that the journal had lost.
    lost,
    /// Messages dead-lettered at decode or by a transform.
    rejected_messages,
    /// Events that transforms kept back, the net of each call.
    filtered,
    /// Events that transforms added, the net of each call.
    multiplied,
    /// Events that came out of the transforms.
    events,
    /// Events used in a window, or forwarded on their own.
    used,
    /// Events that came after their window could no longer change.
    late,
    /// Of these, events committed to the late output.
    sent_late,
    /// Events dead-lettered by the aggregate.
    rejected_events,
    /// Results committed to the outbox.
    results,
    /// Dead letters.
    dead_letters,
    /// Dead letters of decode and the transforms that were given in again.
    replayed_messages,
    /// Dead letters of what comes behind the transforms that were given in again.
    replayed_events,
    /// Results and windows' states among the dead letters that were given in again.
    replayed_results,
    /// Of all these, those that were used or dropped by a transform: neither late nor refused again.
    succeeded_replays,
    /// Events not used because the state of their window was lost.
    lost_events,
    /// Stamps too far ahead, whose messages or events were dead-lettered.
    ahead_rejected,
    /// Stamps too far ahead, in whose place is the time of arrival.
    ahead_arrival,
    /// Stamps too far ahead that were moved to the bound.
    ahead_clamped,
    /// Stamps too far behind, whose messages were dead-lettered.
    past_rejected,
    /// Stamps too far behind, in whose place is the time of arrival.
    past_arrival,
    /// Stamps too far behind that were moved to the bound.
    past_clamped,
    /// Messages without a stamp, in whose place is the time of arrival.
    missing_arrival,
    /// Messages that came while the host's clock was not set or behind.
    clock_behind,
}

impl Counts {
    /// What a stamp was found to be.
    pub(super) fn found(&mut self, found: Found) {
        match found {
            Found::Good => {}
            Found::Missing => self.missing_arrival += 1,
            Found::Ahead(WhenOff::Reject) => self.ahead_rejected += 1,
            Found::Ahead(WhenOff::Arrival) => self.ahead_arrival += 1,
            Found::Ahead(WhenOff::Clamp) => self.ahead_clamped += 1,
            Found::Past(WhenOff::Reject) => self.past_rejected += 1,
            Found::Past(WhenOff::Arrival) => self.past_arrival += 1,
            Found::Past(WhenOff::Clamp) => self.past_clamped += 1,
        }
    }

    /// A transform made `passed` events of those that it did not reject.
    pub(super) fn transformed(&mut self, taken: usize, passed: usize) {
        self.filtered += taken.saturating_sub(passed) as u64;
        self.multiplied += passed.saturating_sub(taken) as u64;
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
    pub(super) clock: Clock,
    pub(super) made_by: MadeBy,
    pub(super) windows: Vec<u8>,
}

impl MadeBy {
    /// The states that are committed while this aggregate runs.
    pub(super) fn of(aggregate: &Aggregate) -> Self {
        Self { version: aggregate.state_version(), digest: aggregate.digest().to_owned() }
    }
}

/// What made the states of the windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MadeBy {
    /// As the module says; 0 for one that does not, and for built-ins.
    pub(super) version: u32,
    /// The module's or the built-ins'; empty where there were no windows.
    pub(super) digest: String,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.counts.all().into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(self.clock.latest().0.to_le_bytes());
        bytes.extend(self.made_by.version.to_le_bytes());
        let digest = &self.made_by.digest.as_bytes()[..self.made_by.digest.len().min(u8::MAX.into())];
        bytes.extend(u8::try_from(digest.len()));
        bytes.extend(digest);
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
        let (clock, rest) = rest.split_first_chunk()?;
        let (state_version, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (digest, windows) = rest.split_at_checked(usize::from(*length))?;
        let digest = String::from_utf8(digest.to_vec()).ok()?;
        let made_by = MadeBy { version: u32::from_le_bytes(*state_version), digest };
        let clock = Clock::new(Timestamp(u64::from_le_bytes(*clock)));
        Some(Self { counts: Counts::from_all(all), clock, made_by, windows: windows.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_back_and_garbage_does_not() {
        let counts = Counts::from_all(std::array::from_fn(|at| u64::MAX - at as u64));
        let clock = Clock::new(Timestamp(u64::MAX));
        let made_by = MadeBy { version: 7, digest: "sha256:00".to_owned() };
        let progress = Progress { counts, clock, made_by, windows: vec![9, 9] };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        assert_eq!(Progress::decode(&[]), Some(Progress::default()));
        assert_eq!(Progress::decode(&[1, 2, 3]), None);
        assert_eq!(Progress::decode(&[9; 200]), None);
    }
}
