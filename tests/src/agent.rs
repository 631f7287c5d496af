//! The agent under test: a child process with a home folder of its own. It can be killed, stopped and started
//! again, and asked over its own HTTP.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::client;
use crate::process::{ChildProcess, built_program, eventually};

/// The name of the program as cargo builds it.
pub const PROGRAM: &str = "headwater_under_test";

/// An agent and its home folder: `agent.toml`, `modules/`, `state/` and `agent.log`.
#[derive(Debug)]
pub struct TestAgent {
    // The process is dropped before its home, so that a failing test can still show the end of the log.
    process: Option<ChildProcess>,
    home: tempfile::TempDir,
    /// The program that runs as the agent; `None` for the one that is built with the tests.
    program: Option<PathBuf>,
    role: Option<(&'static str, &'static str)>,
    environment: Vec<(&'static str, String)>,
}

/// Returns true if this program was started by an agent to compile a module. Such a child has no role
/// variable, because an agent hands nothing of its environment on.
#[must_use]
pub fn is_module_compiler() -> bool {
    std::env::args().nth(1).is_some_and(|command| command == "compile-module")
}

impl TestAgent {
    /// Prepares a home with the repository's modules and a configuration: `[agent]` is written here, the rest
    /// is `config`. Nothing runs yet.
    ///
    /// # Panics
    /// When there is no temporary folder to write to.
    #[must_use]
    pub fn prepare(config: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let modules = home.path().join("modules");
        std::fs::create_dir(&modules).expect("a writable folder");
        for (name, bytes) in crate::plant::modules() {
            std::fs::write(modules.join(format!("{name}.wasm")), bytes).expect("a writable folder");
        }
        let agent = Self { home, program: None, role: None, environment: Vec::new(), process: None };
        agent.configure(config);
        agent
    }

    /// Replaces the configuration but for `[agent]`. The next start reads it.
    ///
    /// # Panics
    /// When its home cannot be written.
    pub fn configure(&self, config: &str) {
        let head =
            format!("[agent]\nid = \"edge-1\"\nstate = {:?}\nadmin = \"127.0.0.1:0\"\n\n", self.state());
        std::fs::write(self.config(), head + config).expect("a writable folder");
    }

    /// Lets another program run as the agent; the variable `role` tells it to.
    #[must_use]
    pub fn run_as(self, program: PathBuf, role: (&'static str, &'static str)) -> Self {
        Self { program: Some(program), role: Some(role), ..self }
    }

    /// Sets the variables of the environment in which it starts, instead of those set before.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (&'static str, String)>) {
        self.environment = variables.into_iter().collect();
    }

    /// Prepares a home, starts the agent in it and waits until it is connected to its brokers.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(config: &str) -> Self {
        let mut agent = Self::prepare(config);
        agent.resume().await;
        agent
    }

    /// Starts the process and waits until it is ready and connected.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn resume(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self) {
        // An agent that was killed leaves its file behind; the new one listens elsewhere.
        std::fs::remove_file(self.state().join("admin.addr")).ok();
        let mut command = self.command(&["run"]);
        self.process = Some(ChildProcess::spawn(&mut command, &self.log()).expect("the agent starts"));
    }

    /// Waits until it is ready and every input is connected.
    ///
    /// # Panics
    /// When it ends instead, or takes longer than half a minute.
    pub async fn ready(&mut self) {
        self.ready_within(Duration::from_secs(30)).await;
    }

    /// Waits until it is ready and every input is connected, for so long.
    ///
    /// # Panics
    /// When it ends instead, or takes longer.
    pub async fn ready_within(&mut self, within: Duration) {
        eventually("the agent to be ready", within, async || {
            let process = self.process.as_mut().expect("the agent was started");
            assert!(process.is_running(), "the agent ended instead of becoming ready");
            self.is_ready().await.then_some(())
        })
        .await;
    }

    /// Returns true if the agent is ready and every input is connected.
    async fn is_ready(&self) -> bool {
        let (Ok((200, _)), Ok(metrics)) = (self.get("/ready").await, self.metrics().await) else {
            return false;
        };
        let connected = metrics.all("input_connected");
        !connected.is_empty() && connected.iter().all(|it| *it == 1.0)
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("the agent runs").kill9().expect("the agent can be killed");
    }

    /// Sends SIGTERM and returns the exit status; waits a little longer than the grace.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the agent runs");
        process.terminate().expect("the agent can be signalled");
        process.wait_for_exit(Duration::from_secs(20)).await.expect("the agent ends in its grace")
    }

    /// Returns the exit status if the agent ends by itself, or `None` if it still runs after `within`.
    pub async fn wait_for_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        let ended = process.wait_for_exit(within).await.ok();
        if ended.is_none() {
            self.process = Some(process);
        }
        ended
    }

    /// Returns the exit status if the agent ends instead of becoming ready, or `None` once it is ready.
    ///
    /// # Panics
    /// When it does neither within half a minute.
    pub async fn wait_for_exit_or_ready(&mut self) -> Option<ExitStatus> {
        eventually("the agent to be ready or to end", Duration::from_secs(30), async || {
            if let Some(status) = self.wait_for_exit(Duration::ZERO).await {
                return Some(Some(status));
            }
            self.is_ready().await.then_some(None)
        })
        .await
    }

    /// Sends SIGTERM without waiting for the end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self) {
        self.process.as_ref().expect("the agent runs").terminate().expect("it can be signalled");
    }

    /// Keeps its home on disk when this is dropped, if `keep` is true.
    pub fn keep(&mut self, keep: bool) {
        self.home.disable_cleanup(keep);
    }

    /// Runs one of the agent's commands to the end, with the configuration in this home.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run_command(&self, command: &[&str]) -> Output {
        self.command(command).output().expect("the agent's program starts")
    }

    /// Starts one of the agent's commands and discards its output.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_command(&self, command: &[&str]) -> Child {
        let mut command = self.command(command);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the agent's program starts")
    }

    /// Sends a GET to the agent's own HTTP and returns status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let file = self.state().join("admin.addr");
        let address = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        client::get(&format!("http://{}{path}", address.trim())).await
    }

    /// Sends a POST with the agent's key to its own HTTP and returns status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn post(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let read = |name: &str| {
            let file = self.state().join(name);
            std::fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        let address = read("admin.addr")?;
        let key = read("admin.key")?;
        client::post(&format!("http://{}{path}", address.trim()), key.trim()).await
    }

    /// Makes the agent read its configuration again (SIGHUP), without waiting for that.
    ///
    /// # Panics
    /// When it does not run.
    pub fn reload(&self) {
        let id = self.id().expect("the agent runs");
        crate::process::signal(id, rustix::process::Signal::HUP).expect("it can be signalled");
    }

    /// Returns the current text of `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<MetricsText> {
        Ok(MetricsText { text: self.get("/metrics").await?.1 })
    }

    /// Returns the current `/status`.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get("/status").await?.1)?)
    }

    /// Waits until a metric with this `name` has reached a value.
    ///
    /// # Panics
    /// When it has not within `within`.
    pub async fn wait_for_metric(&self, metric: &str, name: &str, value: u64, within: Duration) {
        let mut seen = None;
        eventually(&format!("{metric} of {name} to reach {value}"), within, async || {
            let now = self.metrics().await.ok()?.of(metric, name);
            if seen.replace(now) != Some(now) {
                eprintln!("{metric} of {name}: {now} of {value}");
            }
            (now >= value).then_some(())
        })
        .await;
    }

    /// Stops the agent if it runs, and returns its dead letters as its command exports them.
    ///
    /// # Panics
    /// When the stop or the command fails, or it says something else than JSON lines.
    pub async fn dead_letters(&mut self) -> Vec<Value> {
        if self.process.is_some() {
            assert_eq!(self.stop().await.code(), Some(0), "a stop that was asked for is a success");
        }
        let output = self.run_command(&["dead-letters", "export"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// The home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home().join("agent.toml")
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(ChildProcess::id)
    }

    /// Returns everything that it has logged since the first start.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.home().join("agent.log")
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut program = Command::new(self.program.clone().unwrap_or_else(|| built_program(PROGRAM)));
        program
            .envs(self.role)
            .envs(self.environment.clone())
            .args(command)
            .arg("--config")
            .arg(self.config())
            .current_dir(self.home());
        program
    }
}

/// The text of `/metrics`.
#[derive(Clone, Debug)]
pub struct MetricsText {
    text: String,
}

impl MetricsText {
    /// Returns the value of a metric with this `name`, or 0 if it was never counted. The metric is given
    /// without prefix and `_total`: `pipeline_read_messages`.
    #[must_use]
    pub fn of(&self, metric: &str, name: &str) -> u64 {
        let label = format!("name=\"{name}\"");
        let found = self.lines(metric).find(|(labels, _)| labels.contains(&label));
        found.map_or(0, |(_, value)| value as u64)
    }

    /// Returns the values of a metric for all names.
    #[must_use]
    pub fn all(&self, metric: &str) -> Vec<f64> {
        self.lines(metric).map(|(_, value)| value).collect()
    }

    fn lines<'a>(&'a self, metric: &str) -> impl Iterator<Item = (&'a str, f64)> {
        let names = [format!("headwater_{metric}"), format!("headwater_{metric}_total")];
        self.text.lines().filter_map(move |line| {
            let (name, rest) = line.split_once('{')?;
            let (labels, value) = rest.rsplit_once("} ")?;
            let value = value.split(' ').next()?.parse().ok()?;
            names.iter().any(|it| it == name).then_some((labels, value))
        })
    }
}
