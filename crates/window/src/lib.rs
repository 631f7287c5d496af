//! Event-time windows: assign, observe, watermark, close. Pure but for [`Cold`]; time is an argument.
//!
//! Owns which windows are open, the watermark, and the opaque state of each pane; what a state
//! means is the [`Aggregate`]'s business. Readings of a key lie in *panes*; a window is a pane
//! (`aligned.rs`, `session.rs`) or a run of them (`overlap.rs`, `count.rs`, merged in `fold.rs`).
//!
//! The watermark follows the dataflow model (Akidau et al., "The Dataflow Model", VLDB 2015): the
//! highest event time so far less the allowed `lateness`; never backwards. A window closes when
//! the watermark reaches its end. A reading whose windows have closed is late: it is counted and not
//! used, unless a window is kept for `revise`; then it gives a new revision of the result.
//!
//! **Invariant:** a result is a function of the readings and their order alone, to the last bit. What is
//! due is given later than its watermark, so that there is no limit to how much may be due at once; but
//! no reading is let into a window that should have been closed, or shown, before it.
//!
//! **Invariant:** every observed reading is exactly one of used, late, lost, rejected or waiting.
//!
//! **Limits.** Open keys: [`Config::keys_max`], each with its name and due time in memory; what
//! else is known of them lies in the store, and of as many as the bound given to [`Windows::new`] takes, in memory.

mod aligned;
pub mod builtin;
mod codec;
mod config;
mod count;
mod dispatch;
mod fold;
mod kind;
mod outcome;
mod overlap;
mod pane;
mod panes;
mod scene;
mod session;
mod shelves;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use codec::{CodecError, with_state};
pub use config::{Config, KEYS_MAX, OVERFLOW_KEY, WhenKeysFull};
use dispatch::{assign, bounds, bounds_at, due, fire};
pub use headwater_flow::aggregation::Aggregate;
use headwater_flow::aggregation::{Closed, Group, Updated};
use headwater_flow::rows::Change;
use headwater_flow::{Timestamp, micros};
pub use kind::Kind;
use outcome::outcome;
pub use outcome::{Fate, Outcome, Refused, Settled};
use pane::Keyed;
use scene::{Ready, Scene};
pub use shelves::{Cold, Each};
use shelves::{Shelves, Spot};

/// Why windows cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Committed state that this version cannot read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Committed state cannot be read at all.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
}

/// The open windows of one pipeline.
#[derive(Debug)]
pub struct Windows {
    config: Config,
    newest: Option<u64>,
    watermark: u64,
    /// Watermarks since nothing was due, ascending.
    passed: Vec<u64>,
    shelves: Shelves,
    /// Each key that holds something, by when something is to be done about it.
    due: BTreeSet<(u64, Arc<str>)>,
    /// Keys with readings that wait for the aggregate.
    waiting: Vec<Spot>,
    /// Keys that changed since the last commit.
    changed: Vec<Spot>,
    /// Rows that only have to go.
    removed: Vec<Change>,
    ready: Vec<Ready>,
    settled: Settled,
    panes: usize,
    state_bytes: usize,
    /// State of windows that begin before this was lost.
    lost_before: u64,
}

impl Windows {
    /// No windows, watermark at the beginning of time; `at_hand_bytes_max` of the keys stay in memory.
    #[must_use]
    pub fn new(config: Config, cold: Box<dyn Cold>, at_hand_bytes_max: usize) -> Self {
        Self {
            config,
            newest: None,
            watermark: 0,
            passed: Vec::new(),
            shelves: Shelves::new(cold, at_hand_bytes_max),
            due: BTreeSet::new(),
            waiting: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            ready: Vec::new(),
            settled: Settled::default(),
            panes: 0,
            state_bytes: 0,
            lost_before: 0,
        }
    }

    /// Takes in what was committed: `progress` is empty for a new pipeline; `rows` shows all rows, those
    /// of a key one after the other.
    ///
    /// # Errors
    /// When they cannot be read, or are not of this version.
    pub fn restore(
        &mut self,
        progress: &[u8],
        rows: impl FnOnce(&mut dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.take_progress(progress)?;
        let (mut key, mut of_key) = (None::<Arc<str>>, Vec::<(Vec<u8>, Vec<u8>)>::new());
        rows(&mut |row, value| {
            let Some((name, tail)) = codec::split(&row) else {
                let (name, keyed) = codec::renew(&self.config, &row, &value)?;
                self.removed.push((row, None));
                return self.adopt(&name, keyed);
            };
            if key.as_deref() != Some(name) {
                let name = Arc::from(name);
                self.know(key.replace(name).as_deref(), &of_key)?;
                of_key.clear();
            }
            of_key.push((tail.to_vec(), value));
            Ok(())
        })?;
        self.know(key.as_deref(), &of_key)
    }

    /// Counts a key that stays in the store.
    fn know(&mut self, key: Option<&str>, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        let Some(key) = key else { return Ok(()) };
        let show = |each: Each<'_>| rows.iter().try_for_each(|(tail, value)| each(tail, value));
        let keyed = codec::keyed(&self.config, show)?;
        self.panes += keyed.panes.len();
        self.state_bytes += keyed.bytes;
        self.due.insert((keyed.due.unwrap_or(u64::MAX), Arc::from(key)));
        Ok(())
    }

    /// Takes in a window that is not in the store as this version writes it.
    fn adopt(&mut self, key: &Arc<str>, renewed: Keyed) -> Result<(), Error> {
        let spot = self.shelves.find(&self.config, key)?;
        self.visit(spot, None, |_, keyed| {
            for (place, pane) in renewed.panes {
                keyed.insert(place, pane);
            }
        });
        Ok(())
    }

    /// State was lost, and what is there is whole: windows that may have been begun and are not there
    /// give no results any more, since these would replace whole ones or pass for them. `began` is the
    /// newest time a reading may have had, should that be lost as well. Says which times are concerned.
    ///
    /// # Errors
    /// When what is left cannot be read.
    pub fn lose(&mut self, began: Option<Timestamp>) -> Result<Option<(Timestamp, Timestamp)>, Error> {
        let Some(newest) = self.newest.max(began.map(|began| began.0)) else { return Ok(None) };
        let oldest = self.watermark.saturating_sub(micros(self.config.revise)).min(newest);
        self.lost_before = self.lost_before.max(newest.saturating_add(1));
        let from = match (began, bounds_at(&self.config, Timestamp(oldest))) {
            (None, Some((start, _))) => start,
            _ => 0,
        };
        let to = match self.config.kind {
            Kind::Tumbling { .. } | Kind::Day { .. } => bounds_at(&self.config, Timestamp(newest)),
            Kind::Hopping { size, .. } | Kind::Sliding { size } => {
                Some((0, newest.saturating_add(micros(size))))
            }
            Kind::Session { gap, .. } => Some((0, newest.saturating_add(micros(gap)))),
            Kind::Count { .. } => None,
        };
        if !matches!(self.config.kind, Kind::Tumbling { .. } | Kind::Day { .. }) {
            // Of a run of panes some may be missing, and none of them tells.
            let keys: Vec<_> = self.due.iter().map(|(_, key)| Arc::clone(key)).collect();
            for key in keys {
                let spot = self.shelves.find(&self.config, &key)?;
                self.visit(spot, None, |_, keyed| keyed.clear());
            }
        }
        Ok(Some((Timestamp(from), Timestamp(to.map_or(newest, |(_, end)| end)))))
    }

    /// Assigns a reading to its windows and moves the watermark. It waits for the next
    /// [`Windows::apply`], unless it is refused: then its payload comes back.
    ///
    /// # Errors
    /// When the key's state cannot be read.
    pub fn observe(
        &mut self,
        aggregate: &mut dyn Aggregate,
        key: &str,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> Result<Result<(), (Fate, Vec<u8>)>, Error> {
        let spot = self.shelves.find(&self.config, key)?;
        self.make_way(spot, aggregate)?;
        let assigned = self.visit(spot, Some(aggregate), |scene, keyed| {
            let provisional = scene.config.early.is_some() || scene.config.forget.is_some();
            let first = provisional || time.0 < scene.watermark;
            if first && keyed.due.is_some_and(|due| due <= scene.watermark) {
                // What was due before this reading came must not see it.
                scene.apply(keyed);
                fire(scene, keyed);
            }
            if keyed.is_empty() && scene.keys >= scene.config.keys_max && key != OVERFLOW_KEY {
                return Err((Fate::Full, payload));
            }
            assign(scene, keyed, time, payload)?;
            if scene.config.patience.is_some() {
                (keyed.newest, keyed.dirty) = (keyed.newest.max(Some(time.0)), true);
            }
            Ok(())
        });
        match assigned {
            Err((Fate::Full, payload)) if self.config.when_keys_full == WhenKeysFull::Overflow => {
                return self.observe(aggregate, OVERFLOW_KEY, time, payload);
            }
            Err(refused) => return Ok(Err(refused)),
            Ok(()) => {}
        }
        self.note();
        self.newest = self.newest.max(Some(time.0));
        self.advance(time.before(self.config.lateness).0);
        if self.config.patience.is_some() {
            // Its own watermark may have closed some of its windows; nobody else looks for them.
            self.visit(spot, Some(aggregate), |scene, keyed| {
                if keyed.due.is_some_and(|due| due <= scene.watermark) {
                    scene.apply(keyed);
                    fire(scene, keyed);
                }
            });
        }
        Ok(Ok(()))
    }

    /// Where there are as many keys as there may be, and this one may be one more: lets those go first that are
    /// over, which otherwise would count or not by where a batch ended.
    fn make_way(&mut self, spot: Spot, aggregate: &mut dyn Aggregate) -> Result<(), Error> {
        let closing = self.closing();
        let (_, keyed) = self.shelves.at(spot);
        if !keyed.is_empty() && keyed.due.is_none_or(|due| due > closing) {
            return Ok(());
        }
        while self.due.len() >= self.config.keys_max {
            let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= closing).cloned() else { break };
            let spot = self.shelves.find(&self.config, &key)?;
            self.visit(spot, Some(aggregate), |scene, keyed| {
                scene.apply(keyed);
                fire(scene, keyed);
            });
        }
        Ok(())
    }

    /// Moves the watermark of an idle pipeline: `quiet` is how long, on a monotonic clock, nothing
    /// came though nothing was waiting to be read.
    pub fn idle(&mut self, quiet: Duration) {
        let (Some(idle), Some(newest)) = (self.config.idle, self.newest) else { return };
        if quiet >= idle {
            self.advance(Timestamp(newest).after(quiet).before(self.config.lateness).0);
        }
    }

    fn advance(&mut self, watermark: u64) {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.note();
        }
    }

    /// Keeps which watermark it is that made something due.
    fn note(&mut self) {
        let closing = self.closing();
        if self.due() && self.passed.last() < Some(&closing) {
            self.passed.push(closing);
        }
    }

    /// The watermark of keys that are silent.
    fn closing(&self) -> u64 {
        self.watermark.saturating_sub(self.config.patience.map_or(0, micros))
    }

    /// Whether something is to be closed, revised, shown or forgotten.
    #[must_use]
    pub fn due(&self) -> bool {
        self.due.first().is_some_and(|(due, _)| *due <= self.closing())
    }

    /// Gives waiting readings to the aggregate and takes what has become of all since the last call.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn apply(&mut self, aggregate: &mut dyn Aggregate) -> Result<Settled, Error> {
        let (mut groups, mut places) = (Vec::new(), Vec::new());
        for spot in self.waiting.drain(..) {
            let (key, keyed) = self.shelves.at(spot);
            let waiting = scene::groups(&self.config, key, keyed);
            self.state_bytes -= waiting.iter().map(|group| group.state.len()).sum::<usize>();
            places.extend(std::mem::take(&mut keyed.waiting).into_iter().map(|place| (spot, place)));
            groups.extend(waiting);
        }
        if !groups.is_empty() {
            let updates = aggregate.update(&groups);
            for (((spot, place), group), updated) in places.into_iter().zip(&mut groups).zip(updates) {
                let (_, keyed) = self.shelves.at(spot);
                self.state_bytes += updated.state.len();
                scene::take(keyed, place, group, updated, &mut self.settled);
            }
        }
        let ready = std::mem::take(&mut self.ready);
        let (closed, rest): (Vec<_>, Vec<_>) =
            ready.into_iter().map(|ready| (ready.closed.clone(), ready)).unzip();
        let mut settled = std::mem::take(&mut self.settled);
        let to_finish: Vec<_> = closed
            .iter()
            .zip(&rest)
            .filter(|(_, ready)| ready.without.is_none())
            .map(|(closed, _)| closed.clone())
            .collect();
        let mut values = aggregate.finish(&to_finish).into_iter();
        settled.outcomes = rest.into_iter().map(|ready| outcome(ready, &mut values)).collect();
        Ok(settled)
    }

    /// Gives some of what is due, by due time and key, after what is waiting: about `results_max`.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn settle(&mut self, aggregate: &mut dyn Aggregate, results_max: usize) -> Result<Settled, Error> {
        if !self.waiting.is_empty() {
            return self.apply(aggregate);
        }
        while self.ready.len() < results_max {
            let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= self.closing()).cloned() else {
                self.passed.clear();
                break;
            };
            let spot = self.shelves.find(&self.config, &key)?;
            self.visit(spot, Some(aggregate), fire);
        }
        self.apply(aggregate)
    }

    /// Windows that are open or kept for revision, and panes of such, counted by key.
    #[must_use]
    pub fn open(&self) -> usize {
        self.panes
    }

    /// Keys that have some.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.due.len()
    }

    /// Keys that changed since [`Windows::drain_changes`].
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Bytes of aggregate state held, most of them in the store.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// Bytes of memory that the keys at hand take.
    #[must_use]
    pub fn at_hand_bytes(&self) -> usize {
        self.shelves.bytes()
    }

    /// Readings before this are late; with `patience`, those of a key that was never heard of.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark)
    }

    /// What changed since the last call.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.removed);
        for spot in &self.changed {
            let (key, keyed) = self.shelves.at(*spot);
            keyed.is_listed = false;
            codec::put_changes(&mut changes, key, keyed);
        }
        self.shelves.make_room(&self.changed);
        self.changed.clear();
        changes
    }

    /// Works on one key, and keeps the books about it.
    fn visit<R>(
        &mut self,
        spot: Spot,
        aggregate: Option<&mut dyn Aggregate>,
        work: impl FnOnce(&mut Scene<'_>, &mut Keyed) -> R,
    ) -> R {
        let (closing, mut nothing) = (self.closing(), Nothing);
        let (key, keyed) = self.shelves.at(spot);
        let before = (keyed.due, keyed.is_empty(), keyed.panes.len(), keyed.bytes, keyed.waiting.is_empty());
        let own = keyed.newest.filter(|_| self.config.patience.is_some());
        let mut scene = Scene {
            config: &self.config,
            key,
            watermark: own.map_or(0, |own| own.saturating_sub(micros(self.config.lateness))).max(closing),
            closing,
            keys: self.due.len(),
            passed: &self.passed,
            lost_before: self.lost_before,
            aggregate: aggregate.unwrap_or(&mut nothing),
            ready: &mut self.ready,
            settled: &mut self.settled,
        };
        let done = work(&mut scene, keyed);
        self.panes = self.panes + keyed.panes.len() - before.2;
        self.state_bytes = self.state_bytes + keyed.bytes - before.3;
        if before.4 && !keyed.waiting.is_empty() {
            self.waiting.push(spot);
        }
        keyed.due = due(&self.config, keyed);
        let after = (keyed.due, keyed.is_empty());
        if after != (before.0, before.1) {
            if !before.1 {
                self.due.remove(&(before.0.unwrap_or(u64::MAX), Arc::clone(key)));
            }
            if !after.1 {
                self.due.insert((after.0.unwrap_or(u64::MAX), Arc::clone(key)));
            }
        }
        if !std::mem::replace(&mut keyed.is_listed, true) {
            self.changed.push(spot);
        }
        done
    }
}

/// For work on a key that gives its aggregate nothing.
struct Nothing;

impl Aggregate for Nothing {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        groups.iter().map(|_| Updated::default()).collect()
    }

    fn merge(&mut self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, String> {
        Err("there is no aggregate".to_owned())
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        windows.iter().map(|_| Err("there is no aggregate".to_owned())).collect()
    }
}

#[cfg(test)]
mod tests;
