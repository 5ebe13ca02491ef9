//! Real tools at the psql door: TLS, Ctrl-C, what psql and Grafana ask, hostile statements in both protocols.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::tests::{PASSWORD, Running, error, message, said, start, start_with};
use crate::hostile::REFUSED;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value * b.value = -1";

/// A certificate of `localhost` by an authority of its own, both as files: `ca.pem`, `server.pem`, `server.key`.
fn certify(dir: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > extensions
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other";
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn tls(dir: &Path) -> Arc<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a configuration"))
}

fn psql(running: &Running, target: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-A", "-t", "-v", "VERBOSITY=verbose"]).env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10");
    command.arg(format!("port={} user=reader dbname=kirolinter {target}", running.at.port()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    certify(dir.path());
    let running = start_with(false, 10, Some(tls(dir.path()))).await;
    let root = |name: &str| -> PathBuf { dir.path().join(name) };
    let full = format!("host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", root("ca.pem").display());
    let wrong_root = format!("host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", root("other.pem").display());
    let wrong_name = format!("host=elsewhere hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", root("ca.pem").display());
    for (target, text) in [
        (full.as_str(), "7"),
        ("host=127.0.0.1 sslmode=require", "7"),
        (wrong_root.as_str(), "certificate verify failed"),
        (wrong_name.as_str(), "does not match host name"),
    ] {
        let output = psql(&running, target).args(["-c", "SELECT 7"]).output().await.expect("psql runs");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(text) && output.status.success() == (text == "7"), "{target}: {told}");
    }
    let info = psql(&running, &full).args(["-c", "\\conninfo"]).output().await.expect("psql runs");
    assert!(String::from_utf8_lossy(&info.stdout).contains("TLSv1.3"), "{info:?}");
    let plain = start(false, 10).await;
    let refused = psql(&plain, "host=127.0.0.1 sslmode=require").args(["-c", "SELECT 7"]).output().await.expect("psql runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("server does not support SSL"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_cancels() {
    let dir = tempfile::tempdir().expect("a directory");
    certify(dir.path());
    for tls in [None, Some(tls(dir.path()))] {
        let mode = if tls.is_some() { "require" } else { "disable" };
        let running = start_with(false, 10, tls).await;
        let target = format!("host=127.0.0.1 sslmode={mode}");
        let child = psql(&running, &target).args(["-c", ENDLESS]).spawn().expect("psql runs");
        let id = child.id().expect("an id");
        until("the statement runs", || running.query.free_places() < 8).await;
        let start = Instant::now();
        let killed = Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status().await.expect("a signal");
        assert!(killed.success());
        let output = tokio::time::timeout(Duration::from_secs(10), child.wait_with_output()).await.expect("an end").expect("psql");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("57014") && start.elapsed() < Duration::from_secs(3), "{mode}: {told} after {:?}", start.elapsed());
        until("the place is free", || running.query.free_places() == 8).await;
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Opens a connection without password; what the server told of its number and key.
async fn open(running: &Running) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(running.at).await.expect("a connection");
    stream.write_all(&message(b"", &[b"\0\x03\0\0user\0x\0\0"])).await.expect("sent");
    let mut told = Vec::new();
    while !told.ends_with(b"Z\0\0\0\x05I") {
        assert!(stream.read_buf(&mut told).await.expect("read") > 0, "closed");
    }
    let at = told.windows(5).position(|w| w == b"K\0\0\0\x0c").expect("a key");
    (stream, told[at + 5..at + 13].to_vec())
}

/// What the server says to messages of the extended protocol, until it is ready again.
async fn extended(stream: &mut TcpStream, parts: &[Vec<u8>]) -> Vec<u8> {
    stream.write_all(&parts.concat()).await.expect("sent");
    let mut told = Vec::new();
    while !(told.ends_with(b"Z\0\0\0\x05I") || told.ends_with(b"Z\0\0\0\x05E")) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_buf(&mut told)).await.expect("an answer");
        assert!(read.expect("read") > 0, "closed after {:?}", String::from_utf8_lossy(&told));
    }
    told
}

/// Parse, bind without values, describe, execute with a limit of rows, sync.
fn asked(sql: &str, rows: u32) -> Vec<Vec<u8>> {
    vec![
        message(b"P", &[b"\0", sql.as_bytes(), b"\0\0\0"]),
        message(b"B", &[b"\0\0\0\0\0\0\0\0"]),
        message(b"D", &[b"P\0"]),
        message(b"E", &[b"\0", &rows.to_be_bytes()]),
        message(b"S", &[]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_reaches_prepared_statements_too() {
    let running = start(true, 10).await;
    // The first computes without a row, the second sends rows without end.
    for sql in [ENDLESS, "SELECT value, repeat('x', 1000) AS text FROM generate_series(1, 1000000)"] {
        let (mut stream, key) = open(&running).await;
        stream.write_all(&asked(sql, 0).concat()).await.expect("sent");
        until("the statement runs", || running.query.free_places() < 8).await;
        let mut cancel = TcpStream::connect(running.at).await.expect("a connection");
        cancel.write_all(&message(b"", &[b"\x04\xd2\x16\x2e", &[0; 8]])).await.expect("sent");
        let mut nothing = Vec::new();
        cancel.read_to_end(&mut nothing).await.expect("closed");
        assert!(nothing.is_empty() && running.query.free_places() < 8, "a foreign key cancels nothing");
        let mut cancel = TcpStream::connect(running.at).await.expect("a connection");
        cancel.write_all(&message(b"", &[b"\x04\xd2\x16\x2e", &key])).await.expect("sent");
        cancel.read_to_end(&mut nothing).await.expect("closed");
        let told = extended(&mut stream, &[]).await;
        assert!(
            String::from_utf8_lossy(&told).contains("57014"),
            "{sql}: {}",
            String::from_utf8_lossy(&told[told.len().saturating_sub(300)..])
        );
        until("the place is free", || running.query.free_places() == 8).await;
        let told = extended(&mut stream, &asked("SELECT 'after'", 0)).await;
        assert!(String::from_utf8_lossy(&told).contains("after"), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_frees_its_place() {
    let running = start(true, 10).await;
    let (mut stream, _) = open(&running).await;
    stream.write_all(&message(b"Q", &[ENDLESS.as_bytes(), b"\0"])).await.expect("sent");
    until("the statement runs", || running.query.free_places() < 8).await;
    drop(stream);
    until("the place is free", || running.query.free_places() == 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_statements_are_refused_in_both_protocols() {
    let running = start(true, 10).await;
    let (mut stream, _) = open(&running).await;
    // These are answered by the session: they change nothing.
    let is_answered = |sql: &str| {
        ["SET search", "RESET ", "DEALLOCATE", "BEGIN", "COMMIT", "SELECT 1; SELECT 2", ";", "--"].iter().any(|s| sql.starts_with(s))
            || sql.is_empty()
    };
    let mut refused = 0;
    for sql in REFUSED.iter().filter(|sql| !is_answered(sql)) {
        let simple = extended(&mut stream, &[message(b"Q", &[sql.as_bytes(), b"\0"])]).await;
        let prepared = extended(&mut stream, &asked(sql, 0)).await;
        for (told, protocol) in [(simple, "simple"), (prepared, "extended")] {
            let text = String::from_utf8_lossy(&told).into_owned();
            assert!(text.contains("SERROR\0"), "{protocol} passes: {sql}: {text}");
            assert!(!text.contains("XX000"), "{protocol} has no state for: {sql}: {text}");
        }
        refused += 1;
    }
    assert!(refused >= 110, "{refused} statements");
    assert!(!Path::new("/tmp/kiro-hostile.csv").exists() && !Path::new("/tmp/kiro-hostile.parquet").exists());
    let told = extended(&mut stream, &asked("SELECT 'after'", 0)).await;
    assert!(String::from_utf8_lossy(&told).contains("after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_looks_like_a_known_one() {
    let running = start(false, 10).await;
    let mut asked = Vec::new();
    for user in ["reader", "nobody", "nobody", "somebody"] {
        let mut stream = TcpStream::connect(running.at).await.expect("a connection");
        let startup = [b"\0\x03\0\0user\0".as_slice(), user.as_bytes(), b"\0\0"].concat();
        stream.write_all(&message(b"", &[&startup])).await.expect("sent");
        let first = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
        let length = u32::try_from(first.len()).expect("a length").to_be_bytes();
        stream.write_all(&message(b"p", &[b"SCRAM-SHA-256\0", &length, first])).await.expect("sent");
        let mut told = Vec::new();
        while !String::from_utf8_lossy(&told).contains(",i=") || !told.ends_with(b"6") {
            assert!(stream.read_buf(&mut told).await.expect("read") > 0, "{user}: {}", String::from_utf8_lossy(&told));
        }
        let text = String::from_utf8_lossy(&told).into_owned();
        let part = |name: &str| text.split(name).nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned();
        asked.push((part(",s="), part(",i=")));
    }
    assert!(asked.iter().all(|(salt, rounds)| salt.len() == asked[0].0.len() && rounds == "4096"), "{asked:?}");
    assert_eq!(asked[1], asked[2], "the same name has the same salt each time");
    assert_ne!(asked[1], asked[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_lists_what_there_is() {
    let running = start(true, 10).await;
    for (command, parts) in [
        ("\\dt", vec!["public|pipeline_runs|table"]),
        ("\\d", vec!["public|pipeline_runs|table"]),
        ("\\d pipeline_runs", vec!["run_id|text", "attempt|bigint", "started_at|timestamp with time zone"]),
        ("\\l", vec!["kirolinter|"]),
        ("\\dn", vec!["public|"]),
        ("\\du", vec![]),
        ("\\dv", vec![]),
        ("\\di", vec![]),
        ("\\conninfo", vec!["You are connected to database \"kirolinter\""]),
        ("SELECT version()", vec!["PostgreSQL 16"]),
        ("SELECT current_setting('server_version_num')::int / 100", vec!["1600"]),
        ("SELECT current_setting('nothing', true) IS NULL, current_setting('TimeZone')", vec!["t|UTC"]),
        ("SELECT current_database(), current_schema(), pg_size_pretty(123456789)", vec!["kirolinter|public|118 MB"]),
        (
            "SELECT data_type, udt_name FROM information_schema.columns WHERE table_name = 'pipeline_runs' AND column_name IN \
             ('run_id', 'attempt', 'started_at') ORDER BY ordinal_position",
            vec!["text|text\nbigint|int8\ntimestamp with time zone|timestamptz"],
        ),
        (
            "SELECT DISTINCT data_type FROM information_schema.columns WHERE table_name = 'features' AND data_type LIKE 'd%'",
            vec!["double precision"],
        ),
        ("SELECT typname FROM pg_catalog.pg_type WHERE oid IN (20, 1184) ORDER BY 1", vec!["int8\ntimestamptz"]),
    ] {
        let answer = said(&running, &[command]).await;
        for part in parts {
            assert!(answer.contains(part), "{command} says {answer:?}, not {part:?}");
        }
    }
    assert!(error(&running, "SELECT current_setting('nothing')").await.contains("there is no setting"));
}

/// # Source
/// grafana/grafana, `postgresMetaQuery.ts`: what its query editor sends, and a panel's query after its macros are expanded.
#[tokio::test(flavor = "multi_thread")]
async fn grafana_finds_tables_and_times() {
    let running = start(true, 10).await;
    let constraint = "quote_ident(table_schema) IN (\n          SELECT\n            CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END\n          FROM\n            generate_series(\n              array_lower(string_to_array(current_setting('search_path'),','),1),\n              array_upper(string_to_array(current_setting('search_path'),','),1)\n            ) as i,\n            string_to_array(current_setting('search_path'),',') s\n          )";
    let tables = format!(
        "select quote_ident(table_name) as \"table\" from information_schema.tables where quote_ident(table_schema) not in \
         ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', \
         '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental') and {constraint}"
    );
    for (sql, part) in [
        ("SELECT current_setting('server_version_num')::int/100 as version", "1600"),
        ("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", ""),
        (tables.as_str(), "pipeline_runs\n"),
        (
            "select quote_ident(column_name) as \"column\", data_type as \"type\" from information_schema.columns where quote_ident(table_name) = 'pipeline_runs'",
            "started_at|timestamp with time zone",
        ),
        (
            "SELECT floor(extract(epoch from recorded_at)/3600)*3600 AS \"time\", branch AS metric, count(*) AS value FROM pipeline_runs \
             WHERE recorded_at BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T01:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2",
            "0|it's|1\n0|main|1",
        ),
        (
            "SELECT recorded_at AS \"time\", run_id FROM pipeline_runs WHERE recorded_at >= '1970-01-01T00:00:00Z' AND \
             recorded_at <= '2026-01-01T00:00:00Z' ORDER BY 1 LIMIT 50",
            "1970-01-01 00:00:00.000001+00|1",
        ),
    ] {
        let answer = said(&running, &[sql]).await;
        assert!(answer.contains(part), "{sql} says {answer:?}");
    }
}

/// Binds one value to a statement; what is told.
async fn bound(stream: &mut TcpStream, sql: &str, kind: u32, is_binary: bool, value: Option<&[u8]>) -> Vec<u8> {
    let length = value.map_or(-1, |v| i32::try_from(v.len()).expect("a length")).to_be_bytes();
    let format = u16::from(is_binary).to_be_bytes();
    let parts = [
        message(b"P", &[b"\0", sql.as_bytes(), b"\0\0\x01", &kind.to_be_bytes()]),
        message(b"B", &[b"\0\0\0\x01", &format, b"\0\x01", &length, value.unwrap_or_default(), b"\0\0"]),
        message(b"D", &[b"P\0"]),
        message(b"E", &[b"\0\0\0\0\0"]),
        message(b"S", &[]),
    ];
    extended(stream, &parts).await
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_types_are_bound() {
    let running = start(true, 10).await;
    let (mut stream, _) = open(&running).await;
    let by_time = "SELECT run_id FROM pipeline_runs WHERE recorded_at = $1";
    let (second, day) = ((1 - 946_684_800_000_000_i64).to_be_bytes(), 9_497_i32.to_be_bytes());
    let binary: &[(&str, u32, &[u8], &str)] = &[
        ("SELECT $1::text || '!'", 25, b"it's", "it's!"),
        ("SELECT $1::bigint + 1", 20, &41_i64.to_be_bytes(), "42"),
        ("SELECT $1::int + 1", 23, &41_i32.to_be_bytes(), "42"),
        ("SELECT $1::smallint + 1", 21, &41_i16.to_be_bytes(), "42"),
        ("SELECT $1::double precision * 2", 701, &1.25_f64.to_be_bytes(), "2.5"),
        ("SELECT $1::real * 2", 700, &1.25_f32.to_be_bytes(), "2.5"),
        ("SELECT NOT $1::boolean", 16, &[1], "f"),
        (by_time, 1184, &second, "1"),
        ("SELECT $1::date", 1082, &day, "2026-01-01"),
        ("SELECT $1::timestamp", 1114, &0_i64.to_be_bytes(), "2000-01-01 00:00:00.000000"),
        ("SELECT run_id FROM pipeline_runs ORDER BY 1 LIMIT $1", 20, &1_i64.to_be_bytes(), "1"),
    ];
    let text: &[(&str, &[u8], &str)] = &[
        ("SELECT $1::text || '!'", b"it's", "it's!"),
        ("SELECT $1::bigint", b"-9223372036854775808", "-9223372036854775808"),
        ("SELECT $1::double precision", b"NaN", "NaN"),
        ("SELECT $1::numeric(10, 2)", b"12.5", "12.50"),
        ("SELECT $1::boolean", b"t", "t"),
        (by_time, b"1970-01-01 00:00:00.000001+00", "1"),
        (by_time, b"1970-01-01T00:00:00.000002Z", "2"),
        ("SELECT $1::date", b"2026-01-01", "2026-01-01"),
    ];
    for (sql, kind, value, cell) in binary {
        let told = bound(&mut stream, sql, *kind, true, Some(value)).await;
        has_cell(&told, cell, &format!("{sql} in binary"));
    }
    for (sql, value, cell) in text {
        let told = bound(&mut stream, sql, 0, false, Some(value)).await;
        has_cell(&told, cell, &format!("{sql} as text"));
    }
    has_cell(&bound(&mut stream, "SELECT $1::bigint IS NULL", 20, true, None).await, "t", "null");
    for (sql, kind, is_binary, value, state) in [
        ("SELECT $1::bigint", 0, false, b"x".as_slice(), "22P02"),
        ("SELECT $1::text", 25, false, b"\xff", "22021"),
        ("SELECT $1::bigint", 20, true, b"\0\0", "22P02"),
    ] {
        let told = String::from_utf8_lossy(&bound(&mut stream, sql, kind, is_binary, Some(value)).await).into_owned();
        assert!(told.contains("SERROR\0") && told.contains(state), "{sql}: {told}");
    }
}

fn has_cell(told: &[u8], cell: &str, what: &str) {
    let length = u32::try_from(cell.len()).expect("a length").to_be_bytes();
    let row = message(b"D", &[b"\0\x01", &length, cell.as_bytes()]);
    assert!(told.windows(row.len()).any(|w| w == row), "{what}: {:?} is not in {:?}", cell, String::from_utf8_lossy(told));
}
