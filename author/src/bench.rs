//! The costs of a module on this machine, under the agent's host with the agent's batches.

use super::WorldKind;
use super::subject::{ModuleArguments, ModuleSubject, checked};
use anyhow::ensure;
use headwater_agent::flow::Event;
use headwater_agent::module::{Group, ModuleHost};
use std::time::{Duration, Instant};

/// The events of one call, as many as the agent's.
const BATCH: usize = 256;

/// The number of fresh instances, of which the quickest counts.
const STARTS: usize = 20;

/// `headwater module bench`.
#[derive(Debug, clap::Args)]
pub struct BenchOptions {
    #[command(flatten)]
    module: ModuleArguments,
    /// The seconds for which events are given to it.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Print the costs as JSON.
    #[arg(long)]
    json: bool,
}

/// The costs that were measured.
#[derive(Debug, serde::Serialize)]
pub(super) struct ModuleCosts {
    /// The size of the file.
    bytes: usize,
    compile_ms: f64,
    /// The time to instantiate, with `init`.
    instantiate_us: f64,
    events_per_second: f64,
    us_per_event: f64,
    /// The time of an event with one event a call.
    us_per_event_alone: f64,
    /// The linear memory of the instance at the end, which never shrinks.
    memory_bytes: usize,
}

pub(super) fn run(options: &BenchOptions) -> anyhow::Result<()> {
    let module = &options.module;
    // No cache: the compilation is to be measured.
    let host = ModuleHost::new(None)?;
    let file = module.file()?;
    let subject = ModuleSubject::open_in(host, &file, checked(module.settings.as_deref())?)?;
    let events = subject.samples(module.samples.as_deref())?;
    ensure!(
        !events.is_empty(),
        "failed to measure {}: there are no samples: name a file with --samples",
        file.display()
    );
    let costs = measure(&subject, &events, Duration::from_secs(options.seconds))?;
    if options.json {
        println!("{}", serde_json::to_string(&costs)?);
        return Ok(());
    }
    println!("size          {} KiB", costs.bytes.div_ceil(1024));
    println!("compile       {:.0} ms", costs.compile_ms);
    println!("instantiate   {:.0} µs", costs.instantiate_us);
    println!("events        {:.0} a second, {:.2} µs each", costs.events_per_second, costs.us_per_event);
    println!("one a call    {:.2} µs each", costs.us_per_event_alone);
    println!("memory        {} KiB", costs.memory_bytes.div_ceil(1024));
    if cfg!(debug_assertions) {
        println!("this is a debug build of headwater: a release build is quicker");
    }
    Ok(())
}

/// Measures a module for about that time, most of which goes to whole batches.
pub(super) fn measure(
    subject: &ModuleSubject,
    events: &[Event],
    time: Duration,
) -> anyhow::Result<ModuleCosts> {
    let mut running = RunningModule::load(subject)?;
    let mut instantiate = Duration::MAX;
    for _ in 0..STARTS {
        let started = Instant::now();
        running.renew(&subject.settings)?;
        instantiate = instantiate.min(started.elapsed());
    }
    let batch: Vec<Event> = events.iter().cycle().take(BATCH).cloned().collect();
    let each = running.rate(&batch, time);
    let alone = running.rate(&batch[..1], time / 10);
    Ok(ModuleCosts {
        bytes: subject.inspection.bytes,
        compile_ms: subject.inspection.compiled_in.as_secs_f64() * 1e3,
        instantiate_us: instantiate.as_secs_f64() * 1e6,
        events_per_second: 1.0 / each,
        us_per_event: each * 1e6,
        us_per_event_alone: alone * 1e6,
        memory_bytes: running.memory_bytes(),
    })
}

/// A module of either world.
enum RunningModule {
    Transform(headwater_agent::module::TransformModule),
    Aggregate(headwater_agent::module::AggregateModule),
}

impl RunningModule {
    fn load(subject: &ModuleSubject) -> anyhow::Result<Self> {
        Ok(match subject.kind {
            WorldKind::Transform => Self::Transform(subject.transform()?),
            WorldKind::Aggregate => Self::Aggregate(subject.aggregate()?),
        })
    }

    fn renew(&mut self, settings: &str) -> anyhow::Result<()> {
        let renewed = match self {
            Self::Transform(module) => module.renew(settings),
            Self::Aggregate(module) => module.renew(settings),
        };
        renewed.map_err(anyhow::Error::msg)
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Transform(module) => module.memory_bytes(),
            Self::Aggregate(module) => module.memory_bytes(),
        }
    }

    /// Returns the seconds an event, over that time.
    fn rate(&mut self, batch: &[Event], time: Duration) -> f64 {
        let mut group = super::conform::whole_group(batch);
        let started = Instant::now();
        let mut events = 0_u64;
        while started.elapsed() < time || events == 0 {
            self.once(batch, &mut group);
            events += batch.len() as u64;
        }
        started.elapsed().as_secs_f64() / events as f64
    }

    fn once(&mut self, batch: &[Event], group: &mut Group) {
        match self {
            Self::Transform(module) => drop(module.process(batch)),
            // On top of what it had, as a window that goes on.
            Self::Aggregate(module) => {
                let updated = module.update(std::slice::from_ref(group)).pop();
                group.state = updated.unwrap_or_default().state;
            }
        }
    }
}
