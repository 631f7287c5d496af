//! The real collector as a child process on a port that it keeps, asked over its own HTTP.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::client;
use crate::process::{ChildProcess, built_program, eventually, free_port};

/// The name of the program as cargo builds it.
pub const PROGRAM: &str = "collector_under_test";

/// A collector process and its store.
#[derive(Debug)]
pub struct TestCollector {
    port: u16,
    process: Option<ChildProcess>,
    home: tempfile::TempDir,
    /// The program that runs as the collector; `None` for the one that is built with the tests.
    player: Option<ProgramRole>,
    /// The most bodies that it receives at once; `None` for the default.
    bodies_max: Option<usize>,
}

/// A program, and the variable that tells it which role to take.
pub type ProgramRole = (PathBuf, (&'static str, &'static str));

impl TestCollector {
    /// Starts a collector with an empty store.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// Starts a collector that receives at most `bodies_max` bodies at once and answers 503 to further ones.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn start_small(bodies_max: usize) -> Self {
        let mut collector = Self::start().await;
        collector.kill9();
        collector.bodies_max = Some(bodies_max);
        collector.restart().await;
        collector
    }

    /// Starts a collector that is another program, in the role of the collector.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn start_as(player: Option<ProgramRole>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut collector = Self { home, port: free_port(), process: None, player, bodies_max: None };
        collector.restart().await;
        collector
    }

    /// Starts it again on the same port and store.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn restart(&mut self) {
        let program =
            self.player.as_ref().map_or_else(|| built_program(PROGRAM), |(program, _)| program.clone());
        let mut command = Command::new(program);
        command.envs(self.player.as_ref().map(|(_, role)| *role));
        command.arg(self.home.path().join("results.sqlite")).arg(self.port.to_string());
        command.args(self.bodies_max.map(|bodies| bodies.to_string()));
        let log = self.home.path().join("collector.log");
        self.process = Some(ChildProcess::spawn(&mut command, &log).expect("the collector starts"));
        eventually("the collector to listen", Duration::from_secs(10), async || {
            self.get("/v1/agents").await.ok()
        })
        .await;
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("the collector runs").kill9().expect("it can be killed");
    }

    /// The port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for batches.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Returns all stored results, from all pages of `GET /v1/results`.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn results(&self) -> Vec<Value> {
        self.results_and_retractions().await.0
    }

    /// Returns all stored results, and the windows that were retracted.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn results_and_retractions(&self) -> (Vec<Value>, Vec<Value>) {
        let mut results = Vec::new();
        let mut retracted = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let path = format!("/v1/results?order=change&limit=10000&after={after}");
            let mut page = self.get(&path).await.expect("the collector answers");
            for (name, rows) in [("results", &mut results), ("retracted", &mut retracted)] {
                match page[name].take() {
                    Value::Array(more) => rows.extend(more),
                    other => panic!("{path}: no list of {name}: {other}"),
                }
            }
            match &page["next"] {
                Value::String(next) => after.clone_from(next),
                _ => return (results, retracted),
            }
        }
    }

    /// Returns all late readings, in the order in which they were stored.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn late(&self) -> Vec<Value> {
        let mut late = Vec::new();
        loop {
            let after = late.last().map_or(0, |row: &Value| row["id"].as_i64().expect("a number"));
            let path = format!("/v1/late?limit=10000&after={after}");
            match self.get(&path).await.expect("the collector answers")["late"].take() {
                Value::Array(more) if more.is_empty() => return late,
                Value::Array(more) => late.extend(more),
                other => panic!("{path}: no list: {other}"),
            }
        }
    }

    /// Returns the results stored or revised after a change, and the number of the newest change.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn changes(&self, after: i64) -> (Vec<Value>, i64) {
        let mut results = Vec::new();
        let mut after = after.to_string();
        loop {
            let path = format!("/v1/results?order=change&limit=10000&after={after}");
            let mut page = self.get(&path).await.expect("the collector answers");
            match page["results"].take() {
                Value::Array(rows) => results.extend(rows),
                other => panic!("{path}: no list of results: {other}"),
            }
            match &page["next"] {
                Value::String(next) => after.clone_from(next),
                _ => return (results, page["change"].as_i64().expect("a number")),
            }
        }
    }

    /// Keeps the store on disk when this is dropped, if `keep` is true.
    pub fn keep(&mut self, keep: bool) {
        self.home.disable_cleanup(keep);
    }

    /// Waits until there are at least `number` results, and returns all of them.
    ///
    /// # Panics
    /// When there are fewer after a minute.
    pub async fn wait_for_results(&self, number: usize) -> Vec<Value> {
        eventually(&format!("{number} results at the collector"), Duration::from_secs(60), async || {
            Some(self.results().await).filter(|results| results.len() >= number)
        })
        .await
    }

    /// Sends a GET and returns the JSON of the answer.
    ///
    /// # Errors
    /// When it is not 200 and JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = client::get(&format!("http://127.0.0.1:{}{path}", self.port)).await?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// The address of the page.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

/// Runs as the collector process: the collector's library on a store file and a port of loopback, both given
/// as arguments. A third argument is the number of bodies that it receives at once.
///
/// # Errors
/// When there is no such port or file.
pub async fn serve() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().context("the store's file is the first argument")?;
    let port: u16 = arguments.next().context("the port is the second argument")?.parse()?;
    let mut config = headwater_collector::CollectorConfig::new(store);
    if let Some(bodies_max) = arguments.next() {
        config.bodies_max = bodies_max.parse()?;
    }
    let collector = headwater_collector::Collector::open(config)?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    collector.serve(listener, std::future::pending()).await?;
    Ok(())
}

/// Returns the address for batches of a collector, or of a proxy before one, on this port.
#[must_use]
pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/v1/batches")
}
