//! Child processes that end with their handle, free ports, and waiting with a limit.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

/// A child process with its output in a file. Dropping it kills the process; if the test is failing, the end
/// of the file is shown.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts the command and appends its output to `log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns true if it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM, as a supervisor does.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&self) -> anyhow::Result<()> {
        signal(self.id(), Signal::TERM)
    }

    /// Waits for the end of the process and returns its exit status.
    ///
    /// # Errors
    /// When it runs longer than `within`.
    pub async fn wait_for_exit(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {} still runs after {within:?}", self.id());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns everything that it has written.
    #[must_use]
    pub fn output_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill9().ok();
        if std::thread::panicking() {
            let text = self.output_text();
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- end of {}\n{}\n---", self.log.display(), tail.join("\n"));
        }
    }
}

/// Stops a process (SIGSTOP) and waits until all its threads are stopped. A thread inside an `fdatasync` ends
/// that call first, but does not report it.
///
/// # Errors
/// When there is no such process.
pub async fn freeze(id: u32) -> anyhow::Result<()> {
    signal(id, Signal::STOP)?;
    eventually("every thread to stand still", Duration::from_secs(10), async || {
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).ok()?;
        let stopped = tasks.flatten().all(|task| {
            let line = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            line.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
        stopped.then_some(())
    })
    .await;
    Ok(())
}

/// Lets a stopped process go on.
///
/// # Errors
/// When there is no such process.
pub fn thaw(id: u32) -> anyhow::Result<()> {
    signal(id, Signal::CONT)
}

/// Sends a signal to one process.
///
/// # Errors
/// When there is no such process.
pub fn signal(id: u32, signal: Signal) -> anyhow::Result<()> {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.context("no such process")?, signal)?;
    Ok(())
}

/// Returns the memory of a process in bytes, as a line of `/proc/<id>/status` has it: `VmRSS`, or `VmHWM` for
/// the peak.
///
/// # Errors
/// When there is no such process.
pub fn memory(id: u32, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let found = status.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.with_context(|| format!("no {line} of process {id}"))?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Returns the path of a program of this crate, which cargo has built beside the running one.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn built_program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} beside {}: build headwater-tests whole", own.display()))
}

/// Returns the path of a program of this machine.
///
/// # Panics
/// When it is not installed, naming Debian's package: within the feature `machine` nothing is
/// skipped.
#[must_use]
pub fn installed_program(name: &str, package: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} on this machine: apt-get install {package}"))
}

/// Returns a port of loopback on which nobody listened a moment ago, for servers that must keep their port
/// over a restart. It is below the ports that the system gives to connections (`ip_local_port_range`), so
/// that none of these takes it meanwhile.
///
/// # Panics
/// When loopback has no free port.
#[must_use]
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut tried = std::iter::repeat_with(|| fastrand::u16(10_000..32_768)).take(1_000);
    tried.find(is_free).expect("loopback has a free port")
}

/// Calls `ask` every few milliseconds until it returns `Some`.
///
/// # Panics
/// When it stays `None` for longer than `within`, saying `what` was waited for.
pub async fn eventually<T, F>(what: &str, within: Duration, mut ask: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
