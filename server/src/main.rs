//! `kirolinterd`: the composition root. It alone chooses implementations.
//!
//! Must not know: how anything works; it reads the configuration, puts rooms together, runs them and stops them in order.
//!
//! ```text
//! flags > environment > file > default ─► Config ─► up::build ─► run ─► stop: doors, engine (flush, commit), outbox
//! ```

mod config;
mod decider;
mod environment;
mod error;
mod imports;
mod intake;
mod journal;
mod models;
mod operations;
mod outbound;
mod rows;
mod run;
mod tls;
mod up;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::config::Overrides;

/// The `KiroLinter` DevOps server.
#[derive(Debug, Parser)]
#[command(name = "kirolinterd", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every role in one process; needs no other server.
    Up(Options),
    /// Check the configuration, report every problem, and end.
    Check(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// The configuration file; `kirolinter.yaml` of this folder when it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where HTTP listens.
    #[arg(long)]
    http: Option<String>,
    /// Where psql and Grafana connect.
    #[arg(long)]
    pg: Option<String>,
    /// Brokers of Kafka, `host:port,…`; the embedded log when absent.
    #[arg(long)]
    kafka: Option<String>,
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "kirolinterd: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<()> {
    let (options, is_check) = match cli.command {
        Command::Up(options) => (options, false),
        Command::Check(options) => (options, true),
    };
    let config = read(&options)?;
    if is_check {
        return Ok(writeln!(std::io::stdout(), "the configuration is valid")?);
    }
    tracing_subscriber::fmt()
        .with_env_filter(environment::log_filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run::up(config))
}

fn read(options: &Options) -> Result<config::Config> {
    let default = PathBuf::from("kirolinter.yaml");
    let file = options.config.clone().or_else(|| default.exists().then_some(default));
    let text = match &file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => String::new(),
    };
    let overrides =
        Overrides { data_dir: options.data_dir.clone(), http: options.http.clone(), pg: options.pg.clone(), kafka: options.kafka.clone() };
    let place = file.unwrap_or_else(|| PathBuf::from("the command line"));
    config::parse(&text).and_then(|raw| config::validate(raw, overrides)).map_err(|problems| up::all(&place, &problems))
}
