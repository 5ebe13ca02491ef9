//! Data directories of older programs: today's program starts on them, answers the same, and goes on writing.

use std::collections::BTreeMap;
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

/// Every file with its bytes.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path)?;
                found.insert(path, bytes);
            }
        }
    }
    Ok(found)
}

/// A start is refused, says why and what to do, and changes nothing.
fn is_refused(server: &Server, why: &str) -> Result<()> {
    let before = files(&server.data())?;
    let answer = crate::bad_start::refused_start(server.command(&server.data(), server.http, server.pg)?)?;
    ensure!(answer.code == Some(1) && answer.err.contains(why), "{why:?} is not said: {answer:?}");
    ensure!(answer.err.contains("start the program that wrote it, or a newer one"), "no way out is said: {answer:?}");
    ensure!(answer.err.contains("put the back-up of before the upgrade in place"), "no way back is said: {answer:?}");
    let after = files(&server.data())?;
    let differs = |(path, bytes): &(&PathBuf, &Vec<u8>)| before.get(*path) != Some(*bytes);
    let changed: Vec<_> = after.iter().filter(differs).map(|(path, _)| path).collect();
    ensure!(changed.is_empty() && before.len() == after.len(), "{why}: changed {changed:?}, {} files were {}", after.len(), before.len());
    Ok(())
}

/// The file says something else while a start is tried.
fn refused_with(server: &Server, file: &Path, from: &str, to: &str, why: &str) -> Result<()> {
    let kept = std::fs::read_to_string(file)?;
    let newer = kept.replacen(from, to, 1);
    ensure!(newer != kept, "{from} is not in {}: {kept}", file.display());
    std::fs::write(file, newer)?;
    is_refused(server, why)?;
    Ok(std::fs::write(file, kept)?)
}

#[test]
fn a_directory_of_a_newer_program_is_refused_with_the_way_out() -> Result<()> {
    let golden = all()?.pop().context("a golden directory")?;
    let mut server = unpacked("golden_newer", &golden)?;
    // As it is after a stop of this program: brought up to date, nothing left to be done at the next start.
    server.up()?;
    server.stop()?;
    let data = server.data();
    let (lake, log) = (data.join("lake/lake.json"), data.join("log/FORMAT"));
    refused_with(&server, &lake, "\"format\":1", "\"format\":2", "the lake has format 2")?;
    let told = std::fs::read_to_string(&lake)?;
    std::fs::write(&lake, "{\"format\":2,\"program\":\"9.1.0\",\"more\":[1]}")?;
    is_refused(&server, "the lake has format 2, of version 9.1.0 of the program")?;
    std::fs::write(&lake, told)?;
    for folder in ["imports", "backfills"] {
        let job = data.join(folder).join("0123.json");
        std::fs::write(&job, "{\"format\":2,\"jobs\":[]}")?;
        is_refused(&server, &format!("{folder}/0123.json has format 2, this program knows 1"))?;
        std::fs::remove_file(job)?;
    }
    refused_with(&server, &log, "1", "2", "its format is 2, this program knows 1")?;
    crate::doctor::sql(&data, "UPDATE kiro_schema SET version = version + 97")?;
    is_refused(&server, "this program knows")?;
    crate::doctor::sql(&data, "UPDATE kiro_schema SET version = version - 97")?;
    // Of one table: what its readers and writers need, and a column of another type. The rows of others are not overwritten.
    let first = data.join("lake/tables/audit_log/_delta_log/00000000000000000000.json");
    let versions = "\"minReaderVersion\":1,\"minWriterVersion\":2";
    let newer =
        "\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[\"deletionVectors\"],\"writerFeatures\":[\"deletionVectors\"]";
    let writer = "\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":[\"rowTracking\"]";
    refused_with(&server, &first, versions, newer, "table audit_log needs Delta reader version 3 and writer version 7")?;
    refused_with(&server, &first, versions, writer, "table audit_log needs Delta reader version 1 and writer version 7")?;
    let column = |kind: &str| format!(r#"\"name\":\"_offset\",\"nullable\":false,\"type\":\"{kind}\""#);
    refused_with(&server, &first, &column("long"), &column("string"), "table audit_log does not fit this program, column _offset")?;
    server.up()?;
    server.stop()
}

/// Posts that were spilled by a newer program: neither is Kafka asked nor the lake opened.
#[test]
fn a_spill_of_a_newer_program_is_refused() -> Result<()> {
    let spill = crate::server::directory("newer_spill_dir")?;
    std::fs::write(spill.join("FORMAT"), "2\n")?;
    let config = format!("{OPEN}log: {{kafka: \"127.0.0.1:1\", spill_dir: {}}}\n", spill.display());
    let server = Server::prepare("newer_spill", &config)?;
    std::fs::create_dir_all(server.data())?;
    is_refused(&server, "its format is 2, this program knows 1")?;
    ensure!(files(&spill)?.len() == 1, "the spill was changed");
    Ok(())
}
