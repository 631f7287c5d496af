//! From what is configured and committed to a pipeline that is ready to run.

use std::sync::Arc;
use std::time::Instant;

use tracing::error;

use super::aggregate::Aggregate;
use super::modules::Modules;
use super::overflow::{OverflowBounds, OverflowPolicyState};
use super::progress::{Counts, Progress};
use super::route::OutputRoute;
use super::rows::Rows;
use super::step::{Stage, Step, Steps};
use super::tally::LossTally;
use super::thin::RecordKind;
use super::trips::Trips;
use super::versions::Versions;
use super::{Committed, Config, Error, Pipeline, Priority, WhenFull, migrate, remembered};
use crate::decode;
use crate::flow::Timestamp;
use crate::metrics::{self, Metrics};
use crate::module::ModuleHost;
use crate::store::{self, Store};
use crate::window::OpenWindows;

/// What a pipeline is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// The agent's id.
    pub agent: &'a str,
    /// With files for all its modules, unless it is built without them.
    pub config: &'a Config,
    /// What loads its modules.
    pub host: &'a ModuleHost,
    /// Where it goes on from.
    pub store: &'a Store,
    /// The agent's.
    pub metrics: &'a Metrics,
}

impl Parts<'_> {
    /// Loads the modules and goes on from the committed state; a new pipeline starts at the
    /// journal's end, and that is committed before an input may append.
    ///
    /// # Errors
    /// When a module or the committed state cannot be used.
    pub fn build(&self) -> Result<Pipeline, Error> {
        let calls = self.metrics.calls(self.name);
        self.build_with(Modules::load(self.name, self.config, self.host, &calls)?)
    }

    /// The same without modules, which it gets when it runs ([`Pipeline::awaiting`]).
    ///
    /// # Errors
    /// When the committed state cannot be used; with `absent` when only the modules can tell what was lost of it.
    pub fn build_without(&self, absent: Error) -> Result<Pipeline, Error> {
        if self.store.checkpoint(self.name)?.harm.is_some() {
            return Err(absent);
        }
        self.build_with(Modules::default())
    }

    fn build_with(&self, mut modules: Modules) -> Result<Pipeline, Error> {
        let Self { name, agent, config, host, store, metrics } = *self;
        let input = metrics.input(&config.input);
        let of_modules = metrics.trips();
        let calls = metrics.calls(name);
        let metrics = metrics.pipeline(name);
        let checkpoint = store.checkpoint(name)?;
        let position = checkpoint.position.unwrap_or_else(|| store.journal_end());
        let mut progress = Progress::decode(&checkpoint.progress).ok_or(Error::Progress)?;
        if checkpoint.position.is_none() {
            progress.counts.skipped = position;
            progress.clock = decode::Clock::new(store.newest_message());
        }
        let tally = LossTally::decode(&checkpoint.tally).ok_or(Error::Progress)?;
        let lost = checkpoint.harm.as_ref().is_some_and(|harm| harm.windows);
        let forgotten = remembered::restore(&mut modules.transforms, store, name, lost)?;
        if let Some(aggregate) = &mut modules.aggregate {
            let changes = migrate::changes(name, store, &progress, aggregate)?;
            if checkpoint.harm.is_some() && !changes.is_empty() {
                return Err(migrate::not_now(name, &progress, aggregate));
            }
            migrate::commit((name, &outbox(config)), store, position, &mut progress, (aggregate, changes))?;
        }
        let stage = open_stage(name, config, modules.aggregate, store, &progress)?;
        let results = result_route(name, config, store, &metrics, tally);
        let late = late_route(name, config, store, &metrics, &checkpoint.late_tally)?;
        // There before the output asks which outboxes there are.
        for route in [Some(&results), late.as_ref()].into_iter().flatten() {
            store.outbox_epoch(&route.outbox)?;
        }
        let mut pipeline = Pipeline {
            name: name.to_owned(),
            results,
            late,
            store: store.clone(),
            host: host.clone(),
            metrics,
            calls,
            of_modules,
            input,
            config: config.clone(),
            trips: Trips::new(config.on_trip.clone()),
            mailbox: Arc::default(),
            versions: Versions::default(),
            awaited: None,
            ended: None,
            steps: Steps {
                agent: agent.to_owned(),
                pipeline: name.to_owned(),
                input: Arc::from(config.input.as_str()),
                decode: decode::Decode::new(config.decode.clone()),
                clock: progress.clock,
                clock_is_behind: false,
                transforms: modules.transforms,
                forgotten,
                stage,
                shadow: None,
                keeps_states: matches!(config.when_full, WhenFull::Coarsen),
                sends_late: config.late.is_some(),
            },
            commit_every: config.commit_every,
            messages_age_max: store.quotas().journal.age_max,
            arrived: Timestamp::default(),
            position,
            committed: Committed { position, counts: progress.counts, at: Instant::now() },
            counts: progress.counts,
            step: Step::default(),
            replayed: 0,
            replaying: false,
        };
        pipeline.count(&Counts::default());
        crate::fail::point("pipeline.built");
        let is_harmed = checkpoint.harm.is_some();
        if let Some(harm) = checkpoint.harm {
            pipeline.suffer(harm)?;
        }
        if checkpoint.position.is_none() || is_harmed {
            let committed = pipeline.commit(|full| {
                error!(pipeline = name, error = %full, "a new pipeline cannot start without disk space");
                false
            })?;
            // Uncommitted, it would start at another end after a crash, and skip what came between.
            if !committed {
                return Err(Error::NoRoom { name: name.to_owned() });
            }
        }
        Ok(pipeline)
    }
}

fn result_route(
    name: &str,
    config: &Config,
    store: &Store,
    metrics: &metrics::Pipeline,
    tally: LossTally,
) -> OutputRoute {
    let window = config.windowed.as_ref().and_then(|(window, _)| window.kind.mergeable()).unwrap_or_default();
    let widest = crate::flow::micros(window).saturating_mul(config.coarsen_max);
    let bounds = OverflowBounds {
        policy: config.when_full,
        window: crate::flow::micros(window),
        widest,
        age_max: store.quotas().outbox(&config.output).age_max,
    };
    let outbox = outbox(config);
    let kind = RecordKind::Results;
    let overflow = OverflowPolicyState::new(kind, bounds, tally, metrics.clone());
    OutputRoute { outbox, writer: name.to_owned(), kind, overflow }
}

/// Where its results go.
fn outbox(config: &Config) -> String {
    match config.priority {
        Priority::Order => config.output.clone(),
        Priority::Live => store::live(&config.output),
    }
}

fn late_route(
    name: &str,
    config: &Config,
    store: &Store,
    metrics: &metrics::Pipeline,
    tally: &[u8],
) -> Result<Option<OutputRoute>, Error> {
    let Some(late) = &config.late else { return Ok(None) };
    let tally = LossTally::decode(tally).ok_or(Error::Progress)?;
    let outbox = store::late(&late.output);
    let age_max = store.quotas().outbox(&outbox).age_max;
    let bounds = OverflowBounds { policy: late.when_full, window: 0, widest: 0, age_max };
    let kind = RecordKind::Late;
    let overflow = OverflowPolicyState::new(kind, bounds, tally, metrics.clone());
    Ok(Some(OutputRoute { outbox, writer: store::late(name), kind, overflow }))
}

/// The stage behind the transforms, with what is committed of its windows.
pub(super) fn open_stage(
    name: &str,
    config: &Config,
    aggregate: Option<Aggregate>,
    store: &Store,
    progress: &Progress,
) -> Result<Stage, Error> {
    let (Some((window, _)), Some(aggregate)) = (&config.windowed, aggregate) else { return Ok(Stage::Each) };
    let rows = Rows { store: store.clone(), pipeline: name.to_owned() };
    let mut windows = OpenWindows::new(window.clone(), Box::new(rows.clone()), store.at_hand_bytes_max());
    windows.restore(&progress.windows, |each| rows.show(each))?;
    Ok(Stage::Windowed { windows: Box::new(windows), aggregate: Box::new(aggregate) })
}
