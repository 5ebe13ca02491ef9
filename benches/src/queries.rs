//! The demo's questions: the product by HTTP beside `DuckDB` on the same Parquet files.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::machine;
use crate::program::{Bench, Server, wait_for};
use crate::report::{Report, ms, percentile};

/// How often each is asked, after once that does not count.
const TIMES: usize = 15;

/// A server with the demo's history and configuration, all of it committed.
pub(crate) fn serve_history(bench: &Bench) -> Result<Server> {
    let (demo, history) = (bench.root.join("deploy/demo"), bench.work.join("history"));
    let mut shift = Command::new(&bench.python);
    shift.arg(demo.join("shift_history.py")).arg(demo.join("history")).arg(&history).stdout(Stdio::null());
    ensure!(shift.status()?.success(), "the history cannot be read");
    let server = Server::start(bench, "history", &std::fs::read_to_string(demo.join("kirolinter.yaml"))?, None)?;
    let mut rows = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(&history)?.flatten().map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "csv")).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().context("no name")?.to_string_lossy().into_owned();
        rows += std::fs::read_to_string(&file)?.lines().count() - 1;
        let mut import = bench.program("kirolinter");
        import.args(["--server", &format!("http://{}", server.address), "--timeout", "600", "--format", "json", "import"]).arg(&file);
        import.arg("--mapping").arg(demo.join(format!("{name}.mapping.yaml"))).env_remove("KIROLINTER_TOKEN");
        ensure!(import.stdout(Stdio::null()).status()?.success(), "{} cannot be imported", file.display());
    }
    wait_for("the history to be in the tables", Duration::from_mins(5), || {
        let found = server.row("SELECT count(*) AS n FROM pipeline_runs WHERE outcome IS NOT NULL OR finished_at IS NOT NULL")?;
        Ok(found["n"].as_u64().filter(|n| *n as f64 > rows as f64 * 0.9))
    })?;
    server.post("/api/v1/settle", "")?;
    Ok(server)
}

/// A question with its title, as the file says it: `-- title`, then SQL, then `;`.
fn questions(text: &str) -> Vec<(String, String)> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.filter_map(|part| part.strip_prefix("-- ")?.split_once('\n')).map(|(title, sql)| (title.to_owned(), sql.to_owned())).collect()
}

/// Median time and number of rows of a question by HTTP.
fn ask(door: &mut Connection, sql: &str) -> Result<(Duration, usize)> {
    let body = json!({ "sql": sql }).to_string();
    let (mut took, mut rows) = (Vec::new(), 0);
    for _ in 0..=TIMES {
        let begin = machine::now();
        let (status, answer) = door.post("/api/v1/query", "application/json", body.as_bytes())?;
        took.push(begin.elapsed());
        let answer: Value = serde_json::from_slice(&answer)?;
        ensure!(status == 200, "{sql}: {answer}");
        rows = answer["rows"].as_array().map_or(0, Vec::len);
    }
    Ok((percentile(&mut took[1..], 50), rows))
}

/// `DuckDB` in a process of its own, which answers a line of JSON for each question.
fn duckdb(bench: &Bench, server: &Server, file: &std::path::Path) -> Result<Vec<Value>> {
    let table = server.data.join("lake/tables/pipeline_runs");
    let mut command = bench.peer("duckdb_queries.py");
    let output = command.arg(table).arg(file).arg(TIMES.to_string()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "DuckDB cannot answer");
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

pub(crate) fn run(bench: &Bench, server: &Server, report: &mut Report) -> Result<()> {
    let file = bench.root.join("benches/queries.sql");
    let questions = questions(&std::fs::read_to_string(&file)?);
    let runs = server.row("SELECT count(*) AS n FROM pipeline_runs")?["n"].as_u64().unwrap_or(0);
    // What is in files alone can be compared.
    let peer = wait_for("all runs to be in files", Duration::from_mins(2), || {
        let answers = duckdb(bench, server, &file)?;
        Ok((answers.first().is_some_and(|first| first["runs"] == runs)).then_some(answers))
    })?;
    let files = peer.first().map_or(Value::Null, |first| first["files"].clone());
    let what = format!(
        "The demo's six questions over {runs} runs of real history; the median of {TIMES} times, warm. The product by HTTP, JSON included; DuckDB \
         in its own process, rows fetched, on the same {files} Parquet files with the newest revision of each run, as the product reads them."
    );
    report.section("The demo's questions", &what, &["question", "rows", "kirolinterd ms", "DuckDB ms", "ratio"])?;
    let mut door = Connection::open(&server.address)?;
    let mut product = 1.0;
    for ((title, sql), theirs) in questions.iter().zip(&peer[1..]) {
        let (ours, rows) = ask(&mut door, sql)?;
        ensure!(theirs["rows"] == rows, "{title}: {rows} rows, DuckDB has {}", theirs["rows"]);
        let their = Duration::from_secs_f64(theirs["seconds"].as_f64().context("no time")?);
        let ratio = ours.as_secs_f64() / their.as_secs_f64();
        product *= ratio;
        report.row(&[title.clone(), rows.to_string(), ms(ours), ms(their), format!("{ratio:.2}")])?;
    }
    let mean = product.powf(1.0 / questions.len().max(1) as f64);
    report.line(&format!("Ratio: **{mean:.2}** times DuckDB's time, as the geometric mean."))?;
    Ok(())
}
