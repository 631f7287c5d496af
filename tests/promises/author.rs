//! The author's commands, as the author sees them: what they print, and their exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use headwater_tests::agent::{Agent, PROGRAM};
use headwater_tests::backend::Backend;
use headwater_tests::broker::Broker;
use headwater_tests::plant;
use headwater_tests::process::built;
use headwater_tests::publisher::Publisher;

const SAMPLES: &str = r#"{"key":"a","time":"2026-01-01T00:00:00Z","payload":{"t":212}}
{"key":"a","time":1767225601000000,"payload":{"t":"warm"}}
{"key":"b","bytes":"/w=="}
"#;

/// A folder with a module of this repository's, and its samples.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("samples")).expect("a writable folder");
    fs::write(at("celsius.wasm"), headwater_bundle::CELSIUS).expect("a writable folder");
    let toml =
        "name = \"celsius\"\nkind = \"transform\"\nlanguage = \"rust\"\nsettings = { field = \"t\" }\n";
    fs::write(at("module.toml"), toml).expect("a writable folder");
    fs::write(at("samples/input.ndjson"), SAMPLES).expect("a writable folder");
    folder
}

fn module(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(built(PROGRAM));
    command.arg("module").args(arguments).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

/// What it prints, and whether it exits with this code.
#[track_caller]
fn said(folder: &Path, arguments: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = module(folder, arguments).output().expect("the program starts");
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

#[test]
fn a_difference_from_what_was_right_is_shown_where_it_is() {
    let project = project();
    let folder = project.path();
    assert!(
        said(folder, &["test"], 1).contains("expected.ndjson: make it with `headwater module test --bless`")
    );
    said(folder, &["test", "--bless"], 0);
    assert!(said(folder, &["test"], 0).contains("all 3 lines as expected"));

    let golden = folder.join("samples/expected.ndjson");
    let right = fs::read_to_string(&golden).unwrap();
    fs::write(&golden, right.replace("100.0", "99")).unwrap();
    let difference = said(folder, &["test"], 1);
    assert!(difference.contains("at event.payload.t: expected 99, found 100.0"), "{difference}");
    assert!(
        difference.contains("expected.ndjson:1:") && difference.contains("1 difference;"),
        "{difference}"
    );

    fs::write(folder.join("module.toml"), "name = \"celsius\"\nkind = \"transfrom\"\nlang = 1\n").unwrap();
    let faults = said(folder, &["test"], 2);
    assert!(faults.contains("module.toml:2:") && faults.contains("`lang`"), "{faults}");
}

#[test]
fn a_module_is_shown_checked_and_measured() {
    let project = project();
    let folder = project.path();
    let inspected = said(folder, &["inspect", "celsius.wasm"], 0);
    assert!(inspected.contains("world     transform of headwater:module@0.1.0"), "{inspected}");
    assert!(inspected.contains("sha256:") && inspected.contains("every module has it"), "{inspected}");
    let checked = said(folder, &["check-determinism"], 0);
    assert!(checked.contains("ok      gives the same on a fresh instance"), "{checked}");
    assert!(checked.contains("3 of 3 checks hold"), "{checked}");
    let conforms = said(folder, &["conform", "celsius.wasm", "--reference"], 0);
    assert!(!conforms.contains("FAILED") && conforms.contains("ok      celsius: from kelvin"), "{conforms}");
    fs::copy(headwater_bundle::HOSTILE_PATH, folder.join("celsius.wasm")).unwrap();
    let fails = said(folder, &["conform", "celsius.wasm", "--reference"], 1);
    assert!(fails.contains("FAILED  celsius: from kelvin: expected"), "{fails}");
    let costs = said(folder, &["bench", "celsius.wasm", "--seconds", "1", "--json"], 0);
    let costs: serde_json::Value = serde_json::from_str(&costs).unwrap();
    for cost in ["compile_ms", "instantiate_us", "events_per_second", "us_per_event", "memory_bytes"] {
        assert!(costs[cost].as_f64().is_some_and(|cost| cost > 0.0), "{cost} of {costs}");
    }
}

#[test]
fn a_file_that_is_no_module_is_named_with_what_was_expected_and_found() {
    let project = project();
    let folder = project.path();
    fs::write(folder.join("core.wasm"), headwater_bundle::CORE_MODULE).unwrap();
    let refused = said(folder, &["inspect", "core.wasm"], 1);
    assert!(refused.contains("core.wasm") && refused.contains("headwater module wrap"), "{refused}");
    said(folder, &["wrap", "core.wasm", "--world", "transform", "-o", "wrapped.wasm"], 0);
    said(folder, &["conform", "wrapped.wasm", "--reference"], 0);
    let refused = said(folder, &["wrap", "core.wasm", "--world", "aggregate", "-o", "other.wasm"], 1);
    assert!(refused.contains("core.wasm for the world `aggregate`"), "{refused}");
    let refused = said(folder, &["test", "nowhere"], 2);
    assert!(refused.contains("nowhere/module.toml"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_tried_on_live_messages_and_sends_nothing() {
    let project = project();
    let broker = Broker::start().await;
    let publisher = Publisher::connect("plant", broker.port());
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    let arguments =
        ["try", "celsius.wasm", "--broker", &url, "--topic", "plant/#", "--count", "2", "--for", "60"];
    let mut trying = module(project.path(), &arguments);
    let mut trying = trying.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It hears what comes after its subscription.
    let mut rounds = 0;
    while trying.try_wait().unwrap().is_none() {
        publisher.publish("plant/oven", br#"{"t":32}"#.to_vec()).await;
        publisher.publish("elsewhere", br#"{"t":32}"#.to_vec()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        rounds += 1;
        assert!(rounds < 1_200, "it never ends");
    }
    let Output { status, stdout, stderr } = trying.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(stdout.contains("\"topic\":\"plant/oven\"") && stdout.contains("\"t\":0.0"), "{stdout}");
    assert!(stderr.contains("2 inputs; nothing was sent"), "{stderr}");
    let nobody =
        said(project.path(), &["try", "celsius.wasm", "--broker", "mqtt://127.0.0.1:1", "--topic", "#"], 1);
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_tried_on_dead_letters_and_changes_none() {
    let project = project();
    let (broker, backend) = (Broker::start().await, Backend::start([]).await);
    let plan = plant::Plan::default()
        .input("plant", broker.port(), &["plant/#"], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &backend.url(), "");
    let agent = Agent::start(plan.toml()).await;
    let publisher = Publisher::connect("plant", broker.port());
    for payload in [&br#"{"t":212"#[..], br#"{"t":50}"#] {
        publisher.publish("plant/oven", payload.to_vec()).await;
    }
    publisher.confirmed().await;
    agent.reaches("pipeline_rejected_messages", "each", 2, Duration::from_secs(60)).await;
    let before = agent.run(&["dead-letters", "export"]).stdout;
    let config = agent.config().display().to_string();
    let arguments = ["try", "celsius.wasm", "--dead-letters", "--config", &config];
    let shown = said(project.path(), &arguments, 0);
    assert!(shown.contains("\"t\":10.0") && shown.contains("\"rejected\""), "{shown}");
    assert_eq!(agent.run(&["dead-letters", "export"]).stdout, before);
}
