//! Messages that damage took after the journal had stored them and before the broker had their
//! acknowledgement: they are reported lost and read when they come again, and no others count twice.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use headwater_tests::world::{TestWorld, WorldOptions};

const SOON: Duration = Duration::from_secs(20);
/// Number of groups of messages that are stored and acknowledged before the one that is only stored.
const ACKNOWLEDGED_GROUPS: u32 = 20;

/// Cuts the last segment of the journal short within the last message that was written to it.
fn cut_last_message(store: &Path) {
    let mut segments: Vec<_> =
        fs::read_dir(store.join("journal")).expect("a journal").flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("j-")));
    segments.sort();
    let last = segments.pop().expect("a segment").join("db");
    let bytes = fs::read(&last).expect("a database");
    let begin = b"{\"id\":";
    let found = bytes.windows(begin.len()).rposition(|found| found == begin).expect("a message");
    let file = File::options().write(true).open(&last).expect("a writable file");
    file.set_len(found as u64).expect("a writable file");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_not_acknowledged_is_reported_lost_and_read() {
    let mut world = TestWorld::start(&WorldOptions::default()).await;
    world
        .under_load(async |host| {
            host.kill();
            host.fail(&format!("input.durable=kill@{}", ACKNOWLEDGED_GROUPS + 1));
            assert!(
                host.wait_for_death(SOON).await,
                "it dies with a stored message that it has not acknowledged"
            );
            host.note_journal();
            cut_last_message(&host.agent.state().join("store"));
            host.agent.spawn();
        })
        .await;
    while world.host.agent.wait_for_exit_or_ready().await.is_some() {
        world.host.agent.spawn();
    }
    let verdict = world.settle().await;
    let reported = world.reported().await;
    assert!(verdict.is_good_but_for(reported), "{verdict:?}, {reported:?}");
    assert!(verdict.resent > 0, "what was not acknowledged comes again: {verdict:?}");
    assert!(verdict.resent <= reported.readings, "{verdict:?}, {reported:?}");
    let reports = world.host.collector.get("/v1/reports?kind=lost").await.expect("the collector answers");
    let reports = reports["reports"].as_array().expect("a list");
    assert!(!reports.is_empty() && reports.iter().all(says_what_comes_again), "{reports:?}");
}

fn says_what_comes_again(line: &serde_json::Value) -> bool {
    line["report"]["reason"].as_str().is_some_and(|reason| reason.contains("come again"))
}
