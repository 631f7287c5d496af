//! The rules in `HEADWATER_FAIL`: parsing them, counting hits, and failing.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// The name of the environment variable that holds the rules.
pub const VARIABLE: &str = "HEADWATER_FAIL";

/// All points in the order of the data, each with true if it can return an error.
pub const POINTS: &[(&str, bool)] = &[
    ("folder.locked", false),
    ("layout.made", false),
    ("layout.renamed", false),
    ("layout.converted", false),
    ("layout.prepared", false),
    ("layout.moved", false),
    ("layout.switched", false),
    ("meta.made", false),
    ("meta.renamed", false),
    ("agent.claimed", false),
    ("agent.built", false),
    ("agent.started", false),
    ("input.connected", false),
    ("session.kept", false),
    ("input.received", false),
    ("input.gathered", false),
    ("journal.appended", false),
    ("input.durable", false),
    ("input.acknowledging", false),
    ("input.sent", false),
    ("ballast.made", false),
    ("log.filled", false),
    ("log.written", false),
    ("log.synced", false),
    ("log.marked", false),
    ("log.rotated", false),
    ("log.truncated", false),
    ("segment.ordered", false),
    ("engine.created", false),
    ("engine.filled", false),
    ("segment.prepared", false),
    ("segment.renamed", false),
    ("segment.begun", false),
    ("segment.grown", false),
    ("segment.dying", false),
    ("segment.discarded", false),
    ("segment.tidied", false),
    ("meta.applied", false),
    ("meta.synced", false),
    ("meta.marked", false),
    ("pipeline.built", false),
    ("pipeline.read", false),
    ("pipeline.step", false),
    ("pipeline.committing", false),
    ("commit.results-appended", false),
    ("commit.letters-appended", false),
    ("commit.done", false),
    ("pipeline.committed", false),
    ("pipeline.switching", false),
    ("pipeline.switched", false),
    ("pipeline.going-back", false),
    ("pipeline.gone-back", false),
    ("outbox.created", false),
    ("outbox.begun", false),
    ("outbox.begun-anew", false),
    ("outbox.narrowed", false),
    ("outbox.cut", false),
    ("output.sending", false),
    ("output.answered", false),
    ("output.refused", false),
    ("output.confirming", false),
    ("outbox.confirmed", false),
    ("letters.given-up", false),
    ("journal.trimmed", false),
    ("outbox.trimmed", false),
    ("agent.stopping", false),
    ("agent.inputs-stopped", false),
    ("agent.pipelines-stopped", false),
    ("agent.outputs-stopped", false),
    ("agent.stopped", false),
    ("disk.write", true),
    ("disk.sync", true),
    ("disk.mark", true),
    ("disk.sync-path", true),
];

/// The failure that a rule causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailAction {
    Kill,
    Panic,
    Stall(Duration),
    Error(io::ErrorKind),
}

/// A rule, with the number of times that its point was hit.
#[derive(Debug)]
pub(super) struct FailRule {
    pub(super) name: String,
    pub(super) action: FailAction,
    pub(super) first: u64,
    pub(super) times: u64,
    hits: AtomicU64,
}

impl FailRule {
    /// Counts a hit and returns true if the rule acts on it.
    pub(super) fn is_due(&self) -> bool {
        let hit = self.hits.fetch_add(1, Ordering::Relaxed) + 1;
        hit >= self.first && hit - self.first < self.times
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('=')?;
        // No action's name has an `@`, and an `x` is a count only if digits follow it.
        let (rest, times) = match rest.rsplit_once('x') {
            Some((rest, times)) if times.trim().bytes().all(|byte| byte.is_ascii_digit()) => {
                (rest, times.trim().parse().ok()?)
            }
            _ => (rest, u64::MAX),
        };
        let (action, first) = match rest.split_once('@') {
            Some((action, first)) => (action, first.trim().parse().ok()?),
            None => (rest, 1),
        };
        let action = match action.trim() {
            "kill" => FailAction::Kill,
            "panic" => FailAction::Panic,
            "error" => FailAction::Error(io::ErrorKind::Other),
            "error:full" => FailAction::Error(io::ErrorKind::StorageFull),
            other => FailAction::Stall(duration(other.strip_prefix("stall:")?)?),
        };
        let name = name.trim().to_owned();
        Some(Self { name, action, first, times, hits: AtomicU64::new(0) })
    }

    fn act(&self) -> io::Result<()> {
        match self.action {
            FailAction::Kill => {
                eprintln!("{VARIABLE}: killed at {}", self.name);
                kill_process(getpid(), Signal::KILL)?;
                // The signal may take a moment; nothing more must happen until then.
                loop {
                    std::thread::park();
                }
            }
            FailAction::Panic => panic!("{VARIABLE}: panic at {}", self.name),
            FailAction::Stall(time) => std::thread::sleep(time),
            FailAction::Error(io::ErrorKind::StorageFull) => return Err(rustix::io::Errno::NOSPC.into()),
            FailAction::Error(_) => return Err(rustix::io::Errno::IO.into()),
        }
        Ok(())
    }
}

/// Parses the rules, and refuses unknown points and errors at points that cannot return one.
pub(super) fn parse(text: &str) -> Result<Vec<FailRule>, String> {
    let mut rules = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let rule = FailRule::parse(part).ok_or_else(|| format!("not a rule: {part:?}"))?;
        match POINTS.iter().find(|(name, _)| *name == rule.name) {
            None => return Err(format!("no such point: {:?}", rule.name)),
            Some((_, false)) if matches!(rule.action, FailAction::Error(_)) => {
                return Err(format!("no error can come out of {:?}", rule.name));
            }
            Some(_) => rules.push(rule),
        }
    }
    Ok(rules)
}

/// Counts a hit of the point with this name and does what the rules for it say.
pub(super) fn hit(name: &'static str, can_fail: bool) -> io::Result<()> {
    debug_assert!(POINTS.contains(&(name, can_fail)), "{name} is not in the list of points");
    static RULES: OnceLock<Vec<FailRule>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_else(|fault| {
            eprintln!("{VARIABLE}: {fault}");
            std::process::exit(2)
        })
    });
    rules.iter().filter(|rule| rule.name == name && rule.is_due()).try_for_each(FailRule::act)
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.strip_suffix("ms") {
        Some(millis) => Some(Duration::from_millis(millis.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}
