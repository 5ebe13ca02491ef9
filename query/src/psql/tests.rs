//! The door as PostgreSQL's own client sees it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiro_ports::{Audit, AuditEntry, NewToken, PortError, Principal, Role, ScramVerifier, TokenInfo, Tokens};
use kiro_schemas::{Micros, Secret, Tenant, Value};
use pgwire::api::auth::sasl::scram::gen_salted_password;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::session::{self, split};
use super::{PsqlServer, serve};
use crate::Query;
use crate::fixture::{Fixed, Memory, engine, rows, run};

pub(super) const PASSWORD: &str = "kiro_0123456789abcdef";

/// An audit log that nobody reads; what stands in it is seen end to end.
#[derive(Debug)]
struct Unread;

#[async_trait]
impl Audit for Unread {
    async fn record(&self, _entry: AuditEntry) -> Result<(), PortError> {
        Ok(())
    }
}

/// Tokens `reader` of the default tenant, `neighbour` of another and `writer`, which may not read.
#[derive(Debug)]
struct Few;

#[async_trait]
impl Tokens for Few {
    async fn create(&self, _token: NewToken, _now: Micros) -> Result<Secret, PortError> {
        unreachable!("the door creates no tokens")
    }
    async fn verify(&self, _token: &Secret, _now: Micros) -> Result<Option<Principal>, PortError> {
        Ok(None)
    }
    async fn scram(&self, name: &str, _now: Micros) -> Result<Option<(Principal, ScramVerifier)>, PortError> {
        let (tenant, role) = match name {
            "reader" => (Tenant::default(), Role::Viewer),
            "neighbour" => (Tenant::new("other"), Role::Viewer),
            "writer" => (Tenant::default(), Role::Ingest),
            _ => return Ok(None),
        };
        let (salt, iterations) = (b"sixteen bytes ..".to_vec(), ScramVerifier::ITERATIONS);
        let salted_password = gen_salted_password(PASSWORD, &salt, usize::try_from(iterations).expect("a number"));
        Ok(Some((Principal { name: name.to_owned(), tenant, role }, ScramVerifier { salt, iterations, salted_password })))
    }
    async fn list(&self, _tenant: &Tenant) -> Result<Vec<TokenInfo>, PortError> {
        Ok(Vec::new())
    }
    async fn revoke(&self, _tenant: &Tenant, _name: &str) -> Result<bool, PortError> {
        Ok(false)
    }
}

/// A door that is served until this is dropped.
pub(super) struct Running {
    pub(super) at: SocketAddr,
    pub(super) query: Arc<Query>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) async fn start(open: bool, max_connections: usize) -> Running {
    start_with(open, max_connections, None).await
}

pub(super) async fn start_with(open: bool, max_connections: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Running {
    let memory = Arc::new(Memory::default());
    memory.tail("pipeline_runs", run("default", "1", 0, 1, "main"));
    memory.tail("pipeline_runs", run("default", "2", 0, 2, "it's"));
    memory.tail("pipeline_runs", run("other", "3", 0, 3, "main"));
    for (tenant, id, recorded_at) in [("default", "1", 1), ("default", "2", 2), ("other", "3", 3)] {
        let at = Value::Time(Micros(recorded_at));
        let event = [("tenant", Value::text(tenant)), ("run_id", Value::text(id)), ("recorded_at", at)];
        memory.tail("pipeline_runs_events", rows("pipeline_runs_events", &[&event]));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (at, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let open = open.then(|| Principal { name: "loopback".into(), tenant: Tenant::default(), role: Role::Admin });
    let (query, tokens) = (engine(memory), Arc::new(Few));
    let (clock, audit) = (Arc::new(Fixed), Arc::new(Unread));
    let server = PsqlServer { query: Arc::clone(&query), tokens, audit, clock, tls, open, max_connections };
    tokio::spawn(serve(listener, server, stop.clone()));
    Running { at, query, stop }
}

async fn psql(running: &Running, user: &str, password: &str, input: &[&str]) -> Output {
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-h", "127.0.0.1", "-p", &running.at.port().to_string(), "-U", user, "-d", "kirolinter"]);
    command.args(["-A", "-t", "-v", "VERBOSITY=verbose"]).env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "10");
    for text in input {
        command.args(["-c", text]);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(Duration::from_mins(1), output).await.expect("an end").expect("psql runs")
}

pub(super) async fn said(running: &Running, input: &[&str]) -> String {
    let output = psql(running, "reader", PASSWORD, input).await;
    assert!(output.status.success(), "{input:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

pub(super) async fn error(running: &Running, input: &str) -> String {
    let output = psql(running, "reader", PASSWORD, &[input]).await;
    assert!(!output.status.success(), "{input}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_asks_and_sees_its_tenant() {
    let running = start(false, 10).await;
    assert_eq!(said(&running, &["SELECT run_id, branch FROM pipeline_runs ORDER BY 1"]).await, "1|main\n2|it's");
    assert_eq!(said(&running, &["SELECT 1; SELECT ';' AS a; -- ;\n SELECT 'x''; y'"]).await, "1\n;\nx'; y");
    assert_eq!(said(&running, &["SELECT true, NULL, 1.5::double, 'é'"]).await, "t||1.5|é");
    let other = psql(&running, "neighbour", PASSWORD, &["SELECT run_id FROM pipeline_runs"]).await;
    assert_eq!(String::from_utf8_lossy(&other.stdout), "3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_a_token_that_may_read() {
    let running = start(false, 10).await;
    for (user, password, text) in [
        ("reader", "wrong", "password authentication failed"),
        ("nobody", PASSWORD, "password authentication failed"),
        ("writer", PASSWORD, "may only write events"),
    ] {
        let output = psql(&running, user, password, &["SELECT 1"]).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(text), "{user}: {told}");
    }
    let open = start(true, 10).await;
    assert_eq!(String::from_utf8_lossy(&psql(&open, "me", "", &["SELECT 7"]).await.stdout), "7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_login_is_not_answered() {
    let running = start(false, 10).await;
    let mut stream = TcpStream::connect(running.at).await.expect("a connection");
    let startup = b"\0\x03\0\0user\0reader\0\0";
    let query = b"Q\0\0\0\x0dSELECT 7\0";
    let mut bytes = u32::try_from(startup.len() + 4).expect("a length").to_be_bytes().to_vec();
    bytes.extend_from_slice(startup);
    bytes.extend_from_slice(query);
    bytes.extend_from_slice(query);
    stream.write_all(&bytes).await.expect("sent");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("closed").expect("read");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("FATAL") && !text.contains("SELECT 1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_statements_change_nothing() {
    let running = start(true, 10).await;
    let input = ["SET search_path TO x", "BEGIN", "SELECT 1", "COMMIT", "DISCARD ALL", "SHOW server_version_num", "SHOW TIME ZONE"];
    assert_eq!(said(&running, &input).await, "SET\nBEGIN\n1\nCOMMIT\nDISCARD ALL\n160006\nUTC");
    assert!(error(&running, "BEGIN; SELECT nothing; SELECT 1").await.contains("42703"));
    assert!(error(&running, "SHOW nothing").await.contains("42704"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_state() {
    let running = start(true, 10).await;
    for (sql, state) in [
        ("SELEC 1", "42601"),
        ("SELECT nothing FROM pipeline_runs", "42703"),
        ("SELECT * FROM nothing", "42P01"),
        ("INSERT INTO pipeline_runs VALUES (1)", "25006"),
        ("SELECT 1; DROP TABLE pipeline_runs", "25006"),
        ("SELECT 1/0", "22012"),
        ("SELECT 'x'::bigint", "22P02"),
        ("SELECT branch::bigint FROM pipeline_runs", "22P02"),
        ("SELECT nothing(1)", "42883"),
        ("SELECT 1 FROM pipeline_runs a, pipeline_runs b WHERE run_id = '1'", "42702"),
        ("SELECT levenshtein('a', 'b')", "25006"),
        ("SELECT value FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 9) b", "42702"),
    ] {
        let told = error(&running, sql).await;
        assert!(told.contains(state), "{sql}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_the_tables() {
    let running = start(true, 10).await;
    let tables = said(&running, &["\\dt"]).await;
    assert!(tables.contains("pipeline_runs"), "{tables}");
    assert!(said(&running, &["\\d"]).await.contains("pipeline_runs"));
    let columns = said(&running, &["\\d pipeline_runs"]).await;
    assert!(columns.contains("branch") && columns.contains("run_id"), "{columns}");
}

/// One message of the protocol: its kind, its length, its parts.
pub(super) fn message(kind: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).expect("a length");
    [kind, &length.to_be_bytes(), &body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_bound_by_the_extended_protocol() {
    let running = start(true, 10).await;
    let mut stream = TcpStream::connect(running.at).await.expect("a connection");
    let sql = b"SELECT run_id || '!', $2::bigint + 1 FROM pipeline_runs WHERE branch = $1 AND 41 = $2::bigint\0";
    let bound: [&[u8]; 4] = [b"\0\0\0\x02\0\0\0\x01\0\x02", b"\0\0\0\x04it's", b"\0\0\0\x08\0\0\0\0\0\0\0\x29", b"\0\0"];
    let sent = [
        message(b"", &[b"\0\x03\0\0user\0x\0\0"]),
        message(b"P", &[b"\0", sql, b"\0\x02\0\0\0\0\0\0\0\x14"]),
        message(b"B", &bound),
        message(b"D", &[b"P\0"]),
        message(b"E", &[b"\0\0\0\0\0"]),
        message(b"S", &[]),
        message(b"P", &[b"\0SELECT nothing\0\0\0"]),
        message(b"S", &[]),
        message(b"Q", &[b"SELECT 'after'\0"]),
        message(b"X", &[]),
    ];
    stream.write_all(&sent.concat()).await.expect("sent");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("closed").expect("read");
    let text = String::from_utf8_lossy(&answer);
    for part in ["\0\u{2}2!\0\0\0\u{2}42", "SELECT 1", "42703", "after"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Seeds of the protocol and what is near them, before and after a login: each connection ends, and the door serves the next.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_any_kind_end_a_connection_at_most() {
    for open in [false, true] {
        let running = start(open, 10).await;
        for bytes in crate::outside::inputs("psql_bytes", 12) {
            let mut stream = TcpStream::connect(running.at).await.expect("a connection");
            // The door may close before everything is sent.
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
            let mut answer = Vec::new();
            let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "no end after {}", bytes.escape_ascii());
            assert!(open || !answer.windows(5).any(|part| part == b"\0SELE"), "answered without a login: {}", bytes.escape_ascii());
        }
        let output = psql(&running, "reader", PASSWORD, &["SELECT 7"]).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n", "the door serves on");
    }
}

/// Announced and begun, before and after a login: refused before it is read, not taken into memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_measure_is_refused() {
    for open in [false, true] {
        let running = start(open, 10).await;
        let mut stream = TcpStream::connect(running.at).await.expect("a connection");
        stream.write_all(&message(b"", &[b"\0\x03\0\0user\0reader\0\0"])).await.expect("sent");
        stream.write_all(b"Q\x3f\xff\xff\x00SELECT ").await.expect("sent");
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("closed").expect("read");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("FATAL") && text.contains("08P01"), "open {open}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_told_so() {
    let running = start(true, 0).await;
    let output = psql(&running, "x", "", &["SELECT 1"]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("too many connections"), "{told}");
}

#[test]
fn texts_are_cut_at_semicolons_only() {
    let texts = |text: &str| -> Vec<String> { split(text).expect("parts").iter().map(|part| part.text.to_owned()).collect() };
    assert_eq!(texts("a; b ;;\n c"), ["a", " b ", "\n c"]);
    assert_eq!(split("SELECT $$;$$; /* ; */ SELECT E'\\';' -- ;").expect("two").len(), 2);
    assert_eq!(texts("é;\r\n'x\n;y';z"), ["é", "\r\n'x\n;y'", "z"]);
    assert_eq!(split("é;\r\n'x\n;y';z").expect("three").iter().map(|part| part.before).collect::<Vec<_>>(), [0, 2, 11]);
    assert!(split(" -- nothing\n;").expect("none").is_empty());
    assert!(split("SELECT 'open").is_err());
    assert_eq!(session::Command::of("/* a */ rollback to savepoint x").expect("a command"), session::Command::RollbackTo);
    assert_eq!(session::Command::of("show TABLES").expect("a command"), session::Command::Ask);
}
