//! A destination in any trouble: the same bytes under the same key again, nothing lost, nothing
//! doubled, and a success is only what says so itself.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_tests::agent::Agent;
use headwater_tests::backend::{Answer, Backend};
use headwater_tests::broker::Broker;
use headwater_tests::collector::{self, Collector};
use headwater_tests::ledger::{balances, drained};
use headwater_tests::oracle::{self, Windows, compute};
use headwater_tests::plant::{self, KEY, Load, Plan, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::{Mode, Proxy, Way};
use headwater_tests::publisher::Publisher;

const SOON: Duration = Duration::from_secs(60);

/// A broker, and an agent that forwards each reading to the address.
async fn forwarding(url: &str) -> (Agent, Publisher) {
    let broker = Broker::start().await;
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", url, ", timeout = \"1s\", results_max = 50");
    let agent = Agent::start(plan.toml()).await;
    (agent, Publisher::connect("plant", broker.port()))
}

pub(crate) async fn publish(publisher: &Publisher, load: &mut Load, count: usize) {
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

/// Each trouble before the first success: after it, everything has arrived once, in order.
#[track_caller]
pub(crate) fn check_all_arrived(backend: &Backend, load: &Load, troubles: usize) {
    let attempts = backend.attempts();
    let failed = attempts.iter().filter(|attempt| !attempt.confirmed).count();
    assert!(failed >= troubles, "only {failed} attempts failed");
    let ids: Vec<_> = backend.accepted().iter().map(|line| line["value"]["id"].as_u64()).collect();
    let all: Vec<_> = (0..load.published()).map(Some).collect();
    assert_eq!(ids, all, "each reading once, in order");
}

async fn survives(troubles: Vec<Answer>) {
    let count = troubles.len();
    let backend = Backend::start(troubles).await;
    let (mut agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    publish(&publisher, &mut load, 300).await;
    balances(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, count);
    assert!(agent.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_get_the_same_bytes_again() {
    let answers = [500, 503, 429, 408, 425, 502, 504];
    survives(answers.map(|status| Answer::Refuse(status, "trouble".to_owned())).to_vec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_never_answers_gets_the_same_bytes_again() {
    survives(vec![Answer::Silence(Duration::from_secs(30)); 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_gets_the_same_bytes_again() {
    survives(vec![Answer::HalfAnAnswer; 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captive_portal_is_no_success() {
    let portal = Answer::Refuse(200, "<html>please log in</html>".to_owned());
    let other = Answer::Refuse(200, r#"{"accepted":"someone/else/0-1","watermark":1}"#.to_owned());
    survives(vec![portal.clone(), other, portal, Answer::Refuse(302, String::new())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_dead_letter_nothing() {
    let backend = Backend::start([Answer::Refuse(401, String::new())]).await;
    let (mut agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    publish(&publisher, &mut load, 300).await;
    agent.reaches("pipeline_results", "each", load.published(), SOON).await;
    agent.reaches("output_failed_attempts", "central", 1, SOON).await;
    // It waits before it tries again; a new start reads the credentials anew, and does not wait.
    assert_eq!(backend.attempts().len(), 1, "refused credentials are not retried at once");
    assert!(agent.dead_letters().await.is_empty());
    agent.resume().await;
    agent.reaches("output_delivered_results", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_gone_for_a_while_gets_everything_when_it_is_back() {
    let mut backend = Backend::start([]).await;
    let (agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    publish(&publisher, &mut load, 200).await;
    drained(&agent, "central", SOON).await;
    backend.gone().await;
    publish(&publisher, &mut load, 200).await;
    agent.reaches("output_failed_attempts", "central", 2, SOON).await;
    assert!(agent.metrics().await.unwrap().of("output_pending_results", "central") > 0);
    backend.back().await;
    balances(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, 0);
}

/// It takes a tenth of what comes in: all is acknowledged meanwhile, and once it is as fast as ever
/// the rest arrives, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_at_a_tenth_of_the_rate_gets_everything_in_order() {
    let backend = Backend::start([]).await;
    let (agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    // 50 results at 500 ms are 100 a second, a tenth of what is published.
    backend.takes(Duration::from_millis(500));
    for _ in 0..30 {
        publish(&publisher, &mut load, 100).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agent.reaches("input_acknowledged_messages", "plant", load.published(), SOON).await;
    agent.reaches("pipeline_results", "each", load.published(), SOON).await;
    let pending = agent.metrics().await.unwrap().of("output_pending_results", "central");
    assert!(pending >= load.published() / 2, "it was to fall behind: only {pending} pending");
    backend.takes(Duration::ZERO);
    balances(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, 0);
}

/// Answers take 50 ms, one batch is under way at a time, and live results keep coming: the backlog
/// of an outage drains at ten times their rate all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_ten_times_as_fast_as_live_results_come() {
    const LIVE_PER_SECOND: u64 = 100;
    let mut backend = Backend::start([]).await;
    let broker = Broker::start().await;
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &backend.url(), ", backoff_max = \"1s\"");
    let agent = Agent::start(plan.toml()).await;
    let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(5));
    backend.takes(Duration::from_millis(50));
    backend.gone().await;
    publish(&publisher, &mut load, 10_000).await;
    agent.reaches("pipeline_results", "each", load.published(), SOON).await;
    let backlog = load.published();
    backend.back().await;
    let begun = std::time::Instant::now();
    let drained =
        async || agent.metrics().await.unwrap().of("output_delivered_results", "central") >= backlog;
    while !drained().await {
        assert!(begun.elapsed() < SOON, "the backlog does not drain");
        publish(&publisher, &mut load, (LIVE_PER_SECOND / 10) as usize).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = (backlog as f64 / begun.elapsed().as_secs_f64()) as u64;
    eprintln!("{backlog} results in {:?}: {rate} a second beside {LIVE_PER_SECOND}", begun.elapsed());
    assert!(rate >= 10 * LIVE_PER_SECOND, "{rate} a second");
    balances(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_refused_alone_is_dead_lettered_and_the_rest_arrives() {
    let backend = Backend::start([Answer::RefuseWith(422, "\"id\":77,".to_owned())]).await;
    let (mut agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    publish(&publisher, &mut load, 200).await;
    balances(&agent, "each", "central", load.published(), SOON).await;
    let mut ids: Vec<_> = backend
        .attempts()
        .iter()
        .filter(|attempt| attempt.confirmed)
        .flat_map(|attempt| attempt.lines.clone())
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
    // 413 for the batch as it is and for its first half; then as small as it has become.
    let too_large = Answer::Refuse(413, String::new());
    let backend = Backend::start([too_large.clone(), too_large]).await;
    let (mut agent, publisher) = forwarding(&backend.url()).await;
    let mut load = Load::new(5);
    publish(&publisher, &mut load, 300).await;
    balances(&agent, "each", "central", load.published(), SOON).await;
    check_all_arrived(&backend, &load, 2);
    assert!(agent.dead_letters().await.is_empty());
}

/// The own collector commits and its answer is lost: the batch comes again, and its totals are
/// what they were. It is killed as well, and keeps what it has answered for.
#[tokio::test(flavor = "multi_thread")]
async fn answers_lost_after_the_commit_change_no_totals() {
    let mut collector = Collector::start().await;
    let (broker, proxy) = (Broker::start().await, Proxy::start(collector.port()).await);
    let plan = Plan::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("windows", "plant", "central", &plant::windowed(KEY, "1s", "10s", "0s"))
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector::url(proxy.port()), ", timeout = \"1s\", results_max = 200");
    let agent = Agent::start(plan.toml()).await;
    let (publisher, mut load) = (Publisher::connect("plant", broker.port()), Load::new(5));

    proxy.set(Mode::Swallow(Way::Down));
    publish(&publisher, &mut load, 500).await;
    eventually("answers to be lost", SOON, async || (proxy.swallowed() >= 3).then_some(())).await;
    collector.kill9();
    publish(&publisher, &mut load, 500).await;
    collector.restart().await;
    proxy.set(Mode::Stall(Way::Both));
    agent.reaches("output_failed_attempts", "central", 5, SOON).await;
    proxy.set(Mode::Cut);
    let (topic, payload) = load.closing();
    publisher.publish(&topic, payload).await;
    proxy.set(Mode::Pass);

    for pipeline in ["windows", "each"] {
        balances(&agent, pipeline, "central", load.published(), SOON).await;
    }
    let results = collector.results().await;
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>());
    let expected = compute(load.readings(), Windows { size: 1_000, lateness: 10_000, revise: 0 });
    let differences = oracle::differences(&expected.windows, &plant::windows(&results, "windows"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let keys: BTreeMap<String, usize> = results.iter().fold(BTreeMap::new(), |mut keys, line| {
        *keys.entry(format!("{}{}{}", line["pipeline"], line["key"], line["window"])).or_default() += 1;
        keys
    });
    let twice = keys.iter().filter(|(key, times)| key.contains("windows") && **times > 1);
    assert_eq!(twice.count(), 0, "one result a window");
}
