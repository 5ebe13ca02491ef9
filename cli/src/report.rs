//! `kirolinter report send`: sends reports as they are read, and says what was found in them.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::{Stream, stream};
use indicatif::ProgressBar;
use kiro_schemas::Micros;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::args::{Format, ReportArgs};
use crate::environment::{self, Ci};
use crate::http::Server;
use crate::{import, print};

const PIECE: usize = 256 << 10;
/// A large report takes its time.
const PATIENCE: Duration = Duration::from_mins(15);

pub(crate) async fn send(server: &Server, format: Format, args: ReportArgs) -> Result<()> {
    let scope = scope(&args, environment::ci())?;
    let mut told = Vec::new();
    for path in &args.files {
        let counts = send_one(server, format, (path, &args.kind), &scope).await.with_context(|| match told.len() {
            0 => path.display().to_string(),
            sent => format!("{} (the first {sent} of {} files were sent)", path.display(), args.files.len()),
        })?;
        if format == Format::Text {
            print::line(&line(path, &counts))?;
        }
        told.push(json!({"file": path.display().to_string(), "report": counts}));
    }
    if args.wait {
        server.send(server.request(Method::POST, "/api/v1/settle")).await?;
    }
    if format == Format::Text { Ok(()) } else { print::json(&json!({ "reports": told })) }
}

/// What all files are about: as it is given, else as the CI says.
fn scope(args: &ReportArgs, ci: Ci) -> Result<Vec<(&'static str, String)>> {
    let given = |own: &Option<String>, of_ci: Option<String>| own.clone().or(of_ci);
    let (source, run_id) = (given(&args.source, ci.source), given(&args.run_id, ci.run_id));
    for (flag, value) in [("--source", &source), ("--run-id", &run_id)] {
        if value.is_none() {
            bail!("{flag} is needed: this is neither GitHub Actions nor GitLab CI, which would tell it");
        }
    }
    let all = [
        ("source", source),
        ("run_id", run_id),
        ("attempt", given(&args.attempt, ci.attempt)),
        ("commit_sha", given(&args.commit, ci.commit)),
        ("branch", given(&args.branch, ci.branch)),
        ("service", args.service.clone()),
        ("environment", args.environment.clone()),
        ("name", given(&args.name, ci.job)),
    ];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|text| !text.is_empty())?))).collect())
}

/// The query of one file: its path is a part of its name.
fn query(scope: &[(&'static str, String)], path: &Path, made: Option<Micros>) -> Vec<(&'static str, String)> {
    let path = path.display().to_string();
    let name = scope.iter().find(|(key, _)| *key == "name").map_or_else(|| path.clone(), |(_, name)| format!("{name}/{path}"));
    let rest = scope.iter().filter(|(key, _)| *key != "name").cloned();
    rest.chain([("name", name)]).chain(made.map(|time| ("time", time.to_string()))).collect()
}

async fn send_one(server: &Server, format: Format, (path, kind): (&Path, &str), scope: &[(&'static str, String)]) -> Result<Value> {
    let file = File::open(path).await.context("cannot read it")?;
    let about = file.metadata().await?;
    if about.is_dir() {
        bail!("it is a folder: name the files, such as {}/*.xml", path.display());
    }
    // The time of the file, so that it says the same whenever it is sent.
    let since = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let made = since.and_then(|since| i64::try_from(since.as_micros()).ok()).map(Micros);
    let bar = import::bar(about.len(), format)?;
    bar.set_message(path.display().to_string());
    let address = server.path(&format!("/api/v1/reports/{kind}"), &query(scope, path, made))?;
    let request = server.request(Method::POST, &address).timeout(PATIENCE).body(Body::wrap_stream(pieces(file, bar.clone())));
    let answer = server.send(request).await;
    bar.finish_and_clear();
    Ok(answer?.json().await?)
}

/// The bytes of a file, as the bar shows them.
fn pieces(file: File, bar: ProgressBar) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, move |mut file| {
        let bar = bar.clone();
        async move {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
            bar.inc(read as u64);
            Ok((read > 0).then(|| (Bytes::from(piece), file)))
        }
    })
}

/// What was found, in a line.
fn line(path: &Path, counts: &Value) -> String {
    let number = |name: &str| counts[name].as_u64().unwrap_or(0);
    let kind = counts["format"].as_str().unwrap_or("?");
    let found = if kind == "junit" {
        let [success, failure, error, skip, retries] = ["success", "failure", "error", "skip", "retries"].map(number);
        let tests = success + failure + error + skip;
        format!("{tests} tests: {success} passed, {failure} failed, {error} broke, {skip} not run; {retries} tried again")
    } else {
        format!("{} values", number("metrics"))
    };
    let unread = Some(number("unread_times")).filter(|unread| *unread > 0);
    let unread = unread.map(|unread| format!("; {unread} times could not be read and are left out")).unwrap_or_default();
    format!("{}: {kind}, {found}{unread}; {} events are in the log", path.display(), number("events"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;
    use kiro_schemas::Micros;
    use serde_json::json;

    use super::{line, query, scope};
    use crate::args::{Cli, Command, ReportArgs, ReportCommand};
    use crate::environment::Ci;

    fn args(line: &str) -> ReportArgs {
        let cli = Cli::try_parse_from(line.split(' ')).expect("a line");
        let Command::Report { command: ReportCommand::Send(args) } = cli.command() else { panic!("another command") };
        args
    }

    #[test]
    fn flags_go_before_the_ci_and_both_are_enough() {
        let ci = || Ci { source: Some("https://a/b".into()), run_id: Some("7".into()), job: Some("test".into()), ..Ci::default() };
        let told = scope(&args("kirolinter report send a.xml"), ci()).expect("the CI tells");
        assert_eq!(told, [("source", "https://a/b".to_owned()), ("run_id", "7".to_owned()), ("name", "test".to_owned())]);
        let told =
            scope(&args("kirolinter devops report send a.xml --run-id 8 --name linux --service shop --as junit"), ci()).expect("a scope");
        let all = query(&told, Path::new("out/a.xml"), Some(Micros(0)));
        let expected = [
            ("source", "https://a/b"),
            ("run_id", "8"),
            ("service", "shop"),
            ("name", "linux/out/a.xml"),
            ("time", "1970-01-01T00:00:00Z"),
        ];
        assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
        let error = scope(&args("kirolinter report send a.xml --source s"), Ci::default()).expect_err("no run").to_string();
        assert!(error.starts_with("--run-id is needed"), "{error}");
        assert!(Cli::try_parse_from("kirolinter report send".split(' ')).is_err(), "no file");
        assert!(Cli::try_parse_from("kirolinter report send a --as nunit".split(' ')).is_err(), "no such format");
    }

    #[test]
    fn a_line_says_what_was_found() {
        let tests = json!({"format": "junit", "events": 6, "success": 3, "failure": 1, "error": 0, "skip": 1, "retries": 1, "metrics": 0});
        assert_eq!(
            line(Path::new("a.xml"), &tests),
            "a.xml: junit, 5 tests: 3 passed, 1 failed, 0 broke, 1 not run; 1 tried again; 6 events are in the log"
        );
        let absurd = json!({"format": "junit", "events": 1, "success": 1, "unread_times": 2});
        assert_eq!(
            line(Path::new("a.xml"), &absurd),
            "a.xml: junit, 1 tests: 1 passed, 0 failed, 0 broke, 0 not run; 0 tried again; 2 times could not be read and are left out; \
             1 events are in the log"
        );
        let coverage = json!({"format": "lcov", "events": 6, "metrics": 6});
        assert_eq!(line(Path::new("a.info"), &coverage), "a.info: lcov, 6 values; 6 events are in the log");
    }
}
