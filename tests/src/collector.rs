//! The real collector as a child process on a port that it keeps, asked over its own HTTP.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::client;
use crate::process::{ChildProcess, built, eventually, free_port};

/// Name of the program, as cargo builds it.
pub const PROGRAM: &str = "collector_under_test";

/// A collector and its store.
#[derive(Debug)]
pub struct TestCollector {
    port: u16,
    process: Option<ChildProcess>,
    home: tempfile::TempDir,
    /// What plays it; the program that is built with the tests without.
    player: Option<ProgramRole>,
    /// Bodies that it takes at once, where that is not as by default.
    bodies_max: Option<usize>,
}

/// A program, and the variable that tells it what to be.
pub type ProgramRole = (PathBuf, (&'static str, &'static str));

impl TestCollector {
    /// Starts one with an empty store.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// Starts one that takes so many bodies at once, and answers 503 to more.
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

    /// The same, played by another program.
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
        let program = self.player.as_ref().map_or_else(|| built(PROGRAM), |(program, _)| program.clone());
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

    /// `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("the collector runs").kill9().expect("it can be killed");
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where batches go.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Every stored result, as `GET /v1/results` gives them page by page.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn results(&self) -> Vec<Value> {
        self.stored().await.0
    }

    /// Every stored result, and the windows that were retracted.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn stored(&self) -> (Vec<Value>, Vec<Value>) {
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

    /// Every late reading, in the order in which they were stored.
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

    /// Results stored or revised after a change, and the newest change seen.
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

    /// Keeps its store on disk when this is dropped, or does not.
    pub fn keep(&mut self, keep: bool) {
        self.home.disable_cleanup(keep);
    }

    /// Every stored result, once there are as many.
    ///
    /// # Panics
    /// When there are fewer after a minute.
    pub async fn results_of(&self, number: usize) -> Vec<Value> {
        eventually(&format!("{number} results at the collector"), Duration::from_secs(60), async || {
            Some(self.results().await).filter(|results| results.len() >= number)
        })
        .await
    }

    /// What `GET` gives as JSON.
    ///
    /// # Errors
    /// When it is not 200 and JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = client::get(&format!("http://127.0.0.1:{}{path}", self.port)).await?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// The address of its page.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

/// What the process does: the collector's library on a store file and a port of loopback, both
/// arguments; a third one says how many bodies it takes at once.
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

/// Where batches go on a collector, or a proxy before one, at that port.
#[must_use]
pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/v1/batches")
}
