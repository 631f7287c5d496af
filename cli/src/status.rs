//! `headwater status`: asks a running agent.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::own_http;
use headwater_agent::config;

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

/// The ledger at a glance; all that is counted is in `--json`.
fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut table = String::new();
    for key in ["agent", "version", "ready", "uptime_seconds"] {
        writeln!(table, "{key:<16} {}", text(&status[key])).expect(TO_STRING);
    }
    let stuck: Vec<_> = status["stuck"].as_array().into_iter().flatten().map(text).collect();
    if !stuck.is_empty() {
        writeln!(table, "{:<16} {}", "STUCK", stuck.join(", ")).expect(TO_STRING);
    }
    let ledger = &status["ledger"];
    let balances = if ledger["balances"] == true { "balances" } else { "DOES NOT BALANCE" };
    writeln!(table, "{:<16} {balances}", "ledger").expect(TO_STRING);
    for (equation, records) in ledger["imbalance_records"].as_object().into_iter().flatten() {
        writeln!(table, "  {equation:<30} misses {records}").expect(TO_STRING);
    }
    for kind in ["inputs", "pipelines", "outputs"] {
        for (name, counts) in ledger["counts"][kind].as_object().into_iter().flatten() {
            writeln!(table, "\n{} {name}", kind.trim_end_matches('s')).expect(TO_STRING);
            for (count, value) in counts.as_object().into_iter().flatten() {
                writeln!(table, "  {count:<14} {:>16}", text(value)).expect(TO_STRING);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_whether_the_ledger_balances() {
        let mut status = serde_json::json!({
            "agent": "gw", "version": "1", "ready": true, "uptime_seconds": 5, "stuck": [],
            "ledger": {
                "balances": true, "imbalance_records": {},
                "counts": { "inputs": { "plant": { "received": 12 } }, "pipelines": {}, "outputs": {} },
            },
        });
        let good = table(&status);
        assert!(good.contains("ledger           balances\n"), "{good}");
        assert!(good.contains("input plant\n  received                     12\n"), "{good}");
        assert!(!good.contains("STUCK"), "{good}");
        status["ledger"]["balances"] = false.into();
        status["ledger"]["imbalance_records"] = serde_json::json!({ "outbox/central": 3 });
        status["stuck"] = serde_json::json!(["output `central`"]);
        let bad = table(&status);
        assert!(bad.contains("DOES NOT BALANCE") && bad.contains("outbox/central"), "{bad}");
        assert!(bad.contains("STUCK            output `central`"), "{bad}");
    }
}
