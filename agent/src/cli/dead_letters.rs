//! `headwater dead-letters`: asks the running agent, or else reads its store.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::own_http;
use crate::admin::DEAD_LETTERS_PAGE;
use crate::config;
use crate::metrics::Metrics;
use crate::store::{self, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// One line of JSON each, oldest first.
    List {
        /// The configuration file of the agent.
        #[arg(long, short, env = "HEADWATER_CONFIG")]
        config: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    let Command::List { config } = command;
    let state = config::load(config)?.agent.state;
    match Store::open(&store::Config::new(state.join("store")), &Metrics::new()) {
        Ok(store) => list_stopped(&store),
        // Only its agent opens a store, so that agent is asked.
        Err(store::Error::Locked { .. }) => list_running(&state),
        Err(error) => Err(error.into()),
    }
}

fn list_stopped(store: &Store) -> anyhow::Result<()> {
    let mut next = 0;
    loop {
        let page = store.kept_letters(next, DEAD_LETTERS_PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        next = last.number + 1;
        for kept in page {
            println!("{}", kept.to_line());
        }
    }
}

fn list_running(state: &Path) -> anyhow::Result<()> {
    let address = own_http::address(state)?;
    let mut next = 0;
    loop {
        let page = own_http::get(address, &format!("/dead-letters?from={next}"))?;
        let Some(last) = page.lines().last() else { return Ok(()) };
        let last: serde_json::Value = serde_json::from_str(last)?;
        next = last["number"].as_u64().unwrap_or(u64::MAX).saturating_add(1);
        print!("{page}");
    }
}
