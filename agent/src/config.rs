//! The one configuration file: TOML in, every stage's own `Config` out, or every fault at once.
//!
//! The stages say what their settings mean and what happens at a limit; here it is only said how
//! they are written. Unknown keys are faults. Paths are relative to the file. Secrets come by
//! reference, so that the file itself is no secret.

mod aggregate;
mod input;
mod modules;
mod output;
mod pipeline;
#[cfg(feature = "author")]
mod project;
mod read;
mod window;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "author")]
pub use input::listener;
#[cfg(feature = "author")]
pub use project::{NAME_REMEDY, Project, WorldKind, plain_name};
pub use read::Faults;
use read::{Report, Section, duration, size, text};
use toml::de::DeTable;

use crate::decode::Place;
use crate::input::mqtt;
use crate::roster::{INPUTS_MAX, OUTPUTS_MAX, PIPELINES_MAX};
use crate::secret::Secret;
use crate::store::{QUOTA_BYTES_MIN, Quota};
use crate::{module, pipeline as stage, store, tls};

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[agent]`.
    pub agent: Agent,
    /// `[modules]`.
    pub modules: module::HostConfig,
    /// `[input.NAME]`, by name.
    pub inputs: BTreeMap<String, mqtt::Config>,
    /// `[pipeline.NAME]`, by name.
    pub pipelines: BTreeMap<String, stage::Config>,
    /// `[output.NAME]`, by name.
    pub outputs: BTreeMap<String, crate::output::Config>,
    /// Where it was read from.
    pub file: PathBuf,
    /// As it was read.
    pub text: String,
}

/// `[agent]`.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its name, part of every result and idempotency key: unique among those that send to one
    /// collector. Up to 64 letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// The state folder. Lost with it: what was not delivered.
    pub state: PathBuf,
    /// Where `/live`, `/ready`, `/metrics` and `/status` answer. Port 0 takes a free one, written
    /// to `admin.addr` in the state folder. Default 127.0.0.1:9600.
    pub admin: SocketAddr,
    /// A stage that has work and does nothing of it for so long is stuck: `/live` fails, and the
    /// supervisor restarts. What waits for disk space or a destination is not. Default 1 min.
    pub stuck_after: Duration,
    /// How long a stop may take. Default 10 s; what is not sent by then is sent after the next start.
    pub grace: Duration,
    /// Disk held back in the state folder for the day it is full. Default 16 MiB, the least.
    pub ballast_bytes: u64,
    /// Memory of each pipeline for the state of its windows and for what its transforms remember. What is beyond
    /// it lies in the state folder alone: a reading of a key that was not heard for long then costs a read of the
    /// disk, and nothing is lost. Default 32 MiB, for some 100,000 keys with a few numbers each.
    pub window_memory_max: usize,
    /// How much the journal may hold: at its quota acknowledgements are withheld. Default 256 MiB, and
    /// messages of any age.
    pub journal: Quota,
    /// How much the dead letters may hold: at their quota the oldest go. Default 64 MiB, of any age.
    pub dead_letters: Quota,
    /// How often this file and the modules are looked at for changes; what changed of the modules is taken
    /// in while the agent runs. Default: never, only when asked.
    pub watch: Option<Duration>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read the configuration {}: {said}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// The system's words.
        said: std::io::Error,
    },
    /// A module's file of that kind cannot be read.
    #[error(
        "failed to read {}: {said}: go to the folder that `headwater module new` has made, or name it",
        file.display()
    )]
    Project {
        /// Which file.
        file: PathBuf,
        /// The system's words.
        said: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Reads and checks the file.
///
/// # Errors
/// When it cannot be read, or with every fault that it has.
pub fn load(file: &Path) -> Result<Config, Error> {
    let text = std::fs::read_to_string(file).map_err(|said| Error::Read { file: file.to_owned(), said })?;
    Ok(parse(file, &text)?)
}

/// Checks the text of a file; `file` names it in messages and is what paths are relative to.
///
/// # Errors
/// With every fault that it has.
pub fn parse(file: &Path, text: &str) -> Result<Config, Faults> {
    let config = parse_with(file, text, root_section)?;
    Ok(Config { file: file.to_owned(), text: text.to_owned(), ..config })
}

/// Reads all of a file's text by its root table.
fn parse_with<T>(
    file: &Path,
    text: &str,
    read: impl FnOnce(Section<'_>, &Path) -> Option<T>,
) -> Result<T, Faults> {
    let report = Report::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        report.fault(span, error.message().trim(), "correct the TOML; see toml.io");
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    let root = Section::new(&report, String::new(), 0..0, table.get_ref());
    let config = read(root, folder);
    match (config, report.finish()) {
        (Some(config), None) => Ok(config),
        (_, Some(faults)) => Err(faults),
        (None, None) => unreachable!("a missing value is always reported"),
    }
}

fn root_section(mut root: Section<'_>, folder: &Path) -> Option<Config> {
    let agent = root.section("agent").map(|section| agent_section(section, folder));
    let modules = root
        .optional_section("modules")
        .map_or_else(module::HostConfig::default, |section| modules::section(section, folder));
    let id = agent.as_ref().and_then(Option::as_ref).map_or("", |agent| agent.id.as_str());
    let mut inputs = read_all(root.named("input"), |name, section| input::section(section, name, id, folder));
    let outputs = read_all(root.named("output"), |_, section| output::section(section, folder));
    let names = pipeline::Names { inputs: &inputs, outputs: outputs.keys().collect() };
    let pipelines = read_all(root.named("pipeline"), |_, section| pipeline::section(section, &names, folder));
    bound(&root, "input", inputs.len(), INPUTS_MAX);
    bound(&root, "pipeline", pipelines.len(), PIPELINES_MAX);
    bound(&root, "output", outputs.len(), OUTPUTS_MAX);
    for pipeline in pipelines.values().flatten() {
        ask(&mut inputs, pipeline);
    }
    for (name, input) in &inputs {
        let asked = input.as_ref().map_or(0, |input| input.properties.len());
        if asked > mqtt::PROPERTIES_MAX {
            let message = format!("pipelines ask for {asked} user properties of the input `{name}`");
            root.fault_of_all(message, format!("an input keeps {} of a message", mqtt::PROPERTIES_MAX));
        }
    }
    root.finish();
    let (inputs, pipelines) = (all(inputs)?, all(pipelines)?);
    let (file, text) = (PathBuf::new(), String::new());
    Some(Config { agent: agent??, modules, inputs, pipelines, outputs: all(outputs)?, file, text })
}

/// Refuses more stages of a kind than an agent has threads for.
fn bound(root: &Section<'_>, kind: &str, count: usize, max: usize) {
    if count > max {
        let message =
            format!("the file has {count} sections `[{kind}.NAME]`, and an agent runs at most {max}");
        root.fault_of_all(message, "take some out, or give them to another agent");
    }
}

/// Has the input keep the user property that the pipeline needs.
fn ask(inputs: &mut Named<mqtt::Config>, pipeline: &stage::Config) {
    let place = pipeline.decode.time.as_ref().map(|stamp| &stamp.place);
    if let (Some(Place::Property(name)), Some(Some(input))) = (place, inputs.get_mut(&pipeline.input))
        && !input.properties.contains(name)
    {
        input.properties.push(name.clone());
    }
}

fn agent_section(mut section: Section<'_>, folder: &Path) -> Option<Agent> {
    let id = section.required("id", |value| {
        let id = text(value)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.len() <= 64 && id.bytes().all(plain) {
            return Ok(id);
        }
        Err(("is no id".into(), "use up to 64 letters, digits, `-`, `_` and `.`".into()))
    });
    let state = section.required("state", text);
    let admin = section.or("admin", SocketAddr::from(([127, 0, 0, 1], 9600)), |value| {
        let remedy = "write an address and port such as \"127.0.0.1:9600\"";
        text(value)?.parse().map_err(|_| ("is no socket address".into(), remedy.into()))
    });
    let grace = section.or(
        "grace",
        Duration::from_secs(10),
        duration(Duration::from_secs(1), Duration::from_mins(10)),
    );
    let ballast_bytes = section.or("ballast_bytes", 16 << 20, size(16 << 20, 1 << 30)) as u64;
    let window_memory_max = section.or("window_memory_max", store::WINDOW_MEMORY_MAX, size(1 << 20, 1 << 32));
    let stuck_after = section.or(
        "stuck_after",
        Duration::from_mins(1),
        duration(Duration::from_secs(5), Duration::from_hours(1)),
    );
    let quota = |section: Option<Section<'_>>, default| section.map_or(default, |it| quota(it, default));
    let journal = quota(section.optional_section("journal"), Quota::JOURNAL);
    let dead_letters = quota(section.optional_section("dead_letters"), Quota::DEAD_LETTERS);
    let watch = section.optional("watch", duration(Duration::from_secs(1), Duration::from_hours(24)));
    section.finish();
    let (id, state) = (id?, folder.join(state?));
    Some(Agent {
        id,
        state,
        admin,
        stuck_after,
        grace,
        ballast_bytes,
        window_memory_max,
        journal,
        dead_letters,
        watch,
    })
}

/// `{ bytes_max = "256 MiB", age_max = "7d" }`, each optional.
fn quota(mut section: Section<'_>, default: Quota) -> Quota {
    let (min, max) = (usize::try_from(QUOTA_BYTES_MIN).unwrap_or(usize::MAX), 1 << 40);
    let bytes_max =
        section.or("bytes_max", usize::try_from(default.bytes_max).unwrap_or(max), size(min, max));
    let (second, century) = (Duration::from_secs(1), Duration::from_hours(24 * 36_500));
    let age_max = section.optional("age_max", duration(second, century));
    section.finish();
    Quota { bytes_max: bytes_max as u64, age_max }
}

/// Where a secret is: `{ file = "path" }` or `{ env = "NAME" }`.
fn secret(mut section: Section<'_>, folder: &Path) -> Option<Secret> {
    let file = section.optional("file", text);
    let env = section.optional("env", text);
    let place = match (file, env) {
        (Some(file), None) => Some(Secret::File(folder.join(file))),
        (None, Some(name)) => Some(Secret::Env(name)),
        _ => {
            section.fault("names not exactly one place", "write { file = \"path\" } or { env = \"NAME\" }");
            None
        }
    };
    section.finish();
    place
}

/// `{ ca = "path", certificate = "path", key = "path" }`, each optional; the files are tried at once.
fn tls(mut section: Section<'_>, folder: &Path) -> Option<tls::Config> {
    let mut path = |key| section.optional(key, text).map(|path| folder.join(path));
    let config = tls::Config { ca: path("ca"), certificate: path("certificate"), key: path("key") };
    if let Err(error) = config.client() {
        let error = error.to_string();
        let message = error.strip_prefix("failed to ").unwrap_or(&error);
        section.fault(format_args!("cannot be used: failed to {message}"), "correct the path or the file");
    }
    section.finish();
    Some(config)
}

/// What was read, by name; `None` where there was a fault, so that references to it are no second fault.
type Named<T> = BTreeMap<String, Option<T>>;

fn read_all<'a, T>(
    sections: Vec<(String, Section<'a>)>,
    read: impl Fn(&str, Section<'a>) -> Option<T>,
) -> Named<T> {
    let each = sections.into_iter().map(|(name, section)| {
        let value = read(&name, section);
        (name, value)
    });
    each.collect()
}

fn all<T>(named: Named<T>) -> Option<BTreeMap<String, T>> {
    named.into_iter().map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests;
