//! Data directories of older programs: today's program starts on them, answers the same, and goes on writing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::server::{OPEN, Server};

/// The golden directories.
fn all() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in kiro_tests::root().join("tests/golden").read_dir()? {
        let path = entry?.path();
        if path.join("data.tar.gz").exists() {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "there are no golden directories");
    found.sort();
    Ok(found)
}

/// A server that does not run yet, on the data of a golden directory.
pub(crate) fn unpacked(test: &str, golden: &Path) -> Result<Server> {
    let server = Server::prepare(test, OPEN)?;
    let done = Command::new("tar").arg("-xzf").arg(golden.join("data.tar.gz")).arg("-C").arg(&server.dir).status()?;
    ensure!(done.success() && server.data().join("lake").is_dir(), "{} cannot be unpacked", golden.display());
    Ok(server)
}

/// Asks what was asked then.
fn answers_as_before(server: &Server, golden: &Path) -> Result<()> {
    let answers: Vec<Value> = serde_json::from_slice(&std::fs::read(golden.join("answers.json"))?)?;
    ensure!(!answers.is_empty(), "nothing was asked");
    for answer in answers {
        let sql = answer["sql"].as_str().context("a question")?;
        let found = Value::from(server.rows(sql)?);
        ensure!(found == answer["rows"], "{}: {sql}\nthen {:#}\nnow {found:#}", golden.display(), answer["rows"]);
    }
    Ok(())
}

fn count(server: &Server, sql: &str) -> Result<u64> {
    server.rows(sql)?[0]["n"].as_u64().context("a count")
}

fn run(number: usize) -> String {
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/acme/new\",\"subject_id\":\"{number}\",\
         \"time\":\"2026-03-10T00:00:00Z\",\"fields\":{{\"pipeline\":\"build\",\"outcome\":\"success\"}}}}\n"
    )
}

#[test]
fn a_directory_of_an_older_program_is_read_and_written_on() -> Result<()> {
    for golden in all()? {
        let name = golden.file_name().context("a name")?.to_string_lossy().into_owned();
        let mut server = unpacked(&format!("golden_{name}"), &golden)?;
        server.up()?;
        answers_as_before(&server, &golden)?;
        let tokens = server.must(&["token", "list"])?;
        ensure!(tokens["tokens"][0]["name"] == "golden", "{tokens}");
        let model = server.must(&["risk", "--source", "https://ci.example/acme/shop"])?;
        ensure!(model["model_version"].is_string(), "{model}");

        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let before = count(&server, "SELECT count(*) AS n FROM pipeline_runs")?;
        let audited = count(&server, "SELECT count(*) AS n FROM audit_log")?;
        server.send("new.ndjson", "application/x-ndjson", &(0..10).map(run).collect::<String>())?;
        server.must(&["token", "create", "new", "--role", "viewer"])?;
        server.stop()?;
        server.up()?;
        ensure!(count(&server, "SELECT count(*) AS n FROM pipeline_runs")? == before + 10, "what was sent is not there");
        let chained = server.rows("SELECT count(*) AS n, count(_chain) AS c FROM audit_log")?;
        ensure!(chained[0]["n"] == audited + 1 && chained[0]["c"] != 0, "the audit log was not written on: {chained:?}");
        let report = server.must(&["audit", "verify"])?;
        ensure!(report["is_whole"] == true && report["rows"] == audited + 1, "{report}");
        let old: u64 = report["partitions"].as_array().into_iter().flatten().filter_map(|p| p["rows_before_the_chain"].as_u64()).sum();
        ensure!(old > 0 && report["files_without_digest"] != 0, "its first rows are of before the chain: {report}");
        server.stop()?;
    }
    Ok(())
}

#[test]
fn a_directory_of_a_newer_program_is_refused_with_the_way_out() -> Result<()> {
    let golden = all()?.pop().context("a golden directory")?;
    let mut server = unpacked("golden_newer", &golden)?;
    let (lake, log) = (server.data().join("lake/lake.json"), server.data().join("log/FORMAT"));
    for (file, newer, words) in
        [(&lake, "{\"format\":2}", "use a newer program"), (&log, "2\n", "use the program that wrote it, or a newer one")]
    {
        let kept = std::fs::read(file)?;
        std::fs::write(file, newer)?;
        let command = server.command(&server.data(), server.http, server.pg)?;
        let answer = crate::bad_start::refused_start(command)?;
        ensure!(answer.err.contains(words), "{words:?} is not said: {answer:?}");
        std::fs::write(file, kept)?;
    }
    crate::doctor::sql(&server.data(), "UPDATE kiro_schema SET version = version + 97")?;
    let answer = crate::bad_start::refused_start(server.command(&server.data(), server.http, server.pg)?)?;
    ensure!(answer.err.contains("its schema is version 9") && answer.err.contains("run the newer program"), "{answer:?}");
    crate::doctor::sql(&server.data(), "UPDATE kiro_schema SET version = version - 97")?;
    // A column of another type in one table: the other program's rows are not overwritten.
    let first = server.data().join("lake/tables/audit_log/_delta_log/00000000000000000000.json");
    let kept = std::fs::read_to_string(&first)?;
    std::fs::write(
        &first,
        kept.replace(
            r#"\"name\":\"_offset\",\"nullable\":false,\"type\":\"long\""#,
            r#"\"name\":\"_offset\",\"nullable\":false,\"type\":\"string\""#,
        ),
    )?;
    ensure!(std::fs::read_to_string(&first)? != kept, "the column was not found in {kept}");
    let command = server.command(&server.data(), server.http, server.pg)?;
    let answer = crate::bad_start::refused_start(command)?;
    ensure!(answer.err.contains("table audit_log does not fit this program, column _offset"), "{answer:?}");
    std::fs::write(&first, kept)?;
    server.up()?;
    server.stop()
}
