//! The two brokers: a real mosquitto, which can be killed and keeps its sessions, and one inside this process
//! for the tests that must run everywhere.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{ChildProcess, eventually, free_port, installed_program, signal};

/// A mosquitto with the settings that the agent's promise needs (README): it drops nothing that is queued,
/// and its sessions survive it.
#[derive(Debug)]
pub struct MosquittoBroker {
    port: u16,
    process: Option<ChildProcess>,
    home: tempfile::TempDir,
}

impl MosquittoBroker {
    /// Starts a mosquitto on a port that it keeps.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start() -> Self {
        Self::start_with("autosave_interval 1\nautosave_on_changes true\n", true).await
    }

    /// Starts a mosquitto that saves only when it ends, for loads that must not measure its disk.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_unsaved() -> Self {
        Self::start_with("", true).await
    }

    /// Starts an unsaved mosquitto that writes each packet that it sends or receives into its log.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_unsaved_logging_packets() -> Self {
        Self::start_with("log_type debug\n", true).await
    }

    /// Starts a mosquitto with more listeners: `more` are lines of its configuration, the first of them
    /// `listener`.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_listening(more: &str) -> Self {
        Self::start_with(more, true).await
    }

    /// Starts a mosquitto that refuses every connection.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_refusing() -> Self {
        Self::start_with("", false).await
    }

    async fn start_with(more: &str, anonymous: bool) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = format!(
            "persistence true\npersistence_location {}/\nmax_queued_messages 0\n\
             max_inflight_messages 1000\nuser root\nlog_type error\nlog_type warning\n\
             allow_anonymous {anonymous}\nlistener {port} 127.0.0.1\n{more}",
            home.path().display()
        );
        std::fs::write(home.path().join("mosquitto.conf"), config).expect("a writable folder");
        let mut mosquitto = Self { port, home, process: None };
        mosquitto.restart().await;
        mosquitto
    }

    /// Starts it again on the same port, with the sessions that it had saved.
    ///
    /// # Panics
    /// When it does not listen within five seconds.
    pub async fn restart(&mut self) {
        let mut command = Command::new(installed_program("mosquitto", "mosquitto"));
        command.arg("-c").arg(self.home.path().join("mosquitto.conf"));
        self.process = Some(ChildProcess::spawn(&mut command, &self.log()).expect("mosquitto starts"));
        listens("mosquitto", self.port).await;
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("mosquitto runs").kill9().expect("mosquitto can be killed");
    }

    /// Sends SIGTERM and waits until it has saved and ended.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("mosquitto runs");
        process.terminate().expect("mosquitto can be signalled");
        process.wait_for_exit(Duration::from_secs(10)).await.expect("mosquitto ends");
    }

    /// Waits until everything that it knew at the call is in its file. A kill loses only messages that come
    /// later.
    ///
    /// # Panics
    /// When it does not run or does not save.
    pub async fn wait_until_saved(&self) {
        let file = self.home.path().join("mosquitto.db");
        let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
        // The first save seen may have begun before the call, the second has not.
        for _ in 0..2 {
            let before = written();
            eventually("mosquitto to save", Duration::from_secs(10), async || {
                // The signal is sent each time, because one that comes during a save is lost.
                signal(self.id()?, Signal::USR1).expect("mosquitto can be signalled");
                (written() > before).then_some(())
            })
            .await;
        }
    }

    /// The port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.path().join("mosquitto.log")
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(ChildProcess::id)
    }
}

/// A rumqttd in this process. It cannot be stopped and gives redeliveries new packet identifiers, so that
/// tests about crashes need a mosquitto.
#[derive(Debug)]
pub struct RumqttdBroker {
    port: u16,
}

impl RumqttdBroker {
    /// Starts a rumqttd on a free port.
    ///
    /// # Panics
    /// When it does not listen within five seconds.
    pub async fn start() -> Self {
        let port = free_port();
        let connections = rumqttd::ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 1 << 20,
            max_inflight_count: 1_000,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let settings = |name: &str, port| rumqttd::ServerSettings {
            name: name.to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: None,
            next_connection_delay_ms: 1,
            connections: connections.clone(),
        };
        let config = rumqttd::Config {
            router: rumqttd::RouterConfig {
                max_connections: 100,
                max_outgoing_packet_count: 1_000,
                max_segment_size: 8 << 20,
                max_segment_count: 32,
                ..rumqttd::RouterConfig::default()
            },
            v4: Some(HashMap::from([("v4".to_owned(), settings("v4", port))])),
            ..rumqttd::Config::default()
        };
        std::thread::spawn(move || {
            rumqttd::Broker::new(config).start().expect("the embedded broker starts");
        });
        listens("the embedded broker", port).await;
        Self { port }
    }

    /// The port on which it listens (MQTT 3.1.1).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn listens(who: &str, port: u16) {
    eventually(&format!("{who} to listen on {port}"), Duration::from_secs(5), async || {
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()
    })
    .await;
}
