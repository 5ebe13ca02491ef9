//! Benchmarks: what the product costs, as ratios to peers that do the same in the same run on the same machine.
//!
//! Must not know: how any crate works inside; it starts the programs and asks them as users do.
//!
//! Entry points: `kiro-bench run [ingest|freshness|webhooks|queries|decisions …]`; `echo` and `append DIR` are the peers of risk and gate.
//!
//! ```text
//! run ─┬─ ingest      Kafka → Delta      beside Bytewax
//!      ├─ freshness   post → SQL         at a rate
//!      ├─ webhooks    delivery → 202     at a rate
//!      ├─ queries     the demo's         beside `DuckDB` on the same files
//!      └─ decisions   risk, gate         beside axum that echoes, axum that appends the same bytes
//! ```

mod data;
mod decisions;
mod freshness;
mod http;
mod ingest;
mod machine;
mod peers;
mod program;
mod queries;
mod report;
mod webhooks;

use anyhow::{Result, bail};

use crate::program::Bench;
use crate::report::Report;

/// The parts, in the order in which they run.
const PARTS: &[&str] = &["ingest", "freshness", "webhooks", "queries", "decisions"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["echo"] => peers::echo(),
        ["append", folder] => peers::append(folder.as_ref()),
        ["run", parts @ ..] if parts.iter().all(|part| PARTS.contains(part)) => run(if parts.is_empty() { PARTS } else { parts }),
        _ => bail!("usage: kiro-bench run [{}]", PARTS.join("|")),
    }
}

fn run(parts: &[&str]) -> Result<()> {
    let bench = Bench::from_environment()?;
    let mut report = Report::new(&bench)?;
    for part in parts {
        match *part {
            "ingest" => ingest::run(&bench, &mut report)?,
            "freshness" => freshness::run(&bench, &mut report)?,
            "webhooks" => webhooks::run(&bench, &mut report)?,
            _ => {}
        }
    }
    if parts.iter().any(|part| matches!(*part, "queries" | "decisions")) {
        let server = queries::serve_history(&bench)?;
        if parts.contains(&"queries") {
            queries::run(&bench, &server, &mut report)?;
        }
        if parts.contains(&"decisions") {
            decisions::run(&bench, &server, &mut report)?;
        }
    }
    report.end()?;
    Ok(())
}
