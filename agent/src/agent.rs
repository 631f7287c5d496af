//! The wiring: builds the stages in the data's order, enters them in the roster, runs them, stops them in the same
//! order.
//!
//! The only place that spawns (`agent/stages.rs`). A stage that fails or panics ends the whole agent with its name and
//! reason: the supervisor's restart is the repair, and the store makes it safe. Pipelines have
//! threads of their own, since modules compute, and so has all that waits for the disk
//! (`blocking.rs`); everything else is a task.

mod folder;
mod stages;
mod trim;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::info;

use crate::admin::{Admin, AdminKey, AdminParts};
use crate::audit::{Auditor, LedgerReader};
use crate::blocking::{self, ThreadError};
use crate::config::Config;
use crate::error_text;
use crate::flow::Timestamp;
use crate::input::mqtt::MqttInput;
use crate::liveness::Heartbeat;
use crate::metrics::Metrics;
use crate::module::{self, ModuleHost, NetworkAccess};
use crate::output::{self, HttpOutput};
use crate::pipeline::{self, Parts, Pipeline, PipelineMailbox, Versions};
use crate::reload::{ReloadHandle, Reloader};
use crate::roster::{InputEntry, OutputEntry, PipelineEntry, Roster, RosterError, RosterReader};
use crate::store::{self, Store};
use stages::Stages;
use trim::Trimmer;

/// The file in the state folder that holds the address of the agent's own HTTP.
pub const ADMIN_ADDRESS_FILE: &str = "admin.addr";

/// Why an agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The state folder cannot be made.
    #[error("failed to make the state folder {}: {source}; give the agent's user a folder it may write", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The state folder holds what another agent has to deliver.
    #[error("failed to use the state folder {}: it belongs to the agent `{found}`, and this is `{id}`; give each agent a folder of its own", path.display())]
    Another {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        found: String,
        /// The agent that asked for it.
        id: String,
    },
    /// The module host cannot work here.
    #[error(transparent)]
    Host(module::ModuleError),
    /// A pipeline cannot start.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// An output cannot start.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// There are more stages than may run.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The agent's own HTTP cannot start.
    #[error(
        "failed to listen on {address} for the agent's own HTTP: {source}; set `agent.admin` to a free address"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// A thread cannot be had.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// A stage ended that should run for ever.
    #[error("failed to go on: {stage}: {reason}")]
    Stage {
        /// The stage.
        stage: String,
        /// Its words.
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
    roster: Roster,
    stages: BuiltStages,
    auditor: Auditor,
    admin: Admin,
    reloader: Reloader,
    reload: ReloadHandle,
    trimmer: Trimmer,
    listener: TcpListener,
    grace: Duration,
}

/// The stages of the data's way, by name, ready to run.
#[derive(Debug, Default)]
struct BuiltStages {
    inputs: BTreeMap<String, MqttInput>,
    pipelines: BTreeMap<String, BuiltPipeline>,
    outputs: BTreeMap<String, HttpOutput>,
}

/// A pipeline that is ready to run, with the handles that others have of it.
#[derive(Debug)]
struct BuiltPipeline {
    pipeline: Pipeline,
    mailbox: Arc<PipelineMailbox>,
    heartbeat: Arc<Heartbeat>,
}

impl Agent {
    /// Opens the store, loads the modules, binds the agent's own HTTP; connects to nothing yet.
    ///
    /// # Errors
    /// When one of them cannot be had; nothing was consumed.
    pub async fn build(config: &Config) -> Result<Self, Error> {
        let state = &config.agent.state;
        let metrics = Arc::new(Metrics::new());
        let store = folder::open(config, &metrics).await?;
        let host = ModuleHost::guarded(state, &config.modules, &metrics.host()).map_err(Error::Host)?;
        let roster = Roster::new(metrics.clone());
        let pipelines = build_pipelines(config, &host, &store, &metrics).await?;
        store.tell(&config.agent.id, Timestamp::now())?;
        let outputs = build_outputs(config, &store, &metrics)?;
        let inputs = config.inputs.iter().map(|(name, input)| {
            (name.clone(), MqttInput::new(name, input.clone(), store.clone(), metrics.input(name)))
        });
        let stages = BuiltStages { inputs: inputs.collect(), pipelines, outputs };
        enter(config, &stages, &roster, &store, &metrics)?;
        let ledger = LedgerReader::open(store.clone(), roster.reader());
        let auditor = Auditor::new(ledger, config.agent.stuck_after, metrics.clone(), host.clone());
        let (reloader, reload) = Reloader::new(config.clone(), host, metrics.clone(), roster.reader());
        let key = AdminKey::make(state).map_err(|source| Error::State { path: state.clone(), source })?;
        let (listener, address) = listen(config).await?;
        crate::fail::point("agent.built");
        info!(agent = config.agent.id, state = %state.display(), admin = %address, "agent built");
        let admin = Admin::start(AdminParts {
            agent: config.agent.id.clone(),
            metrics,
            roster: roster.reader(),
            audit: auditor.view(),
            store: store.clone(),
            key,
            reload: reload.clone(),
        })?;
        let trimmer = Trimmer::start(store.clone(), roster.reader())?;
        let grace = config.agent.grace;
        Ok(Self { store, roster, stages, auditor, admin, reloader, reload, trimmer, listener, grace })
    }

    /// Returns the address of the agent's own HTTP.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns a handle by which a reload of its configuration is asked for, while it runs.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.clone()
    }

    /// Returns a handle that sees the stages that run.
    #[must_use]
    pub fn roster(&self) -> RosterReader {
        self.roster.reader()
    }

    /// Returns its counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.admin.metrics()
    }

    /// Runs until `stop` is done, then stops within the grace: intake first, open windows kept.
    ///
    /// # Errors
    /// When a stage failed: only a restart helps.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut stages = Stages::start(self.stages, &self.roster.reader(), self.trimmer, &self.store);
        let audit = async { self.auditor.run().await.map_err(|error| error_text::of(&error)) };
        stages.beside("audit", audit);
        let serve = async { self.admin.serve(self.listener).await.map_err(|error| error_text::of(&error)) };
        stages.beside("own HTTP", serve);
        let reload = async {
            self.reloader.run().await;
            Ok(())
        };
        stages.beside("reload", reload);
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

/// Builds the pipelines on a thread of their own: compiling a module may take minutes, and a stop waits for none.
async fn build_pipelines(
    config: &Config,
    host: &ModuleHost,
    store: &Store,
    metrics: &Arc<Metrics>,
) -> Result<BTreeMap<String, BuiltPipeline>, Error> {
    let config = config.clone();
    let host = host.clone();
    let store = store.clone();
    let metrics = metrics.clone();
    let build = move || {
        let build = |(name, pipeline): (&String, &pipeline::Config)| {
            let agent = &config.agent.id;
            let parts =
                Parts { name, agent, config: pipeline, host: &host, store: &store, metrics: &metrics };
            Ok((name.clone(), build_pipeline(&parts, &config.agent.state)?))
        };
        config.pipelines.iter().map(build).collect()
    };
    let built = blocking::spawn("build", build)?.await;
    built.unwrap_or_else(|reason| Err(Error::Stage { stage: "modules".to_owned(), reason }))
}

fn build_pipeline(parts: &Parts<'_>, state: &std::path::Path) -> Result<BuiltPipeline, Error> {
    let mailbox = Arc::<PipelineMailbox>::default();
    let pipeline = match pipeline::at_hand(parts.name, parts.config, parts.host, NetworkAccess::Off) {
        Ok(config) => {
            let (versions, config) = Versions::open(state, parts.name, &config)?;
            Parts { config: &config, ..*parts }.build()?.with(mailbox.clone(), versions)
        }
        // The others do not wait for what has to be fetched.
        Err(absent) if absent.is_absence() => {
            parts.build_without(absent)?.awaiting(mailbox.clone(), state.to_owned())
        }
        Err(error) => return Err(error.into()),
    };
    Ok(BuiltPipeline { pipeline, mailbox, heartbeat: Arc::default() })
}

fn build_outputs(
    config: &Config,
    store: &Store,
    metrics: &Metrics,
) -> Result<BTreeMap<String, HttpOutput>, Error> {
    let build = |(name, output): (&String, &output::Config)| {
        let handle = metrics.output(name);
        let built = HttpOutput::build(name, &config.agent.id, output.clone(), store.clone(), handle)?;
        Ok((name.clone(), built))
    };
    config.outputs.iter().map(build).collect()
}

/// Enters all stages in the roster: outputs before the pipelines that write to them.
fn enter(
    config: &Config,
    stages: &BuiltStages,
    roster: &Roster,
    store: &Store,
    metrics: &Metrics,
) -> Result<(), Error> {
    for name in stages.inputs.keys() {
        roster.add_input(name, InputEntry::new(metrics.input(name)))?;
    }
    for (name, output) in &config.outputs {
        let pending = store.pending(name)?;
        roster.add_output(name, OutputEntry::new(output, metrics.output(name), pending))?;
    }
    for (name, built) in &stages.pipelines {
        let config = &config.pipelines[name];
        let mailbox = built.mailbox.clone();
        let heartbeat = built.heartbeat.clone();
        let entry =
            PipelineEntry::new(config, mailbox, heartbeat, metrics.pipeline(name), metrics.calls(name));
        roster.add_pipeline(name, entry)?;
    }
    Ok(())
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
