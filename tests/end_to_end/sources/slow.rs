//! Senders that send nothing, or little: they keep nobody out, and are told when they were waited for long enough.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SECRET, deliver, run, with_github};
use crate::server::{Server, wait_for};

/// More than there are places for large deliveries.
const SENDERS: usize = 12;
/// Larger than what needs no place.
const LARGE: usize = 2 << 20;

/// Announces a large delivery, and sends the beginning of it.
fn begin(server: &Server, sent: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.http))?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    let head = format!("POST /webhooks/github HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n", 20 << 20);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'x'; sent])?;
    Ok(stream)
}

fn large(id: usize) -> String {
    let run = run(id);
    format!("{}{run}", " ".repeat(LARGE))
}

fn ended(streams: Vec<TcpStream>) -> Result<()> {
    for mut stream in streams {
        let mut answer = String::new();
        // What was not read of it may be told as a connection that broke, behind the answer.
        drop(stream.read_to_string(&mut answer));
        ensure!(answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 503"), "{answer:?}");
        ensure!(answer.contains("retry-after"), "{answer:?}");
    }
    Ok(())
}

#[test]
fn slow_senders_keep_nobody_out() -> Result<()> {
    let server = with_github("sources_slow", "")?;
    let silent = (0..SENDERS).map(|_| begin(&server, 0)).collect::<Result<Vec<_>>>()?;
    ensure!(deliver(server.http, "github", "small", SECRET, &run(1))?.status == 202, "an ordinary one is kept out");
    let taken = deliver(server.http, "github", "large", SECRET, &large(2))?;
    ensure!(taken.status == 202, "a large one is kept out by who sends nothing: {taken:?}");

    let slow = (0..SENDERS).map(|_| begin(&server, LARGE / 2 + 4_096)).collect::<Result<Vec<_>>>()?;
    ensure!(deliver(server.http, "github", "small beside", SECRET, &run(3))?.status == 202, "an ordinary one is kept out");
    // Before those are told that nothing came, which is after ten seconds.
    let taken = wait_for("a large delivery beside slow ones", 9, || {
        let reply = deliver(server.http, "github", "large beside", SECRET, &large(4))?;
        ensure!(reply.status == 202 || reply.header("retry-after").is_some(), "{reply:?}");
        Ok((reply.status == 202).then_some(reply))
    });
    taken.context("a large one is kept out by who sends too little")?;
    ended(silent)?;
    ended(slow)?;
    server.send("nothing.ndjson", "application/x-ndjson", "")?;
    let rows = server.rows("SELECT run_id FROM pipeline_runs ORDER BY run_id")?;
    ensure!(rows.len() == 4, "{rows:?}");
    Ok(())
}
