//! The example configurations: the agent accepts each of them.

use std::path::{Path, PathBuf};

use headwater_tests::agent::TestAgent;

#[test]
fn every_example_passes_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let examples: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(!examples.is_empty(), "no examples in {}", folder.display());
    for example in examples {
        let text = std::fs::read_to_string(&example).unwrap();
        // The modules lie beside the configuration, as the example says, and all else is as on a device.
        let agent = TestAgent::prepare("");
        std::fs::write(agent.config(), text).unwrap();
        let output = agent.run_command(&["check"]);
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}:\n{text}", example.display());
    }
}
