//! `headwater reload` and `headwater resume`: tell a running agent about its modules.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::own_http;
use headwater_agent::admin::KEY_FILE;
use headwater_agent::config;
use headwater_agent::reload::LOAD_MAX;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration file of the agent.
    #[arg(long, short, env = "HEADWATER_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ResumeOptions {
    /// The pipeline.
    pipeline: String,
    #[command(flatten)]
    agent: Options,
}

pub(super) fn reload(options: &Options) -> anyhow::Result<()> {
    println!("{}", ask(options, "/v1/reload")?);
    Ok(())
}

pub(super) fn resume(options: &ResumeOptions) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/resume", options.pipeline);
    print!("{}", ask(&options.agent, &path)?);
    Ok(())
}

fn ask(options: &Options, path: &str) -> anyhow::Result<String> {
    // The file may have changed, but for where the agent is.
    let state = config::load(&options.config)?.agent.state;
    let key = key(&state)?;
    own_http::post(own_http::address(&state)?, path, &key, "", LOAD_MAX)
}

fn key(state: &Path) -> anyhow::Result<String> {
    let file = state.join(KEY_FILE);
    std::fs::read_to_string(&file).with_context(|| format!("failed to read the key {}", file.display()))
}
