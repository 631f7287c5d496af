//! The commands. Exit codes: 0; 1 a fault; 2 the configuration or the arguments; 78 the state folder.

mod dead_letters;
mod own_http;
mod reload;
mod status;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use headwater_agent::agent::{self, Agent};
use headwater_agent::config;
use headwater_agent::module::{CallMetrics, ModuleHost, NetworkAccess, compile_process};
use headwater_agent::pipeline;
#[cfg(feature = "author")]
use headwater_author::ModuleCommand;

const EXIT_FAULT: u8 = 1;
const EXIT_CONFIG: u8 = 2;
/// `EX_CONFIG` of sysexits.h: here, that the state folder cannot be used.
const EXIT_STATE: u8 = 78;

/// A lightweight stream agent for edge devices.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about, max_term_width = 100)]
struct Arguments {
    /// How log lines are written to standard error. What is logged: HEADWATER_LOG, such as `info`.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch it work: an embedded broker, sensors, agent and collector; nothing to install.
    #[cfg(feature = "demo")]
    Demo(headwater_demo::Options),
    /// Run the agent until SIGTERM or ctrl-c.
    Run {
        /// The configuration file.
        #[arg(long, short, env = "HEADWATER_CONFIG")]
        config: PathBuf,
    },
    /// Check a configuration and its modules without starting.
    Check {
        /// The configuration file.
        #[arg(long, short, env = "HEADWATER_CONFIG")]
        config: PathBuf,
    },
    /// Show what a running agent has counted.
    Status(status::Options),
    /// Have a running agent read its configuration again, and change modules without a restart.
    Reload(reload::Options),
    /// Have a pipeline go on that paused, or whose policy changed, because a module trips.
    Resume(reload::ResumeOptions),
    /// What could not be used, with its original bytes and the reason.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Write, build, test and measure modules.
    #[cfg(feature = "author")]
    #[command(subcommand)]
    Module(ModuleCommand),
    /// Compile a module, bounded, from standard input to standard output: the agent starts it.
    #[command(hide = true)]
    CompileModule {
        /// Memory it may take.
        #[arg(long)]
        memory_bytes_max: u64,
    },
    /// Look into the store of a stopped agent: check, dump, mend.
    #[command(subcommand)]
    Store(store::Command),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(&arguments);
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("headwater: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        #[cfg(feature = "demo")]
        Command::Demo(options) => headwater_demo::run(&options),
        Command::Run { config } => run_agent(&config),
        Command::Check { config } => check(&config),
        Command::Status(options) => status::run(&options),
        Command::Reload(options) => reload::reload(&options),
        Command::Resume(options) => reload::resume(&options),
        Command::DeadLetters(command) => dead_letters::run(&command),
        #[cfg(feature = "author")]
        Command::Module(command) => return headwater_author::run(&command, &dead_letters::each),
        Command::CompileModule { memory_bytes_max } => return Ok(compile_process::child(memory_bytes_max)),
        Command::Store(command) => return store::run(&command),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn run_agent(file: &Path) -> anyhow::Result<()> {
    let config = config::load(file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // From here on, though it is heeded later: a reload must not end an agent that is being built.
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(stop);
        // It may wait for disk space as long as that takes.
        let agent = tokio::select! {
            agent = Agent::build(&config) => agent?,
            () = &mut stop => return Ok(()),
        };
        let handle = agent.reload_handle();
        let reload = async move {
            while hangup.recv().await.is_some() {
                handle.request().await;
            }
            std::future::pending().await
        };
        let stop = async {
            tokio::select! {
                () = stop => {}
                () = reload => {}
            }
        };
        Ok::<_, anyhow::Error>(agent.run(stop).await?)
    });
    // What is still blocking was given its grace, or has failed: waiting for it would never end.
    runtime.shutdown_background();
    ended
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = config::load(file)?;
    let host = ModuleHost::checking(&config.agent.state, &config.modules)?;
    let mut faults = 0;
    for (name, pipeline) in &config.pipelines {
        let errors = match pipeline::at_hand(name, pipeline, &host, NetworkAccess::Until(&|| false)) {
            Ok(pipeline) => pipeline::load_modules(name, &pipeline, &host, &CallMetrics::default()),
            Err(error) => vec![error],
        };
        for error in errors {
            eprintln!("{}: {error}", file.display());
            faults += 1;
        }
    }
    anyhow::ensure!(faults == 0, ModuleFaults(faults));
    println!(
        "{}: {} inputs, {} pipelines, {} outputs: good",
        file.display(),
        config.inputs.len(),
        config.pipelines.len(),
        config.outputs.len()
    );
    Ok(())
}

/// Modules that cannot be loaded, each already shown.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the modules cannot be used: correct them or the configuration")]
struct ModuleFaults(usize);

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<config::Error>() || error.is::<ModuleFaults>() {
        return EXIT_CONFIG;
    }
    match error.downcast_ref::<agent::Error>() {
        Some(agent::Error::Store(_) | agent::Error::State { .. } | agent::Error::Another { .. }) => {
            EXIT_STATE
        }
        Some(
            agent::Error::Pipeline(pipeline::Error::Module { .. } | pipeline::Error::State { .. })
            | agent::Error::Output(_),
        ) => EXIT_CONFIG,
        Some(agent::Error::Admin { .. }) => EXIT_CONFIG,
        _ if error.is::<headwater_agent::store::Error>() => EXIT_STATE,
        _ => EXIT_FAULT,
    }
}

fn start_log(arguments: &Arguments) {
    let what =
        std::env::var("HEADWATER_LOG").unwrap_or_else(|_| arguments.command.log_by_default().to_owned());
    let filter = EnvFilter::builder().parse_lossy(what);
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match arguments.log {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

impl Command {
    /// The demo's screen is its table; its broker logs every coming and going.
    fn log_by_default(&self) -> &'static str {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo(_) => "warn,rumqttd=off",
            Self::Status(_)
            | Self::Reload(_)
            | Self::Resume(_)
            | Self::DeadLetters(_)
            | Self::Store(_)
            | Self::CompileModule { .. } => "warn",
            // What the module itself logs, and that it is being compiled.
            #[cfg(feature = "author")]
            Self::Module(ModuleCommand::Build(_) | ModuleCommand::Test(_) | ModuleCommand::Try(_)) => "info",
            #[cfg(feature = "author")]
            Self::Module(_) => "warn",
            Self::Run { .. } | Self::Check { .. } => "info",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_contradicts_itself() {
        let command = <Arguments as clap::CommandFactory>::command();
        assert!(command.find_subcommand(compile_process::COMMAND).is_some(), "the agent could not compile");
        command.debug_assert();
    }
}
