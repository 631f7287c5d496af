//! The wiring: builds the stages in the data's order, runs them, stops them in the same order.
//!
//! The only file that spawns. A stage that fails or panics ends the whole agent with its name and
//! reason: the supervisor's restart is the repair, and the store makes it safe. Pipelines have
//! threads of their own, since modules compute, and so has all that waits for the disk
//! (`blocking.rs`); everything else is a task.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use crate::admin::{self, Admin, Told};
use crate::audit::{Auditor, Books};
use crate::blocking::{self, BlockingThread};
use crate::config::Config;
use crate::error_text;
use crate::flow::Timestamp;
use crate::input::mqtt::MqttInput;
use crate::live::Beat;
use crate::metrics::Metrics;
use crate::module::{self, Host, Network};
use crate::output::{self, HttpOutput};
use crate::pipeline::{self, Parts, Pipeline, Post, Versions};
use crate::reload::{Door, Reloader};
use crate::store::{self, Quotas, Store};

/// How often a start that waits for disk space looks for it.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often drained segments are given back to the disk.
const TRIM_EVERY: Duration = Duration::from_secs(5);
/// The file in the state folder that tells where the agent's own HTTP answers.
pub const ADMIN_ADDRESS_FILE: &str = "admin.addr";

/// The file in the state folder that tells whose it is.
const AGENT_ID_FILE: &str = "agent.id";

/// Why an agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The state folder cannot be made.
    #[error("failed to make the state folder {}: {source}; give the agent's user a folder it may write", path.display())]
    State {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state folder holds what another agent has to deliver.
    #[error("failed to use the state folder {}: it belongs to the agent `{found}`, and this is `{id}`; give each agent a folder of its own", path.display())]
    Another {
        /// Which folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked for it.
        id: String,
    },
    /// The module host cannot work here.
    #[error(transparent)]
    Host(module::Error),
    /// A pipeline cannot start.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// An output cannot start.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The agent's own HTTP cannot start.
    #[error(
        "failed to listen on {address} for the agent's own HTTP: {source}; set `agent.admin` to a free address"
    )]
    Admin {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread cannot be had.
    #[error(transparent)]
    Thread(blocking::ThreadError),
    /// A stage ended that should run for ever.
    #[error("failed to go on: {stage}: {reason}")]
    Stage {
        /// Which one.
        stage: String,
        /// What it said.
        reason: String,
    },
}

impl Error {
    fn is_full(&self) -> bool {
        match self {
            Self::Store(store::Error::Full { .. }) => true,
            Self::State { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// An agent that is built and does not run yet.
#[derive(Debug)]
pub struct Agent {
    store: Store,
    inputs: Vec<(String, MqttInput)>,
    pipelines: Vec<(String, Pipeline, Arc<Beat>)>,
    outputs: Vec<(String, HttpOutput)>,
    auditor: Auditor,
    admin: Admin,
    reloader: Reloader,
    door: Door,
    listener: TcpListener,
    grace: Duration,
}

impl Agent {
    /// Opens the store, loads the modules, binds the agent's own HTTP; connects to nothing yet.
    ///
    /// # Errors
    /// When one of them cannot be had; nothing was consumed.
    pub async fn build(config: &Config) -> Result<Self, Error> {
        let state = &config.agent.state;
        let metrics = Arc::new(Metrics::new());
        let store = open_store(config, &metrics).await?;
        let host = Host::guarded(state, &config.modules, &metrics.host()).map_err(Error::Host)?;
        let (pipelines, posts) = build_pipelines(config, &host, &store, &metrics).await?;
        store.tell(&config.agent.id, Timestamp::now())?;
        let mut outputs = Vec::new();
        for (name, output) in &config.outputs {
            let handle = metrics.output(name);
            let built = HttpOutput::build(name, &config.agent.id, output.clone(), store.clone(), handle)?;
            outputs.push((name.clone(), built));
        }
        let inputs = config.inputs.iter().map(|(name, input)| {
            (name.clone(), MqttInput::new(name, input.clone(), store.clone(), metrics.input(name)))
        });
        let books = Books::open(config, &metrics, &store)?;
        let beats = pipelines.iter().map(|(name, _, beat)| (name.clone(), beat.clone())).collect();
        let auditor = Auditor::new(config, metrics.clone(), books, host.clone(), &beats);
        let (reloader, door) = Reloader::new(config.clone(), host, metrics.clone(), posts.clone());
        let failed = |source| Error::State { path: state.clone(), source };
        let key = admin::Key::make(state).map_err(failed)?;
        let (listener, address) = listen(config).await?;
        crate::fail::point("agent.built");
        info!(agent = config.agent.id, state = %state.display(), admin = %address, "agent built");
        Ok(Self {
            inputs: inputs.collect(),
            admin: Admin::new(
                config,
                metrics,
                auditor.verdict(),
                store.clone(),
                Told { key, posts, door: door.clone() },
            )
            .map_err(Error::Thread)?,
            reloader,
            door,
            auditor,
            store,
            pipelines,
            outputs,
            listener,
            grace: config.agent.grace,
        })
    }

    /// Where the agent's own HTTP answers.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where a reload of its configuration is asked for, while it runs.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.admin.metrics()
    }

    /// Runs until `stop` is done, then stops within the grace: intake first, open windows kept.
    ///
    /// # Errors
    /// When a stage failed: only a restart helps.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let names: Vec<String> = self.pipelines.iter().map(|(name, _, _)| name.clone()).collect();
        let thread = BlockingThread::start("trim").map_err(Error::Thread)?;
        let mut stages = Stages::start(self.inputs, self.pipelines, self.outputs, &self.store);
        let audit = async { self.auditor.run().await.map_err(|error| error_text::of(&error)) };
        stages.beside.spawn("audit", audit);
        let serve = async { self.admin.serve(self.listener).await.map_err(|error| error_text::of(&error)) };
        stages.beside.spawn("own HTTP", serve);
        let reload = async {
            self.reloader.run().await;
            Ok(())
        };
        stages.beside.spawn("reload", reload);
        let trimmer = Trimmer { thread, store: self.store, pipelines: names.into() };
        let stopped = stages.trim.stop.subscribe();
        stages.trim.spawn("trim", trimmer.run(stopped));
        crate::fail::point("agent.started");
        tokio::select! {
            () = stop => {}
            failed = stages.failed() => return Err(failed),
        }
        info!("stopping: intake first, open windows are kept");
        crate::fail::point("agent.stopping");
        stages.stop(self.grace).await?;
        crate::fail::point("agent.stopped");
        info!("stopped");
        Ok(())
    }
}

/// Pipelines, ready to run.
type Built = Vec<(String, Pipeline, Arc<Beat>)>;

/// Beside the runtime: compiling a module may take minutes, and a stop waits for none of them.
async fn build_pipelines(
    config: &Config,
    host: &Host,
    store: &Store,
    metrics: &Arc<Metrics>,
) -> Result<(Built, BTreeMap<String, Arc<Post>>), Error> {
    let (config, host, store, metrics) = (config.clone(), host.clone(), store.clone(), metrics.clone());
    let build = move || {
        let (mut pipelines, mut posts) = (Vec::new(), BTreeMap::new());
        for (name, pipeline) in &config.pipelines {
            let (agent, state, post) = (&config.agent.id, &config.agent.state, Arc::<Post>::default());
            let (config, host, store, metrics) = (pipeline, &host, &store, &*metrics);
            let parts = Parts { name, agent, config, host, store, metrics };
            let built = match pipeline::at_hand(name, pipeline, host, Network::Off) {
                Ok(pipeline) => {
                    let (versions, pipeline) = Versions::open(state, name, &pipeline)?;
                    let built = Parts { config: &pipeline, ..parts }.build()?;
                    built.with(post.clone(), versions)
                }
                // The others do not wait for what has to be fetched.
                Err(absent) if absent.is_absence() => {
                    parts.build_without(absent)?.awaiting(post.clone(), state.clone())
                }
                Err(error) => return Err(error.into()),
            };
            posts.insert(name.clone(), post);
            pipelines.push((name.clone(), built, Arc::new(Beat::default())));
        }
        Ok((pipelines, posts))
    };
    let built = blocking::spawn("build", build).map_err(Error::Thread)?.await;
    built.unwrap_or_else(|reason| Err(Error::Stage { stage: "modules".to_owned(), reason }))
}

/// The running stages.
struct Stages {
    inputs: Running,
    pipelines: Running,
    outputs: Running,
    trim: Running,
    beside: Running,
    stop: StopPipelines,
}

impl Stages {
    fn start(
        inputs: Vec<(String, MqttInput)>,
        pipelines: Vec<(String, Pipeline, Arc<Beat>)>,
        outputs: Vec<(String, HttpOutput)>,
        store: &Store,
    ) -> Self {
        let mut stages = Self {
            inputs: Running::new("input"),
            pipelines: Running::new("pipeline"),
            outputs: Running::new("output"),
            trim: Running::new("stage"),
            beside: Running::new("stage"),
            stop: StopPipelines { flag: Arc::default(), store: store.clone() },
        };
        for (name, output) in outputs {
            let stopped = stages.outputs.stop.subscribe();
            stages
                .outputs
                .spawn(&name, async { output.run(stopped).await.map_err(|error| error_text::of(&error)) });
        }
        for (name, pipeline, beat) in pipelines {
            let stop = stages.stop.flag.clone();
            let run = move || pipeline.run(&stop, || beat.now()).map_err(|error| error_text::of(&error));
            stages.pipelines.spawn_thread(&name, run);
        }
        for (name, input) in inputs {
            let stopped = stages.inputs.stop.subscribe();
            stages
                .inputs
                .spawn(&name, async { input.run(stopped).await.map_err(|error| error_text::of(&error)) });
        }
        stages
    }

    /// Waits for a stage that ends though nobody stopped it.
    async fn failed(&mut self) -> Error {
        tokio::select! {
            failed = self.inputs.failed() => failed,
            failed = self.pipelines.failed() => failed,
            failed = self.outputs.failed() => failed,
            failed = self.trim.failed() => failed,
            failed = self.beside.failed() => failed,
        }
    }

    /// Three quarters of the grace are for finishing work; then the rest is cancelled.
    async fn stop(&mut self, grace: Duration) -> Result<(), Error> {
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
struct Running {
    kind: &'static str,
    tasks: JoinSet<Result<(), String>>,
    names: Vec<(tokio::task::Id, String)>,
    stop: watch::Sender<bool>,
}

impl Running {
    fn new(kind: &'static str) -> Self {
        Self { kind, tasks: JoinSet::new(), names: Vec::new(), stop: watch::Sender::new(false) }
    }

    fn spawn(&mut self, name: &str, stage: impl Future<Output = Result<(), String>> + Send + 'static) {
        let id = self.tasks.spawn(stage).id();
        self.names.push((id, name.to_owned()));
    }

    fn spawn_thread(&mut self, name: &str, stage: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let ending = blocking::spawn(&format!("{}-{name}", self.kind), stage);
        self.spawn(name, async { ending.map_err(|error| error.to_string())?.await? });
    }

    async fn failed(&mut self) -> Error {
        match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, Ok(())))) => self.failure(id, "it ended without being asked to".to_owned()),
            Some(Ok((id, Err(reason)))) => self.failure(id, reason),
            Some(Err(error)) => self.failure(error.id(), panic_of(error)),
        }
    }

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

/// Why a task has no outcome.
fn panic_of(error: JoinError) -> String {
    error
        .try_into_panic()
        .map_or_else(|_| "it was cancelled".to_owned(), |panic| error_text::of_panic(&*panic))
}

/// Gives drained segments back to the disk.
struct Trimmer {
    thread: BlockingThread,
    store: Store,
    pipelines: Arc<[String]>,
}

impl Trimmer {
    /// Trims from time to time, and once more when it is to stop.
    async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut every = tokio::time::interval(TRIM_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !*stop.borrow() {
            tokio::select! {
                _ = every.tick() => self.trim().await?,
                changed = stop.changed() => if changed.is_err() { return Ok(()) },
            }
        }
        self.trim().await
    }

    async fn trim(&self) -> Result<(), String> {
        let (store, pipelines) = (self.store.clone(), self.pipelines.clone());
        let trim = move || {
            let names: Vec<&str> = pipelines.iter().map(String::as_str).collect();
            store.trim(&names).map_err(|error| error_text::of(&error))
        };
        self.thread.call(trim).await?
    }
}

/// On a full disk it waits for room, having touched nothing.
async fn open_store(config: &Config, metrics: &Metrics) -> Result<Store, Error> {
    loop {
        match try_open_store(config, metrics) {
            Err(error) if error.is_full() => {
                tracing::error!(%error, "agent waits for disk space before it starts");
                tokio::time::sleep(ROOM_EVERY).await;
            }
            opened => return opened,
        }
    }
}

fn try_open_store(config: &Config, metrics: &Metrics) -> Result<Store, Error> {
    let agent = &config.agent;
    claim(&agent.state, &agent.id)?;
    crate::fail::point("agent.claimed");
    let mut store = store::Config::new(agent.state.join("store"));
    store.ballast_bytes = agent.ballast_bytes;
    store.window_memory_max = agent.window_memory_max;
    let outboxes = config
        .outputs
        .iter()
        .flat_map(|(name, output)| [(name.clone(), output.outbox), (store::late(name), output.late)]);
    store.quotas =
        Quotas { journal: agent.journal, dead_letters: agent.dead_letters, outboxes: outboxes.collect() };
    Ok(Store::open(&store, &metrics.store())?)
}

/// Makes the state folder this agent's: results in it carry its id, as their batches must.
fn claim(state: &Path, id: &str) -> Result<(), Error> {
    let failed = |source| Error::State { path: state.to_owned(), source };
    std::fs::create_dir_all(state).map_err(failed)?;
    let file = state.join(AGENT_ID_FILE);
    match std::fs::read_to_string(&file) {
        Ok(found) if found == id => Ok(()),
        // An empty one is what a power cut may leave of the write below.
        Ok(found) if !found.is_empty() => {
            Err(Error::Another { path: state.to_owned(), found, id: id.to_owned() })
        }
        Ok(_) => std::fs::write(&file, id).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&file, id).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), Error> {
    let address = config.agent.admin;
    let failed = |source| Error::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let file = config.agent.state.join(ADMIN_ADDRESS_FILE);
    std::fs::write(&file, bound.to_string())
        .map_err(|source| Error::State { path: config.agent.state.clone(), source })?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_fails_is_named_and_takes_the_pipelines_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(
            &store::Config::new(folder.path().join("store")),
            &crate::metrics::StoreMetrics::default(),
        )
        .unwrap();
        let mut stages = Stages::start(Vec::new(), Vec::new(), Vec::new(), &store);
        let (flag, waiting) = (stages.stop.flag.clone(), store.clone());
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

    #[test]
    fn a_state_folder_belongs_to_one_agent() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        claim(&state, "one").unwrap();
        claim(&state, "one").unwrap();
        let refused = claim(&state, "two").unwrap_err().to_string();
        assert!(refused.contains("belongs to the agent `one`"), "{refused}");
    }
}
