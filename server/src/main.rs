//! `kirolinterd`: the composition root. It alone chooses implementations.
//!
//! Must not know: how anything works; it reads the configuration, puts rooms together, runs them and stops them in order.
//!
//! ```text
//! flags > environment > file > default ─► Config ─► Base ─► stages of the role ─► stop: doors, engine (flush, commit), the rest
//! ```

mod allocator;
mod audit;
mod backfill;
mod base;
mod config;
mod decider;
mod doctor;
mod environment;
mod error;
mod formats;
mod held;
mod imports;
mod intake;
mod journal;
mod lease;
mod listen;
mod maintain;
mod models;
mod operations;
mod outbound;
mod probe;
mod process;
mod replay;
mod reports;
mod role;
mod rows;
mod run;
mod serve;
mod sources;
mod stages;
mod telemetry;
mod tls;
mod train;
mod yielding;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::config::Overrides;
use crate::role::Role;

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
    /// HTTP, webhooks, psql and gates; as many as there are people and pipelines to answer.
    Serve(Options),
    /// Log to lake; several share the partitions of the log.
    Ingest(Options),
    /// Folds and training; several share the shards, and take over from each other.
    Process(Options),
    /// What decisions start; one at a time works, the others stand by.
    Orchestrate(Options),
    /// Upkeep of the lake; one at a time works, the others stand by.
    Maintain(Options),
    /// Check the configuration, report every problem, and end.
    Check {
        /// The role that it is to serve.
        #[arg(long, default_value = "up")]
        role: Role,
        #[command(flatten)]
        options: Options,
    },
    /// Look at log, lake and control store, compare them with each other, and say what to do; nothing is changed.
    ///
    /// Exits with 0 when nothing is to be done, 1 when something is, 2 when it could not look.
    Doctor {
        /// The role that looks; `up` is all in one process.
        #[arg(long, default_value = "up")]
        role: Role,
        /// Read every file of the lake and compare it with its digest.
        #[arg(long)]
        deep: bool,
        /// Form of the output.
        #[arg(long, value_enum, default_value = "text")]
        format: doctor::Format,
        #[command(flatten)]
        options: Options,
    },
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

/// A configuration that cannot work: nothing was tried.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let (role, options, is_check) = match Cli::parse().command {
        Command::Up(options) => (Role::Up, options, false),
        Command::Serve(options) => (Role::Serve, options, false),
        Command::Ingest(options) => (Role::Ingest, options, false),
        Command::Process(options) => (Role::Process, options, false),
        Command::Orchestrate(options) => (Role::Orchestrate, options, false),
        Command::Maintain(options) => (Role::Maintain, options, false),
        Command::Check { role, options } => (role, options, true),
        Command::Doctor { role, deep, format, options } => return examine(role, &options, deep, format),
    };
    match read(role, &options) {
        Err(error) => tell(&error, ExitCode::from(MISCONFIGURED)),
        Ok(_) if is_check => {
            drop(writeln!(std::io::stdout(), "the configuration is valid"));
            ExitCode::SUCCESS
        }
        Ok(config) => start(config).map_or_else(|error| tell(&error, ExitCode::FAILURE), |()| ExitCode::SUCCESS),
    }
}

/// Findings are printed whether it could look at everything or not.
fn examine(role: Role, options: &Options, is_deep: bool, format: doctor::Format) -> ExitCode {
    let mut sheet = doctor::Sheet::default();
    let look = |sheet: &mut doctor::Sheet| -> Result<()> {
        let (place, text) = read_file(options)?;
        let read = |with_files| {
            config::parse(&text)
                .map(|raw| if with_files { raw } else { raw.without_files() })
                .and_then(|raw| config::validate(raw, role, overrides(options)))
        };
        let config = doctor::read(&place, read, sheet)?;
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(doctor::examine(config, is_deep, sheet))
    };
    let looked = look(&mut sheet);
    let code = if sheet.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match looked.and_then(|()| Ok(doctor::print(&sheet, format)?)) {
        Ok(()) => code,
        Err(error) => {
            drop(doctor::print(&sheet, format));
            tell(&error, ExitCode::from(MISCONFIGURED))
        }
    }
}

fn tell(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    drop(writeln!(std::io::stderr(), "kirolinterd: {error:#}"));
    code
}

fn start(config: config::Config) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(environment::log_filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run::run(config))
}

/// The configuration file, or what stands for it, and its text.
fn read_file(options: &Options) -> Result<(PathBuf, String)> {
    let default = PathBuf::from("kirolinter.yaml");
    match options.config.clone().or_else(|| default.exists().then_some(default)) {
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok((file, text))
        }
        None => Ok((PathBuf::from("the command line"), String::new())),
    }
}

fn overrides(options: &Options) -> Overrides {
    Overrides {
        data_dir: options.data_dir.clone(),
        http: options.http.clone(),
        pg: options.pg.clone(),
        kafka: options.kafka.clone(),
        postgres: environment::postgres(),
    }
}

fn read(role: Role, options: &Options) -> Result<config::Config> {
    let (place, text) = read_file(options)?;
    config::parse(&text).and_then(|raw| config::validate(raw, role, overrides(options))).map_err(|problems| base::all(&place, &problems))
}
