//! Brokers of every kind, and all that may happen to them: each message counts once, and no input affects
//! another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_balance, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::{eventually, free_port};
use headwater_tests::proxy::{FaultDirection, FaultProxy, ProxyMode};
use headwater_tests::publisher::TestPublisher;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_counts_once_though_agent_and_connection_die_with_mqtt_3() {
    qos_2_counts_once("3.1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_counts_once_though_agent_and_connection_die_with_mqtt_5() {
    qos_2_counts_once("5").await;
}

async fn qos_2_counts_once(version: &str) {
    let seed = fastrand::u64(..);
    let mut moments = fastrand::Rng::with_seed(seed);
    let mut moment = move |most| Duration::from_millis(moments.u64(0..most));
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let proxy = FaultProxy::start(broker.port()).await;
    let mqtt = format!(
        "url = \"mqtt://127.0.0.1:{}\", topics = [{TOPICS:?}], qos = 2, version = {version:?}",
        proxy.port()
    );
    let mut agent = TestAgent::start(each(&mqtt, &collector).toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port()).exactly_once();
    let mut load = PlantLoad::new(10);
    let mut duplicates = 0;
    for _ in 0..8 {
        for _ in 0..2_000 {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        tokio::time::sleep(moment(100)).await;
        proxy.set(ProxyMode::Cut);
        tokio::time::sleep(moment(100)).await;
        proxy.set(ProxyMode::Pass);
        agent.ready().await;
        duplicates += agent.metrics().await.expect("it answers").of("input_duplicate_messages", "plant");
        for _ in 0..500 {
            let (topic, payload) = load.reading();
            publisher.publish(&topic, payload).await;
        }
        tokio::time::sleep(moment(60)).await;
        agent.kill9();
        agent.resume().await;
    }
    publisher.confirmed().await;
    let metrics = check_balance(&agent, "each", "central", load.published(), SOON).await;
    assert_eq!(metrics.of("input_sessions_lost", "plant"), 0);
    duplicates += metrics.of("input_duplicate_messages", "plant");
    assert!(duplicates > 0, "nothing came twice: this test sees nothing, seed {seed}");
    each_once(&collector, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_tls_wants_our_certificate_and_gets_it() {
    let certificates = TlsCertificates::new();
    let port = free_port();
    let broker = MosquittoBroker::start_listening(&certificates.listener(port)).await;
    let collector = TestCollector::start().await;
    let mqtt = |files: &str| {
        format!("url = \"mqtts://127.0.0.1:{port}\", topics = [{TOPICS:?}], qos = 2, tls = {{ {files} }}")
    };
    let stranger = mqtt(&format!("ca = {:?}", certificates.path("ca.pem")));
    let mut agent = TestAgent::prepare(each(&stranger, &collector).toml());
    agent.spawn();
    eventually("the agent to be turned away", SOON, async || {
        agent.log_text().contains("not connected").then_some(())
    })
    .await;
    assert_eq!(agent.metrics().await.expect("it answers").of("input_connected", "plant"), 0);
    assert_eq!(agent.stop().await.code(), Some(0));

    let known = mqtt(&certificates.files());
    let agent = TestAgent::start(each(&known, &collector).toml()).await;
    all_arrive(&agent, &broker, &collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_a_websocket_is_served_and_an_oversized_message_refused() {
    let port = free_port();
    let listener = format!("listener {port} 127.0.0.1\nprotocol websockets\n");
    let broker = MosquittoBroker::start_listening(&listener).await;
    let collector = TestCollector::start().await;
    let mqtt = format!("url = \"ws://127.0.0.1:{port}/mqtt\", topics = [{TOPICS:?}]");
    let agent = TestAgent::start(each(&mqtt, &collector).toml()).await;
    let publisher = TestPublisher::connect("large", broker.port());
    publisher.publish("plant/line-0/dev-0/telemetry", vec![b'x'; 700_000]).await;
    agent.wait_for_metric("input_refused_messages", "plant", 1, SOON).await;
    all_arrive(&agent, &broker, &collector).await;
    let metrics = agent.metrics().await.expect("it answers");
    assert_eq!(metrics.of("input_connections", "plant"), 1, "no reconnect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_a_websocket_in_tls_is_served() {
    let certificates = TlsCertificates::new();
    let port = free_port();
    let listener = certificates.listener(port) + "protocol websockets\n";
    let broker = MosquittoBroker::start_listening(&listener).await;
    let collector = TestCollector::start().await;
    let files = certificates.files();
    let mqtt = format!(
        "url = \"wss://127.0.0.1:{port}/mqtt\", topics = [{TOPICS:?}], version = \"5\", tls = {{ {files} }}"
    );
    let agent = TestAgent::start(each(&mqtt, &collector).toml()).await;
    all_arrive(&agent, &broker, &collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_share_a_subscription_and_each_message_counts_once() {
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    let plan = |client: &str| {
        let shared = format!("$share/edge/{TOPICS}");
        let mqtt = format!(
            "url = \"mqtt://127.0.0.1:{}\", topics = [{shared:?}], client_id = {client:?}",
            broker.port()
        );
        each(&mqtt, &collector)
    };
    let mut one = TestAgent::start(plan("one").toml()).await;
    let two = TestAgent::start(plan("two").toml()).await;
    let mut load = PlantLoad::new(10);
    publish(&broker, &mut load, 1_000).await;
    one.kill9();
    one.resume().await;
    publish(&broker, &mut load, 1_000).await;
    each_once(&collector, &load).await;
    for agent in [&one, &two] {
        wait_until_drained(agent, "central", SOON).await;
        let read = agent.metrics().await.expect("it answers").of("pipeline_read_messages", "each");
        assert!((1..load.published()).contains(&read), "both have a part: {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_count_once_over_restarts_of_the_agent() {
    for version in ["3.1.1", "5"] {
        let broker = MosquittoBroker::start().await;
        let collector = TestCollector::start().await;
        let mut load = PlantLoad::new(10);
        let publisher = TestPublisher::connect("retained", broker.port());
        for _ in 0..10 {
            let (topic, payload) = load.reading();
            publisher.publish_retained(&topic, payload).await;
        }
        publisher.confirmed().await;
        let mqtt = format!(
            "url = \"mqtt://127.0.0.1:{}\", topics = [{TOPICS:?}], version = {version:?}",
            broker.port()
        );
        let mut agent = TestAgent::start(each(&mqtt, &collector).toml()).await;
        agent.wait_for_metric("input_acknowledged_messages", "plant", 10, SOON).await;
        agent.kill9();
        agent.resume().await;
        assert_eq!(agent.stop().await.code(), Some(0));
        agent.resume().await;
        publish(&broker, &mut load, 100).await;
        let metrics = check_balance(&agent, "each", "central", load.published(), SOON).await;
        assert_eq!(metrics.of("input_received_messages", "plant"), 100, "{version}: not even replayed");
        each_once(&collector, &load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_fail_do_not_touch_the_others() {
    let broker = MosquittoBroker::start().await;
    let collector = TestCollector::start().await;
    let frozen = FaultProxy::start(broker.port()).await;
    frozen.set(ProxyMode::Stall(FaultDirection::Both));
    let refusing = MosquittoBroker::start_refusing().await;
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1");
    let failing = [("absent", free_port()), ("frozen", frozen.port()), ("refusing", refusing.port())];
    for (name, port) in failing {
        plan = plan.input(name, port, &["#"], "5");
    }
    plan = plan.broker("unresolved", "url = \"mqtt://no-such-host.invalid\", topics = [\"#\"]");
    let plan = plan.pipeline("each", "plant", "central", &plant::forwarded(KEY)).output(
        "central",
        &collector.url(),
        "",
    );
    let mut agent = TestAgent::prepare(plan.toml());
    agent.spawn();
    agent.wait_for_metric("input_connected", "plant", 1, SOON).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(10);
    let mut slowest = Duration::ZERO;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        let (topic, payload) = load.reading();
        let sent = std::time::Instant::now();
        publisher.publish(&topic, payload).await;
        agent.wait_for_metric("input_acknowledged_messages", "plant", load.published(), SOON).await;
        slowest = slowest.max(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = check_balance(&agent, "each", "central", load.published(), SOON).await;
    each_once(&collector, &load).await;
    let logged = agent.log_text();
    for (name, words) in [
        ("absent", "failed to reach the broker"),
        ("frozen", "no answer from the broker"),
        ("refusing", "the broker refused"),
        ("unresolved", "failed to reach the broker"),
    ] {
        assert_eq!(metrics.of("input_connected", name), 0, "{name}");
        let named = |line: &str| line.contains(name) && line.contains(words);
        assert!(logged.lines().any(named), "{name} is named in the log:\n{logged}");
    }
    assert!(slowest < Duration::from_secs(1), "slowest acknowledgement after {slowest:?}");
    println!("slowest acknowledgement beside four failing inputs: {slowest:?} of {}", load.published());
}

/// Returns one input `plant`, all of which goes to the collector.
fn each(mqtt: &str, collector: &TestCollector) -> ConfigBuilder {
    ConfigBuilder::default()
        .broker("plant", mqtt)
        .pipeline("each", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector.url(), "")
}

async fn publish(broker: &MosquittoBroker, load: &mut PlantLoad, count: u64) {
    let publisher = TestPublisher::connect("plant", broker.port());
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

async fn all_arrive(agent: &TestAgent, broker: &MosquittoBroker, collector: &TestCollector) {
    let mut load = PlantLoad::new(10);
    publish(broker, &mut load, 3_000).await;
    check_balance(agent, "each", "central", load.published(), SOON).await;
    each_once(collector, &load).await;
}

async fn each_once(collector: &TestCollector, load: &PlantLoad) {
    let results = collector.wait_for_results(load.readings().len()).await;
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>(), "each reading once");
}

/// An authority, the certificate of a broker on 127.0.0.1, and that of an agent.
struct TlsCertificates {
    folder: tempfile::TempDir,
}

impl TlsCertificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = || rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        // The authority needs a name of its own, because OpenSSL takes a certificate whose issuer is its
        // subject for self-signed.
        params.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        write("ca.pem", authority.pem());
        for name in ["127.0.0.1", "agent"] {
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]);
            let key = key();
            let certificate = params.expect("a name").signed_by(&key, &authority).expect("a certificate");
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// Returns the lines of a TLS listener for mosquitto.
    fn listener(&self, port: u16) -> String {
        format!(
            "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            self.path("ca.pem").display(),
            self.path("127.0.0.1.pem").display(),
            self.path("127.0.0.1.key").display()
        )
    }

    /// Returns the TLS settings of the agent.
    fn files(&self) -> String {
        let [ca, certificate, key] = ["ca.pem", "agent.pem", "agent.key"].map(|name| self.path(name));
        format!("ca = {ca:?}, certificate = {certificate:?}, key = {key:?}")
    }
}
