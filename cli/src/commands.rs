//! The commands: each asks the server and prints.

use std::io::{Read as _, Write as _, stdout};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::args::{
    AuditCommand, Cli, Command, DeadLettersCommand, EventsCommand, Format, GateArgs, ModelsCommand, ReportCommand, RiskArgs, RiskScope,
    TokenCommand,
};
use crate::http::Server;
use crate::{dead_letters, import, persons, print, report, sources, status};

/// Runs a command; the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let server = Server::new(&cli)?;
    let format = cli.format;
    match cli.command() {
        Command::Gate(args) => return gate(&server, format, args).await,
        Command::Risk(args) => risk(&server, format, args).await?,
        Command::Query { sql, as_of } => query(&server, format, &read_text(&sql)?, as_of).await?,
        Command::Import(args) => return import::run(&server, format, args).await,
        Command::Report { command: ReportCommand::Send(args) } => report::send(&server, format, args).await?,
        Command::Events { command: EventsCommand::Send { file, content_type, wait } } => {
            send(&server, format, &file, &content_type, wait).await?;
        }
        Command::Tables { name } => tables(&server, format, name).await?,
        Command::Models { command: ModelsCommand::List } => {
            let sql = "SELECT time, model_version, estimator, is_served, labels, auc, brier, calibration_error, reason FROM model_versions ORDER BY time DESC LIMIT 50";
            query(&server, format, sql, None).await?;
        }
        Command::Models { command: ModelsCommand::Evaluate } => print::json(&server.post("/api/v1/models/evaluate", &json!({})).await?)?,
        Command::DeadLetters { command: DeadLettersCommand::List } => {
            let sql =
                "SELECT recorded_at, _topic, _partition, _offset, size_bytes, reason FROM dead_letters ORDER BY recorded_at DESC LIMIT 100";
            query(&server, format, sql, None).await?;
        }
        Command::DeadLetters { command: DeadLettersCommand::Replay { reason } } => {
            dead_letters::replay(&server, format, &reason).await?;
        }
        Command::Audit { command: AuditCommand::Verify } => return audit_verify(&server, format).await,
        Command::Sources { command } => return sources::run(&server, format, command).await,
        Command::Persons { command } => persons::run(&server, format, command).await?,
        Command::Token { command } => token(&server, format, command).await?,
        Command::Status => status::run(&server, format).await?,
    }
    Ok(0)
}

fn say(format: Format, answer: &Value, text: &str) -> Result<()> {
    if format == Format::Text { print::line(text) } else { print::json(answer) }
}

fn read_text(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn scope(scope: &RiskScope, deployment_id: Option<&String>) -> Result<Option<Value>> {
    let Some(source) = &scope.source else { return Ok(None) };
    let mut attributes = Map::new();
    for (name, value) in &scope.attributes {
        let number: f64 = value.parse().with_context(|| format!("attribute {name}: {value:?} is no number"))?;
        attributes.insert(name.clone(), json!(number));
    }
    Ok(Some(json!({
        "source": source, "pipeline": scope.pipeline, "trigger": scope.trigger, "at": scope.at,
        "attributes": attributes, "deployment_id": deployment_id,
    })))
}

async fn gate(server: &Server, format: Format, args: GateArgs) -> Result<u8> {
    let parameters: Map<String, Value> = args.parameters.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    let body = json!({
        "gate": args.gate, "type": args.gate_type, "parameters": parameters,
        "risk": scope(&args.risk, None)?, "idempotency_key": args.idempotency_key,
    });
    let decision = server.post("/api/v1/gates/evaluate", &body).await?;
    if format == Format::Text {
        print_decision(&decision)?;
    } else {
        print::json(&decision)?;
    }
    let code = match (decision["status"].as_str(), decision["verdict"].as_str()) {
        (Some("passed"), _) => 0,
        (_, Some("inconclusive")) => 3,
        _ => 1,
    };
    Ok(if args.exit_code { code } else { 0 })
}

fn print_decision(decision: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    print::line(&format!("{}: {}", text(&decision["status"]), text(&decision["message"])))?;
    let columns = ["criterion", "verdict", "value", "threshold", "n", "reason"].map(str::to_owned);
    let rows: Vec<Vec<Value>> = decision["criteria"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| ["name", "verdict", "value", "threshold", "sample_size", "reason"].iter().map(|key| c[*key].clone()).collect())
        .collect();
    print::table(&columns, &rows)
}

async fn risk(server: &Server, format: Format, args: RiskArgs) -> Result<()> {
    let Some(body) = scope(&args.scope, args.deployment_id.as_ref())? else {
        bail!("--source is needed: the repository or service, as in `SELECT DISTINCT source FROM pipeline_runs`")
    };
    let answer = server.post("/api/v1/risk", &body).await?;
    if format != Format::Text {
        return print::json(&answer);
    }
    print::line(&format!(
        "risk {:.1} % (95 %: {:.1} to {:.1} %), confidence {}, served by {}",
        percent(&answer["overall_risk_score"]),
        percent(&answer["interval"][0]),
        percent(&answer["interval"][1]),
        answer["confidence_level"].as_str().unwrap_or("?"),
        answer["served_by"].as_str().unwrap_or("?")
    ))?;
    let columns = ["factor", "value", "contribution", "explanation"].map(str::to_owned);
    let factors = answer["risk_factors"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<Value>> =
        factors.iter().map(|f| ["name", "value", "contribution", "explanation"].iter().map(|key| f[*key].clone()).collect()).collect();
    print::table(&columns, &rows)?;
    for strategy in answer["mitigation_strategies"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        print::line(&format!("• {strategy}"))?;
    }
    Ok(())
}

fn percent(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN) * 100.0
}

async fn query(server: &Server, format: Format, sql: &str, as_of: Option<String>) -> Result<()> {
    let accept = match format {
        Format::Text | Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
        Format::Csv => "text/csv",
    };
    let mut body = json!({ "sql": sql });
    if let Some(as_of) = as_of {
        body["as_of"] = as_of.into();
    }
    let mut response = server.send(server.request(Method::POST, "/api/v1/query").header(ACCEPT, accept).json(&body)).await?;
    if format == Format::Text {
        let answer: Value = response.json().await?;
        let columns: Vec<String> =
            answer["columns"].as_array().into_iter().flatten().map(|c| c["name"].as_str().unwrap_or("").to_owned()).collect();
        let rows: Vec<Vec<Value>> =
            answer["rows"].as_array().into_iter().flatten().map(|row| columns.iter().map(|name| row[name].clone()).collect()).collect();
        return print::table(&columns, &rows);
    }
    let mut out = stdout().lock();
    while let Some(chunk) = response.chunk().await.context("the answer broke off; it is not complete")? {
        out.write_all(&chunk)?;
    }
    if format == Format::Json {
        writeln!(out)?;
    }
    Ok(())
}

async fn send(server: &Server, format: Format, file: &Path, content_type: &str, wait: bool) -> Result<()> {
    const LINES_A_POST: usize = 5_000;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let is_lines = content_type.contains("ndjson");
    let posts: Vec<Vec<u8>> = if is_lines {
        let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        lines.chunks(LINES_A_POST).map(|chunk| chunk.join(&b'\n')).collect()
    } else {
        vec![bytes]
    };
    let mut accepted = 0;
    for (at, post) in posts.into_iter().enumerate() {
        let request = server.request(Method::POST, "/api/v1/events").header(CONTENT_TYPE, content_type).body(post);
        let answer: Value = server
            .send(request)
            .await
            .with_context(|| format!("{accepted} events were taken; lines from {} on were not", at * LINES_A_POST + 1))?
            .json()
            .await?;
        accepted += answer["accepted"].as_u64().unwrap_or(0);
    }
    if wait {
        server.send(server.request(Method::POST, "/api/v1/settle")).await?;
    }
    say(format, &json!({ "accepted": accepted }), &format!("{accepted} events are in the log"))
}

async fn tables(server: &Server, format: Format, name: Option<String>) -> Result<()> {
    let answer = server.get("/api/v1/tables").await?;
    let all = answer["tables"].as_array().cloned().unwrap_or_default();
    if format != Format::Text {
        return print::json(&answer);
    }
    let Some(name) = name else {
        let rows: Vec<Vec<Value>> = all.iter().map(|t| vec![t["name"].clone(), t["doc"].clone()]).collect();
        return print::table(&["table".to_owned(), "what it holds".to_owned()], &rows);
    };
    let Some(table) = all.iter().find(|t| t["name"] == name.as_str()) else { bail!("no table {name:?}; `kirolinter tables` lists them") };
    let columns = table["columns"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<Value>> = columns.iter().map(|c| vec![c["name"].clone(), c["type"].clone(), c["doc"].clone()]).collect();
    print::table(&["column".to_owned(), "type".to_owned(), "what it is".to_owned()], &rows)
}

async fn audit_verify(server: &Server, format: Format) -> Result<u8> {
    let report = server.get("/api/v1/audit/verify").await?;
    let is_whole = report["is_whole"].as_bool().context("the server does not tell whether it is whole")?;
    if format == Format::Text {
        let partitions = report["partitions"].as_array().map_or(0, Vec::len);
        print::line(&format!(
            "{}: {} rows in {} files and {partitions} partitions",
            if is_whole { "whole" } else { "NOT whole" },
            report["rows"],
            report["files"]
        ))?;
        if let Some(old) = report["files_without_digest"].as_u64().filter(|count| *count > 0) {
            print::line(&format!(
                "{old} files are of a program that kept no digests: their rows are checked where the chain reaches them"
            ))?;
        }
        let columns = ["topic", "partition", "offset", "file", "what"];
        let breaks = report["breaks"].as_array().cloned().unwrap_or_default();
        for found in &breaks {
            let place: Vec<String> =
                columns.iter().filter(|name| !found[**name].is_null()).map(|name| format!("{name} {}", found[*name])).collect();
            print::line(&place.join(", "))?;
        }
    } else {
        print::json(&report)?;
    }
    Ok(u8::from(!is_whole))
}

async fn token(server: &Server, format: Format, command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { name, role, tenant, expires_at } => {
            let body = json!({"name": name, "role": role, "tenant": tenant, "expires_at": expires_at});
            let answer = server.post("/api/v1/tokens", &body).await?;
            say(format, &answer, answer["token"].as_str().unwrap_or(""))
        }
        TokenCommand::List => {
            let answer = server.get("/api/v1/tokens").await?;
            if format != Format::Text {
                return print::json(&answer);
            }
            let keys = ["name", "tenant", "role", "created_at", "expires_at"];
            let rows: Vec<Vec<Value>> =
                answer["tokens"].as_array().into_iter().flatten().map(|t| keys.iter().map(|k| t[*k].clone()).collect()).collect();
            print::table(&keys.map(str::to_owned), &rows)
        }
        TokenCommand::Revoke { name } => {
            server
                .send(server.request(Method::DELETE, &format!("/api/v1/tokens/{name}")))
                .await
                .with_context(|| format!("cannot revoke {name:?}"))?;
            say(format, &json!({ "revoked": name }), "revoked")
        }
    }
}
