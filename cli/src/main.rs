//! `kirolinter`: the client. Every command also works as `kirolinter devops …`.
//!
//! Must not know: DataFusion, Delta, Kafka; it speaks HTTP to a server.
//!
//! Exit codes: 0 a decision was made or the command worked; 1 and 3 with `--exit-code` (failed, inconclusive); 2 it could not be done.

mod args;
mod commands;
mod dead_letters;
mod environment;
mod http;
mod import;
mod persons;
mod print;
mod report;
mod sources;
mod status;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            // Nothing more can be said when even this cannot be printed.
            drop(error.print());
            return ExitCode::from(if is_help { 0 } else { 2 });
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "kirolinter: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: args::Cli) -> anyhow::Result<u8> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli))
}

/// `kirolinter query … | head` is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
