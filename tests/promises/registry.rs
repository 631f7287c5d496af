//! Modules from a real OCI registry, over TLS and with a password.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use headwater_bundle::CELSIUS;
use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::destination::FakeDestination;
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::process::{ChildProcess, eventually, free_port, installed_program};
use headwater_tests::proxy::{FaultDirection, FaultProxy, ProxyMode};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::{client, ledger};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const USER: &str = "gateway";
const PASSWORD: &str = "s3cret";
/// User and password as `htpasswd -B` writes them.
const HTPASSWD: &str = "gateway:$2b$04$eVGmizqSVRGcKtSry4DWpeXFfuzQ/XW2njuPdYtfkSe5w8Vf7TwQi\n";
const CONFIG: &[u8] = b"{}";

/// Debian's `docker-registry`, with a folder for the modules that are pushed.
struct OciRegistry {
    process: Option<ChildProcess>,
    port: u16,
    home: tempfile::TempDir,
}

impl OciRegistry {
    async fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a good name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let at = |name: &str| home.path().join(name);
        let config = json!({
            "version": "0.1",
            "storage": { "filesystem": { "rootdirectory": at("storage") } },
            "auth": { "htpasswd": { "realm": "plant", "path": at("htpasswd") } },
            "http": {
                "addr": format!("127.0.0.1:{port}"),
                "secret": "of the tests",
                "tls": { "certificate": at("certificate.pem"), "key": at("key.pem") },
            },
        });
        let config = config.to_string();
        let key = key.serialize_pem();
        let files = [("certificate.pem", certificate.as_str()), ("key.pem", &key), ("registry.yml", &config)];
        for (name, text) in files.into_iter().chain([("htpasswd", HTPASSWD), ("password", PASSWORD)]) {
            fs::write(at(name), text).expect("a writable folder");
        }
        let mut registry = Self { process: None, port, home };
        registry.start_again().await;
        registry
    }

    /// Starts it, with everything that was pushed before.
    async fn start_again(&mut self) {
        let mut command = Command::new(installed_program("docker-registry", "docker-registry"));
        command.arg("serve").arg(self.at("registry.yml"));
        self.process = Some(ChildProcess::spawn(&mut command, &self.at("log")).expect("it starts"));
        eventually("the registry to answer", SOON, async || {
            let answer = self.client().get(self.url("")).send().await.ok()?;
            (answer.status() == 401).then_some(())
        })
        .await;
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").kill9().expect("it can be killed");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/v2/{path}", self.port)
    }

    fn client(&self) -> reqwest::Client {
        // Making a client installs the TLS provider.
        drop(client::client(SOON));
        let pem = fs::read(self.at("certificate.pem")).expect("it was written");
        let ca = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client")
    }

    /// Pushes bytes by their digest, and returns the digest.
    async fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let client = self.client();
        let begin = client.post(self.url(&format!("{repository}/blobs/uploads/")));
        let begun = begin.basic_auth(USER, Some(PASSWORD)).send().await.expect("it answers");
        assert_eq!(begun.status(), 202);
        let place = begun.headers()["location"].to_str().expect("it is text").to_owned();
        let digest = digest(bytes);
        let put = client.put(format!("{place}&digest={digest}")).body(bytes.to_vec());
        let put = put.basic_auth(USER, Some(PASSWORD)).send().await.expect("it answers");
        assert_eq!(put.status(), 201);
        digest
    }

    /// Pushes a module as `wkg oci push` does, and returns the reference that pins it.
    async fn push(&self, repository: &str, wasm: &[u8]) -> String {
        let config = self.blob(repository, CONFIG).await;
        let module = self.blob(repository, wasm).await;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": config, "size": CONFIG.len() },
            "layers": [{ "mediaType": "application/wasm", "digest": module, "size": wasm.len() }],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = digest(&manifest);
        let put = self.client().put(self.url(&format!("{repository}/manifests/1.0"))).body(manifest);
        let put = put.header("content-type", kind).basic_auth(USER, Some(PASSWORD));
        assert_eq!(put.send().await.expect("it answers").status(), 201);
        digest
    }

    /// Changes a byte of the file stored under a digest.
    fn corrupt(&self, digest: &str) {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.at("storage/docker/registry/v2/blobs/sha256");
        let file = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&file).expect("it was pushed");
        *bytes.last_mut().expect("it is not empty") ^= 1;
        fs::write(&file, bytes).expect("a writable folder");
    }

    fn module(&self, port: u16, repository: &str, pin: &str) -> String {
        let _ = self;
        format!(
            "module = \"oci://127.0.0.1:{port}/{repository}:1.0@{pin}\", \
             settings = {{ field = \"temperature\", from = \"fahrenheit\" }}"
        )
    }

    /// Returns `[modules.fetch]` for a port that leads to this registry.
    fn fetch_settings(&self, port: u16, more: &str) -> String {
        format!(
            "[modules.fetch]\nca = {:?}\ncredentials = [{{ host = \"127.0.0.1:{port}\", username = {USER:?}, \
             password = {{ file = {:?} }} }}]\n{more}\n\n",
            self.at("certificate.pem"),
            self.at("password")
        )
    }
}

fn digest(bytes: &[u8]) -> String {
    headwater_agent::module::ModuleDigest::of(bytes).to_string()
}

/// Returns the same module as other bytes, with a section that nobody reads.
fn padded_module(padding: usize) -> Vec<u8> {
    let mut content = b"\x04none".to_vec();
    content.resize(content.len() + padding, 0);
    let mut section = CELSIUS.to_vec();
    let mut size = content.len();
    section.push(0);
    while size > 127 {
        section.push(u8::try_from(size & 127).expect("seven bits") | 128);
        size >>= 7;
    }
    section.push(u8::try_from(size).expect("seven bits"));
    section.extend(content);
    section
}

/// A plant, a pipeline with a module from the registry, and one without.
struct RegistryPlant {
    agent: TestAgent,
    destination: FakeDestination,
    broker: RumqttdBroker,
    fetch: String,
    published: u64,
}

impl RegistryPlant {
    async fn new(fetch: String, module: &str) -> Self {
        let broker = RumqttdBroker::start().await;
        let destination = FakeDestination::start([]).await;
        let plant = Self { agent: TestAgent::prepare(""), destination, broker, fetch, published: 0 };
        plant.configure(module);
        plant
    }

    fn configure(&self, module: &str) {
        let plan = ConfigBuilder::default()
            .input("plant", self.broker.port(), &["plant"], "3.1.1")
            .output("central", &self.destination.url(), "")
            .pipeline(
                "fetched",
                "plant",
                "central",
                &format!("commit_every = \"100ms\"\ntransform = [{{ {module} }}]"),
            )
            .pipeline("neighbour", "plant", "central", "commit_every = \"100ms\"");
        self.agent.configure(&(self.fetch.clone() + plan.toml()));
    }

    async fn publish(&mut self, count: u64) {
        let publisher = TestPublisher::connect("plant", self.broker.port());
        for id in self.published..self.published + count {
            publisher
                .publish("plant", json!({ "id": id, "temperature": 212.0, "bad": id % 10 == 7 }).to_string())
                .await;
        }
        publisher.confirmed().await;
        self.published += count;
    }

    /// Waits until all readings so far came through the pipeline, each once.
    async fn wait_until_passed(&self, pipeline: &str) {
        let expected: Vec<_> = (0..self.published).collect();
        let what = format!("all readings to come through {pipeline}");
        eventually(&what, SOON, async || {
            (plant::ids(&self.destination.accepted_lines(), pipeline) == expected).then_some(())
        })
        .await;
    }

    async fn modules(&self) -> Value {
        self.agent.status().await.expect("it answers")["modules"]["fetched"].take()
    }

    async fn fetches(&self, what: &str) -> u64 {
        self.agent.metrics().await.expect("it answers").of(&format!("fetch_{what}"), "modules")
    }

    /// Offers a module by a reload and returns the reason for which it is refused.
    async fn refusal_of(&self, module: &str) -> String {
        self.configure(module);
        let (status, text) = self.agent.post("/v1/reload").await.expect("it answers");
        assert!(status == 200 && text.contains("refused"), "{status} {text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_module_is_fetched_and_runs_and_starts_without_its_registry() {
    let mut registry = OciRegistry::start().await;
    let pin = registry.push("plant/celsius", CELSIUS).await;
    let module = registry.module(registry.port, "plant/celsius", &pin);
    let mut plant = RegistryPlant::new(registry.fetch_settings(registry.port, ""), &module).await;
    let checked = plant.agent.run_command(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!plant.agent.state().join("fetched").exists(), "who checks leaves nothing behind");
    plant.agent.resume().await;
    plant.publish(100).await;
    plant.wait_until_passed("fetched").await;
    let line = plant.destination.accepted_lines().into_iter().find(|line| line["pipeline"] == "fetched");
    let line = line.expect("they came");
    assert_eq!(line["module"], digest(CELSIUS));
    assert!((line["value"]["temperature"].as_f64().expect("a number") - 100.0).abs() < 1e-9, "{line}");
    assert_eq!((plant.fetches("files").await, plant.fetches("failures").await), (2, 0));
    assert!(plant.fetches("kept_bytes").await > CELSIUS.len() as u64);

    registry.stop();
    for kill in [false, true] {
        if kill {
            plant.agent.kill9();
        } else {
            assert!(plant.agent.stop().await.success());
        }
        let started = Instant::now();
        plant.agent.resume().await;
        println!("ready {:?} after a start without the registry", started.elapsed());
        plant.publish(50).await;
        plant.wait_until_passed("fetched").await;
        assert_eq!(plant.fetches("files").await, 0);
    }
    ledger::check_ledger(&plant.agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_waits_for_its_module_while_the_others_run_and_loses_nothing() {
    let mut registry = OciRegistry::start().await;
    let pin = registry.push("plant/celsius", CELSIUS).await;
    registry.stop();
    let module = registry.module(registry.port, "plant/celsius", &pin);
    let mut plant =
        RegistryPlant::new(registry.fetch_settings(registry.port, "deadline = \"10s\""), &module).await;
    let started = Instant::now();
    plant.agent.resume().await;
    println!("ready {:?} after a start without the module", started.elapsed());
    plant.publish(100).await;
    plant.wait_until_passed("neighbour").await;
    let waits = async |plant: &RegistryPlant| {
        eventually("the pipeline to say what it waits for", SOON, async || {
            let paused = plant.modules().await["paused"].take();
            paused["reason"].as_str().filter(|it| it.contains("failed to fetch")).map(str::to_owned)
        })
        .await
    };
    let reason = waits(&plant).await;
    assert!(reason.contains("transform[0] of pipeline `fetched`") && reason.contains(&pin), "{reason}");
    assert_eq!(plant.agent.metrics().await.expect("it answers").of("pipeline_paused", "fetched"), 1);
    let (live, text) = plant.agent.get("/live").await.expect("it answers");
    assert_eq!(live, 200, "it is degraded, not stuck: {text}");
    // A stop or a kill meanwhile forgets nothing.
    assert!(plant.agent.stop().await.success());
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.agent.kill9();
    plant.agent.resume().await;
    plant.publish(50).await;
    waits(&plant).await;
    registry.start_again().await;
    plant.agent.post("/v1/pipelines/fetched/resume").await.expect("it answers");
    plant.wait_until_passed("fetched").await;
    plant.wait_until_passed("neighbour").await;
    assert_eq!(plant.modules().await["running"][0], digest(CELSIUS));
    ledger::wait_until_drained(&plant.agent, "central", SOON).await;
    ledger::check_ledger(&plant.agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_outlive_the_wait_for_their_module() {
    let mut registry = OciRegistry::start().await;
    let pin = registry.push("plant/stats", headwater_bundle::STATS).await;
    let broker = RumqttdBroker::start().await;
    let destination = FakeDestination::start([]).await;
    let fetch = registry.fetch_settings(registry.port, "deadline = \"10s\"");
    let counted = |module: &str| {
        let body = plant::windowed("k", "1h", "0s", "0s").replace("module = \"modules/stats.wasm\"", module);
        let plan = ConfigBuilder::default()
            .input("plant", broker.port(), &["plant"], "3.1.1")
            .output("central", &destination.url(), "")
            .pipeline("counted", "plant", "central", &body);
        fetch.clone() + plan.toml()
    };
    let module = format!("module = \"oci://127.0.0.1:{}/plant/stats@{pin}\"", registry.port);
    let mut agent = TestAgent::prepare(&counted(&module));
    agent.resume().await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut count = 0;
    let publish = async |readings: u64, count: &mut u64| {
        for id in *count..*count + readings {
            publisher.publish("plant", plant::payload(id, 1_767_225_600_000 + id, 1.0)).await;
        }
        *count += readings;
        publisher.confirmed().await;
    };
    publish(100, &mut count).await;
    agent.wait_for_metric("pipeline_used_events", "counted", 100, SOON).await;
    let forget = async |agent: &mut TestAgent, kill: bool| {
        if kill {
            agent.kill9();
        } else {
            assert!(agent.stop().await.success());
        }
        fs::remove_dir_all(agent.state().join("fetched")).expect("it is there");
        agent.resume().await;
        agent.wait_for_metric("pipeline_paused", "counted", 1, SOON).await;
    };

    registry.stop();
    forget(&mut agent, false).await;
    publish(50, &mut count).await;
    assert!(agent.stop().await.success(), "what waits is stopped like all others");
    agent.resume().await;
    registry.start_again().await;
    agent.post("/v1/pipelines/counted/resume").await.expect("it answers");
    agent.wait_for_metric("pipeline_used_events", "counted", 150, SOON).await;

    // Another remedy is a reload with a module that is here.
    registry.stop();
    forget(&mut agent, true).await;
    publish(50, &mut count).await;
    agent.configure(&counted("module = \"modules/stats.wasm\""));
    agent.reload();
    agent.wait_for_metric("pipeline_used_events", "counted", 200, SOON).await;
    publisher.publish("plant", plant::payload(count, 1_767_225_600_000 + 7_200_000, 1.0)).await;
    let line = eventually("the window's result", SOON, async || {
        destination.accepted_lines().into_iter().find(|line| line["pipeline"] == "counted")
    })
    .await;
    assert_eq!(line["count"], 200, "{line}");
    ledger::check_ledger(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_large_or_slow_is_refused_in_time_and_what_runs_goes_on() {
    let mut registry = OciRegistry::start().await;
    let proxy = FaultProxy::start(registry.port).await;
    let celsius = registry.push("plant/celsius", CELSIUS).await;
    let port = proxy.port();
    let good = padded_module(1);
    let spoilt = padded_module(2);
    let large = padded_module(300 << 10);
    let bounds = "deadline = \"4s\"\nbytes_max = \"256 KiB\"";
    assert!(CELSIUS.len() < 256 << 10, "{}", CELSIUS.len());
    let fetch = registry.fetch_settings(port, bounds);
    let mut plant = RegistryPlant::new(fetch, &registry.module(port, "plant/celsius", &celsius)).await;
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.wait_until_passed("fetched").await;
    let module = async |bytes: &[u8]| {
        let pin = registry.push("plant/celsius", bytes).await;
        registry.module(port, "plant/celsius", &pin)
    };

    let unknown = registry.module(port, "plant/celsius", &digest(b"unknown"));
    let text = plant.refusal_of(&unknown).await;
    assert!(text.contains("404 Not Found"), "{text}");
    let module_of_spoilt = module(&spoilt).await;
    registry.corrupt(&digest(&spoilt));
    let text = plant.refusal_of(&module_of_spoilt).await;
    assert!(text.contains(&format!("something else: expected {}", digest(&spoilt))), "{text}");
    let text = plant.refusal_of(&module(&large).await).await;
    assert!(text.contains("longer than 262144 bytes, `bytes_max` in [modules.fetch]"), "{text}");

    let module_of_good = module(&good).await;
    proxy.set(ProxyMode::Rate(FaultDirection::Down, 2 << 10));
    let started = Instant::now();
    let text = plant.refusal_of(&module_of_good).await;
    println!("a slow registry is given up after {:?}", started.elapsed());
    assert!(text.contains("it took longer than 4s"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    proxy.set(ProxyMode::Pass);

    fs::write(registry.at("password"), "another").expect("a writable folder");
    let text = plant.refusal_of(&module_of_good).await;
    assert!(text.contains("they are refused: correct them") && !text.contains("another\""), "{text}");
    fs::write(registry.at("password"), PASSWORD).expect("a writable folder");

    plant.publish(50).await;
    plant.wait_until_passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(CELSIUS), "what ran goes on");

    // A good module takes over; one that trips is rolled back, and stays so without the registry.
    plant.configure(&module_of_good);
    plant.agent.reload();
    plant.agent.wait_for_metric("pipeline_swaps", "fetched", 1, SOON).await;
    plant.publish(50).await;
    plant.wait_until_passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(&good));
    let pin = registry.push("plant/hostile", headwater_bundle::HOSTILE).await;
    let hostile =
        format!("module = \"oci://127.0.0.1:{port}/plant/hostile@{pin}\", settings = {{ do = \"panic\" }}");
    plant.configure(&hostile);
    plant.agent.reload();
    plant.agent.wait_for_metric("pipeline_swaps", "fetched", 2, SOON).await;
    plant.publish(50).await;
    plant.agent.wait_for_metric("pipeline_rollbacks", "fetched", 1, SOON).await;
    plant.wait_until_passed("fetched").await;
    registry.stop();
    assert!(plant.agent.stop().await.success());
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.wait_until_passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(&good));
}
