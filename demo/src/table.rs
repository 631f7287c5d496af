//! What the demo shows in the terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_collector::{ResultOrder, ResultQuery, ResultRow};
use serde_json::Value;

use super::Watched;
use super::ledger::Ledger;

/// Why `expect` holds.
const TO_STRING: &str = "writing to a String cannot fail";

/// Results shown at a time.
const ROWS: u32 = 12;

/// A table that redraws itself in a terminal, and is a line now and then elsewhere.
pub(super) struct Table {
    silent: bool,
    terminal: bool,
    page: SocketAddr,
    started: Instant,
}

impl Table {
    pub(super) fn new(silent: bool, page: SocketAddr) -> Self {
        let table = Self { silent, terminal: std::io::stdout().is_terminal(), page, started: Instant::now() };
        if !silent && !table.terminal {
            println!("results live at http://{page}/");
        }
        table
    }

    pub(super) fn every(&self) -> Duration {
        if self.terminal { Duration::from_millis(500) } else { Duration::from_secs(5) }
    }

    pub(super) async fn show(&mut self, ledger: &Ledger, watched: &Watched) -> anyhow::Result<()> {
        if self.silent {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if !self.terminal {
            let counts: Vec<String> =
                ledger.rows().iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(out, "{:>4} s  {}", self.started.elapsed().as_secs(), counts.join(", "))?;
            return Ok(());
        }
        drop(out);
        let query = ResultQuery {
            pipeline: Some("plant".to_owned()),
            order: ResultOrder::Latest,
            limit: ROWS,
            ..ResultQuery::default()
        };
        let page = watched.collector.results(query).await?;
        let text = self.draw(ledger, &page.results);
        // Home, text, and what was below it cleared: no flicker.
        let mut out = std::io::stdout().lock();
        write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))?;
        out.flush()?;
        Ok(())
    }

    fn draw(&self, ledger: &Ledger, results: &[ResultRow]) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut text = format!(
            "headwater demo, {seconds} s   results live at http://{}/   ctrl-c ends it\n\n  {:<10} {:<10} {:>6} {:>10} {:>10} {:>10} {:>10}   °C in windows of 2 s\n",
            self.page, "device", "window", "count", "mean", "min", "max", "deviation"
        );
        for row in results {
            text += &result_line(row);
        }
        text.push('\n');
        for (name, count) in ledger.rows() {
            writeln!(text, "  {:<16} {count:>10}", name.replace('_', " ")).expect(TO_STRING);
        }
        text
    }
}

fn result_line(row: &ResultRow) -> String {
    let value: Value = serde_json::from_str(row.value.get()).unwrap_or_default();
    let field = |name: &str| value["temperature"][name].as_f64().unwrap_or(f64::NAN);
    let start = row.window.as_ref().map_or("", |window| window.start.as_str());
    let clock = start.get(11..19).unwrap_or(start);
    format!(
        "  {:<10} {clock:<10} {:>6} {:>10.2} {:>10.2} {:>10.2} {:>10.3}\n",
        row.key,
        row.count.unwrap_or_default(),
        field("mean"),
        field("min"),
        field("max"),
        field("stddev"),
    )
}

/// The last word of the demo.
pub(super) fn final_ledger(ledger: &Ledger) -> String {
    let mut text = "\nevery reading, counted once:\n".to_owned();
    for (name, count) in ledger.rows() {
        writeln!(text, "  {:<16} {count:>10}", name.replace('_', " ")).expect(TO_STRING);
    }
    let balances = if ledger.faults().is_empty() { "balances" } else { "does NOT balance" };
    writeln!(text, "  the ledger {balances}").expect(TO_STRING);
    text
}
