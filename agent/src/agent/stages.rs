//! The running stages: spawned, watched and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::warn;

use super::trim::Trimmer;
use super::{BuiltPipeline, BuiltStages, Error};
use crate::blocking;
use crate::error_text;
use crate::roster::RosterReader;
use crate::store::Store;

/// The running stages.
pub(super) struct Stages {
    inputs: StageTasks,
    pipelines: StageTasks,
    outputs: StageTasks,
    trim: StageTasks,
    beside: StageTasks,
    stop: StopPipelines,
}

impl Stages {
    /// Starts the stages of the data's way, against its direction, so that each finds the next one at work.
    pub(super) fn start(built: BuiltStages, roster: &RosterReader, trimmer: Trimmer, store: &Store) -> Self {
        let mut stages = Self::none(store);
        for (name, output) in built.outputs {
            let stopped = stages.outputs.stopped();
            let run = output.run(roster.clone(), stopped);
            stages.outputs.spawn(&name, async { run.await.map_err(|error| error_text::of(&error)) });
        }
        for (name, BuiltPipeline { pipeline, heartbeat, .. }) in built.pipelines {
            let stop = stages.stop.flag.clone();
            let run =
                move || pipeline.run(&stop, || heartbeat.beat()).map_err(|error| error_text::of(&error));
            stages.pipelines.spawn_thread(&name, run);
        }
        for (name, input) in built.inputs {
            let stopped = stages.inputs.stopped();
            stages
                .inputs
                .spawn(&name, async { input.run(stopped).await.map_err(|error| error_text::of(&error)) });
        }
        let stopped = stages.trim.stopped();
        stages.trim.spawn("trim", trimmer.run(stopped));
        stages
    }

    fn none(store: &Store) -> Self {
        Self {
            inputs: StageTasks::new("input"),
            pipelines: StageTasks::new("pipeline"),
            outputs: StageTasks::new("output"),
            trim: StageTasks::new("stage"),
            beside: StageTasks::new("stage"),
            stop: StopPipelines { flag: Arc::default(), store: store.clone() },
        }
    }

    /// Starts a stage beside the data's way, which goes on until all is dropped.
    pub(super) fn beside(
        &mut self,
        name: &str,
        stage: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.beside.spawn(name, stage);
    }

    /// Waits for a stage that ends though nobody stopped it.
    pub(super) async fn failed(&mut self) -> Error {
        tokio::select! {
            failed = self.inputs.failed() => failed,
            failed = self.pipelines.failed() => failed,
            failed = self.outputs.failed() => failed,
            failed = self.trim.failed() => failed,
            failed = self.beside.failed() => failed,
        }
    }

    /// Stops the stages in the data's order. Three quarters of the grace are for finishing work; then the rest is
    /// cancelled.
    pub(super) async fn stop(&mut self, grace: Duration) -> Result<(), Error> {
        let finish = async {
            let inputs = self.inputs.stop().await;
            crate::fail::point("agent.inputs-stopped");
            self.stop.pipelines();
            let pipelines = self.pipelines.stop().await;
            crate::fail::point("agent.pipelines-stopped");
            let outputs = self.outputs.stop().await;
            crate::fail::point("agent.outputs-stopped");
            let trim = self.trim.stop().await;
            inputs.and(pipelines).and(outputs).and(trim)
        };
        let stopped = tokio::time::timeout(grace * 3 / 4, finish).await;
        stopped.unwrap_or_else(|_| {
            warn!("work in flight did not end within the grace: it is repeated after the next start");
            Ok(())
        })
    }
}

/// Tells the pipelines to stop, at the latest when it is dropped: their threads would go on for ever.
struct StopPipelines {
    flag: Arc<AtomicBool>,
    store: Store,
}

impl StopPipelines {
    fn pipelines(&self) {
        self.flag.store(true, Ordering::Release);
        self.store.wake_all();
    }
}

impl Drop for StopPipelines {
    fn drop(&mut self) {
        self.pipelines();
    }
}

/// The stages of one kind.
struct StageTasks {
    kind: &'static str,
    tasks: JoinSet<Result<(), String>>,
    names: Vec<(tokio::task::Id, String)>,
    stop: watch::Sender<bool>,
}

impl StageTasks {
    fn new(kind: &'static str) -> Self {
        Self { kind, tasks: JoinSet::new(), names: Vec::new(), stop: watch::Sender::new(false) }
    }

    /// Returns a handle that turns true when these stages are to stop.
    fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn spawn(&mut self, name: &str, stage: impl Future<Output = Result<(), String>> + Send + 'static) {
        let id = self.tasks.spawn(stage).id();
        self.names.push((id, name.to_owned()));
    }

    /// Starts a stage on a thread of its own, which bears its kind and name.
    fn spawn_thread(&mut self, name: &str, stage: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let ending = blocking::spawn(&format!("{}-{name}", self.kind), stage);
        self.spawn(name, async { ending.map_err(|error| error.to_string())?.await? });
    }

    /// Waits for a stage that ends though nobody stopped it.
    async fn failed(&mut self) -> Error {
        match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, Ok(())))) => self.failure(id, "it ended without being asked to".to_owned()),
            Some(Ok((id, Err(reason)))) => self.failure(id, reason),
            Some(Err(error)) => self.failure(error.id(), panic_of(error)),
        }
    }

    /// Stops all of them, and waits for their ends.
    async fn stop(&mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next_with_id().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((id, Err(reason))) => return Err(self.failure(id, reason)),
                Err(error) => return Err(self.failure(error.id(), panic_of(error))),
            }
        }
        Ok(())
    }

    fn failure(&self, id: tokio::task::Id, reason: String) -> Error {
        let name = self.names.iter().find(|(known, _)| *known == id).map_or("?", |(_, name)| name);
        Error::Stage { stage: format!("{} `{name}`", self.kind), reason }
    }
}

/// Returns the words of a task that has no outcome.
fn panic_of(error: JoinError) -> String {
    error
        .try_into_panic()
        .map_or_else(|_| "it was cancelled".to_owned(), |panic| error_text::of_panic(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::store;

    #[tokio::test]
    async fn a_stage_that_fails_is_named_and_takes_the_pipelines_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&store::Config::new(folder.path().join("store")), &Metrics::new().store()).unwrap();
        let mut stages = Stages::none(&store);
        let flag = stages.stop.flag.clone();
        let waiting = store.clone();
        let (ended, end) = tokio::sync::oneshot::channel();
        stages.pipelines.spawn_thread("p", move || {
            while !flag.load(Ordering::Acquire) {
                let _end = waiting.wait(0, Duration::from_secs(60));
            }
            ended.send(()).map_err(|()| "nobody waits".to_owned())
        });
        stages.inputs.spawn("s", async { panic!("out of order") });
        let failed = stages.failed().await.to_string();
        assert_eq!(failed, "failed to go on: input `s`: it panicked: out of order");
        drop(stages);
        tokio::time::timeout(Duration::from_secs(10), end).await.unwrap().unwrap();
    }
}
