//! The command line as data.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::persons::PersonsCommand;
use crate::sources::SourcesCommand;

/// Ask, feed and run a `KiroLinter` DevOps server.
#[derive(Debug, Parser)]
#[command(name = "kirolinter", version, about, after_help = "Every command also works as `kirolinter devops <command>`.")]
pub(crate) struct Cli {
    /// Address of the server.
    #[arg(long, global = true, env = "KIROLINTER_SERVER", default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// Token; better given by the environment, where other users do not see it.
    #[arg(long, global = true, env = "KIROLINTER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates of the authorities that the server's is checked against, as PEM; those of the system when absent.
    #[arg(long, global = true, env = "KIROLINTER_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Seconds to wait for an answer.
    #[arg(long, global = true, default_value_t = 60)]
    pub(crate) timeout: u64,
    #[command(subcommand)]
    command: Top,
}

impl Cli {
    /// The command, under either of its names.
    pub(crate) fn command(self) -> Command {
        match self.command {
            Top::Plain(command) | Top::Devops { command } => command,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Top {
    #[command(flatten)]
    Plain(Command),
    /// The same commands again.
    #[command(hide = true)]
    Devops {
        #[command(subcommand)]
        command: Command,
    },
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// One JSON object a row.
    Ndjson,
    /// Comma-separated rows.
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a gate for its decision.
    Gate(GateArgs),
    /// Ask how likely the next run or a deployment fails, and why.
    Risk(RiskArgs),
    /// Ask in SQL.
    Query {
        /// One read-only statement; `-` reads it from standard input.
        sql: String,
        /// Only rows that the log had taken by then (RFC 3339).
        #[arg(long)]
        as_of: Option<String>,
    },
    /// Import a file by a mapping file, or the past of a repository; a repeated import resumes and counts nothing twice.
    Import(ImportArgs),
    /// Reports that tools leave behind: of tests, coverage and scanners.
    Report {
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// Send events.
    Events {
        #[command(subcommand)]
        command: EventsCommand,
    },
    /// List the tables and their columns.
    Tables {
        /// Only this table, with its columns.
        name: Option<String>,
    },
    /// Models: which there are, how good they are.
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Records that could not be decoded.
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// The audit log, which is the table `audit_log`.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Sources: who may send webhooks, and how each fares.
    Sources {
        #[command(subcommand)]
        command: SourcesCommand,
    },
    /// Persons, whom tables name by pseudonyms. For admins.
    Persons {
        #[command(subcommand)]
        command: PersonsCommand,
    },
    /// Tokens.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// How the server is.
    Status,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    pub(crate) platform: Option<ImportCommand>,
    /// The file: CSV, or JSON (one document, or one object a line).
    #[arg(required = true)]
    pub(crate) file: Option<PathBuf>,
    /// The mapping file.
    #[arg(long, short, required = true)]
    pub(crate) mapping: Option<PathBuf>,
    /// `csv` or `json`; from the file's name when absent.
    #[arg(long = "as")]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// The past of a repository of GitHub; the server needs the token file of its source github.
    Github(RepositoryArgs),
    /// The past of a project of GitLab; the server needs the token file of its source gitlab.
    Gitlab(RepositoryArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RepositoryArgs {
    /// OWNER/REPO, or GROUP/PROJECT.
    pub(crate) repository: String,
    /// How far back the first import looks: a number and d, h or w. A later one goes on from where it came to.
    #[arg(long, default_value = "365d")]
    pub(crate) since: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GateArgs {
    /// Type of the gate: pre-commit, pre-merge, pre-deploy or post-deploy.
    #[arg(long = "type")]
    pub(crate) gate_type: Option<String>,
    /// Name of the gate; needed when there are several of the type.
    #[arg(long)]
    pub(crate) gate: Option<String>,
    /// A parameter of the gate; may be given several times.
    #[arg(long = "param", short = 'p', value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) parameters: Vec<(String, String)>,
    /// What the risk criterion assesses.
    #[command(flatten)]
    pub(crate) risk: RiskScope,
    /// Two calls with the same key are one decision.
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
    /// Exit with 1 when the status is failed, with 3 when it failed because the gate is inconclusive.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct RiskScope {
    /// Repository or service, as in `source` of the tables.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Pipeline.
    #[arg(long)]
    pub(crate) pipeline: Option<String>,
    /// What starts the run: push, `pull_request`, ….
    #[arg(long)]
    pub(crate) trigger: Option<String>,
    /// Moment of prediction (RFC 3339); now when absent.
    #[arg(long)]
    pub(crate) at: Option<String>,
    /// A numeric attribute of the change; may be given several times.
    #[arg(long = "attribute", short = 'a', value_name = "NAME=NUMBER", value_parser = pair)]
    pub(crate) attributes: Vec<(String, String)>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RiskArgs {
    #[command(flatten)]
    pub(crate) scope: RiskScope,
    /// Your name for what is assessed.
    #[arg(long)]
    pub(crate) deployment_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Send a file of native JSON lines, or of CloudEvents with --content-type.
    Send {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Content type of the file.
        #[arg(long, default_value = "application/x-ndjson")]
        content_type: String,
        /// Wait until the events can be queried.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Send files; a file that is sent again counts nothing twice. What is not given is taken from GitHub Actions or GitLab CI.
    Send(ReportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// The files: `JUnit`, Cobertura or `JaCoCo` XML, lcov, SARIF.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Their format; told by how each begins when absent.
    #[arg(long = "as", value_name = "FORMAT", default_value = "auto", value_parser = ["auto", "junit", "cobertura", "jacoco", "lcov", "sarif"])]
    pub(crate) kind: String,
    /// Repository or service, as in `source` of the tables.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// The pipeline run that made them.
    #[arg(long)]
    pub(crate) run_id: Option<String>,
    /// The attempt of that run, from 1.
    #[arg(long)]
    pub(crate) attempt: Option<String>,
    /// The commit that they are about.
    #[arg(long)]
    pub(crate) commit: Option<String>,
    /// The branch that they are about.
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// The service that they are about.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// The environment where they were made.
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// What tells files of one path apart within the run, such as a job of a matrix; the job of the CI when absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Wait until what they say can be queried.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The models that were trained, newest first.
    List,
    /// Train and judge now.
    Evaluate,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// The newest ones.
    List,
    /// Append all of them to the log again, after a fix; run again, it leaves those that it has appended.
    Replay {
        /// Only those whose reason begins so.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check every file and row of it; exit with 1 when it is not what was written. For operators of the tenant `default`.
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its text is shown once.
    Create {
        /// Its name, which is also the user name for psql.
        name: String,
        /// ingest, viewer, developer, operator or admin.
        #[arg(long)]
        role: String,
        /// Its tenant; yours when absent.
        #[arg(long)]
        tenant: Option<String>,
        /// When it ends to be valid (RFC 3339).
        #[arg(long)]
        expires_at: Option<String>,
    },
    /// List the tokens of your tenant.
    List,
    /// Revoke a token.
    Revoke {
        /// Its name.
        name: String,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser as _};

    use super::{Cli, Command, Format};

    #[test]
    fn the_command_line_is_sound() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere_under_both_names() {
        for line in [
            "kirolinter --format=json gate --type=pre-deploy",
            "kirolinter gate --format json --type=pre-deploy",
            "kirolinter gate --type=pre-deploy --format=json",
            "kirolinter devops gate --type=pre-deploy --format=json",
            "kirolinter devops --format=json gate --type=pre-deploy",
            "kirolinter --format=json devops gate --type=pre-deploy",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.format, Format::Json, "{line}");
            let Command::Gate(gate) = cli.command() else { panic!("{line}: another command") };
            assert_eq!(gate.gate_type.as_deref(), Some("pre-deploy"), "{line}");
        }
        let nested = Cli::try_parse_from("kirolinter devops token list --format csv --server http://x".split(' ')).expect("a line");
        assert_eq!((nested.format, nested.server.as_str()), (Format::Csv, "http://x"));
    }

    #[test]
    fn a_parameter_is_a_pair() {
        let error = Cli::try_parse_from("kirolinter gate -p pipeline".split(' ')).expect_err("no pair").to_string();
        assert!(error.contains("NAME=VALUE"), "{error}");
    }
}
