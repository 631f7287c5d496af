//! The program: killed in the middle of commits, stopped by signals, started with wrong arguments.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{client, event, post};

const BIN: &str = env!("CARGO_BIN_EXE_headwater-collector");

/// A collector in its own process, which is killed when this is dropped.
struct CollectorProcess {
    child: Child,
    url: String,
}

impl CollectorProcess {
    fn start(store: &Path) -> Self {
        let mut child = Command::new(BIN)
            .args(["--listen", "127.0.0.1:0", "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for CollectorProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the lines of batch `number`: two events with the number as their value.
fn lines(number: u64) -> [String; 2] {
    [event("a", 0, &format!("{number}")), event("b", 0, &format!("{number}"))]
}

/// Sends batches one after the other until one is not answered, and counts those that were.
async fn send_until_killed(url: String, answered: Arc<AtomicU64>) {
    let client = client();
    loop {
        let number = answered.load(SeqCst);
        match post(&client, &url, number * 2, &lines(number)).send().await {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::OK);
                answered.store(number + 1, SeqCst);
            }
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_batches_survive_a_kill_and_sending_them_again_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("collector.db");
    let answered = Arc::new(AtomicU64::new(0));
    for round in 0..5_u64 {
        let mut program = CollectorProcess::start(&store);
        let before = answered.load(SeqCst);
        let mut sender = tokio::task::JoinSet::new();
        sender.spawn(send_until_killed(program.url.clone(), answered.clone()));
        while answered.load(SeqCst) < before + 20 + round * 7 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        program.signal(Signal::KILL);
        sender.join_all().await;
    }
    let answered = answered.load(SeqCst);
    let program = CollectorProcess::start(&store);
    let client = client();
    let get = async |path: &str| -> Value {
        client.get(format!("{}{path}", program.url)).send().await.unwrap().json().await.unwrap()
    };
    let epoch = get("/v1/agents").await["agents"][0]["epochs"][0].clone();
    let stored = epoch["lines"].as_u64().unwrap();
    // The last batch may be stored although its answer was lost, but never half of it.
    assert!(stored == answered * 2 || stored == answered * 2 + 2, "{answered} answered, {epoch}");
    assert_eq!(epoch["watermark"].as_u64(), Some(stored - 1));
    for number in answered.saturating_sub(3)..=answered {
        let response = post(&client, &program.url, number * 2, &lines(number)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    let totals = get("/v1/totals").await["totals"][0].clone();
    assert_eq!(totals["events"].as_u64(), Some(answered * 2 + 2), "{totals}");
    assert_eq!(totals["ignored"], 0);
}

#[tokio::test]
async fn stops_on_sigterm_and_on_ctrl_c_with_success() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = CollectorProcess::start(&folder.path().join("collector.db"));
        let response = post(&client(), &program.url, 0, &lines(0)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(program.signal(signal).code(), Some(0), "{signal:?}");
    }
}

#[track_caller]
fn check_exit(arguments: &[&str], code: i32, expected: &str) {
    let output = Command::new(BIN).args(arguments).env("NO_COLOR", "1").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(expected), "{text:?} does not contain {expected:?}");
}

#[test]
fn names_the_fault_and_exits_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("empty"), "\n").unwrap();
    std::fs::write(path("text"), "this is no database, and long enough to tell").unwrap();
    let store = path("collector.db");
    check_exit(&["--surprise"], 2, "--surprise");
    check_exit(&["--listen", "nowhere"], 2, "nowhere");
    check_exit(&["--store", &store, "--token-file", &path("none")], 2, "none");
    check_exit(&["--store", &store, "--token-file", &path("empty")], 2, "empty");
    check_exit(&["--listen", "127.0.0.1:0", "--store", &path("text")], 1, "text");
    check_exit(&["--listen", "127.0.0.1:0", "--store", &path("text/below.db")], 1, "text");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check_exit(&["--listen", &address, "--store", &store], 1, &address);
}
