//! A destination in any trouble: the same bytes come again under the same key, nothing is lost or doubled,
//! and only a confirmation by the destination itself is a success.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::{self, TestCollector};
use headwater_tests::destination::{FakeDestination, ScriptedAnswer};
use headwater_tests::ledger::{check_balance, wait_until_drained};
use headwater_tests::oracle::{self, TumblingWindows, compute};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::{FaultDirection, FaultProxy, ProxyMode};
use headwater_tests::publisher::TestPublisher;

const SOON: Duration = Duration::from_secs(60);

/// Starts a broker, and an agent that sends each reading to the address.
async fn start_forwarding(url: &str) -> (TestAgent, TestPublisher) {
    start_forwarding_with(url, "").await
}

/// Starts the same with more keys of the output, each behind a comma.
async fn start_forwarding_with(url: &str, more: &str) -> (TestAgent, TestPublisher) {
    let broker = RumqttdBroker::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", url, &format!(", timeout = \"1s\", results_max = 50{more}"));
    let agent = TestAgent::start(plan.toml()).await;
    (agent, TestPublisher::connect("plant", broker.port()))
}

pub(crate) async fn publish(publisher: &TestPublisher, load: &mut PlantLoad, count: usize) {
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

/// Checks that the given number of troubles came before the first success, and that everything has arrived
/// once, in order.
#[track_caller]
pub(crate) fn check_all_arrived(destination: &FakeDestination, load: &PlantLoad, troubles: usize) {
    let requests = destination.requests();
    let failed = requests.iter().filter(|request| !request.confirmed).count();
    assert!(failed >= troubles, "only {failed} attempts failed");
    let ids: Vec<_> = destination.accepted_lines().iter().map(|line| line["value"]["id"].as_u64()).collect();
    let all: Vec<_> = (0..load.published()).map(Some).collect();
    assert_eq!(ids, all, "each reading once, in order");
}

async fn survives(troubles: Vec<ScriptedAnswer>) {
    let count = troubles.len();
    let destination = FakeDestination::start(troubles).await;
    let (mut agent, publisher) = start_forwarding(&destination.url()).await;
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 300).await;
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, count);
    assert!(agent.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_get_the_same_bytes_again() {
    let answers = [500, 503, 429, 408, 425, 502, 504];
    survives(answers.map(|status| ScriptedAnswer::Refuse(status, "trouble".to_owned())).to_vec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_never_answers_gets_the_same_bytes_again() {
    survives(vec![ScriptedAnswer::Silence(Duration::from_secs(30)); 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_gets_the_same_bytes_again() {
    survives(vec![ScriptedAnswer::HalfAnAnswer; 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captive_portal_is_no_success() {
    let portal = ScriptedAnswer::Refuse(200, "<html>please log in</html>".to_owned());
    let other = ScriptedAnswer::Refuse(200, r#"{"accepted":"someone/else/0-1","watermark":1}"#.to_owned());
    survives(vec![portal.clone(), other, portal, ScriptedAnswer::Refuse(302, String::new())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_dead_letter_nothing() {
    let destination = FakeDestination::start([ScriptedAnswer::Refuse(401, String::new())]).await;
    let (mut agent, publisher) = start_forwarding(&destination.url()).await;
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 300).await;
    agent.wait_for_metric("pipeline_results", "each", load.published(), SOON).await;
    agent.wait_for_metric("output_failed_attempts", "central", 1, SOON).await;
    // The agent waits before it tries again; a new start reads the credentials anew and does not wait.
    assert_eq!(destination.requests().len(), 1, "refused credentials are not retried at once");
    assert!(agent.dead_letters().await.is_empty());
    agent.resume().await;
    agent.wait_for_metric("output_delivered_results", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_gone_for_a_while_gets_everything_when_it_is_back() {
    let mut destination = FakeDestination::start([]).await;
    let (agent, publisher) = start_forwarding(&destination.url()).await;
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 200).await;
    wait_until_drained(&agent, "central", SOON).await;
    destination.stop_listening().await;
    publish(&publisher, &mut load, 200).await;
    agent.wait_for_metric("output_failed_attempts", "central", 2, SOON).await;
    assert!(agent.metrics().await.unwrap().of("output_pending_results", "central") > 0);
    destination.listen_again().await;
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, 0);
}

/// Checks a destination that takes a tenth of the incoming rate: everything is acknowledged meanwhile, and
/// once it is as fast as before the rest arrives, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_at_a_tenth_of_the_rate_gets_everything_in_order() {
    let destination = FakeDestination::start([]).await;
    let (agent, publisher) = start_forwarding(&destination.url()).await;
    let mut load = PlantLoad::new(5);
    // 50 results in 500 ms are 100 a second, a tenth of the rate at which readings are published.
    destination.set_delay(Duration::from_millis(500));
    for _ in 0..30 {
        publish(&publisher, &mut load, 100).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agent.wait_for_metric("input_acknowledged_messages", "plant", load.published(), SOON).await;
    agent.wait_for_metric("pipeline_results", "each", load.published(), SOON).await;
    let pending = agent.metrics().await.unwrap().of("output_pending_results", "central");
    assert!(pending >= load.published() / 2, "it was to fall behind: only {pending} pending");
    destination.set_delay(Duration::ZERO);
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, 0);
}

/// Checks answers that take 50 ms, with one batch in flight at a time and live results that keep coming: the
/// backlog of an outage drains at ten times their rate all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_ten_times_as_fast_as_live_results_come() {
    const LIVE_PER_SECOND: u64 = 100;
    let mut destination = FakeDestination::start([]).await;
    let broker = RumqttdBroker::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &destination.url(), ", backoff_max = \"1s\"");
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);
    destination.set_delay(Duration::from_millis(50));
    destination.stop_listening().await;
    publish(&publisher, &mut load, 10_000).await;
    agent.wait_for_metric("pipeline_results", "each", load.published(), SOON).await;
    let backlog = load.published();
    destination.listen_again().await;
    let begun = std::time::Instant::now();
    let wait_until_drained =
        async || agent.metrics().await.unwrap().of("output_delivered_results", "central") >= backlog;
    while !wait_until_drained().await {
        assert!(begun.elapsed() < SOON, "the backlog does not drain");
        publish(&publisher, &mut load, (LIVE_PER_SECOND / 10) as usize).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = (backlog as f64 / begun.elapsed().as_secs_f64()) as u64;
    eprintln!("{backlog} results in {:?}: {rate} a second beside {LIVE_PER_SECOND}", begun.elapsed());
    assert!(rate >= 10 * LIVE_PER_SECOND, "{rate} a second");
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_refused_alone_is_dead_lettered_and_the_rest_arrives() {
    let destination =
        FakeDestination::start([ScriptedAnswer::RefuseWith(422, "\"id\":77,".to_owned())]).await;
    let (mut agent, publisher) = start_forwarding(&destination.url()).await;
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 200).await;
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    let mut ids: Vec<_> = destination
        .requests()
        .iter()
        .filter(|request| request.confirmed)
        .flat_map(|request| request.lines.clone())
        .map(|line| line["value"]["id"].as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..load.published()).filter(|id| *id != 77).collect::<Vec<_>>());
    let letters = agent.dead_letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["stage"], "output");
    assert!(letters[0]["reason"].as_str().unwrap().contains("422"), "{}", letters[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_too_large_are_made_smaller() {
    // The answer is 413 for the batch as it is and for its first half; later batches stay as small.
    let too_large = ScriptedAnswer::Refuse(413, String::new());
    let destination = FakeDestination::start([too_large.clone(), too_large]).await;
    // The first batch is a full one also on a busy machine: alone, a single result would be a dead letter.
    let (mut agent, publisher) = start_forwarding_with(&destination.url(), ", linger = \"10s\"").await;
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 300).await;
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&destination, &load, 2);
    assert!(agent.dead_letters().await.is_empty());
}

/// Checks a collector that commits but whose answer is lost: the batch comes again, and the totals do not
/// change. The collector is killed as well, and keeps all that it has answered for.
#[tokio::test(flavor = "multi_thread")]
async fn answers_lost_after_the_commit_change_no_totals() {
    let mut collector = TestCollector::start().await;
    let broker = RumqttdBroker::start().await;
    let proxy = FaultProxy::start(collector.port()).await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &plant::windowed(KEY, "1s", "10s", "0s"))
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector::url(proxy.port()), ", timeout = \"1s\", results_max = 200");
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);

    proxy.set(ProxyMode::Swallow(FaultDirection::Down));
    publish(&publisher, &mut load, 500).await;
    eventually("answers to be lost", SOON, async || (proxy.swallowed() >= 3).then_some(())).await;
    collector.kill9();
    publish(&publisher, &mut load, 500).await;
    collector.restart().await;
    proxy.set(ProxyMode::Stall(FaultDirection::Both));
    agent.wait_for_metric("output_failed_attempts", "central", 5, SOON).await;
    proxy.set(ProxyMode::Cut);
    let (topic, payload) = load.closing_reading();
    publisher.publish(&topic, payload).await;
    proxy.set(ProxyMode::Pass);

    for pipeline in ["windows", "each"] {
        check_balance(&agent, pipeline, "central", load.published(), SOON).await;
    }
    let results = collector.results().await;
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>());
    let expected = compute(load.readings(), TumblingWindows { size: 1_000, lateness: 10_000, revise: 0 });
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let keys: BTreeMap<String, usize> = results.iter().fold(BTreeMap::new(), |mut keys, line| {
        *keys.entry(format!("{}{}{}", line["pipeline"], line["key"], line["window"])).or_default() += 1;
        keys
    });
    let twice = keys.iter().filter(|(key, times)| key.contains("windows") && **times > 1);
    assert_eq!(twice.count(), 0, "one result a window");
}
