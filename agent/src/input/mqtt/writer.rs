//! The thread that waits for the disk: one group at a time, in order.
//!
//! While one group is being synced the next one gathers at the caller's: group commit without a
//! timer.
//!
//! **Bounds**: one group under way.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::redelivery::Redelivery;
use super::replay::Replay;
use super::wire::Ack;
use super::{BoxError, Error, Journal};
use crate::flow::Message;
use crate::store::Session;

/// One group.
const UNDER_WAY_MAX: usize = 1;

/// Publishes that become durable together, and what is owed to the broker for it.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The connection that the acknowledgements belong to.
    pub(super) connection: u64,
    /// What is stored; redeliveries and refused publishes are only acknowledged.
    pub(super) messages: Vec<Message>,
    /// What to answer, in the order of arrival.
    pub(super) acks: Vec<Ack>,
    /// What `messages` count towards the bound.
    pub(super) bytes: usize,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.acks.is_empty()
    }
}

/// What the thread reports.
#[derive(Debug)]
pub(super) enum Done {
    /// What the journal remembers.
    Opened(Box<Memory>),
    /// The group survives a power cut.
    Durable(Group),
}

/// What an input goes on from.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) session: Session,
    pub(super) redelivery: Redelivery,
    pub(super) replay: Replay,
}

enum Job {
    Open,
    Append(Group),
}

/// The async side of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: SyncSender<Job>,
    done: mpsc::Receiver<Result<Done, BoxError>>,
    thread: JoinHandle<()>,
    appending: bool,
}

impl Writer {
    /// Starts the thread; its first report is [`Done::Opened`].
    pub(super) fn start(input: &str, journal: impl Journal) -> Result<Self, Error> {
        let (jobs, todo) = sync_channel(UNDER_WAY_MAX);
        let (report, done) = mpsc::channel(UNDER_WAY_MAX);
        let name = input.to_owned();
        let thread = std::thread::Builder::new().name(format!("input-{input}")).spawn(move || {
            for job in todo {
                if report.blocking_send(perform(&name, &journal, job)).is_err() {
                    return;
                }
            }
        });
        let thread = thread.map_err(Error::Thread)?;
        let writer = Self { jobs, done, thread, appending: false };
        writer.submit(Job::Open)?;
        Ok(writer)
    }

    /// Whether a group is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.appending
    }

    /// Hands over a group; only while not busy.
    pub(super) fn append(&mut self, group: Group) -> Result<(), Error> {
        debug_assert!(!self.appending, "one group at a time");
        self.appending = true;
        self.submit(Job::Append(group))
    }

    /// The next report. May be dropped while it waits.
    pub(super) async fn done(&mut self) -> Result<Done, Error> {
        let done = self.done.recv().await.ok_or(Error::Writer)?.map_err(Error::Journal)?;
        if let Done::Durable(_) = done {
            self.appending = false;
        }
        Ok(done)
    }

    /// Ends the thread; waits for it only when it has nothing to do.
    pub(super) fn stop(self) {
        let Self { jobs, done, thread, appending } = self;
        drop((jobs, done));
        if !appending && thread.join().is_err() {
            tracing::error!("writer thread of the input panicked");
        }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        // Never full: the callers keep to one group.
        self.jobs.try_send(job).map_err(|_| Error::Writer)
    }
}

fn perform(input: &str, journal: &impl Journal, job: Job) -> Result<Done, BoxError> {
    match job {
        Job::Open => {
            let mut memory = Box::new(Memory { session: journal.session(input)?, ..Memory::default() });
            let session = memory.session.number;
            for delivered in journal.delivered(input)? {
                memory.redelivery.recall_forgotten(session, &delivered);
            }
            journal.recent(input, &mut |message| {
                memory.redelivery.recall(session, message);
                memory.replay.stored(&message.topic, &message.payload, &message.properties);
            })?;
            memory.redelivery.connected();
            Ok(Done::Opened(memory))
        }
        Job::Append(group) => {
            if !group.messages.is_empty() {
                crate::fail::point("input.gathered");
                journal.append(&group.messages)?;
                crate::fail::point("input.durable");
            }
            Ok(Done::Durable(group))
        }
    }
}
