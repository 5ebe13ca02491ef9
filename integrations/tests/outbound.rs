//! The client and the deliverer against real listeners.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kiro_integrations::communication::webhook::{self, SigningKey};
use kiro_integrations::github::Dispatch;
use kiro_integrations::outbound::{Allowed, Client, Post};
use kiro_integrations::{Deliverer, Sent, Target};
use kiro_ports::{Clock, Delivery, Headers, NewDelivery, SystemClock};
use kiro_schemas::{Micros, Secret, Tenant};
use tokio::net::TcpListener;

type Seen = Arc<Mutex<Vec<(String, Headers, Bytes)>>>;

/// Answers with the status that its path names.
async fn receiver() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
    (at, seen)
}

async fn answer(State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect();
    seen.lock().expect("a lock").push((uri.path().to_owned(), headers, body));
    let status = uri.path().trim_start_matches('/').parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
    let headers = [("retry-after", "7"), ("location", uri.query().unwrap_or("/"))];
    (status.unwrap_or(StatusCode::OK), headers, "x".repeat(1 << 20)).into_response()
}

/// Counts who connects.
async fn canary() -> (u16, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::clone(&hits);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, hits)
}

fn client(allowed: &[&str], timeout: Duration) -> Client {
    // The second test of a process finds it installed.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Client::new(allowed.iter().map(|text| Allowed::parse(text).expect("an entry")).collect(), timeout).expect("a client")
}

fn post(url: impl Into<String>) -> Post {
    Post { url: url.into(), headers: Vec::new(), body: b"{}".to_vec() }
}

fn delivery(target: &str) -> Delivery {
    let delivery =
        NewDelivery { key: "k-1".to_owned(), tenant: Tenant::default(), target: target.to_owned(), payload: "{\"a\":1}".to_owned() };
    Delivery { delivery, attempts: 0, created_at: Micros(0) }
}

const HOSTILE: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "127.0.0.1.",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "0.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "%6c%6f%63alhost",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001::7f00:1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "169.254.169.254",
    "169.254.170.2",
    "0xa9fea9fe",
    "2852039166",
    "[::ffff:169.254.169.254]",
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "user@127.0.0.1",
    "8.8.8.8@127.0.0.1",
    "8.8.8.8:1@127.0.0.1",
];

#[tokio::test]
async fn hostile_urls_reach_nobody() {
    let (port, hits) = canary().await;
    let (at, _) = receiver().await;
    let client = client(&[&at.to_string()], Duration::from_millis(500));
    assert!(HOSTILE.len() >= 60, "{}", HOSTILE.len());
    for host in HOSTILE {
        for url in [format!("http://{host}:{port}/"), format!("https://{host}:{port}/")] {
            assert!(client.post(post(&url)).await.is_err(), "{url}");
        }
    }
    for url in ["file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "http://", "", "//127.0.0.1/", "data:,x", "unix:/x"] {
        assert!(client.post(post(url)).await.is_err(), "{url}");
    }
    for status in [301, 302, 303, 307, 308] {
        let answer = client.post(post(format!("http://{at}/{status}?http://127.0.0.1:{port}/"))).await.expect("an answer");
        assert_eq!(answer.status, status, "redirects are not followed");
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
    // The canary is awake.
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    while hits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_are_bounded_and_networks_can_be_permitted() {
    let (at, _) = receiver().await;
    for allowed in [at.to_string(), "127.0.0.0/8".to_owned()] {
        let answer = client(&[&allowed], Duration::from_secs(5)).post(post(format!("http://{at}/"))).await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 256 * 1024));
    }
    let named = client(&[&format!("localhost:{}", at.port()), "127.0.0.0/8"], Duration::from_secs(5));
    assert!(named.post(post(format!("http://localhost:{}/", at.port()))).await.is_ok());
    assert!(named.post(post("http://localhost:1/")).await.is_err(), "another port");
}

#[tokio::test]
async fn a_silent_receiver_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let client = client(&[&at.to_string()], Duration::from_millis(200));
    let key = SigningKey::of(&Secret::new("a secret of sixteen bytes")).expect("a key");
    let targets = BTreeMap::from([("t".to_owned(), Target::Webhook { url: format!("http://{at}/?token=hidden"), key })]);
    let sent = Deliverer::new(client, targets, Arc::new(SystemClock)).send(&delivery("t")).await;
    let Sent::Transient { reason, .. } = sent else { panic!("{sent:?}") };
    assert!(!reason.contains("hidden"), "{reason}");
}

#[tokio::test]
async fn deliveries_are_signed_and_classified() {
    let (at, seen) = receiver().await;
    let key = SigningKey::of(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("a key");
    let hook = |path: &str| Target::Webhook { url: format!("http://{at}/{path}"), key: key.clone() };
    let mut targets: BTreeMap<_, _> = ["200", "204", "302", "400", "401", "403", "404", "410", "408", "409", "425", "429", "500", "503"]
        .map(|s| (s.to_owned(), hook(s)))
        .into();
    targets.insert("closed".to_owned(), Target::Webhook { url: "http://127.0.0.1:9/".to_owned(), key: key.clone() });
    let run = Dispatch {
        api: format!("http://{at}/"),
        repository: "o/r".to_owned(),
        workflow: "ci.yml".to_owned(),
        reference: "main".to_owned(),
        inputs: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
    };
    let bad = Dispatch { repository: "o/../r".to_owned(), ..run.clone() };
    targets.insert("run".to_owned(), Target::Github { dispatch: run, token: Secret::new("t0ken") });
    targets.insert("bad".to_owned(), Target::Github { dispatch: bad, token: Secret::new("t0ken") });
    let deliverer = Deliverer::new(client(&[&at.to_string()], Duration::from_secs(5)), targets, Arc::new(SystemClock));
    for (target, expected) in [
        ("200", "arrived"),
        ("204", "arrived"),
        ("302", "permanent"),
        ("400", "permanent"),
        ("401", "permanent"),
        ("403", "transient"),
        ("404", "permanent"),
        ("410", "permanent"),
        ("408", "transient"),
        ("409", "transient"),
        ("425", "transient"),
        ("429", "transient"),
        ("500", "transient"),
        ("503", "transient"),
        ("closed", "permanent"),
        ("unknown", "permanent"),
        ("bad", "permanent"),
        ("run", "arrived"),
    ] {
        let found = match deliverer.send(&delivery(target)).await {
            Sent::Arrived => "arrived",
            Sent::Transient { retry_after, .. } => {
                assert_eq!(retry_after, Some(Duration::from_secs(7)));
                "transient"
            }
            Sent::Permanent { .. } => "permanent",
        };
        assert_eq!(found, expected, "{target}");
    }
    let seen = seen.lock().expect("a lock");
    let (_, headers, body) = &seen[0];
    assert!(webhook::verify(std::slice::from_ref(&key), headers, body, SystemClock.now()));
    assert_eq!(kiro_ports::header(headers, "webhook-id"), Some("k-1"));
    let (path, headers, body) = seen.last().expect("the dispatch");
    assert_eq!(path, "/repos/o/r/actions/workflows/ci.yml/dispatches");
    assert_eq!(kiro_ports::header(headers, "authorization"), Some("Bearer t0ken"));
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body, serde_json::json!({"ref": "main", "inputs": {"env": "prod", "idempotency_key": "k-1"}}));
}
