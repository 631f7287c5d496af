//! The program `headwater-collector`: arguments, logging and signals. Errors become exit codes.
//!
//! Exit codes: 0 stopped by SIGTERM or ctrl-c; 1 a fault; 2 wrong arguments.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use headwater_collector::{BearerToken, Collector, CollectorConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Collects the results of Headwater agents and shows them in a browser.
///
/// Anybody who reaches the address may read; the token guards only the storing of batches. There is no
/// TLS: listen on loopback, or put a proxy with TLS and access control before it.
#[derive(Debug, Parser)]
#[command(name = "headwater-collector", version)]
struct CollectorArguments {
    /// Address to listen on; port 0 takes a free port. The real address is printed on standard output.
    #[arg(long, default_value = "127.0.0.1:9700")]
    listen: SocketAddr,
    /// The SQLite file; created if it is absent.
    #[arg(long, default_value = "collector.db")]
    store: PathBuf,
    /// A file with the token that agents must bring; without it anybody may store.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = CollectorArguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = match config(&arguments) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match run(arguments.listen, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    tracing::error!(error = format!("{error:#}"), "stopped");
    ExitCode::from(code)
}

fn config(arguments: &CollectorArguments) -> anyhow::Result<CollectorConfig> {
    let mut config = CollectorConfig::new(&arguments.store);
    if let Some(file) = &arguments.token_file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("failed to read the token file {}", file.display()))?;
        let token = BearerToken::new(&text)
            .with_context(|| format!("failed to find a token in {}: it is empty", file.display()))?;
        config.token = Some(token);
    }
    Ok(config)
}

#[tokio::main]
async fn run(listen: SocketAddr, config: CollectorConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for ctrl-c")?;
    let store = config.store.clone();
    let collector = Collector::open(config)?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("failed to listen on {listen}: choose another --listen"))?;
    let address = listener.local_addr().context("failed to learn the address listened on")?;
    tracing::info!(%address, store = %store.display(), "listening");
    // Scripts and tests that asked for port 0 read it here.
    writeln!(std::io::stdout(), "http://{address}").context("failed to print the address")?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    collector.serve(listener, shutdown).await?;
    Ok(())
}
