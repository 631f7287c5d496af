//! Reads the configuration again while the agent runs, and offers the pipelines new versions of their modules.
//!
//! A reload is asked for by SIGHUP, by the agent's own HTTP, or by a change of the files where `agent.watch` is set.
//! Only modules and their settings can change: any other difference, or a fault in the file, refuses the whole, and
//! what runs goes on. New modules are fetched, compiled and started on a thread of their own; the switch
//! itself is the pipeline's (`pipeline/swap.rs`). The pipelines that run are in the roster.
//!
//! **Bounds**: one reload at a time, [`REQUESTS_MAX`] wait; a pipeline's modules have [`LOAD_MAX`] to be loaded.
//! A crash in here costs nothing: the next start reads the file.

mod difference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::blocking;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::module::{ModuleHost, NetworkAccess};
use crate::pipeline::{self, Modules, Offer, PipelineMailbox, Version};
use crate::roster::RosterReader;

/// Longest time for loading the modules of a pipeline. The compiler cannot be stopped, but what comes of it later is
/// dropped.
pub const LOAD_MAX: Duration = Duration::from_mins(10);
/// Reloads that wait for the one under way.
const REQUESTS_MAX: usize = 4;

/// The outcome of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadOutcome {
    /// The reason that nothing of it was used.
    pub refused: Option<String>,
    /// The change of each pipeline's modules.
    pub pipelines: BTreeMap<String, ModulesChange>,
}

/// The change of a pipeline's modules that a reload brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModulesChange {
    /// The pipeline runs the modules of the file.
    Unchanged,
    /// The pipeline switches behind its next commit, or runs both versions for the time of its `shadow` first;
    /// `/status` tells.
    Switching,
    /// The modules cannot be used, for this reason; those that run go on.
    Refused(String),
}

/// A handle by which a reload is asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<ReloadOutcome>>);

impl ReloadHandle {
    /// Reloads, and returns the outcome; `None` when the agent is stopping.
    pub async fn request(&self) -> Option<ReloadOutcome> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// The part of the agent that reloads.
#[derive(Debug)]
pub struct Reloader {
    running: Config,
    host: ModuleHost,
    metrics: Arc<Metrics>,
    roster: RosterReader,
    requests: mpsc::Receiver<oneshot::Sender<ReloadOutcome>>,
}

/// The time of writing and the length of each file, where it is there.
type FileTimes = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

impl Reloader {
    /// Reloads for the pipelines of the roster, which run `running`.
    #[must_use]
    pub fn new(
        running: Config,
        host: ModuleHost,
        metrics: Arc<Metrics>,
        roster: RosterReader,
    ) -> (Self, ReloadHandle) {
        let (handle, requests) = mpsc::channel(REQUESTS_MAX);
        (Self { running, host, metrics, roster, requests }, ReloadHandle(handle))
    }

    /// Reloads whenever it is asked to, for ever.
    pub async fn run(mut self) {
        let every = self.running.agent.watch;
        let mut tick = tokio::time::interval(every.unwrap_or(Duration::from_hours(24)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut files = files(&self.running);
        let mut known = look(&files);
        let mut last = known.clone();
        loop {
            tokio::select! {
                asked = self.requests.recv() => {
                    let Some(answer) = asked else { return std::future::pending().await };
                    let (outcome, named) = self.reload().await;
                    files = named.unwrap_or(files);
                    known = look(&files);
                    drop(answer.send(outcome));
                }
                _ = tick.tick(), if every.is_some() => {
                    let now = look(&files);
                    // What is still being written looks different at the next look.
                    if now != known && now == last {
                        info!("files have changed: reading them again");
                        known = now.clone();
                        let (_, named) = self.reload().await;
                        if let Some(named) = named.filter(|named| *named != files) {
                            (files, known) = (named.clone(), look(&named));
                        }
                    }
                    last = now;
                }
            }
        }
    }

    /// Reads the file and offers what changed; returns the files to watch from now on, if it was good.
    async fn reload(&self) -> (ReloadOutcome, Option<Vec<PathBuf>>) {
        let new = match self.read() {
            Ok(new) => new,
            Err(reason) => {
                error!(reason, "the configuration is not read again: what runs goes on");
                self.metrics.reload().refused.inc();
                return (ReloadOutcome { refused: Some(reason), ..ReloadOutcome::default() }, None);
            }
        };
        let mut outcome = ReloadOutcome::default();
        let roster = self.roster.current();
        for (name, config) in &new.pipelines {
            let Some(running) = roster.pipelines.get(name.as_str()) else { continue };
            let change = self.offer(name, config.clone(), running.mailbox.clone()).await;
            outcome.pipelines.insert(name.clone(), change);
        }
        self.metrics.reload().done.inc();
        (outcome, Some(files(&new)))
    }

    fn read(&self) -> Result<Config, String> {
        let new = config::load(&self.running.file).map_err(|error| error.to_string())?;
        let others = difference::others(&self.running.text, &new.text);
        if others.is_empty() {
            return Ok(new);
        }
        Err(format!("{} changed: that needs a restart; only modules can change without", others.join(", ")))
    }

    async fn offer(
        &self,
        name: &str,
        config: pipeline::Config,
        mailbox: Arc<PipelineMailbox>,
    ) -> ModulesChange {
        let host = self.host.clone();
        let metrics = self.metrics.calls(name);
        let of_name = name.to_owned();
        let asked = mailbox.clone();
        // A thread for each: one that compiles too long is left alone, and the next reload does not wait for it.
        let load = blocking::spawn(&format!("reload-{name}"), move || {
            let config = pipeline::at_hand(&of_name, &config, &host, NetworkAccess::Until(&|| false))?;
            let version = Version::of(&of_name, &config)?;
            if version == asked.running() && !asked.is_offered() {
                return Ok(None);
            }
            let modules = Modules::load(&of_name, &config, &host, &metrics)?;
            Ok::<_, pipeline::Error>(Some(Offer { modules, version, config }))
        });
        let load = async { load.map_err(|error| error.to_string())?.await };
        let reason = match tokio::time::timeout(LOAD_MAX, load).await {
            Ok(Ok(Ok(None))) => return ModulesChange::Unchanged,
            Ok(Ok(Ok(Some(offer)))) => {
                mailbox.offer(offer);
                return ModulesChange::Switching;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(reason)) => reason,
            Err(_) => format!("they were not loaded within {LOAD_MAX:?}"),
        };
        error!(pipeline = name, reason, "modules are not switched: what runs goes on");
        self.metrics.pipeline(name).refused_swaps.inc();
        mailbox.refused(reason.clone());
        ModulesChange::Refused(reason)
    }
}

/// Returns the configuration's file and those of the modules that it names; fetched ones are pinned and do not change.
fn files(config: &Config) -> Vec<PathBuf> {
    let modules = config.pipelines.values().flat_map(pipeline::Config::modules);
    let files = modules.filter(|module| module.origin.remote.is_none()).map(|it| it.origin.file.clone());
    std::iter::once(config.file.clone()).chain(files).collect()
}

fn look(files: &[PathBuf]) -> FileTimes {
    let look = |file: &Path| {
        let seen = std::fs::metadata(file).ok()?;
        Some((seen.modified().ok()?, seen.len()))
    };
    files.iter().map(|file| (file.clone(), look(file))).collect()
}
