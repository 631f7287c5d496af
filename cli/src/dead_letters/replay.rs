//! `headwater dead-letters replay`: through a module if need be, into the agent's queues, and what came
//! of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{Desk, Filter, Of, own_http};
use headwater_agent::admin::{DEAD_LETTERS_PAGE, KEY_FILE, ReplayAnswer, ReplayAsk, ReplayProgress};
use headwater_agent::config::Config;
use headwater_agent::flow::{DeadLetter, Event, Seq, StoredLetter};
use headwater_agent::module::CallMetrics;
use headwater_agent::module::{
    ModuleDigest, ModuleHost, ModuleOrigin, NetworkAccess, RemoteAddress, TransformModule,
};

/// Between two looks at how far the agent is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of mended letters in one request, beside its last.
const REQUEST_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Numbers of letters, as `list` shows them.
    numbers: Vec<Seq>,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    filter: Filter,
    /// All that were not replayed before.
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    /// Also those of the numbers that were replayed before: what passed then counts twice. What was
    /// refused again has a new number.
    #[arg(long)]
    again: bool,
    /// A transform module that mends them first; trusted, compiled and fetched as the configuration says.
    #[arg(long, value_name = "FILE")]
    module: Option<String>,
    /// Its digest: this module and no other. For one that is fetched from https://… it is needed.
    #[arg(long, value_name = "sha256:…", requires = "module")]
    digest: Option<ModuleDigest>,
    /// Its settings, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "module")]
    settings: String,
    /// How many seconds to wait for what comes of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// What came of it as JSON.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// Given to the agent.
    asked: BTreeSet<Seq>,
    /// Replayed before, and not meant by number.
    skipped: u64,
    /// Not replayed, and why.
    refused: BTreeMap<Seq, String>,
    /// Refused again: the new letter's number and reason.
    failed: BTreeMap<Seq, (Seq, String)>,
    /// Not done yet.
    waiting: usize,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let chosen = options.all || options.filter.is_given() || !options.numbers.is_empty();
    anyhow::ensure!(chosen, "say which letters: numbers, a filter such as `--stage decode`, or `--all`");
    let both = options.filter.is_given() && !options.numbers.is_empty();
    anyhow::ensure!(!both, "name the letters by number or by a filter, not by both");
    let blind = options.again && options.numbers.is_empty();
    anyhow::ensure!(
        !blind,
        "`--again` goes by number: what was refused again has a new one, and both may pass"
    );
    let config = options.of.load()?;
    let agent = Agent::find(&config)?;
    let end = agent.waiting()?.end;
    let mender = options.module.as_deref().map(|module| Mender::new(module, options, &config)).transpose()?;
    let mut round =
        Round { agent: &agent, options, mender, asks: Vec::new(), bytes: 0, outcome: Outcome::default() };
    for number in &options.numbers {
        match agent.desk.one(*number)? {
            Some(kept) => round.take(kept)?,
            None => drop(round.outcome.refused.insert(*number, "there is no such dead letter".to_owned())),
        }
    }
    if options.numbers.is_empty() {
        agent.desk.each(&options.filter, |kept| {
            if kept.replayed {
                round.outcome.skipped += 1;
                return Ok(());
            }
            // What comes of this very replay is not meant.
            if kept.number < end { round.take(kept) } else { Ok(()) }
        })?;
    }
    round.send()?;
    let mut outcome = round.outcome;
    agent.follow(end, Duration::from_secs(options.wait), &mut outcome)?;
    outcome.tell(options.json);
    let wrong = outcome.refused.len() + outcome.failed.len();
    anyhow::ensure!(wrong == 0, "{wrong} of the letters did not pass");
    Ok(())
}

/// Letters on their way to the agent, some at a time.
struct Round<'a> {
    agent: &'a Agent,
    options: &'a Options,
    mender: Option<Mender<'a>>,
    asks: Vec<ReplayAsk>,
    bytes: usize,
    outcome: Outcome,
}

impl Round<'_> {
    fn take(&mut self, kept: StoredLetter) -> anyhow::Result<()> {
        let mended = match self.mender.as_mut().map(|mender| mender.mend(&kept)) {
            Some(Err(reason)) => {
                self.outcome.refused.insert(kept.number, reason);
                return Ok(());
            }
            mended => mended.and_then(Result::ok).unwrap_or_default(),
        };
        self.bytes += mended.iter().map(|kept| kept.letter.payload.len()).sum::<usize>();
        self.asks.push(ReplayAsk { number: kept.number, again: self.options.again, mended });
        if self.asks.len() == DEAD_LETTERS_PAGE || self.bytes >= REQUEST_BYTES_MAX {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.bytes = 0;
        let by_number = !self.options.numbers.is_empty();
        self.agent.ask(&std::mem::take(&mut self.asks), by_number, &mut self.outcome)
    }
}

/// The agent that is to replay.
struct Agent {
    desk: Desk,
    address: SocketAddr,
    key: String,
}

impl Agent {
    fn find(config: &Config) -> anyhow::Result<Self> {
        let state = &config.agent.state;
        let address = own_http::address(state)?;
        let file = state.join(KEY_FILE);
        let key = std::fs::read_to_string(&file).with_context(|| {
            format!("failed to read {}: only who may read the state folder may replay", file.display())
        })?;
        Ok(Self { desk: Desk::Running(address), address, key })
    }

    fn waiting(&self) -> anyhow::Result<ReplayProgress> {
        Ok(serde_json::from_str(&own_http::get(self.address, "/dead-letters/waiting")?)?)
    }

    /// Asks until each has an answer: a full queue has room again when the agent has taken some.
    fn ask(&self, asks: &[ReplayAsk], by_number: bool, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut lines: BTreeMap<Seq, String> = BTreeMap::new();
        for ask in asks {
            lines.insert(ask.number, serde_json::to_string(ask)? + "\n");
        }
        while !lines.is_empty() {
            let body: String = lines.values().map(String::as_str).collect();
            let answers =
                own_http::post(self.address, "/dead-letters/replay", &self.key, &body, own_http::PATIENCE)?;
            let answers: Vec<ReplayAnswer> = serde_json::from_str(&answers)?;
            let before = lines.len();
            for answer in answers {
                match answer.refused {
                    Some(_) if answer.full => continue,
                    Some(_) if answer.replayed && !by_number => outcome.skipped += 1,
                    Some(reason) => drop(outcome.refused.insert(answer.number, reason)),
                    None => drop(outcome.asked.insert(answer.number)),
                }
                lines.remove(&answer.number);
            }
            if lines.len() == before {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Waits until nothing waits any more, and finds what was refused again.
    fn follow(&self, end: Seq, patience: Duration, outcome: &mut Outcome) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        loop {
            outcome.waiting = self.waiting()?.pipelines.values().sum();
            let is_done = outcome.waiting == 0 || (outcome.asked.is_empty() && outcome.skipped == 0);
            if is_done || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let mut origins: HashMap<Seq, Seq> = outcome.asked.iter().map(|number| (*number, *number)).collect();
        let new = Filter { from: Some(end), ..Filter::default() };
        self.desk.each(&new, |kept| {
            let origin = kept.letter.replay_of.and_then(|number| origins.get(&number).copied());
            let Some(origin) = origin else { return Ok(()) };
            if kept.replayed {
                // Not a refusal: the letter as the module mended it.
                origins.insert(kept.number, origin);
            } else {
                outcome.failed.insert(origin, (kept.number, kept.letter.reason));
            }
            Ok(())
        })
    }
}

/// The module that mends letters, with the limits of each one's pipeline.
struct Mender<'a> {
    host: ModuleHost,
    origin: ModuleOrigin,
    settings: &'a str,
    config: &'a Config,
    modules: HashMap<String, TransformModule>,
}

impl<'a> Mender<'a> {
    fn new(module: &str, options: &'a Options, config: &'a Config) -> anyhow::Result<Self> {
        let host = ModuleHost::checking(&config.agent.state, &config.modules)?;
        let remote = module.contains("://").then(|| module.parse::<RemoteAddress>()).transpose();
        let remote = remote.map_err(|remedy| anyhow::anyhow!("failed to use --module {module}: {remedy}"))?;
        let origin =
            ModuleOrigin { file: module.into(), remote: remote.map(Box::new), digest: options.digest };
        let files = host.files("", &[&origin], NetworkAccess::Until(&|| false));
        let origin = files.map_err(|(_, error)| error)?.pop().unwrap_or(origin);
        let settings = options.settings.as_str();
        let mut mender = Self { host, origin, settings, config, modules: HashMap::new() };
        // What is wrong with it is said before anything else happens.
        mender.module("")?;
        Ok(mender)
    }

    fn module(&mut self, pipeline: &str) -> anyhow::Result<&mut TransformModule> {
        if !self.modules.contains_key(pipeline) {
            let transforms = self.config.pipelines.get(pipeline).map(|pipeline| &pipeline.transforms);
            let limits =
                transforms.and_then(|transforms| transforms.first()).map(|first| first.limits.clone());
            let limits = limits.unwrap_or_default();
            let module =
                self.host.transform(&self.origin, self.settings, &limits, &CallMetrics::default())?;
            self.modules.insert(pipeline.to_owned(), module);
        }
        Ok(self.modules.get_mut(pipeline).expect("put there if it was missing"))
    }

    /// What the module makes of it; the reason when that is nothing.
    fn mend(&mut self, kept: &StoredLetter) -> Result<Vec<StoredLetter>, String> {
        let letter = &kept.letter;
        let module = self.module(&letter.pipeline).map_err(|error| error.to_string())?;
        let event = Event {
            topic: letter.topic.clone(),
            key: letter.key.clone(),
            time: letter.event_time.unwrap_or(letter.received),
            payload: letter.payload.clone(),
        };
        let (events, rejections) = module.process(std::slice::from_ref(&event));
        if let Some(rejection) = rejections.into_iter().next() {
            return Err(format!("the module refused it: {}", rejection.reason));
        }
        if events.is_empty() {
            return Err("the module made nothing of it".to_owned());
        }
        let digest = module.digest().to_owned();
        let mended = events.into_iter().map(|event| {
            let Event { topic, key, time, payload } = event;
            let (module, event_time) = (Some(digest.clone()), Some(time));
            let letter = DeadLetter { module, topic, key, event_time, payload, ..DeadLetter::default() };
            StoredLetter { number: kept.number, replayed: true, letter }
        });
        Ok(mended.collect())
    }
}

impl Outcome {
    fn tell(&self, as_json: bool) {
        let passed = self.asked.len().saturating_sub(self.failed.len() + self.waiting);
        if as_json {
            let refused =
                self.refused.iter().map(|(number, reason)| json!({ "number": number, "reason": reason }));
            let failed = self
                .failed
                .iter()
                .map(|(number, (new, reason))| json!({ "number": number, "new": new, "reason": reason }));
            let told = json!({
                "asked": self.asked.len(), "passed": passed, "skipped": self.skipped, "waiting": self.waiting,
                "refused": refused.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>(),
            });
            println!("{told}");
            return;
        }
        for (number, reason) in &self.refused {
            println!("{number}: not replayed: {reason:?}");
        }
        for (number, (new, reason)) in &self.failed {
            println!("{number}: refused again, now {new}: {reason:?}");
        }
        println!("{} given in again: {passed} passed, {} refused", self.asked.len(), self.failed.len());
        if self.skipped > 0 {
            println!("{} were replayed before", self.skipped);
        }
        if self.waiting > 0 {
            println!("{} still wait: the agent replays them as soon as it can", self.waiting);
        }
    }
}
