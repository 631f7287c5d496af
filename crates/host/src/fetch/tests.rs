use super::*;
use crate::CallMetrics;
use crate::metrics::FetchMetrics;
use crate::{HostConfig as Modules, ModuleHost, ModuleLimits};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use headwater_bundle::{CELSIUS, STATS};
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Returns the answer of a server to the number of the request for its path, and its `authorization`.
type Reply = Box<dyn Fn(usize, &str) -> Vec<u8> + Send>;

/// A server over TLS on this machine.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    ca: PathBuf,
    home: tempfile::TempDir,
    metrics: FetchMetrics,
}

impl Server {
    fn start(replies: impl FnOnce(&str) -> Vec<(String, Reply)>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let ca = home.path().join("ca.pem");
        fs::write(&ca, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = Arc::new(tls.unwrap());
        let replies: HashMap<_, _> = replies(&address).into_iter().collect();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&asked);
        // It ends with the test's process.
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
                serve(rustls::StreamOwned::new(connection, tcp.unwrap()), &replies, &seen);
            }
        });
        Self { address, asked, ca, home, metrics: FetchMetrics::default() }
    }

    fn with(bodies: &[(&str, &[u8])]) -> Self {
        let replies = bodies.iter().map(|(path, body)| ((*path).to_owned(), always(body)));
        Self::start(|_| replies.collect())
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state().join("fetched")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn config(&self) -> FetchConfig {
        FetchConfig { ca: Some(self.ca.clone()), deadline: Duration::from_secs(20), ..FetchConfig::default() }
    }

    fn host(&self, fetch: FetchConfig, keys: &[PublicKey]) -> ModuleHost {
        let config = Modules { fetch, keys: keys.to_vec(), ..Modules::default() };
        ModuleHost::judging(config).unwrap().fetching(&self.state(), self.metrics.clone())
    }

    /// Fetches, and loads what came.
    fn load(&self, module: &str, digest: Option<ModuleDigest>) -> Result<String, ModuleError> {
        load(&self.host(self.config(), &[]), module, digest)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.asked))
    }
}

fn origin(module: &str, digest: Option<ModuleDigest>) -> ModuleOrigin {
    ModuleOrigin { file: module.into(), remote: Some(Box::new(module.parse().unwrap())), digest }
}

fn files(
    host: &ModuleHost,
    owner: &str,
    origin: &ModuleOrigin,
    network: NetworkAccess<'_>,
) -> Result<ModuleOrigin, ModuleError> {
    let files = host.files(owner, &[origin], network);
    files.map(|mut files| files.remove(0)).map_err(|(_, error)| error)
}

fn load(host: &ModuleHost, module: &str, digest: Option<ModuleDigest>) -> Result<String, ModuleError> {
    let file = files(host, "p", &origin(module, digest), NetworkAccess::Until(&|| false))?;
    let loaded = host.transform(&file, r#"{"field":"t"}"#, &ModuleLimits::default(), &CallMetrics::default());
    loaded.map(|module| module.digest().to_owned())
}

fn always(body: &[u8]) -> Reply {
    let answer = ok(body);
    Box::new(move |_, _| answer.clone())
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn head(status: &str, header: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn serve(
    mut stream: rustls::StreamOwned<rustls::ServerConnection, TcpStream>,
    replies: &HashMap<String, Reply>,
    seen: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let mut pass = String::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
            pass = line[line.len() - value.len()..].to_owned();
        }
    }
    drop(lines);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let before = lock(seen).iter().filter(|seen| **seen == path).count();
    lock(seen).push(path.clone());
    let bare = path.split('?').next().unwrap_or_default();
    let answer = replies.get(bare).map_or_else(|| head("404 Not Found", ""), |reply| reply(before, &pass));
    // The client may have heard enough.
    stream.write_all(&answer).and_then(|()| stream.flush()).ok();
    stream.conn.send_close_notify();
    stream.flush().ok();
}

#[test]
fn a_module_is_fetched_once_and_starts_from_there_without_a_network() {
    let server = Server::with(&[("/celsius.wasm", CELSIUS)]);
    let url = server.url("/celsius.wasm");
    let digest = ModuleDigest::of(CELSIUS);
    let host = server.host(server.config(), &[]);
    let missing = files(&host, "p", &origin(&url, Some(digest)), NetworkAccess::Off).unwrap_err();
    assert!(matches!(missing, ModuleError::Fetch { .. }) && server.asked().is_empty(), "{missing}");
    assert_eq!(load(&host, &url, Some(digest)).unwrap(), digest.to_string());
    assert_eq!(server.asked(), ["/celsius.wasm"]);
    assert_eq!(server.load(&url, Some(digest)).unwrap(), digest.to_string());
    files(&host, "p", &origin(&url, Some(digest)), NetworkAccess::Off).unwrap();
    assert!(server.asked().is_empty(), "it is here");
    // What is damaged here is fetched again.
    fs::write(server.state().join("fetched").join(hex(&digest.0)), b"damage").unwrap();
    server.load(&url, Some(digest)).unwrap();
    assert_eq!(server.asked(), ["/celsius.wasm"]);
    assert_eq!((server.metrics.files.get(), server.metrics.bytes.get()), (2, 2 * CELSIUS.len() as u64));
}

#[test]
fn what_is_not_what_was_pinned_is_neither_used_nor_kept() {
    let server = Server::with(&[("/celsius.wasm", CELSIUS)]);
    let url = server.url("/celsius.wasm");
    let other = ModuleDigest::of(b"another");
    let error = server.load(&url, Some(other)).unwrap_err().to_string();
    assert!(error.contains(&format!("expected {other}, found {}", ModuleDigest::of(CELSIUS))), "{error}");
    let unpinned = server.load(&url, None).unwrap_err().to_string();
    assert!(unpinned.contains("it is not pinned"), "{unpinned}");
    let missing = server.load(&format!("{url}2"), Some(other)).unwrap_err().to_string();
    assert!(missing.contains("404") && missing.contains("celsius.wasm2"), "{missing}");
    assert_eq!(server.asked(), ["/celsius.wasm", "/celsius.wasm2"], "neither may pass by itself");
    assert_eq!(server.kept(), Vec::<String>::new());
    assert_eq!((server.metrics.failures.get(), server.metrics.files.get()), (3, 0));
}

#[test]
fn what_may_pass_is_tried_again_and_only_so_often() {
    let flaky = |fails: usize| -> Reply {
        Box::new(move |before, _| match before {
            before if before < fails => head("503 Service Unavailable", ""),
            _ => ok(CELSIUS),
        })
    };
    let replies = |_: &str| vec![("/soon".to_owned(), flaky(2)), ("/never".to_owned(), flaky(usize::MAX))];
    let server = Server::start(replies);
    server.load(&server.url("/soon"), Some(ModuleDigest::of(CELSIUS))).unwrap();
    assert_eq!((server.asked().len(), server.metrics.repeated_requests.get()), (3, 2));
    let error = server.load(&server.url("/never"), Some(ModuleDigest::of(STATS))).unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
    assert_eq!(server.asked().len(), TRIES_MAX as usize);
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_asked() {
    let server = Server::with(&[("/celsius.wasm", CELSIUS)]);
    let stranger = Server::with(&[]);
    let host = server.host(stranger.config(), &[]);
    let error =
        load(&host, &server.url("/celsius.wasm"), Some(ModuleDigest::of(CELSIUS))).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(server.asked().is_empty());
}

#[test]
fn it_is_redirected_over_tls_alone() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("Location: http://{}/celsius.wasm\r\n", plain.local_addr().unwrap());
    let server = Server::start(|_| {
        let to_plain = head("302 Found", &to);
        let elsewhere = head("307 Temporary Redirect", "Location: /celsius.wasm\r\n");
        let round = head("302 Found", "Location: /round\r\n");
        vec![
            ("/plain".to_owned(), Box::new(move |_, _| to_plain.clone())),
            ("/elsewhere".to_owned(), Box::new(move |_, _| elsewhere.clone())),
            ("/round".to_owned(), Box::new(move |_, _| round.clone())),
            ("/celsius.wasm".to_owned(), always(CELSIUS)),
        ]
    });
    let digest = Some(ModuleDigest::of(CELSIUS));
    let error = server.load(&server.url("/plain"), digest).unwrap_err().to_string();
    assert!(error.contains("redirect"), "{error}");
    plain.set_nonblocking(true).unwrap();
    assert!(plain.accept().is_err(), "nothing went there");
    let error = server.load(&server.url("/round"), digest).unwrap_err().to_string();
    assert!(error.contains("redirect"), "{error}");
    assert!(server.asked().len() <= 2 + REDIRECTIONS_MAX, "neither is tried again");
    server.load(&server.url("/elsewhere"), digest).unwrap();
}

#[test]
fn with_keys_a_fetched_module_needs_a_signature_too() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let key = PublicKey(pair.public_key().as_ref().try_into().unwrap());
    let signature = BASE64.encode(pair.sign(CELSIUS)).into_bytes();
    let server = Server::with(&[
        ("/signed.wasm", CELSIUS),
        ("/signed.wasm.sig", &signature),
        ("/unsigned.wasm", CELSIUS),
    ]);
    let load = |name: &str| {
        let host = server.host(server.config(), &[key]);
        load(&host, &server.url(&format!("/{name}.wasm")), Some(ModuleDigest::of(CELSIUS)))
    };
    let error = load("unsigned").unwrap_err();
    assert!(matches!(error, ModuleError::Unsigned { .. }), "{error}");
    load("signed").unwrap();
    server.asked();
    load("signed").unwrap();
    assert!(server.asked().is_empty(), "both are here");
}

/// A manifest as `oras push` makes it.
fn manifest(layers: &[(&str, ModuleDigest)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, digest)| serde_json::json!({ "mediaType": kind, "digest": digest.to_string(), "size": 1 }))
        .collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "layers": layers }).to_string().into_bytes()
}

const WASM: &str = "application/wasm";

#[test]
fn a_registrys_module_is_pinned_by_its_manifest() {
    let module = ModuleDigest::of(CELSIUS);
    let good = manifest(&[("application/octet-stream", ModuleDigest::of(b"readme")), (WASM, module)]);
    let twice = manifest(&[(WASM, module), (WASM, module)]);
    let pin = ModuleDigest::of(&good);
    let ambiguous = ModuleDigest::of(&twice);
    let server = Server::with(&[
        (&format!("/v2/plant/celsius/manifests/{pin}"), &good),
        (&format!("/v2/plant/celsius/manifests/{ambiguous}"), &twice),
        (&format!("/v2/plant/celsius/blobs/{module}"), CELSIUS),
    ]);
    let at = |digest: ModuleDigest| format!("oci://{}/plant/celsius:1.0@{digest}", server.address);
    assert_eq!(server.load(&at(pin), None).unwrap(), module.to_string());
    assert_eq!(server.asked().len(), 2);
    server.load(&at(pin), Some(module)).unwrap();
    assert!(server.asked().is_empty(), "manifest and module are here");
    let error = server.load(&at(pin), Some(ModuleDigest::of(STATS))).unwrap_err();
    assert!(matches!(error, ModuleError::WrongDigest { found, .. } if found == module), "{error}");
    let error = server.load(&at(ambiguous), None).unwrap_err().to_string();
    assert!(error.contains("several layers"), "{error}");
    let error = server.load(&at(ModuleDigest::of(b"")), None).unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_server_gets_the_token_or_the_password_that_it_asks_for() {
    let module = ModuleDigest::of(CELSIUS);
    let manifest = manifest(&[(WASM, module)]);
    let pin = ModuleDigest::of(&manifest);
    let basic = format!("Basic {}", BASE64.encode("gateway:s3cret"));
    let own = basic.clone();
    let server = Server::start(|address| {
        let ask = format!(
            "WWW-Authenticate: Bearer realm=\"https://{address}/token\",service=\"r\",scope=\"repository:x:pull\"\r\n"
        );
        let guarded = |wanted: &str, ask: &str, body: &[u8]| -> Reply {
            let wanted = wanted.to_owned();
            let refused = head("401 Unauthorized", ask);
            let body = ok(body);
            Box::new(move |_, pass| if pass == wanted { body.clone() } else { refused.clone() })
        };
        vec![
            (format!("/v2/x/manifests/{pin}"), guarded("Bearer T", &ask, &manifest)),
            (format!("/v2/x/blobs/{module}"), guarded("Bearer T", &ask, CELSIUS)),
            (
                "/token".to_owned(),
                guarded(&own, "WWW-Authenticate: Basic realm=\"r\"\r\n", br#"{"token":"T"}"#),
            ),
            ("/x.wasm".to_owned(), guarded(&own, "WWW-Authenticate: Basic realm=\"r\"\r\n", CELSIUS)),
        ]
    });
    let reference = format!("oci://{}/x@{pin}", server.address);
    let nobody = server.load(&reference, None).unwrap_err().to_string();
    assert!(nobody.contains("gives no token"), "{nobody}");
    let nobody = server.load(&server.url("/x.wasm"), Some(module)).unwrap_err().to_string();
    assert!(nobody.contains(&format!("`credentials` of {}", server.address)), "{nobody}");
    let with = |password: &str| {
        let file = server.home.path().join("password");
        fs::write(&file, password).unwrap();
        let own = ServerCredentials { username: "gateway".to_owned(), password: Secret::File(file) };
        let credentials = [(server.address.clone(), own)].into();
        server.host(FetchConfig { credentials, ..server.config() }, &[])
    };
    let wrong = load(&with("wrong\n"), &server.url("/x.wasm"), Some(module)).unwrap_err().to_string();
    assert!(wrong.contains("they are refused") && !wrong.contains("wrong\n"), "{wrong}");
    server.asked();
    load(&with("s3cret\n"), &reference, None).unwrap();
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "one token serves manifest and module: {asked:?}");
    assert!(asked[1].contains("service=r&scope=repository%3Ax%3Apull"), "{asked:?}");
    fs::remove_dir_all(server.state()).unwrap();
    load(&with("s3cret\n"), &server.url("/x.wasm"), Some(module)).unwrap();
}

#[test]
fn an_endless_or_silent_answer_is_cut() {
    let chunked = || {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        [head.as_bytes(), b"fff\r\n", &[7; 0xfff], b"\r\nfff\r\n", &[7; 0xfff], b"\r\n0\r\n\r\n"].concat()
    };
    let replies = vec![
        ("/sized".to_owned(), always(&[7; 4097])),
        // What says itself that it is too long is not even read.
        ("/announced".to_owned(), {
            let reply: Reply = Box::new(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n".to_vec());
            reply
        }),
        ("/endless".to_owned(), {
            let reply: Reply = Box::new(move |_, _| chunked());
            reply
        }),
    ];
    let server = Server::start(|_| replies);
    let small = FetchConfig { bytes_max: 4096, ..server.config() };
    for path in ["/sized", "/announced", "/endless"] {
        let host = server.host(small.clone(), &[]);
        let error = load(&host, &server.url(path), Some(ModuleDigest::of(b""))).unwrap_err().to_string();
        assert!(error.contains("longer than 4096 bytes, `bytes_max` in [modules.fetch]"), "{error}");
        assert_eq!(server.kept(), Vec::<String>::new());
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/x", silent.local_addr().unwrap());
    let short = FetchConfig { deadline: Duration::from_millis(300), ..server.config() };
    let started = Instant::now();
    let error = load(&server.host(short, &[]), &url, Some(ModuleDigest::of(b""))).unwrap_err().to_string();
    assert!(error.contains("longer than 300ms") && error.contains("`deadline`"), "{error}");
    // And who stops the agent does not wait for it.
    let host = server.host(server.config(), &[]);
    let since = Instant::now();
    let over = || since.elapsed() > Duration::from_millis(300);
    files(&host, "p", &origin(&url, Some(ModuleDigest::of(b""))), NetworkAccess::Until(&over)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn what_one_server_is_shown_no_other_is() {
    let module = ModuleDigest::of(CELSIUS);
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = |seen: &Arc<Mutex<Vec<String>>>, answer: Vec<u8>| -> Reply {
        let seen = Arc::clone(seen);
        Box::new(move |_, pass| {
            lock(&seen).push(pass.to_owned());
            answer.clone()
        })
    };
    let ask = head("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n");
    let stranger = Server::start(|_| {
        vec![("/open".to_owned(), noted(&seen, ok(CELSIUS))), ("/asks".to_owned(), noted(&seen, ask.clone()))]
    });
    let away = head("302 Found", &format!("Location: {}\r\n", stranger.url("/open")));
    let guarded = |body: Vec<u8>| -> Reply {
        let ask = ask.clone();
        Box::new(move |_, pass| if pass.is_empty() { ask.clone() } else { body.clone() })
    };
    let own = Server::start(|_| {
        vec![("/moved".to_owned(), guarded(away.clone())), ("/own".to_owned(), guarded(ok(STATS)))]
    });
    let both = own.home.path().join("both.pem");
    fs::write(&both, [fs::read(&own.ca).unwrap(), fs::read(&stranger.ca).unwrap()].concat()).unwrap();
    let credentials = ServerCredentials {
        username: "gateway".to_owned(),
        password: Secret::File(own.home.path().join("password")),
    };
    fs::write(own.home.path().join("password"), "s3cret").unwrap();
    let config = FetchConfig {
        ca: Some(both),
        credentials: [(own.address.clone(), credentials)].into(),
        ..own.config()
    };
    let host = own.host(config, &[]);
    let at = |url: String, digest: ModuleDigest| origin(&url, Some(digest));
    let own_first = [at(own.url("/own"), ModuleDigest::of(STATS)), at(stranger.url("/asks"), module)];
    let online = NetworkAccess::Until(&|| false);
    let (index, error) = host.files("p", &own_first.each_ref(), online).unwrap_err();
    assert!(index == 1 && error.to_string().contains(&format!("of {}", stranger.address)), "{error}");
    files(&host, "p", &at(own.url("/moved"), module), online).unwrap();
    assert_eq!(stranger.asked(), ["/asks", "/open"], "asked once and led there once");
    assert_eq!(*lock(&seen), ["", ""], "it was shown nothing");
}

#[test]
fn tokens_manifests_and_signatures_are_bounded_too() {
    let padded = |bytes: &[u8], to: u64| {
        let mut padded = bytes.to_vec();
        padded.resize(usize::try_from(to).unwrap(), b' ');
        padded
    };
    let module = ModuleDigest::of(CELSIUS);
    let small = manifest(&[(WASM, module)]);
    let large = padded(&manifest(&[(WASM, module)]), (4 << 20) + 1);
    let small_pin = ModuleDigest::of(&small);
    let large_pin = ModuleDigest::of(&large);
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let key = PublicKey(pair.public_key().as_ref().try_into().unwrap());
    let signature = BASE64.encode(pair.sign(CELSIUS)).into_bytes();
    let server = Server::start(|address| {
        let ask = head(
            "401 Unauthorized",
            &format!("WWW-Authenticate: Bearer realm=\"https://{address}/token\"\r\n"),
        );
        vec![
            (format!("/v2/large/manifests/{large_pin}"), always(&large)),
            (format!("/v2/large/blobs/{module}"), always(CELSIUS)),
            (
                format!("/v2/token/manifests/{small_pin}"),
                Box::new(move |_, pass| if pass.is_empty() { ask.clone() } else { ok(&small) }),
            ),
            (format!("/v2/token/blobs/{module}"), always(CELSIUS)),
            ("/token".to_owned(), always(&padded(br#"{"token":"T"}"#, (64 << 10) + 1))),
            ("/x.wasm".to_owned(), always(CELSIUS)),
            ("/x.wasm.sig".to_owned(), always(&padded(&signature, 257))),
        ]
    });
    let reference = |name: &str, pin: ModuleDigest| format!("oci://{}/{name}@{pin}", server.address);
    for (reference, bytes) in
        [(reference("large", large_pin), 4 << 20), (reference("token", small_pin), 64 << 10)]
    {
        let error = server.load(&reference, None).unwrap_err().to_string();
        assert!(error.contains(&format!("longer than {bytes} bytes")), "{error}");
    }
    let unsigned =
        load(&server.host(server.config(), &[key]), &server.url("/x.wasm"), Some(module)).unwrap_err();
    assert!(matches!(unsigned, ModuleError::Unsigned { .. }), "{unsigned}");
}

#[test]
fn what_no_pipeline_names_makes_room_and_nothing_else() {
    let bodies = [b'a', b'b', b'c', b'd'].map(|byte| vec![byte; 1000]);
    let paths = ["/a", "/b", "/c", "/d"];
    let served: Vec<_> = paths.iter().zip(&bodies).map(|(path, body)| (*path, body.as_slice())).collect();
    let server = Server::with(&served);
    let host = server.host(FetchConfig { kept_bytes_max: 2500, ..server.config() }, &[]);
    let fetch = |owner: &str, which: usize| {
        let origin = origin(&server.url(paths[which]), Some(ModuleDigest::of(&bodies[which])));
        files(&host, owner, &origin, NetworkAccess::Until(&|| false))
    };
    let is_kept = |which: usize| server.kept().contains(&hex(&ModuleDigest::of(&bodies[which]).0));
    fetch("one", 0).unwrap();
    fetch("two", 1).unwrap();
    let full = fetch("three", 2).unwrap_err().to_string();
    assert!(full.contains("takes 2000 of 2500: raise `kept_bytes_max`"), "{full}");
    assert!(is_kept(0) && is_kept(1) && !is_kept(2), "what is named stays");
    // The pipeline `one` has another module, and the first is of no use any more.
    fetch("one", 1).unwrap();
    fetch("three", 2).unwrap();
    assert!(!is_kept(0) && is_kept(1) && is_kept(2));
    assert_eq!((server.metrics.evicted_files.get(), server.metrics.kept_bytes.get()), (1, 2000));
    // After a restart nothing is named yet; what was used last stays.
    let file = |which: usize| server.state().join("fetched").join(hex(&ModuleDigest::of(&bodies[which]).0));
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    File::options().append(true).open(file(1)).unwrap().set_modified(long_ago).unwrap();
    let host = server.host(FetchConfig { kept_bytes_max: 2500, ..server.config() }, &[]);
    let origin = origin(&server.url("/d"), Some(ModuleDigest::of(&bodies[3])));
    files(&host, "three", &origin, NetworkAccess::Until(&|| false)).unwrap();
    assert!(!is_kept(1) && is_kept(2) && is_kept(3));
}

#[test]
fn who_only_checks_leaves_nothing_behind() {
    let server = Server::with(&[("/celsius.wasm", CELSIUS), ("/stats.wasm", STATS)]);
    let digest = ModuleDigest::of(CELSIUS);
    server.load(&server.url("/celsius.wasm"), Some(digest)).unwrap();
    server.asked();
    let kept = server.kept();
    let shelf = FetchedFiles::passing(&server.state(), &server.config(), &[]);
    let get = |path: &str, digest: ModuleDigest| {
        let origin = origin(&server.url(path), Some(digest));
        shelf.files("p", &[&origin], NetworkAccess::Until(&|| false)).unwrap().remove(0).file
    };
    assert!(get("/celsius.wasm", digest).starts_with(server.state()), "it is here");
    let own = get("/stats.wasm", ModuleDigest::of(STATS));
    assert!(!own.starts_with(server.state()) && own.exists());
    assert_eq!((server.asked(), server.kept()), (vec!["/stats.wasm".to_owned()], kept));
    drop(shelf);
    assert!(!own.exists() && !own.parent().unwrap().exists());
}
