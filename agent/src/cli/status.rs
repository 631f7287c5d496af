//! `headwater status`: asks a running agent.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::own_http;
use crate::config;

/// Why `expect` holds.
const TO_STRING: &str = "writing to a String cannot fail";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration file of the agent.
    #[arg(long, short, env = "HEADWATER_CONFIG", required_unless_present = "admin")]
    config: Option<PathBuf>,
    /// Where its own HTTP answers, instead of the configuration.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// The whole answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let address = match (options.admin, &options.config) {
        (Some(address), _) => address,
        (None, Some(file)) => own_http::address(&config::load(file)?.agent.state)?,
        (None, None) => unreachable!("the arguments require one of them"),
    };
    let status: Value = serde_json::from_str(&own_http::get(address, "/status")?)?;
    if options.json {
        println!("{status:#}");
    } else {
        print!("{}", table(&status));
    }
    Ok(())
}

fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut table = String::new();
    for key in ["agent", "version", "ready", "uptime_seconds"] {
        writeln!(table, "{key:<30} {:>16}", text(&status[key])).expect(TO_STRING);
    }
    for kind in ["inputs", "pipelines", "outputs"] {
        for (name, values) in status[kind].as_object().into_iter().flatten() {
            writeln!(table, "\n{} {name}", kind.trim_end_matches('s')).expect(TO_STRING);
            for (key, value) in values.as_object().into_iter().flatten() {
                writeln!(table, "  {key:<28} {:>16}", text(value)).expect(TO_STRING);
            }
        }
    }
    table
}
