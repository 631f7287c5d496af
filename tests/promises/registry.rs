//! Modules out of a real OCI registry, over TLS and behind a password.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use headwater_bundle::CELSIUS;
use headwater_tests::agent::Agent;
use headwater_tests::backend::Backend;
use headwater_tests::broker::Broker;
use headwater_tests::plant::{self, Plan};
use headwater_tests::process::{Process, eventually, free_port, installed};
use headwater_tests::proxy::{Mode, Proxy, Way};
use headwater_tests::publisher::Publisher;
use headwater_tests::{client, ledger};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const USER: &str = "gateway";
const PASSWORD: &str = "s3cret";
/// Of user and password, as `htpasswd -B` writes it.
const HTPASSWD: &str = "gateway:$2b$04$eVGmizqSVRGcKtSry4DWpeXFfuzQ/XW2njuPdYtfkSe5w8Vf7TwQi\n";
const CONFIG: &[u8] = b"{}";

/// Debian's `docker-registry`, with a folder for what is pushed.
struct Registry {
    process: Option<Process>,
    port: u16,
    home: tempfile::TempDir,
}

impl Registry {
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
        let (config, key) = (config.to_string(), key.serialize_pem());
        let files = [("certificate.pem", certificate.as_str()), ("key.pem", &key), ("registry.yml", &config)];
        for (name, text) in files.into_iter().chain([("htpasswd", HTPASSWD), ("password", PASSWORD)]) {
            fs::write(at(name), text).expect("a writable folder");
        }
        let mut registry = Self { process: None, port, home };
        registry.back().await;
        registry
    }

    /// Starts it, with all that was pushed before.
    async fn back(&mut self) {
        let mut command = Command::new(installed("docker-registry", "docker-registry"));
        command.arg("serve").arg(self.at("registry.yml"));
        self.process = Some(Process::spawn(&mut command, &self.at("log")).expect("it starts"));
        eventually("the registry to answer", SOON, async || {
            let answer = self.client().get(self.url("")).send().await.ok()?;
            (answer.status() == 401).then_some(())
        })
        .await;
    }

    fn gone(&mut self) {
        self.process.take().expect("it runs").kill9().expect("it can be killed");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/v2/{path}", self.port)
    }

    fn client(&self) -> reqwest::Client {
        // Has the provider installed.
        drop(client::client(SOON));
        let pem = fs::read(self.at("certificate.pem")).expect("it was written");
        let ca = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client")
    }

    /// Pushes bytes by their digest, which is given.
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

    /// Pushes a module as `wkg oci push` does; what pins it is given.
    async fn push(&self, repository: &str, wasm: &[u8]) -> String {
        let (config, module) = (self.blob(repository, CONFIG).await, self.blob(repository, wasm).await);
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

    /// Changes a byte of what is kept under a digest.
    fn spoil(&self, digest: &str) {
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

    /// `[modules.fetch]`, for a port that leads here.
    fn fetch(&self, port: u16, more: &str) -> String {
        format!(
            "[modules.fetch]\nca = {:?}\ncredentials = [{{ host = \"127.0.0.1:{port}\", username = {USER:?}, \
             password = {{ file = {:?} }} }}]\n{more}\n\n",
            self.at("certificate.pem"),
            self.at("password")
        )
    }
}

fn digest(bytes: &[u8]) -> String {
    headwater::module::Digest::of(bytes).to_string()
}

/// The same module as other bytes: with a section that nobody reads.
fn another(padding: usize) -> Vec<u8> {
    let mut content = b"\x04none".to_vec();
    content.resize(content.len() + padding, 0);
    let (mut section, mut size) = (CELSIUS.to_vec(), content.len());
    section.push(0);
    while size > 127 {
        section.push(u8::try_from(size & 127).expect("seven bits") | 128);
        size >>= 7;
    }
    section.push(u8::try_from(size).expect("seven bits"));
    section.extend(content);
    section
}

/// A plant, a pipeline with a module from elsewhere, and one without.
struct Plant {
    agent: Agent,
    backend: Backend,
    broker: Broker,
    fetch: String,
    published: u64,
}

impl Plant {
    async fn new(fetch: String, module: &str) -> Self {
        let (broker, backend) = (Broker::start().await, Backend::start([]).await);
        let plant = Self { agent: Agent::at_home(""), backend, broker, fetch, published: 0 };
        plant.configure(module);
        plant
    }

    fn configure(&self, module: &str) {
        let plan = Plan::default()
            .input("plant", self.broker.port(), &["plant"], "3.1.1")
            .output("central", &self.backend.url(), "")
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
        let publisher = Publisher::connect("plant", self.broker.port());
        for id in self.published..self.published + count {
            publisher
                .publish("plant", json!({ "id": id, "temperature": 212.0, "bad": id % 10 == 7 }).to_string())
                .await;
        }
        publisher.confirmed().await;
        self.published += count;
    }

    /// All readings so far came through the pipeline, each once.
    async fn passed(&self, pipeline: &str) {
        let expected: Vec<_> = (0..self.published).collect();
        let what = format!("all readings to come through {pipeline}");
        eventually(&what, SOON, async || {
            (plant::ids(&self.backend.accepted(), pipeline) == expected).then_some(())
        })
        .await;
    }

    async fn modules(&self) -> Value {
        self.agent.status().await.expect("it answers")["modules"]["fetched"].take()
    }

    async fn fetches(&self, what: &str) -> u64 {
        self.agent.metrics().await.expect("it answers").of(&format!("fetch_{what}"), "modules")
    }

    /// What is wrong with a module that a reload offers.
    async fn refused(&self, module: &str) -> String {
        self.configure(module);
        let (status, said) = self.agent.post("/v1/reload").await.expect("it answers");
        assert!(status == 200 && said.contains("refused"), "{status} {said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_module_is_fetched_and_runs_and_starts_without_its_registry() {
    let mut registry = Registry::start().await;
    let pin = registry.push("plant/celsius", CELSIUS).await;
    let module = registry.module(registry.port, "plant/celsius", &pin);
    let mut plant = Plant::new(registry.fetch(registry.port, ""), &module).await;
    let checked = plant.agent.run(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!plant.agent.state().join("fetched").exists(), "who checks leaves nothing behind");
    plant.agent.resume().await;
    plant.publish(100).await;
    plant.passed("fetched").await;
    let line = plant.backend.accepted().into_iter().find(|line| line["pipeline"] == "fetched");
    let line = line.expect("they came");
    assert_eq!(line["module"], digest(CELSIUS));
    assert!((line["value"]["temperature"].as_f64().expect("a number") - 100.0).abs() < 1e-9, "{line}");
    assert_eq!((plant.fetches("files").await, plant.fetches("failures").await), (2, 0));
    assert!(plant.fetches("kept_bytes").await > CELSIUS.len() as u64);

    registry.gone();
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
        plant.passed("fetched").await;
        assert_eq!(plant.fetches("files").await, 0);
    }
    ledger::holds(&plant.agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_waits_for_its_module_while_the_others_run_and_loses_nothing() {
    let mut registry = Registry::start().await;
    let pin = registry.push("plant/celsius", CELSIUS).await;
    registry.gone();
    let module = registry.module(registry.port, "plant/celsius", &pin);
    let mut plant = Plant::new(registry.fetch(registry.port, "deadline = \"10s\""), &module).await;
    let started = Instant::now();
    plant.agent.resume().await;
    println!("ready {:?} after a start without the module", started.elapsed());
    plant.publish(100).await;
    plant.passed("neighbour").await;
    let waits = async |plant: &Plant| {
        eventually("the pipeline to say what it waits for", SOON, async || {
            let paused = plant.modules().await["paused"].take();
            paused["reason"].as_str().filter(|it| it.contains("failed to fetch")).map(str::to_owned)
        })
        .await
    };
    let reason = waits(&plant).await;
    assert!(reason.contains("transform[0] of pipeline `fetched`") && reason.contains(&pin), "{reason}");
    assert_eq!(plant.agent.metrics().await.expect("it answers").of("pipeline_paused", "fetched"), 1);
    let (live, said) = plant.agent.get("/live").await.expect("it answers");
    assert_eq!(live, 200, "it is degraded, not stuck: {said}");
    // Who is stopped or killed meanwhile forgets nothing.
    assert!(plant.agent.stop().await.success());
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.agent.kill9();
    plant.agent.resume().await;
    plant.publish(50).await;
    waits(&plant).await;
    registry.back().await;
    plant.agent.post("/v1/pipelines/fetched/resume").await.expect("it answers");
    plant.passed("fetched").await;
    plant.passed("neighbour").await;
    assert_eq!(plant.modules().await["running"][0], digest(CELSIUS));
    ledger::drained(&plant.agent, "central", SOON).await;
    ledger::holds(&plant.agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_outlive_the_wait_for_their_module() {
    let mut registry = Registry::start().await;
    let pin = registry.push("plant/stats", headwater_bundle::STATS).await;
    let (broker, backend) = (Broker::start().await, Backend::start([]).await);
    let fetch = registry.fetch(registry.port, "deadline = \"10s\"");
    let counted = |module: &str| {
        let body = plant::windowed("k", "1h", "0s", "0s").replace("module = \"modules/stats.wasm\"", module);
        let plan = Plan::default()
            .input("plant", broker.port(), &["plant"], "3.1.1")
            .output("central", &backend.url(), "")
            .pipeline("counted", "plant", "central", &body);
        fetch.clone() + plan.toml()
    };
    let module = format!("module = \"oci://127.0.0.1:{}/plant/stats@{pin}\"", registry.port);
    let mut agent = Agent::at_home(&counted(&module));
    agent.resume().await;
    let publisher = Publisher::connect("plant", broker.port());
    let mut count = 0;
    let publish = async |readings: u64, count: &mut u64| {
        for id in *count..*count + readings {
            publisher.publish("plant", plant::payload(id, 1_767_225_600_000 + id, 1.0)).await;
        }
        *count += readings;
        publisher.confirmed().await;
    };
    publish(100, &mut count).await;
    agent.reaches("pipeline_used_events", "counted", 100, SOON).await;
    let forget = async |agent: &mut Agent, kill: bool| {
        if kill {
            agent.kill9();
        } else {
            assert!(agent.stop().await.success());
        }
        fs::remove_dir_all(agent.state().join("fetched")).expect("it is there");
        agent.resume().await;
        agent.reaches("pipeline_paused", "counted", 1, SOON).await;
    };

    registry.gone();
    forget(&mut agent, false).await;
    publish(50, &mut count).await;
    assert!(agent.stop().await.success(), "what waits is stopped like all others");
    agent.resume().await;
    registry.back().await;
    agent.post("/v1/pipelines/counted/resume").await.expect("it answers");
    agent.reaches("pipeline_used_events", "counted", 150, SOON).await;

    // Another way out: a reload with a module that is here.
    registry.gone();
    forget(&mut agent, true).await;
    publish(50, &mut count).await;
    agent.configure(&counted("module = \"modules/stats.wasm\""));
    agent.reload();
    agent.reaches("pipeline_used_events", "counted", 200, SOON).await;
    publisher.publish("plant", plant::payload(count, 1_767_225_600_000 + 7_200_000, 1.0)).await;
    let line = eventually("the window's result", SOON, async || {
        backend.accepted().into_iter().find(|line| line["pipeline"] == "counted")
    })
    .await;
    assert_eq!(line["count"], 200, "{line}");
    ledger::holds(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_large_or_slow_is_refused_in_time_and_what_runs_goes_on() {
    let mut registry = Registry::start().await;
    let proxy = Proxy::start(registry.port).await;
    let (celsius, port) = (registry.push("plant/celsius", CELSIUS).await, proxy.port());
    let (good, spoilt, large) = (another(1), another(2), another(300 << 10));
    let bounds = "deadline = \"4s\"\nbytes_max = \"256 KiB\"";
    assert!(CELSIUS.len() < 256 << 10, "{}", CELSIUS.len());
    let fetch = registry.fetch(port, bounds);
    let mut plant = Plant::new(fetch, &registry.module(port, "plant/celsius", &celsius)).await;
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.passed("fetched").await;
    let module = async |bytes: &[u8]| {
        let pin = registry.push("plant/celsius", bytes).await;
        registry.module(port, "plant/celsius", &pin)
    };

    let unknown = registry.module(port, "plant/celsius", &digest(b"unknown"));
    let said = plant.refused(&unknown).await;
    assert!(said.contains("404 Not Found"), "{said}");
    let module_of_spoilt = module(&spoilt).await;
    registry.spoil(&digest(&spoilt));
    let said = plant.refused(&module_of_spoilt).await;
    assert!(said.contains(&format!("something else: expected {}", digest(&spoilt))), "{said}");
    let said = plant.refused(&module(&large).await).await;
    assert!(said.contains("longer than 262144 bytes, `bytes_max` in [modules.fetch]"), "{said}");

    let module_of_good = module(&good).await;
    proxy.set(Mode::Rate(Way::Down, 2 << 10));
    let started = Instant::now();
    let said = plant.refused(&module_of_good).await;
    println!("a slow registry is given up after {:?}", started.elapsed());
    assert!(said.contains("it took longer than 4s"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    proxy.set(Mode::Pass);

    fs::write(registry.at("password"), "another").expect("a writable folder");
    let said = plant.refused(&module_of_good).await;
    assert!(said.contains("they are refused: correct them") && !said.contains("another\""), "{said}");
    fs::write(registry.at("password"), PASSWORD).expect("a writable folder");

    plant.publish(50).await;
    plant.passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(CELSIUS), "what ran goes on");

    // A good one takes over; one that trips is taken back, and stays so without the registry.
    plant.configure(&module_of_good);
    plant.agent.reload();
    plant.agent.reaches("pipeline_swaps", "fetched", 1, SOON).await;
    plant.publish(50).await;
    plant.passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(&good));
    let pin = registry.push("plant/hostile", headwater_bundle::HOSTILE).await;
    let hostile =
        format!("module = \"oci://127.0.0.1:{port}/plant/hostile@{pin}\", settings = {{ do = \"panic\" }}");
    plant.configure(&hostile);
    plant.agent.reload();
    plant.agent.reaches("pipeline_swaps", "fetched", 2, SOON).await;
    plant.publish(50).await;
    plant.agent.reaches("pipeline_rollbacks", "fetched", 1, SOON).await;
    plant.passed("fetched").await;
    registry.gone();
    assert!(plant.agent.stop().await.success());
    plant.agent.resume().await;
    plant.publish(50).await;
    plant.passed("fetched").await;
    assert_eq!(plant.modules().await["running"][0], digest(&good));
}
