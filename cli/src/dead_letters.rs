//! `headwater dead-letters`: asks the running agent, or else reads its store. A replay needs the
//! running agent.

mod filter;
mod replay;
mod show;

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::own_http;
use filter::Filter;
use headwater_agent::admin;
use headwater_agent::config::{self, Config};
use headwater_agent::flow::{Seq, StoredLetter};
use headwater_agent::metrics::StoreMetrics;
use headwater_agent::store::{self, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A line each, oldest first.
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        filter: Filter,
        /// As `export` writes them.
        #[arg(long)]
        json: bool,
    },
    /// Everything that is known of one.
    Show {
        /// Its number, as `list` shows it.
        number: Seq,
        #[command(flatten)]
        of: Of,
        /// As `export` writes it.
        #[arg(long)]
        json: bool,
    },
    /// One line of JSON each, with all bytes: those that are no text in `payload_base64`.
    Export {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        filter: Filter,
    },
    /// Give letters in again where they were refused, each once; the agent must run.
    ///
    /// They are judged as any other reading: one whose window is over counts as late, and one that is
    /// refused again becomes a new letter that names the old one.
    Replay(replay::Options),
}

#[derive(Debug, Args)]
pub(super) struct Of {
    /// The configuration file of the agent.
    #[arg(long, short, env = "HEADWATER_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List { of, filter, json } => {
            let desk = Desk::open(&of.load()?)?;
            if !*json {
                print(show::HEAD)?;
            }
            desk.each(filter, |kept| print(&if *json { kept.to_line() } else { show::row(&kept) }))
        }
        Command::Show { number, of, json } => {
            let kept = Desk::open(&of.load()?)?.one(*number)?;
            let kept = kept.with_context(|| format!("there is no dead letter {number}: see `list`"))?;
            if *json {
                println!("{}", kept.to_line())
            } else {
                print!("{}", show::whole(&kept))
            }
            Ok(())
        }
        Command::Export { of, filter } => {
            Desk::open(&of.load()?)?.each(filter, |kept| print(&kept.to_line()))
        }
        Command::Replay(options) => replay::run(options),
    }
}

/// The letters that the agent of this configuration has, oldest first.
#[cfg(feature = "author")]
pub(crate) fn each(config: &Path, each: &mut headwater_author::LetterTaker<'_>) -> anyhow::Result<()> {
    let desk = Desk::open(&config::load(config)?)?;
    let mut next = 0;
    loop {
        let page = desk.page(next)?;
        let Some(last) = page.last().map(|kept| kept.number) else { return Ok(()) };
        for kept in page {
            if each(kept)?.is_break() {
                return Ok(());
            }
        }
        next = last + 1;
    }
}

/// A line; an error where nobody reads any more.
fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

impl Of {
    fn load(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.config)?)
    }
}

/// Where the letters can be had.
enum Desk {
    Stopped(Box<Store>),
    Running(SocketAddr),
}

impl Desk {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let state = &config.agent.state;
        let folder = state.join("store");
        anyhow::ensure!(folder.is_dir(), "there is no {}: has the agent ever run?", folder.display());
        match Store::open(&store::Config::new(folder), &StoreMetrics::default()) {
            Ok(store) => Ok(Self::Stopped(Box::new(store))),
            // Only its agent opens a store, so that agent is asked.
            Err(store::Error::Locked { .. }) => Self::running(state),
            Err(error) => Err(error.into()),
        }
    }

    fn running(state: &Path) -> anyhow::Result<Self> {
        Ok(Self::Running(own_http::address(state)?))
    }

    fn page(&self, from: Seq) -> anyhow::Result<Vec<StoredLetter>> {
        match self {
            Self::Stopped(store) => Ok(store.kept_letters(from, admin::DEAD_LETTERS_PAGE)?),
            Self::Running(address) => {
                let page = own_http::get(*address, &format!("/dead-letters?from={from}"))?;
                page.lines().map(|line| Ok(StoredLetter::from_line(line)?)).collect()
            }
        }
    }

    fn one(&self, number: Seq) -> anyhow::Result<Option<StoredLetter>> {
        Ok(self.page(number)?.into_iter().find(|kept| kept.number == number))
    }

    fn each(
        &self,
        filter: &Filter,
        mut each: impl FnMut(StoredLetter) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut next = filter.first();
        loop {
            let page = self.page(next)?;
            let Some(last) = page.last().map(|kept| kept.number) else { return Ok(()) };
            page.into_iter().filter(|kept| filter.takes(kept)).try_for_each(&mut each)?;
            match filter.ends_at(last) {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(()) => next = last + 1,
            }
        }
    }
}
