//! `headwater store`: looks into the store of a stopped agent, and mends it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::EXIT_FAULT;
use headwater_agent::config;
use headwater_agent::store::{Finding, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check every part and name what is damaged; nothing is changed. Exit code 1 when something is.
    Verify(Place),
    /// Mend what is damaged, as the next start would: what is lost will be reported.
    Repair {
        #[command(flatten)]
        place: Place,
        /// Only say what is damaged and what would be lost.
        #[arg(long)]
        dry_run: bool,
    },
    /// What is stored, one line of JSON each.
    Dump {
        #[command(flatten)]
        place: Place,
        /// Which part of it.
        #[arg(long, value_enum)]
        part: Part,
        /// The output whose outbox it is.
        #[arg(long, required_if_eq("part", "outbox"))]
        output: Option<String>,
        /// The first number.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// The most lines.
        #[arg(long, default_value_t = 1000)]
        max: usize,
    },
}

/// Whose store.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration file of the agent.
    #[arg(long, short, env = "HEADWATER_CONFIG", required_unless_present = "state")]
    config: Option<PathBuf>,
    /// Its state folder, instead of the configuration.
    #[arg(long)]
    state: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Part {
    Journal,
    Outbox,
    DeadLetters,
    Meta,
}

impl Place {
    fn store(&self) -> anyhow::Result<PathBuf> {
        let state = match (&self.state, &self.config) {
            (Some(state), _) => state.clone(),
            (None, Some(file)) => config::load(file)?.agent.state,
            (None, None) => unreachable!("the arguments require one of them"),
        };
        Ok(state.join("store"))
    }
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(place) | Command::Repair { place, dry_run: true } => {
            let findings = Store::verify(&place.store()?)?;
            show(&findings)?;
            Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) })
        }
        Command::Repair { place, dry_run: false } => {
            show(&Store::repair(&place.store()?)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dump { place, part, output, from, max } => {
            let output = output.as_deref().unwrap_or_default();
            let mut out = std::io::stdout().lock();
            let mut put = |line: serde_json::Value| writeln!(out, "{line}").is_ok();
            let store = place.store()?;
            match part {
                Part::Journal => Store::dump_journal(&store, *from, *max, &mut put),
                Part::Outbox => Store::dump_outbox(&store, output, *from, *max, &mut put),
                Part::DeadLetters => Store::dump_dead_letters(&store, *from, *max, &mut put),
                Part::Meta => Store::dump_rows(&store, *max, &mut put),
            }
            .context("what is damaged is not dumped: `headwater store verify` names it")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// One line of JSON each.
fn show(findings: &[Finding]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        writeln!(out, "{}", serde_json::to_string(finding)?)?;
    }
    if findings.is_empty() {
        writeln!(out, "{{\"whole\":true}}")?;
    }
    Ok(())
}
