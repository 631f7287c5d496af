//! Makes the next segment of a log ahead, beside the appends: it takes some ten milliseconds.
//!
//! One thread serves all logs of a store. A segment that was made and not used is removed at the
//! next open. Where the thread is too slow or failed, the append makes the segment itself.

use super::error::Error;
use super::lock;
use super::segment::Segment;
use headwater_meter::Thread;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Logs that may wait for the thread; more make their segment themselves.
const WAITING_MAX: usize = 64;

/// The way to the thread; `None` once it ends.
type Orders = Arc<Mutex<Option<SyncSender<Arc<Place>>>>>;

/// The thread that makes segments. Dropping it waits until all that were ordered are made.
#[derive(Debug)]
pub(super) struct Preparer {
    orders: Orders,
    thread: Option<Thread>,
}

impl Preparer {
    pub(super) fn start() -> Self {
        let (orders, received) = sync_channel(WAITING_MAX);
        let thread =
            std::thread::Builder::new().name("store-prepare".to_owned()).spawn(move || prepare(received));
        // Without a thread every order is refused, and appends help themselves.
        Self { orders: Arc::new(Mutex::new(Some(orders))), thread: thread.ok().map(Thread::new) }
    }

    /// Why the thread no longer runs, if so.
    pub(super) fn fallen(&self) -> Option<String> {
        self.thread.as_ref()?.fallen()
    }

    /// The place of a log for its segment to come, at the path `folder`.
    pub(super) fn place(&self, folder: PathBuf) -> Prepared {
        let place = Arc::new(Place { folder, state: Mutex::default(), made: Condvar::new() });
        Prepared { place, orders: Arc::clone(&self.orders) }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        *lock(&self.orders) = None;
        if let Some(thread) = &self.thread {
            thread.join();
        }
    }
}

/// One log's next segment. Dropping it waits until it is made, if it was ordered.
#[derive(Debug)]
pub(super) struct Prepared {
    place: Arc<Place>,
    orders: Orders,
}

impl Prepared {
    /// Has it made, unless it is made or being made.
    pub(super) fn order(&self) {
        let mut state = lock(&self.place.state);
        if *state == State::Nothing
            && let Some(orders) = &*lock(&self.orders)
            && orders.try_send(Arc::clone(&self.place)).is_ok()
        {
            *state = State::Ordered;
        }
    }

    /// Its folder, made now if it was not ordered.
    pub(super) fn take(&self) -> Result<PathBuf, Error> {
        let mut state = self.place.settled();
        if *state == State::Nothing {
            self.place.make()?;
        }
        *state = State::Nothing;
        Ok(self.place.folder.clone())
    }
}

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    state: Mutex<State>,
    made: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Nothing,
    Ordered,
    Made,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        drop(self.place.settled());
    }
}

impl Place {
    fn settled(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        self.made.wait_while(state, |state| *state == State::Ordered).unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<(), Error> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)
                .map_err(|source| Error::io("remove", &self.folder, source))?;
        }
        headwater_fail::point("segment.ordered");
        Segment::create(&self.folder)
    }
}

fn prepare(orders: Receiver<Arc<Place>>) {
    let orders = Orderly(orders);
    for place in &orders.0 {
        let mut settled = Settled { place: &place, state: State::Nothing };
        let made = place.make();
        headwater_fail::point("segment.prepared");
        match made {
            Ok(()) => settled.state = State::Made,
            Err(error) => tracing::warn!(%error, "segment not made ahead"),
        }
    }
}

/// An order that was worked on: nobody waits for it any more, also when that panicked.
struct Settled<'a> {
    place: &'a Place,
    state: State,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        *lock(&self.place.state) = self.state;
        self.place.made.notify_all();
    }
}

/// Orders that nobody will work on any more are given back.
struct Orderly(Receiver<Arc<Place>>);

impl Drop for Orderly {
    fn drop(&mut self) {
        for place in self.0.try_iter() {
            drop(Settled { place: &place, state: State::Nothing });
        }
    }
}
