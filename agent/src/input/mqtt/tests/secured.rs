//! TLS: whom the input lets pass for its broker, and what it says of the others.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::certificates::Authority;
use super::*;
use crate::input::mqtt::connection::Connection;

#[tokio::test]
async fn serves_over_tls_with_certificates_on_both_sides() {
    both(async |version| {
        let (authority, journal) = (Authority::new(), Memory::default());
        let acceptor = authority.acceptor(&authority.issue("127.0.0.1", 2100), true);
        let broker = Broker::bind(version).await.secured(acceptor);
        let (certificate, key) = authority.issue("agent", 2100);
        let agent = Agent::start(&broker, &journal, |config| {
            config.version = version;
            let (ca, certificate, key) = (Some(authority.ca()), Some(certificate), Some(key));
            config.tls = Some(crate::tls::Config { ca, certificate, key });
        });
        let mut peer = broker.subscribed(false).await;
        for packet in 1..=100 {
            peer.publish(packet, &[b'x'; 10_000]).await;
        }
        for packet in 1..=100 {
            assert_eq!(peer.next_but_pings().await, Seen::PubAck(packet));
        }
        agent.stop().await.unwrap();
    })
    .await;
}

/// What a broker shows, and what the input makes of it.
struct Case {
    shown: &'static str,
    until: i32,
    /// The broker wants a certificate of the source, which has none.
    wants: bool,
    trusted: bool,
    words: &'static [&'static str],
}

#[tokio::test]
async fn whoever_is_not_the_broker_is_named_and_gets_nothing() {
    let localhost = Case { shown: "127.0.0.1", until: 2100, wants: false, trusted: true, words: &[] };
    let cases = [
        Case { shown: "example.com", words: &["certificate not valid for name \"127.0.0.1\""], ..localhost },
        Case { until: 2021, words: &["certificate expired"], ..localhost },
        Case { trusted: false, words: &["UnknownIssuer"], ..localhost },
        Case { wants: true, words: &["CertificateRequired"], ..localhost },
    ];
    for case in cases {
        let (authority, other) = (Authority::new(), Authority::new());
        let acceptor = authority.acceptor(&authority.issue(case.shown, case.until), case.wants);
        let broker = Broker::bind(Version::V311).await.secured(acceptor);
        let ca = if case.trusted { authority.ca() } else { other.ca() };
        for websocket in [None, Some("/mqtt".to_owned())] {
            let error = refused(broker.port(), ca.clone(), websocket, broker.turned_away()).await;
            assert!(case.words.iter().all(|words| error.contains(words)), "{error}");
            assert!(error.contains("nothing was sent in plain text"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_broker_without_tls_hears_no_plain_text() {
    let (authority, listener) = (Authority::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 3];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen[..2], [0x16, 0x03], "a TLS handshake");
        // CONNACK, as if all were well.
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[0x20, 2, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
        assert!(!rest.windows(4).any(|four| four == b"MQTT"));
    };
    let error = refused(port, authority.ca(), None, peer).await;
    assert!(error.contains("nothing was sent in plain text"), "{error}");
}

#[tokio::test]
async fn refused_certificates_are_read_anew_and_tried_slowly() {
    let (authority, other, journal) = (Authority::new(), Authority::new(), Memory::default());
    let acceptor = authority.acceptor(&authority.issue("127.0.0.1", 2100), false);
    let broker = Broker::bind(Version::V311).await.secured(acceptor);
    let agent = Agent::start(&broker, &journal, |config| {
        config.tls = Some(crate::tls::Config { ca: Some(other.ca()), ..Default::default() });
    });
    broker.turned_away().await;
    assert!(broker.is_left_alone(Duration::from_millis(180)).await, "a slow retry");
    std::fs::copy(authority.ca(), other.ca()).unwrap();
    let mut peer = broker.subscribed(false).await;
    peer.publish(1, b"one").await;
    assert_eq!(peer.next_but_pings().await, Seen::PubAck(1));
    agent.stop().await.unwrap();
}

/// The error of an attempt to connect, which must be one to be slow about.
async fn refused(
    port: u16,
    ca: std::path::PathBuf,
    websocket: Option<String>,
    peer: impl Future<Output = ()>,
) -> String {
    let mut config = Config::new("127.0.0.1", "headwater-test", vec!["t/+".into()]);
    (config.port, config.websocket) = (port, websocket);
    config.tls = Some(crate::tls::Config { ca: Some(ca), ..Default::default() });
    let (opened, ()) = tokio::join!(Connection::open(&config), peer);
    let error = opened.map(drop).unwrap_err();
    assert!(error.is_refusal(), "{error}");
    error.to_string()
}
