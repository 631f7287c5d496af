//! The author's commands, as the author sees them: their output and their exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use headwater_tests::agent::{PROGRAM, TestAgent};
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::plant;
use headwater_tests::process::built_program;
use headwater_tests::publisher::TestPublisher;

const SAMPLES: &str = r#"{"key":"a","time":"2026-01-01T00:00:00Z","payload":{"t":212}}
{"key":"a","time":1767225601000000,"payload":{"t":"warm"}}
{"key":"b","bytes":"/w=="}
"#;

/// Makes a folder with a module of this repository and its samples.
fn make_project() -> tempfile::TempDir {
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
    let mut command = Command::new(built_program(PROGRAM));
    command.arg("module").args(arguments).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

/// Runs a command, checks its exit code and returns its output.
#[track_caller]
fn output_of(folder: &Path, arguments: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = module(folder, arguments).output().expect("the program starts");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{text}");
    text
}

#[test]
fn a_difference_from_what_was_right_is_shown_where_it_is() {
    let project = make_project();
    let folder = project.path();
    assert!(
        output_of(folder, &["test"], 1)
            .contains("expected.ndjson: make it with `headwater module test --bless`")
    );
    output_of(folder, &["test", "--bless"], 0);
    assert!(output_of(folder, &["test"], 0).contains("all 3 lines as expected"));

    let golden = folder.join("samples/expected.ndjson");
    let right = fs::read_to_string(&golden).unwrap();
    fs::write(&golden, right.replace("100.0", "99")).unwrap();
    let difference = output_of(folder, &["test"], 1);
    assert!(difference.contains("at event.payload.t: expected 99, found 100.0"), "{difference}");
    assert!(
        difference.contains("expected.ndjson:1:") && difference.contains("1 difference;"),
        "{difference}"
    );

    fs::write(folder.join("module.toml"), "name = \"celsius\"\nkind = \"transfrom\"\nlang = 1\n").unwrap();
    let faults = output_of(folder, &["test"], 2);
    assert!(faults.contains("module.toml:2:") && faults.contains("`lang`"), "{faults}");
}

#[test]
fn a_module_is_shown_checked_and_measured() {
    let project = make_project();
    let folder = project.path();
    let inspected = output_of(folder, &["inspect", "celsius.wasm"], 0);
    assert!(inspected.contains("world     transform of headwater:module@0.1.0"), "{inspected}");
    assert!(inspected.contains("sha256:") && inspected.contains("every module has it"), "{inspected}");
    let checked = output_of(folder, &["check-determinism"], 0);
    assert!(checked.contains("ok      gives the same on a fresh instance"), "{checked}");
    assert!(checked.contains("3 of 3 checks hold"), "{checked}");
    let conforms = output_of(folder, &["conform", "celsius.wasm", "--reference"], 0);
    assert!(!conforms.contains("FAILED") && conforms.contains("ok      celsius: from kelvin"), "{conforms}");
    fs::copy(headwater_bundle::HOSTILE_PATH, folder.join("celsius.wasm")).unwrap();
    let fails = output_of(folder, &["conform", "celsius.wasm", "--reference"], 1);
    assert!(fails.contains("FAILED  celsius: from kelvin: expected"), "{fails}");
    let costs = output_of(folder, &["bench", "celsius.wasm", "--seconds", "1", "--json"], 0);
    let costs: serde_json::Value = serde_json::from_str(&costs).unwrap();
    for cost in ["compile_ms", "instantiate_us", "events_per_second", "us_per_event", "memory_bytes"] {
        assert!(costs[cost].as_f64().is_some_and(|cost| cost > 0.0), "{cost} of {costs}");
    }
}

#[test]
fn a_file_that_is_no_module_is_named_with_what_was_expected_and_found() {
    let project = make_project();
    let folder = project.path();
    fs::write(folder.join("core.wasm"), headwater_bundle::CORE_MODULE).unwrap();
    let refused = output_of(folder, &["inspect", "core.wasm"], 1);
    assert!(refused.contains("core.wasm") && refused.contains("headwater module wrap"), "{refused}");
    output_of(folder, &["wrap", "core.wasm", "--world", "transform", "-o", "wrapped.wasm"], 0);
    output_of(folder, &["conform", "wrapped.wasm", "--reference"], 0);
    let refused = output_of(folder, &["wrap", "core.wasm", "--world", "aggregate", "-o", "other.wasm"], 1);
    assert!(refused.contains("core.wasm for the world `aggregate`"), "{refused}");
    let refused = output_of(folder, &["test", "nowhere"], 2);
    assert!(refused.contains("nowhere/module.toml"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_tried_on_live_messages_and_sends_nothing() {
    let project = make_project();
    let broker = RumqttdBroker::start().await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    let arguments =
        ["try", "celsius.wasm", "--broker", &url, "--topic", "plant/#", "--count", "2", "--for", "60"];
    let mut trying = module(project.path(), &arguments);
    let mut trying = trying.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command sees only messages that are published after its subscription.
    let mut rounds = 0;
    while trying.try_wait().unwrap().is_none() {
        publisher.publish("plant/oven", br#"{"t":32}"#.to_vec()).await;
        publisher.publish("elsewhere", br#"{"t":32}"#.to_vec()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        rounds += 1;
        assert!(rounds < 1_200, "it never ends");
    }
    let Output { status, stdout, stderr } = trying.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&stdout);
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(stdout.contains("\"topic\":\"plant/oven\"") && stdout.contains("\"t\":0.0"), "{stdout}");
    assert!(stderr.contains("2 inputs; nothing was sent"), "{stderr}");
    let nobody = output_of(
        project.path(),
        &["try", "celsius.wasm", "--broker", "mqtt://127.0.0.1:1", "--topic", "#"],
        1,
    );
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_tried_on_dead_letters_and_changes_none() {
    let project = make_project();
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let plan = plant::ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/#"], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded("k"))
        .output("central", &destination.url(), "");
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    for payload in [&br#"{"t":212"#[..], br#"{"t":50}"#] {
        publisher.publish("plant/oven", payload.to_vec()).await;
    }
    publisher.confirmed().await;
    agent.wait_for_metric("pipeline_rejected_messages", "each", 2, Duration::from_secs(60)).await;
    let before = agent.run_command(&["dead-letters", "export"]).stdout;
    let config = agent.config().display().to_string();
    let arguments = ["try", "celsius.wasm", "--dead-letters", "--config", &config];
    let shown = output_of(project.path(), &arguments, 0);
    assert!(shown.contains("\"t\":10.0") && shown.contains("\"rejected\""), "{shown}");
    assert_eq!(agent.run_command(&["dead-letters", "export"]).stdout, before);
}
