//! The two brokers: a real mosquitto that can be killed and keeps its sessions, and one inside
//! this process for the suites that must run everywhere.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, eventually, free_port, installed, signal};

/// mosquitto with the settings that our promise needs (README): nothing queued is dropped, and
/// what it holds survives it.
#[derive(Debug)]
pub struct Mosquitto {
    port: u16,
    process: Option<Process>,
    home: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts one on a port that it keeps.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start() -> Self {
        Self::start_with("autosave_interval 1\nautosave_on_changes true\n", true).await
    }

    /// One that saves at its end only: for loads where its disk must not be what is measured.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_unsaved() -> Self {
        Self::start_with("", true).await
    }

    /// The same, which writes each packet that it sends or receives into its log.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_unsaved_logging_packets() -> Self {
        Self::start_with("log_type debug\n", true).await
    }

    /// One that listens elsewhere too: lines of its configuration, beginning with `listener`.
    ///
    /// # Panics
    /// When it is not installed or does not listen.
    pub async fn start_listening(more: &str) -> Self {
        Self::start_with(more, true).await
    }

    /// One that lets nobody in.
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

    /// Starts it again on the same port with what it had saved.
    ///
    /// # Panics
    /// When it does not listen within five seconds.
    pub async fn restart(&mut self) {
        let mut command = Command::new(installed("mosquitto", "mosquitto"));
        command.arg("-c").arg(self.home.path().join("mosquitto.conf"));
        self.process = Some(Process::spawn(&mut command, &self.log()).expect("mosquitto starts"));
        listens("mosquitto", self.port).await;
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("mosquitto runs").kill9().expect("mosquitto can be killed");
    }

    /// SIGTERM: it saves and ends.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("mosquitto runs");
        process.terminate().expect("mosquitto can be signalled");
        process.ended(Duration::from_secs(10)).await.expect("mosquitto ends");
    }

    /// Returns once everything it knew at the call is in its file: what comes after is lost with it.
    ///
    /// # Panics
    /// When it does not run or does not save.
    pub async fn saved(&self) {
        let file = self.home.path().join("mosquitto.db");
        let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
        // The first save that is seen may have begun before the call, the second has not.
        for _ in 0..2 {
            let before = written();
            eventually("mosquitto to save", Duration::from_secs(10), async || {
                // Each time: it forgets a signal that comes while it saves.
                signal(self.id()?, Signal::USR1).expect("mosquitto can be signalled");
                (written() > before).then_some(())
            })
            .await;
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file that its log is in.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.path().join("mosquitto.log")
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }
}

/// rumqttd in this process. It has no end but the process's, and numbers redeliveries anew: no
/// suite about crashes can stand on it.
#[derive(Debug)]
pub struct Broker {
    port: u16,
}

impl Broker {
    /// Starts one on a free port.
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

    /// Where it listens (MQTT 3.1.1).
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
