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
//! **Limits.** Open keys: [`Config::keys_max`], each some 100 bytes in memory for its due time; what
//! else is known of them lies in the store, and for as many as [`KEPT_BYTES_MAX`] takes, in memory.

mod aligned;
mod codec;
mod count;
mod fold;
mod kind;
mod overlap;
mod pane;
mod scene;
mod session;
mod shelves;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::{Timestamp, micros};
use crate::module::{Closed, Group, Updated};
use crate::store::{self, Change};
pub use codec::CodecError;
use kind::Hops;
pub use kind::Kind;
use overlap::Over;
use pane::{Keyed, Pane, Place};
use scene::{Ready, Scene, Without};
use shelves::Shelves;
pub use shelves::{BYTES_MAX as KEPT_BYTES_MAX, Cold};

/// What readings beyond [`Config::keys_max`] are put together under.
pub const OVERFLOW_KEY: &str = "(overflow)";

/// The windows of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which windows.
    pub kind: Kind,
    /// How far behind the newest reading another may come and still be used. Default 0 s.
    pub lateness: Duration,
    /// After this long without a reading the watermark goes on at the pace of the host's clock, so
    /// that windows close though the devices are silent. Without it they stay open.
    pub idle: Option<Duration>,
    /// How long, in event time, a closed window still takes late readings, each of which gives a
    /// new revision of its result. Default 0 s; not for sliding and count windows.
    pub revise: Duration,
    /// Each key has its own watermark, so that one device's clock or backlog does not touch the others. A
    /// key is at most this far behind the pipeline's watermark. Without it there is one for all.
    pub patience: Option<Duration>,
    /// An open window that has changed gives a result each time the watermark passes a multiple of
    /// this. For tumbling windows, days and sessions.
    pub early: Option<Duration>,
    /// A tumbling window or day is closed at so many readings; what follows is its next part.
    pub readings_max: u64,
    /// As `readings_max`, for the bytes of the readings.
    pub bytes_max: u64,
    /// A count window's readings are forgotten so long, in event time, after the last one of the key.
    pub forget: Option<Duration>,
    /// Keys that have open windows. Default 100,000.
    pub keys_max: usize,
    /// What becomes of a reading with another key.
    pub when_keys_full: WhenKeysFull,
}

/// What becomes of readings with one key too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenKeysFull {
    /// They go to the dead letters.
    #[default]
    Reject,
    /// They are put together under [`OVERFLOW_KEY`].
    Overflow,
}

/// Keys with open windows by default.
pub const KEYS_MAX: usize = 100_000;

impl Config {
    /// Windows of a kind, everything else as by default.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            lateness: Duration::ZERO,
            idle: None,
            revise: Duration::ZERO,
            patience: None,
            early: None,
            readings_max: u64::MAX,
            bytes_max: u64::MAX,
            forget: None,
            keys_max: KEYS_MAX,
            when_keys_full: WhenKeysFull::default(),
        }
    }

    /// When a window that ends here is forgotten.
    fn over_at(&self, end: u64) -> u64 {
        end.saturating_add(micros(self.revise))
    }
}

/// Why windows cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Committed state that this version cannot read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Committed state cannot be read at all.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What a window's readings become: a module, or a built-in. The empty state is neutral, and readings
/// given one by one come to the same state as given at once.
pub trait Aggregate {
    /// New states, one for each group, in their order.
    fn update(&mut self, groups: &[Group]) -> Vec<Updated>;
    /// Two states of one key as one, or why not; the earlier readings are in the first.
    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String>;
    /// The results' JSON, or why there is none, one for each window, in their order.
    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>>;
}

/// What became of an observed reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It belongs to a window that takes it.
    Used,
    /// None of its windows can change any more.
    Late,
    /// The state of its window was lost: what is left would pass for the whole.
    Lost,
    /// Too many keys have open windows.
    Full,
}

/// A result, or the reason why a window has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the window belongs to.
    pub key: String,
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Tells windows with the same bounds apart: parts of one that was full, and count windows.
    pub part: u32,
    /// 0 the first time, one more with each late reading and after each early result.
    pub revision: u32,
    /// Readings used.
    pub count: u64,
    /// Of these, readings that came after the window had first closed.
    pub late: u64,
    /// Readings that the aggregate refused.
    pub rejected: u64,
    /// The watermark that made the result due.
    pub watermark: Timestamp,
    /// The window is still open.
    pub early: bool,
    /// The window is no more: its readings are part of another one. There is no value.
    pub retracted: bool,
    /// The aggregate's JSON; or its words and the state that it could not finish.
    pub value: Result<Vec<u8>, (String, Vec<u8>)>,
    /// The state that it finished.
    pub state: Vec<u8>,
}

/// A reading that the aggregate refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it belongs to.
    pub key: String,
    /// Its event time.
    pub time: Timestamp,
    /// Its content.
    pub payload: Vec<u8>,
    /// The aggregate's words.
    pub reason: String,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// One for each window that closed, was revised or gave an early result.
    pub outcomes: Vec<Outcome>,
    /// Readings that the aggregate refused.
    pub refused: Vec<Refused>,
    /// Readings that it used.
    pub used: u64,
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
    waiting: Vec<Arc<str>>,
    /// Keys that changed since the last commit.
    changed: Vec<Arc<str>>,
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
    /// No windows, watermark at the beginning of time; `kept_bytes_max` of the keys stay in memory.
    #[must_use]
    pub fn new(config: Config, cold: Box<dyn Cold>, kept_bytes_max: usize) -> Self {
        Self {
            config,
            newest: None,
            watermark: 0,
            passed: Vec::new(),
            shelves: Shelves::new(cold, kept_bytes_max),
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
        let (mut key, mut of_key) = (None::<Arc<str>>, Vec::new());
        rows(&mut |row, value| {
            let Some((name, _)) = codec::split(&row) else {
                let (name, keyed) = codec::renew(&self.config, &row, &value)?;
                self.removed.push((row, None));
                return self.adopt(&name, keyed);
            };
            if key.as_deref() != Some(name) {
                let name = Arc::from(name);
                self.know(key.replace(name).as_deref(), &of_key)?;
                of_key.clear();
            }
            of_key.push((row, value));
            Ok(())
        })?;
        self.know(key.as_deref(), &of_key)
    }

    /// Counts a key that stays in the store.
    fn know(&mut self, key: Option<&str>, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        let Some(key) = key else { return Ok(()) };
        let keyed = codec::keyed(&self.config, rows)?;
        self.panes += keyed.panes.len();
        self.state_bytes += keyed.bytes;
        self.due.insert((keyed.due.unwrap_or(u64::MAX), Arc::from(key)));
        Ok(())
    }

    /// Takes in a window that is not in the store as this version writes it.
    fn adopt(&mut self, key: &Arc<str>, renewed: Keyed) -> Result<(), Error> {
        self.visit(key, None, |_, keyed| {
            for (place, pane) in renewed.panes {
                keyed.insert(place, pane);
            }
        })
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
                self.visit(&key, None, |_, keyed| keyed.clear())?;
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
        let name = self.shelves.name(key).unwrap_or_else(|| Arc::from(key));
        let assigned = self.visit(&name, Some(aggregate), |scene, keyed| {
            let first = scene.config.early.is_some() || time.0 < scene.watermark;
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
        })?;
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
            self.visit(&name, Some(aggregate), |scene, keyed| {
                if keyed.due.is_some_and(|due| due <= scene.watermark) {
                    scene.apply(keyed);
                    fire(scene, keyed);
                }
            })?;
        }
        Ok(Ok(()))
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
        let keys = std::mem::take(&mut self.waiting);
        let (mut groups, mut places) = (Vec::new(), Vec::new());
        for key in &keys {
            let Some(keyed) = self.shelves.changed(key) else { continue };
            let waiting = scene::groups(&self.config, key, keyed);
            self.state_bytes -= waiting.iter().map(|group| group.state.len()).sum::<usize>();
            places.extend(std::mem::take(&mut keyed.waiting).into_iter().map(|place| (key, place)));
            groups.extend(waiting);
        }
        if !groups.is_empty() {
            let updates = aggregate.update(&groups);
            for (((key, place), group), updated) in places.into_iter().zip(&mut groups).zip(updates) {
                let Some(keyed) = self.shelves.changed(key) else { continue };
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
            self.visit(&key, Some(aggregate), fire)?;
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

    /// Bytes of aggregate state held, most of them in the store.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// Readings before this are late; with `patience`, those of a key that was never heard of.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark)
    }

    /// What changed since the last call.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.removed);
        for key in std::mem::take(&mut self.changed) {
            let Some(keyed) = self.shelves.changed(&key) else { continue };
            keyed.is_listed = false;
            changes.extend(codec::changes(&key, keyed));
            if keyed.is_empty() {
                self.shelves.drop(&key);
            }
        }
        changes
    }

    /// Works on one key, and keeps the books about it.
    fn visit<R>(
        &mut self,
        key: &Arc<str>,
        aggregate: Option<&mut dyn Aggregate>,
        work: impl FnOnce(&mut Scene<'_>, &mut Keyed) -> R,
    ) -> Result<R, Error> {
        let (closing, mut nothing) = (self.closing(), Nothing);
        let keyed = self.shelves.get(&self.config, key)?;
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
            self.waiting.push(Arc::clone(key));
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
            self.changed.push(Arc::clone(key));
        }
        Ok(done)
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

fn assign(
    scene: &mut Scene<'_>,
    keyed: &mut Keyed,
    time: Timestamp,
    payload: Vec<u8>,
) -> Result<(), (Fate, Vec<u8>)> {
    match (&scene.config.kind, Over::of(&scene.config.kind)) {
        (_, Some(over)) => overlap::assign(scene, over, keyed, time, payload),
        (Kind::Session { gap, longest }, _) => {
            session::assign(scene, session::Bounds::new(*gap, *longest), keyed, time, payload)
        }
        (Kind::Count { .. }, _) => count::assign(scene, keyed, time, payload),
        _ => aligned::assign(scene, keyed, time, payload),
    }
}

fn fire(scene: &mut Scene<'_>, keyed: &mut Keyed) {
    match (&scene.config.kind, Over::of(&scene.config.kind)) {
        (_, Some(over)) => overlap::fire(scene, over, keyed),
        (Kind::Session { gap, longest }, _) => {
            session::fire(scene, session::Bounds::new(*gap, *longest), keyed);
        }
        (Kind::Count { size, slide }, _) => count::fire(scene, count::Size::new(*size, *slide), keyed),
        _ => aligned::fire(scene, keyed),
    }
    let config = scene.config;
    let known = keyed.newest.is_some_and(|newest| clock(config, newest) <= scene.closing);
    if known && keyed.panes.is_empty() && keyed.given.is_empty() && !matches!(config.kind, Kind::Count { .. })
    {
        // The pipeline's watermark says as much.
        (keyed.newest, keyed.dirty) = (None, true);
    }
}

/// When something is to be done about a key next.
fn due(config: &Config, keyed: &Keyed) -> Option<u64> {
    let due = match (&config.kind, Over::of(&config.kind)) {
        (_, Some(over)) => overlap::due(config, over, keyed),
        (Kind::Session { gap, longest }, _) => {
            session::due(config, session::Bounds::new(*gap, *longest), keyed)
        }
        (Kind::Count { .. }, _) => count::due(config, keyed),
        _ => aligned::due(config, keyed),
    };
    due.or_else(|| Some(clock(config, keyed.newest?)))
}

/// The watermark of a key with such a newest reading.
fn clock(config: &Config, newest: u64) -> u64 {
    newest.saturating_sub(micros(config.lateness))
}

/// Start and end of the tumbling window or day that holds a time; none before the first.
fn bounds_at(config: &Config, time: Timestamp) -> Option<(u64, u64)> {
    match &config.kind {
        Kind::Tumbling { size, offset } => {
            let hops = Hops::new(*size, *size, *offset);
            let start = hops.last_start(time.0)?;
            Some((start, start.saturating_add(hops.size)))
        }
        Kind::Day { zone } => {
            let (start, end) = kind::day(zone, time);
            Some((start.0, end.0))
        }
        _ => None,
    }
}

/// Start and end of a pane.
fn bounds(config: &Config, place: Place, pane: &Pane) -> (u64, u64) {
    match &config.kind {
        Kind::Hopping { size, slide, offset } => {
            (place.at, place.at.saturating_add(Hops::new(*size, *slide, *offset).pane()))
        }
        Kind::Session { gap, longest } => session::Bounds::new(*gap, *longest).of(pane, place),
        Kind::Sliding { .. } | Kind::Count { .. } => (place.at, place.at.saturating_add(1)),
        Kind::Tumbling { .. } | Kind::Day { .. } => {
            bounds_at(config, Timestamp(place.at)).unwrap_or((place.at, place.at))
        }
    }
}

fn outcome(ready: Ready, values: &mut impl Iterator<Item = Result<Vec<u8>, String>>) -> Outcome {
    let Ready { closed, part, rejected, watermark, early, without } = ready;
    let retracted = matches!(without, Some(Without::Retracted));
    let value = match without {
        Some(Without::Retracted) => Ok(b"null".to_vec()),
        Some(Without::Failed(reason)) => Err(reason),
        None => values.next().unwrap_or_else(|| Err("the aggregate gave too few results".to_owned())),
    };
    let (value, state) = match value {
        Ok(value) => (Ok(value), closed.state),
        Err(reason) => (Err((reason, closed.state)), Vec::new()),
    };
    Outcome {
        key: closed.key,
        start: closed.start,
        end: closed.end,
        part,
        revision: closed.revision,
        count: closed.count,
        late: closed.late,
        rejected,
        watermark,
        early,
        retracted,
        value,
        state,
    }
}

#[cfg(test)]
mod tests;
