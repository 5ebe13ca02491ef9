//! Many connections that do nothing, or that very slowly, and messages in any order before a login.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::LOGIN;
use super::tests::{Running, message, start};
use crate::outside::Dice;

const CROWD: usize = 2_000;
/// Statements of one measurement.
const ASKED: usize = 200;
/// Noise of a busy machine, which neither measurement is to be blamed for.
const NOISE: Duration = Duration::from_millis(20);

async fn opened(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.at).await.expect("a connection");
    stream.write_all(&message(b"", &[b"\0\x03\0\0user\0x\0\0"])).await.expect("sent");
    until_ready(&mut stream).await;
    stream
}

async fn until_ready(stream: &mut TcpStream) {
    let mut told = Vec::new();
    while !told.ends_with(b"Z\0\0\0\x05I") {
        assert!(stream.read_buf(&mut told).await.expect("read") > 0, "closed after {:?}", String::from_utf8_lossy(&told));
    }
}

/// The 99th percentile of a small statement's time.
async fn p99(running: &Running) -> Duration {
    let mut stream = opened(running).await;
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let start = Instant::now();
        stream.write_all(&message(b"Q", &[b"SELECT run_id FROM pipeline_runs\0"])).await.expect("sent");
        until_ready(&mut stream).await;
        times.push(start.elapsed());
    }
    times.sort();
    times[ASKED * 99 / 100]
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("a number");
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// In a process of its own: the memory of others is not the crowd's.
#[test]
fn a_crowd_delays_nobody() {
    let program = std::env::current_exe().expect("a program");
    let alone = ["--exact", "psql::crowd::a_crowd_in_a_process_of_its_own", "--ignored", "--nocapture"];
    let told = std::process::Command::new(program).args(alone).output().expect("it runs");
    let text = String::from_utf8_lossy(&told.stdout);
    print!("{text}");
    assert!(told.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&told.stderr));
}

/// A third is logged in and idle, a third has sent nothing, a third sends a byte now and then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it alone"]
async fn a_crowd_in_a_process_of_its_own() {
    let running = start(true, CROWD).await;
    let before = resident();
    let mut alone = p99(&running).await;
    let mut crowd = Vec::new();
    for at in 0..CROWD {
        crowd.push(match at % 3 {
            0 => opened(&running).await,
            _ => TcpStream::connect(running.at).await.expect("a connection"),
        });
    }
    let startup = message(b"", &[b"\0\x03\0\0user\0x\0\0"]);
    let mut beside = Duration::MAX;
    for round in 0..4 {
        for (at, stream) in crowd.iter_mut().enumerate().filter(|(at, _)| at % 3 == 2) {
            // The door may have closed it to make room.
            drop(stream.write_all(&startup[(round + at) % 8..][..1]).await);
        }
        beside = beside.min(p99(&running).await);
        if beside < alone * 2 {
            break;
        }
        alone = alone.max(Duration::from_millis(1));
    }
    println!("p99 alone {alone:?}, beside {CROWD} connections {beside:?}");
    assert!(beside < alone * 2 + NOISE, "p99 is {beside:?} beside the crowd, {alone:?} alone");
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "the crowd takes {} MiB", grown >> 20);
}

/// Who holds connections open before the login keeps nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_make_room() {
    let running = start(true, 2).await;
    let mut crowd = Vec::new();
    for _ in 0..super::MOST_WAITING + 50 {
        crowd.push(TcpStream::connect(running.at).await.expect("a connection"));
    }
    let asked = tokio::time::timeout(Duration::from_secs(20), p99(&running)).await;
    assert!(asked.is_ok(), "kept out by a crowd that is not logged in");
    let mut byte = [0];
    let first = tokio::time::timeout(Duration::from_secs(20), crowd[0].read(&mut byte)).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "the oldest made room: {first:?}");
}

/// Messages in any order: before a login there is no answer to a query, whatever came.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_messages_answers_before_a_login() {
    let running = start(false, 10).await;
    let sasl = b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=abcdefghijklmnopqrstuvwx";
    let messages = [
        message(b"Q", &[b"SELECT 'leaked' || 'row'\0"]),
        message(b"P", &[b"\0SELECT 'leaked' || 'row'\0\0\0"]),
        message(b"B", &[b"\0\0\0\0\0\0\0\0"]),
        message(b"D", &[b"P\0"]),
        message(b"E", &[b"\0\0\0\0\0"]),
        message(b"S", &[]),
        message(b"H", &[]),
        message(b"p", &[sasl]),
        message(b"p", &[b"c=biws,r=abc,p=AAAA"]),
        message(b"p", &[b"password\0"]),
        message(b"", &[b"\0\x03\0\0user\0reader\0\0"]),
        message(b"", &[b"\x04\xd2\x16\x2f"]),
        message(b"d", &[b"x"]),
        message(b"c", &[]),
        message(b"C", &[b"S\0"]),
    ];
    let mut dice = Dice(2026);
    for _ in 0..400 {
        let mut bytes = message(b"", &[b"\0\x03\0\0user\0", [b"reader".as_slice(), b"nobody"][dice.below(2)], b"\0\0"]);
        for _ in 0..dice.below(9) {
            bytes.extend_from_slice(&messages[dice.below(messages.len())]);
        }
        let mut stream = TcpStream::connect(running.at).await.expect("a connection");
        drop(stream.write_all(&bytes).await);
        drop(stream.shutdown().await);
        let mut told = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut told)).await;
        let text = String::from_utf8_lossy(&told);
        assert!(end.is_ok() && !text.contains("leakedrow") && !text.contains("SELECT 1"), "{}: {text}", bytes.escape_ascii());
        assert!(!told.windows(9).any(|part| part == b"R\0\0\0\x08\0\0\0\0"), "let in: {}", bytes.escape_ascii());
    }
}

/// Sends a beginning, then a byte now and then: how long until the door has closed.
async fn closed_after(at: std::net::SocketAddr, sent: Vec<u8>, slowly: Vec<u8>) -> Duration {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    stream.write_all(&sent).await.expect("sent");
    let (mut reader, mut writer) = stream.into_split();
    let drip = async {
        for byte in slowly {
            tokio::time::sleep(LOGIN / 25).await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut told = Vec::new();
    tokio::select! {
        () = drip => {}
        _ended = reader.read_to_end(&mut told) => {}
    }
    begin.elapsed()
}

/// Whoever does not log in is let go, whatever they send meanwhile and however slowly.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_takes_too_long_is_ended() {
    let running = start(false, 10).await;
    let startup = message(b"", &[b"\0\x03\0\0user\0reader\0\0"]);
    let tls = message(b"", &[b"\x04\xd2\x16\x2f"]);
    let sasl = message(b"p", &[b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=abcdefghijklmnopqrstuvwx"]);
    let question = message(b"Q", &[b"SELECT 1\0"]);
    let slow = |bytes: &[u8]| bytes.iter().copied().cycle().take(500).collect::<Vec<u8>>();
    let mut tasks = Vec::new();
    for (name, sent, slowly) in [
        ("nothing is sent", vec![], vec![]),
        ("half of a startup, slowly", vec![], startup[..startup.len() - 2].to_vec()),
        ("TLS is asked for, and nothing else", tls.clone(), vec![]),
        ("TLS is asked for, then the startup slowly", tls, startup[..startup.len() - 2].to_vec()),
        ("no proof comes", startup.clone(), vec![]),
        ("half of a proof, slowly", startup.clone(), sasl[..sasl.len() - 2].to_vec()),
        ("a first proof and no second", [startup.clone(), sasl].concat(), vec![]),
        ("a question before the login, slowly", startup.clone(), question[..question.len() - 1].to_vec()),
        ("questions before the login", startup, slow(&question)),
    ] {
        let ended = tokio::time::timeout(LOGIN * 3, closed_after(running.at, sent, slowly));
        tasks.push((name, tokio::spawn(ended)));
    }
    for (name, task) in tasks {
        let took = task.await.expect("it ran").unwrap_or(Duration::MAX);
        assert!(took < LOGIN + Duration::from_secs(4), "{name}: held open for {took:?}");
    }
    assert_eq!(LOGIN, Duration::from_secs(10));
}
