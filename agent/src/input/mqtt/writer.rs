//! The thread that waits for the disk: one group at a time, in order.
//!
//! While one group is being synced the next one gathers at the caller's: group commit without a
//! timer.
//!
//! **Bounds**: one group under way.

use super::redelivery::Redelivery;
use super::replay::Replay;
use super::wire::Ack;
use super::{BoxError, Error, Journal};
use crate::blocking::{BlockingThread, Ending};
use crate::flow::Message;
use crate::store::Session;

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

/// The async side of the thread.
#[derive(Debug)]
pub(super) struct Writer<J> {
    input: String,
    journal: J,
    thread: BlockingThread,
    under_way: Option<Ending<Result<Done, BoxError>>>,
    appending: bool,
}

impl<J: Journal> Writer<J> {
    /// Starts the thread; its first report is [`Done::Opened`].
    pub(super) fn start(input: &str, journal: J) -> Result<Self, Error> {
        let thread = BlockingThread::start(&format!("input-{input}")).map_err(Error::Thread)?;
        let (name, of_name) = (input.to_owned(), journal.clone());
        let under_way = thread.begin(move || open(&name, &of_name));
        Ok(Self { input: input.to_owned(), journal, thread, under_way: Some(under_way), appending: false })
    }

    /// Whether a group is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.appending
    }

    /// Hands over a group; only while not busy.
    pub(super) fn append(&mut self, group: Group) {
        debug_assert!(self.under_way.is_none(), "one group at a time");
        self.appending = true;
        let journal = self.journal.clone();
        self.under_way = Some(self.thread.begin(move || append(&journal, group)));
    }

    /// The next report. May be dropped while it waits.
    pub(super) async fn done(&mut self) -> Result<Done, Error> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let done = under_way.await;
        self.under_way = None;
        self.appending = false;
        done.map_err(|panic| Error::Writer { input: self.input.clone(), panic })?.map_err(Error::Journal)
    }
}

/// Reads what the journal remembers of the input.
fn open(input: &str, journal: &impl Journal) -> Result<Done, BoxError> {
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

/// Makes a group durable.
fn append(journal: &impl Journal, group: Group) -> Result<Done, BoxError> {
    if !group.messages.is_empty() {
        crate::fail::point("input.gathered");
        journal.append(&group.messages)?;
        crate::fail::point("input.durable");
    }
    Ok(Done::Durable(group))
}
