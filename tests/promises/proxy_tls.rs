//! mTLS: a real nginx that asks for a certificate stands before the real collector.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::{ChildProcess, eventually, free_port, installed_program};
use headwater_tests::publisher::TestPublisher;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::upstream::publish;

const SOON: Duration = Duration::from_secs(60);

/// A certificate authority.
struct CertificateAuthority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("a certificate can be made");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a certificate can be made");
        let pem = params.self_signed(&key).expect("a certificate can be made").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes `NAME.pem` and `NAME.key`; each file is complete before it has its name.
    fn identity(&self, folder: &Path, name: &str, last_year: i32) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a certificate can be made");
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a certificate can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made").pem();
        for (end, text) in [("pem", certificate), ("key", key.serialize_pem())] {
            std::fs::write(folder.join("made"), text).expect("a writable folder");
            std::fs::rename(folder.join("made"), folder.join(format!("{name}.{end}")))
                .expect("a writable folder");
        }
    }
}

/// Starts nginx with the certificate `server.pem` of the folder. It lets in the clients that `ca.pem` vouches
/// for.
async fn nginx(folder: &Path, collector: u16) -> (ChildProcess, u16) {
    let port = free_port();
    let at = folder.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx-error.log;\n\
         events {{}}\nhttp {{\n access_log {at}/access.log;\n client_body_temp_path {at}/body;\n\
         proxy_temp_path {at}/proxy;\n fastcgi_temp_path {at}/f;\n uwsgi_temp_path {at}/u;\n scgi_temp_path {at}/s;\n\
         server {{\n listen 127.0.0.1:{port} ssl;\n ssl_certificate {at}/server.pem;\n\
         ssl_certificate_key {at}/server.key;\n ssl_client_certificate {at}/ca.pem;\n ssl_verify_client on;\n\
         location / {{ proxy_pass http://127.0.0.1:{collector}; }}\n}}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("a writable folder");
    let mut command = Command::new(installed_program("nginx", "nginx"));
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    let process = ChildProcess::spawn(&mut command, &folder.join("nginx.log")).expect("nginx starts");
    eventually("nginx to listen", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    (process, port)
}

/// Checks that everything to be sent stays in the outbox, and no part of it counts as refused.
async fn check_nothing_sent(agent: &TestAgent, why: &str) {
    let metrics = agent.metrics().await.expect("the agent answers");
    let failed = metrics.of("output_failed_attempts", "central") + 3;
    agent.wait_for_metric("output_failed_attempts", "central", failed, SOON).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    assert_eq!(metrics.of("output_delivered_results", "central"), 0, "{why}");
    assert_eq!(metrics.of("output_rejected_results", "central"), 0, "{why}");
    assert_eq!(metrics.of("output_pending_results", "central"), 300, "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_certificate_passes_and_nothing_is_lost_until_it_does() {
    let ours = CertificateAuthority::new("ours");
    let other = CertificateAuthority::new("other");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("ca.pem"), &ours.pem).unwrap();
    ours.identity(folder, "server", 4000);
    let collector = TestCollector::start().await;
    let broker = RumqttdBroker::start().await;
    let (_nginx, port) = nginx(folder, collector.port()).await;
    let plan = |tls: &str| {
        let more = format!(", timeout = \"2s\", backoff_max = \"300ms\", tls = {{ {tls} }}");
        let plan = ConfigBuilder::default()
            .input("plant", broker.port(), &[TOPICS], "3.1.1")
            .pipeline("each", "plant", "central", &plant::forwarded(KEY))
            .output("central", &format!("https://127.0.0.1:{port}/v1/batches"), &more);
        plan.toml().to_owned()
    };
    let file = |name: &str| folder.join(name).display().to_string();
    let trusts = format!("ca = {:?}", file("ca.pem"));
    let shows = format!("{trusts}, certificate = {:?}, key = {:?}", file("us.pem"), file("us.key"));

    let mut agent = TestAgent::start(&plan(&trusts)).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);
    publish(&publisher, &mut load, 300).await;
    agent.wait_for_metric("pipeline_results", "each", load.published(), SOON).await;
    check_nothing_sent(&agent, "no certificate").await;
    assert!(agent.log_text().contains("No required SSL certificate"), "the log says what is missing");

    agent.stop().await;
    other.identity(folder, "us", 4000);
    agent.configure(&plan(&shows));
    agent.resume().await;
    check_nothing_sent(&agent, "a certificate of another authority").await;
    ours.identity(folder, "us", 2001);
    check_nothing_sent(&agent, "an expired certificate").await;

    ours.identity(folder, "us", 4000);
    check_balance(&agent, "each", "central", load.published(), SOON).await;
    let results = collector.results().await;
    assert_eq!(plant::ids(&results, "each"), (0..load.published()).collect::<Vec<_>>());
    assert!(agent.dead_letters().await.is_empty());
}
