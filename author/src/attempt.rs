//! `headwater module try`: the output of a module for live messages, or for captured dead letters.
//!
//! It takes part in nothing: a client of its own at QoS 0 whose session ends with it, or a look at the letters that
//! changes none of them. The output is printed, one line each as `test` has them, and goes nowhere else.

use super::DeadLetters;
use super::WorldKind;
use super::outcome::{of_event, of_windows};
use super::subject::{ModuleSubject, checked, file_of};
use anyhow::{Context, bail};
use headwater_agent::config::listener;
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::input::mqtt::listen::listen;
use headwater_agent::module::TransformModule;
use headwater_agent::secret::Secret;
use serde_json::Value;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

/// `headwater module try`.
#[derive(Debug, clap::Args)]
pub struct TryOptions {
    /// The module, or its project's folder.
    #[arg(default_value = ".")]
    file: PathBuf,
    /// The module's settings, as JSON. Default: `settings` in the `module.toml` beside it, or `{}`.
    #[arg(long)]
    settings: Option<String>,
    /// Live messages of this broker: mqtt://host:port, mqtts://…, ws://…, wss://….
    #[arg(long, requires = "topic", conflicts_with = "dead_letters")]
    broker: Option<String>,
    /// The topics to listen to; the topic is the event's key.
    #[arg(long)]
    topic: Vec<String>,
    /// The name of the broker's user.
    #[arg(long, requires = "broker")]
    username: Option<String>,
    /// The file that the broker's password is in.
    #[arg(long, requires = "username")]
    password_file: Option<PathBuf>,
    /// Dead letters: what an agent could not use, as it came.
    #[arg(long, requires = "config")]
    dead_letters: bool,
    /// The agent's configuration file.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Stop after so many inputs.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Stop after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

pub(super) fn run(options: &TryOptions, letters: DeadLetters<'_>) -> anyhow::Result<()> {
    let subject = ModuleSubject::open(&file_of(&options.file)?, checked(options.settings.as_deref())?)?;
    let mut shown = OutcomePrinter::new(&subject, options.count)?;
    match (&options.broker, &options.config) {
        (Some(broker), _) => live(options, broker, &mut shown)?,
        (None, Some(config)) if options.dead_letters => {
            letters(config, &mut |kept| {
                let letter = kept.letter;
                // Results that could not be made or sent were never inputs of a module.
                if letter.window.is_some() || letter.payload.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
                let time = letter.event_time.unwrap_or(letter.received);
                let key = if letter.key.is_empty() { letter.topic.clone() } else { letter.key };
                shown.take(Event { topic: letter.topic, key, time, payload: letter.payload })
            })?;
        }
        _ => bail!("say what to try it on: --broker URL --topic TOPIC, or --dead-letters --config FILE"),
    }
    shown.finish(&subject)
}

fn live(options: &TryOptions, broker: &str, shown: &mut OutcomePrinter) -> anyhow::Result<()> {
    let client_id = format!("headwater-try-{:08x}", fastrand::u32(..));
    let mut config = listener(broker, &client_id, options.topic.clone()).map_err(anyhow::Error::msg)?;
    config.username.clone_from(&options.username);
    config.password = options.password_file.clone().map(Secret::File);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failed = None;
    let listening = listen(&config, |topic, payload| {
        let event = Event {
            topic: topic.to_owned(),
            key: topic.to_owned(),
            time: Timestamp::now(),
            payload: payload.to_vec(),
        };
        shown.take(event).unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    });
    let limit = Duration::from_secs(options.seconds);
    match runtime.block_on(async { tokio::time::timeout(limit, listening).await }) {
        Ok(listened) => listened.map_err(anyhow::Error::from_boxed).with_context(|| broker.to_owned())?,
        Err(_) => eprintln!("{} seconds are over", options.seconds),
    }
    failed.map_or(Ok(()), Err)
}

/// Prints the output for the inputs that come, up to a bound.
struct OutcomePrinter {
    /// An aggregate gets all at the end.
    transform: Option<TransformModule>,
    events: Vec<Event>,
    count: usize,
    taken: usize,
}

impl OutcomePrinter {
    fn new(subject: &ModuleSubject, count: usize) -> anyhow::Result<Self> {
        let transform = match subject.kind {
            WorldKind::Transform => Some(subject.transform()?),
            WorldKind::Aggregate => None,
        };
        Ok(Self { transform, events: Vec::new(), count, taken: 0 })
    }

    fn take(&mut self, event: Event) -> anyhow::Result<ControlFlow<()>> {
        if self.taken == self.count {
            return Ok(ControlFlow::Break(()));
        }
        match &mut self.transform {
            Some(transform) => print(&of_event(transform, self.taken, &event))?,
            None => self.events.push(event),
        }
        self.taken += 1;
        Ok(if self.taken == self.count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn finish(self, subject: &ModuleSubject) -> anyhow::Result<()> {
        if subject.kind == WorldKind::Aggregate {
            let minute = Duration::from_mins(1);
            let window = subject.project.as_ref().map_or(minute, |project| project.window);
            print(&of_windows(&mut subject.aggregate()?, &self.events, window))?;
        }
        eprintln!("{} inputs; nothing was sent", self.taken);
        Ok(())
    }
}

fn print(lines: &[Value]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(())
}
