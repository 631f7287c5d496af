//! TLS with a destination, and with one that cannot or must not be trusted. It is never plain text
//! instead, nothing is lost, and what was wrong can be mended while the output runs.

use super::*;
use crate::tls;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use std::path::Path;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, name: &str, last_year: i32) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    fn good(&self) -> Identity {
        self.identity("127.0.0.1", 4000)
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Who the server is, and whom it lets in: everybody, or only those that the authority vouches for.
fn server(who: &Identity, lets_in: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match lets_in {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_slice(who.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(who.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// A destination over TLS that can become another one while it runs.
struct Secure {
    url: Url,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// The keys of the requests that got through.
    keys: Vec<String>,
    /// Connections that began otherwise than a TLS handshake does.
    plain: u32,
    connections: u32,
}

impl Secure {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/v1/batches", listener.local_addr().unwrap()).parse().unwrap();
        let (config, seen) = (Arc::new(Mutex::new(config)), Arc::<Mutex<Seen>>::default());
        let (configs, sights) = (Arc::clone(&config), Arc::clone(&seen));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let config = configs.lock().unwrap().clone();
                connections.spawn(serve(stream, config, Arc::clone(&sights)));
            }
        });
        Self { url, config, seen, _task: task }
    }

    fn become_another(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap() = config;
    }

    fn keys(&self) -> Vec<String> {
        self.seen.lock().unwrap().keys.clone()
    }
}

async fn serve(stream: tokio::net::TcpStream, config: Arc<ServerConfig>, seen: Arc<Mutex<Seen>>) {
    let mut first = [0];
    let length = stream.peek(&mut first).await.unwrap_or(0);
    {
        let mut seen = seen.lock().unwrap();
        seen.connections += 1;
        // A handshake record begins so (RFC 8446, 5.1).
        seen.plain += u32::from(length == 1 && first[0] != 22);
    }
    let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    while let Some(request) = backend::read_request(&mut stream).await {
        let head = String::from_utf8_lossy(&request).into_owned();
        let key = head.split_once("idempotency-key: \"").unwrap().1.split_once('"').unwrap().0.to_owned();
        seen.lock().unwrap().keys.push(key.clone());
        let body = receipt(&key);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The files that a configuration names.
struct Files(tempfile::TempDir);

impl Files {
    fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca.pem", &authority.pem);
        files
    }

    fn write(&self, name: &str, text: &str) {
        // As tools that rotate certificates do: complete, and then under its name.
        let made = self.0.path().join("made");
        std::fs::write(&made, text).unwrap();
        std::fs::rename(made, self.path(name)).unwrap();
    }

    fn show(&self, identity: &Identity) {
        self.write("us.pem", &identity.certificate);
        self.write("us.key", &identity.key);
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.0.path()).join(name)
    }

    fn config(&self, url: &Url, shows: bool) -> Config {
        let mut config = quick(url.clone());
        let ours = |name| shows.then(|| self.path(name));
        let (certificate, key) = (ours("us.pem"), ours("us.key"));
        config.tls = Some(tls::Config { ca: Some(self.path("ca.pem")), certificate, key });
        config
    }
}

/// Each of these is refused, with the words in the log's fault; what was to be sent then arrives
/// once it is the right one.
#[tokio::test]
async fn a_destination_that_cannot_prove_itself_gets_nothing() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let wrong = [
        ("its name", ours.identity("127.0.0.2", 4000)),
        ("its time", ours.identity("127.0.0.1", 2001)),
        ("its authority", other.good()),
    ];
    let files = Files::new(&ours);
    for (what, identity) in wrong {
        let destination = Secure::start(server(&identity, None)).await;
        let outbox = Memory::new(lines(0..5));
        let running = Running::start(files.config(&destination.url, false), &outbox);
        eventually(what, || running.metrics.failed_attempts.get() >= 3).await;
        assert_eq!((destination.keys(), outbox.confirmed()), (Vec::new(), 0), "wrong in {what}");
        destination.become_another(server(&ours.good(), None));
        running.until_done(5).await;
        assert_eq!(destination.keys(), [key(0, 4)]);
        assert_eq!(destination.seen.lock().unwrap().plain, 0, "never plain text instead");
        assert_eq!(outbox.dead(), []);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_of_ours_that_is_refused_is_taken_from_its_file_once_it_is_the_right_one() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new(&ours);
    let wrong = [("its authority", other.good()), ("its time", ours.identity("us", 2001))];
    for (what, identity) in wrong {
        files.show(&identity);
        let destination = Secure::start(server(&ours.good(), Some(&ours))).await;
        let outbox = Memory::new(lines(0..5));
        let running = Running::start(files.config(&destination.url, true), &outbox);
        eventually(what, || running.metrics.failed_attempts.get() >= 3).await;
        assert_eq!((destination.keys(), outbox.confirmed()), (Vec::new(), 0), "wrong in {what}");
        files.show(&ours.good());
        running.until_done(5).await;
        assert_eq!(destination.keys(), [key(0, 4)]);
        assert_eq!((destination.seen.lock().unwrap().plain, outbox.dead()), (0, Vec::new()));
        running.stop().await;
    }
    let destination = Secure::start(server(&ours.good(), Some(&ours))).await;
    let running = Running::start(files.config(&destination.url, false), &Memory::new(lines(0..5)));
    eventually("none shown", || running.metrics.failed_attempts.get() >= 3).await;
    assert_eq!(destination.keys(), [""; 0]);
    running.stop().await;
}

/// While all is well: the connection that stands is left, and the next one is made with what is there.
#[tokio::test]
async fn rotated_certificates_are_taken_without_a_restart() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let files = Files::new(&ours);
    files.show(&ours.good());
    let destination = Secure::start(server(&ours.good(), Some(&ours))).await;
    let outbox = Memory::new(lines(0..5));
    let running = Running::start(files.config(&destination.url, true), &outbox);
    running.until_done(5).await;
    outbox.put(lines(5..6));
    running.until_done(6).await;
    assert_eq!(destination.seen.lock().unwrap().connections, 1, "connections are kept");
    // Half of a rotation is no reason to send with less, nor for an end.
    destination.become_another(server(&next.good(), Some(&next)));
    files.write("ca.pem", &next.pem);
    let identity = next.good();
    files.write("us.pem", &identity.certificate);
    outbox.put(lines(6..8));
    eventually("a key of another", || running.metrics.failed_attempts.get() >= 2).await;
    assert_eq!(outbox.confirmed(), 6);
    files.write("us.key", &identity.key);
    running.until_done(8).await;
    assert_eq!(destination.keys(), [key(0, 4), key(5, 5), key(6, 7)]);
    assert_eq!(destination.seen.lock().unwrap().plain, 0);
    running.stop().await;
}

#[test]
fn files_that_cannot_be_used_at_start_are_named() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours);
    let config = files.config(&"https://127.0.0.1:1/".parse().unwrap(), true);
    let error =
        HttpOutput::build("central", "gw-1", config, Memory::new([]), Metrics::new().output("central"));
    let Error::Client { source, .. } = error.map(drop).unwrap_err() else { panic!("another error") };
    assert!(source.to_string().contains("us.pem: make the file readable"), "{source}");
}
