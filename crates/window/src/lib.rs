//! Event-time windows: assign, observe, watermark, close. Pure but for [`WindowStore`]; time is an argument.
//!
//! Owns the open windows, the watermark, and the opaque state of each pane; the [`Aggregate`] alone knows what a
//! state means. Readings of a key lie in *panes*. A window is a pane (tumbling, day, session) or a run of panes
//! (hopping, sliding, count), merged in `fold.rs`. Each kind is a file in `kind/` behind one trait.
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
//! **Limits.** Open keys: [`WindowConfig::keys_max`], each with its name and due time in memory; what
//! else is known of them lies in the store, and of as many as the bound given to [`OpenWindows::new`] takes, in memory.

pub mod builtin;
mod cache;
mod codec;
mod config;
mod context;
mod dispatch;
mod fold;
mod kind;
mod outcome;
mod pane;
mod panes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cache::{KeyCache, SlotId};
pub use cache::{RowVisitor, WindowStore};
pub use codec::{CodecError, with_state};
pub use config::{KEYS_MAX, OVERFLOW_KEY, WhenKeysFull, WindowConfig};
use context::{KeyContext, ReadyResult};
use dispatch::{assign, due, fire};
pub use headwater_flow::aggregation::Aggregate;
use headwater_flow::aggregation::{Closed, Group, Updated};
use headwater_flow::rows::Change;
use headwater_flow::{Timestamp, micros};
pub use kind::{
    CountWindow, DayWindow, HoppingWindow, SessionWindow, SlidingWindow, TumblingWindow, WindowKind,
};
use outcome::outcome;
pub use outcome::{ObservedReading, RefusedSample, SettledBatch, WindowOutcome};
use pane::KeyState;

/// A failure after which windows cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// Committed state that this version cannot read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Committed state cannot be read at all.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
}

/// The open windows of one pipeline.
#[derive(Debug)]
pub struct OpenWindows {
    config: WindowConfig,
    newest: Option<u64>,
    watermark: u64,
    /// Watermarks since nothing was due, ascending.
    passed: Vec<u64>,
    cache: KeyCache,
    /// The keys that hold something, by the watermark at which they are to be fired.
    due: BTreeSet<(u64, Arc<str>)>,
    /// Keys with readings that wait for the aggregate.
    waiting: Vec<SlotId>,
    /// Keys that changed since the last commit.
    changed: Vec<SlotId>,
    /// Rows that only have to go.
    removed: Vec<Change>,
    ready: Vec<ReadyResult>,
    settled: SettledBatch,
    panes: usize,
    state_bytes: usize,
    /// State of windows that begin before this was lost.
    lost_before: u64,
}

impl OpenWindows {
    /// Makes windows with the watermark at the beginning of time; `at_hand_bytes_max` of the keys stay in memory.
    #[must_use]
    pub fn new(config: WindowConfig, store: Box<dyn WindowStore>, at_hand_bytes_max: usize) -> Self {
        Self {
            config,
            newest: None,
            watermark: 0,
            passed: Vec::new(),
            cache: KeyCache::new(store, at_hand_bytes_max),
            due: BTreeSet::new(),
            waiting: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            ready: Vec::new(),
            settled: SettledBatch::default(),
            panes: 0,
            state_bytes: 0,
            lost_before: 0,
        }
    }

    /// Takes in the committed state: `progress` is empty for a new pipeline; `rows` hands out all rows, those
    /// of a key one after the other.
    ///
    /// # Errors
    /// When they cannot be read, or are not of this version.
    pub fn restore(
        &mut self,
        progress: &[u8],
        rows: impl FnOnce(&mut dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), WindowError>) -> Result<(), WindowError>,
    ) -> Result<(), WindowError> {
        self.take_progress(progress)?;
        let mut key = None::<Arc<str>>;
        let mut of_key = Vec::<(Vec<u8>, Vec<u8>)>::new();
        rows(&mut |row, value| {
            let Some((name, tail)) = codec::split(&row) else {
                let (name, key_state) = codec::renew(&self.config, &row, &value)?;
                self.removed.push((row, None));
                return self.adopt(&name, key_state);
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
    fn know(&mut self, key: Option<&str>, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), WindowError> {
        let Some(key) = key else { return Ok(()) };
        let show = |each: RowVisitor<'_>| rows.iter().try_for_each(|(tail, value)| each(tail, value));
        let key_state = codec::key_state(&self.config, show)?;
        self.panes += key_state.panes.len();
        self.state_bytes += key_state.bytes;
        self.due.insert((key_state.due.unwrap_or(u64::MAX), Arc::from(key)));
        Ok(())
    }

    /// Takes in a window that is not in the store as this version writes it.
    fn adopt(&mut self, key: &Arc<str>, renewed: KeyState) -> Result<(), WindowError> {
        let slot = self.cache.find(&self.config, key)?;
        self.visit(slot, None, |_, key_state| {
            for (pane_id, pane) in renewed.panes {
                key_state.insert(pane_id, pane);
            }
        });
        Ok(())
    }

    /// Takes note that state was lost. Windows that may have begun and are not there give no results any more,
    /// since these would replace whole results or pass for them. `began` is the newest time that a reading may have
    /// had, if that is lost as well. Returns the times that are concerned.
    ///
    /// # Errors
    /// When what is left cannot be read.
    pub fn lose(&mut self, began: Option<Timestamp>) -> Result<Option<(Timestamp, Timestamp)>, WindowError> {
        let Some(newest) = self.newest.max(began.map(|began| began.0)) else { return Ok(None) };
        let oldest = self.watermark.saturating_sub(micros(self.config.revise)).min(newest);
        self.lost_before = self.lost_before.max(newest.saturating_add(1));
        let rules = self.config.kind.rules();
        let from = match (began, rules.window_at(Timestamp(oldest))) {
            (None, Some((start, _))) => start,
            _ => 0,
        };
        let to = rules.last_end(newest).unwrap_or(newest);
        if !rules.has_fixed_windows() {
            // Some panes of a run may be missing, and the others do not show it.
            let keys: Vec<_> = self.due.iter().map(|(_, key)| Arc::clone(key)).collect();
            for key in keys {
                let slot = self.cache.find(&self.config, &key)?;
                self.visit(slot, None, |_, key_state| key_state.clear());
            }
        }
        Ok(Some((Timestamp(from), Timestamp(to))))
    }

    /// Assigns a reading to its windows and moves the watermark. It waits for the next
    /// [`OpenWindows::apply`], unless it is refused: then its payload comes back.
    ///
    /// # Errors
    /// When the key's state cannot be read.
    pub fn observe(
        &mut self,
        aggregate: &mut dyn Aggregate,
        key: &str,
        time: Timestamp,
        payload: Vec<u8>,
    ) -> Result<ObservedReading, WindowError> {
        let slot = self.cache.find(&self.config, key)?;
        self.make_way(slot, aggregate)?;
        let observed = self.visit(slot, Some(aggregate), |context, key_state| {
            let provisional = context.config.early.is_some() || context.config.forget.is_some();
            let first = provisional || time.0 < context.watermark;
            if first && key_state.due.is_some_and(|due| due <= context.watermark) {
                // What was due before this reading came must not see it.
                context.apply(key_state);
                fire(context, key_state);
            }
            if key_state.is_empty() && context.keys >= context.config.keys_max && key != OVERFLOW_KEY {
                return ObservedReading::Full(payload);
            }
            let observed = assign(context, key_state, time, payload);
            if observed == ObservedReading::Used && context.config.patience.is_some() {
                key_state.newest = key_state.newest.max(Some(time.0));
                key_state.dirty = true;
            }
            observed
        });
        match observed {
            ObservedReading::Full(payload) if self.config.when_keys_full == WhenKeysFull::Overflow => {
                return self.observe(aggregate, OVERFLOW_KEY, time, payload);
            }
            ObservedReading::Used => {}
            refused => return Ok(refused),
        }
        self.note();
        self.newest = self.newest.max(Some(time.0));
        self.advance(time.before(self.config.lateness).0);
        if self.config.patience.is_some() {
            // Its own watermark may have closed some of its windows; nobody else looks for them.
            self.visit(slot, Some(aggregate), |context, key_state| {
                if key_state.due.is_some_and(|due| due <= context.watermark) {
                    context.apply(key_state);
                    fire(context, key_state);
                }
            });
        }
        Ok(ObservedReading::Used)
    }

    /// Fires keys whose windows are over, where this key may be one too many. Otherwise the end of a batch would
    /// decide whether those keys count.
    fn make_way(&mut self, slot: SlotId, aggregate: &mut dyn Aggregate) -> Result<(), WindowError> {
        let closing = self.closing();
        let (_, key_state) = self.cache.at(slot);
        if !key_state.is_empty() && key_state.due.is_none_or(|due| due > closing) {
            return Ok(());
        }
        while self.due.len() >= self.config.keys_max {
            let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= closing).cloned() else { break };
            let slot = self.cache.find(&self.config, &key)?;
            self.visit(slot, Some(aggregate), |context, key_state| {
                context.apply(key_state);
                fire(context, key_state);
            });
        }
        Ok(())
    }

    /// Moves the watermark of an idle pipeline: `quiet` is how long, on a monotonic clock, nothing
    /// came though nothing was waiting to be read.
    pub fn idle(&mut self, quiet: Duration) {
        let Some(idle) = self.config.idle else { return };
        let Some(newest) = self.newest else { return };
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

    /// Keeps the watermark that made something due.
    fn note(&mut self) {
        let closing = self.closing();
        if self.due() && self.passed.last() < Some(&closing) {
            self.passed.push(closing);
        }
    }

    /// Returns the watermark of keys that are silent.
    fn closing(&self) -> u64 {
        self.watermark.saturating_sub(self.config.patience.map_or(0, micros))
    }

    /// Reports that a key is to be fired: a window is to be closed, revised, emitted early or forgotten.
    #[must_use]
    pub fn due(&self) -> bool {
        self.due.first().is_some_and(|(due, _)| *due <= self.closing())
    }

    /// Gives waiting readings to the aggregate, and takes all results since the last call.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn apply(&mut self, aggregate: &mut dyn Aggregate) -> Result<SettledBatch, WindowError> {
        let mut groups = Vec::new();
        let mut pane_ids = Vec::new();
        for slot in self.waiting.drain(..) {
            let (key, key_state) = self.cache.at(slot);
            let waiting = context::groups(&self.config, key, key_state);
            self.state_bytes -= waiting.iter().map(|group| group.state.len()).sum::<usize>();
            pane_ids
                .extend(std::mem::take(&mut key_state.waiting).into_iter().map(|pane_id| (slot, pane_id)));
            groups.extend(waiting);
        }
        if !groups.is_empty() {
            let updates = aggregate.update(&groups);
            for (((slot, pane_id), group), updated) in pane_ids.into_iter().zip(&mut groups).zip(updates) {
                let (_, key_state) = self.cache.at(slot);
                self.state_bytes += updated.state.len();
                context::take(key_state, pane_id, group, updated, &mut self.settled);
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

    /// Fires keys that are due, by due time and key, up to about `results_max` results. Waiting readings go first.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn settle(
        &mut self,
        aggregate: &mut dyn Aggregate,
        results_max: usize,
    ) -> Result<SettledBatch, WindowError> {
        if !self.waiting.is_empty() {
            return self.apply(aggregate);
        }
        while self.ready.len() < results_max {
            let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= self.closing()).cloned() else {
                self.passed.clear();
                break;
            };
            let slot = self.cache.find(&self.config, &key)?;
            self.visit(slot, Some(aggregate), fire);
        }
        self.apply(aggregate)
    }

    /// Returns the number of panes of windows that are open or kept for revision, in all keys.
    #[must_use]
    pub fn open(&self) -> usize {
        self.panes
    }

    /// Returns the number of keys that have open windows.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.due.len()
    }

    /// Returns the number of keys that changed since [`OpenWindows::drain_changes`].
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Returns the bytes of aggregate state, most of them in the store.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// Returns the bytes of memory that the keys at hand take.
    #[must_use]
    pub fn at_hand_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Returns the watermark: readings before it are late; with `patience`, those of a key that was never heard of.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark)
    }

    /// Returns the changed rows since the last call.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.removed);
        for slot in &self.changed {
            let (key, key_state) = self.cache.at(*slot);
            key_state.is_listed = false;
            codec::put_changes(&mut changes, key, key_state);
        }
        self.cache.make_room(&self.changed);
        self.changed.clear();
        changes
    }

    /// Works on one key, and updates the counts and queues that it is part of.
    fn visit<R>(
        &mut self,
        slot: SlotId,
        aggregate: Option<&mut dyn Aggregate>,
        work: impl FnOnce(&mut KeyContext<'_>, &mut KeyState) -> R,
    ) -> R {
        let closing = self.closing();
        let mut nothing = NoAggregate;
        let (key, key_state) = self.cache.at(slot);
        let before = (
            key_state.due,
            key_state.is_empty(),
            key_state.panes.len(),
            key_state.bytes,
            key_state.waiting.is_empty(),
        );
        let own = key_state.newest.filter(|_| self.config.patience.is_some());
        let mut context = KeyContext {
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
        let done = work(&mut context, key_state);
        self.panes = self.panes + key_state.panes.len() - before.2;
        self.state_bytes = self.state_bytes + key_state.bytes - before.3;
        if before.4 && !key_state.waiting.is_empty() {
            self.waiting.push(slot);
        }
        key_state.due = due(&self.config, key_state);
        let after = (key_state.due, key_state.is_empty());
        if after != (before.0, before.1) {
            if !before.1 {
                self.due.remove(&(before.0.unwrap_or(u64::MAX), Arc::clone(key)));
            }
            if !after.1 {
                self.due.insert((after.0.unwrap_or(u64::MAX), Arc::clone(key)));
            }
        }
        if !std::mem::replace(&mut key_state.is_listed, true) {
            self.changed.push(slot);
        }
        done
    }
}

/// The aggregate for work on a key that has no samples to add.
struct NoAggregate;

impl Aggregate for NoAggregate {
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
