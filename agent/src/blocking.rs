//! Threads for work that blocks: every stage that computes or waits for the disk has one of its own, with its name.
//!
//! The runtime's own pool of blocking threads is one for all, with 512 of them: stages that stay in it for good take
//! them from everybody else. It is for what is short and seldom: files of secrets and certificates.
//!
//! **Bounds.** [`STACK_BYTES`] of stack a thread. [`CALLS_MAX`] calls wait for a [`BlockingThread`]; who makes one more
//! waits for room. A call whose caller is gone before it began is not made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::Builder;

use tokio::sync::{mpsc, oneshot};

use crate::error_text;

/// The stack of each thread: twice what a module may take of it, the rest is for the host.
pub const STACK_BYTES: usize = 1 << 20;
/// Calls that wait for one thread.
const CALLS_MAX: usize = 16;

/// A thread that the system does not give.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to start the thread `{name}`: {source}; allow the agent more of them (TasksMax= of its unit, ulimit -u)"
)]
pub struct ThreadError {
    name: String,
    source: std::io::Error,
}

/// The outcome of work on another thread: a future that comes when the work is done, or with the words of its panic.
#[derive(Debug)]
pub struct Ending<T>(oneshot::Receiver<Result<T, String>>);

impl<T> Future for Ending<T> {
    type Output = Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|ended| ended.unwrap_or_else(|_| Err("its thread takes no more calls".to_owned())))
    }
}

/// Does the work on a new thread of that name, also when nobody waits for it any more.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Ending<T>, ThreadError> {
    let (done, ending) = oneshot::channel();
    start_thread(name, move || drop(done.send(caught(work))))?;
    Ok(Ending(ending))
}

/// A thread that makes one blocking call after the other. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct BlockingThread(mpsc::Sender<Call>);

/// One call, which sends its answer itself.
type Call = Box<dyn FnOnce() + Send>;

impl BlockingThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str) -> Result<Self, ThreadError> {
        let (calls, mut asked) = mpsc::channel::<Call>(CALLS_MAX);
        start_thread(name, move || {
            while let Some(call) = asked.blocking_recv() {
                call();
            }
        })?;
        Ok(Self(calls))
    }

    /// Makes the call on the thread, after those before it.
    ///
    /// # Errors
    /// The words of its panic; later calls are made all the same.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let (call, ending) = packed(call);
        // Without a thread the call is dropped, and its ending says so.
        drop(self.0.send(call).await);
        ending.await
    }

    /// Has the call made on the thread, for callers that have no more than one under way.
    pub fn begin<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Ending<T> {
        let (call, ending) = packed(call);
        drop(self.0.try_send(call));
        ending
    }
}

fn packed<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> (Call, Ending<T>) {
    let (answer, ending) = oneshot::channel();
    let call = Box::new(move || {
        if !answer.is_closed() {
            drop(answer.send(caught(call)));
        }
    });
    (call, Ending(ending))
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    let started = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work);
    started.map(drop).map_err(|source| ThreadError { name: name.to_owned(), source })
}

/// What a panic interrupts is given up with it: the stage's state goes with the closure.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| error_text::of_panic(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_has_a_thread_of_its_name_and_its_panic_is_told() {
        let name = spawn("pipeline-p", || std::thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(name.await, Ok(Some("pipeline-p".to_owned())));
        let panicked = spawn("pipeline-p", || panic!("out of order")).unwrap();
        assert_eq!(panicked.await, Err::<(), _>("it panicked: out of order".to_owned()));
    }

    #[tokio::test]
    async fn calls_share_a_thread_that_outlives_a_panic_of_one() {
        let thread = BlockingThread::start("calls").unwrap();
        let first = thread.call(|| std::thread::current().id()).await.unwrap();
        assert_eq!(thread.call(|| panic!("ouch")).await, Err::<(), _>("it panicked: ouch".to_owned()));
        assert_eq!(thread.call(|| std::thread::current().id()).await, Ok(first));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_call_whose_caller_is_gone_is_not_made() {
        let thread = BlockingThread::start("calls").unwrap();
        let (begun, has_begun) = oneshot::channel();
        let (go_on, held) = std::sync::mpsc::sync_channel::<()>(0);
        let holding = thread.clone();
        let mut calls = tokio::task::JoinSet::new();
        calls.spawn(async move {
            let hold = move || (begun.send(()), held.recv());
            holding.call(hold).await.map(drop)
        });
        has_begun.await.unwrap();
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        {
            let mut call = std::pin::pin!(thread.call(move || made.send(())));
            let polled = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            assert!(polled.is_pending(), "it waits for its turn");
        }
        go_on.send(()).unwrap();
        calls.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(thread.call(|| 7).await, Ok(7));
        assert!(is_made.try_recv().is_err());
    }
}
