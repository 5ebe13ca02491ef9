//! What the client prints, to the letter: exit code, stdout and stderr of its main answers and errors.
//!
//! `KIRO_UPDATE_GOLDEN=1` writes `commands.txt` anew.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::history::{native, runs};
use crate::server::{Answer, OPEN, Server, directory, free_port, program, wait_for};

const GATES: &str = r#"
version: 1
gates:
  - name: deploy
    type: pre-deploy
    criteria:
      - {name: success, key: true, sql: "SELECT avg(CASE WHEN outcome = 'success' THEN 1.0 ELSE 0.0 END) AS value, count(*) AS n FROM pipeline_runs WHERE branch = $1", parameters: [branch], pass: [">= 0.8"], min_samples: 5}
      - {name: runs, sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs", pass: [">= 1"]}
  - name: strict
    type: pre-merge
    criteria:
      - {name: failures, sql: "SELECT count(*) AS value, count(*) AS n FROM pipeline_runs WHERE outcome = 'failure'", pass: ["= 0"], warning: ["<= 3"]}
  - name: empty
    type: post-deploy
    criteria:
      - {name: last, sql: "SELECT duration_ms AS value FROM pipeline_runs WHERE branch = 'nowhere'", pass: ["< 1"]}
"#;

/// One command a line, as it is typed behind `kirolinter`; a word in quotes may hold spaces.
const LINES: &str = r#"
nonsense
gate --format yaml
gate -p branch
gate
gate --gate nowhere
gate --type pre-commit
devops gate --type=pre-deploy -p branch=main
devops gate --type=pre-deploy
gate --gate strict --exit-code
gate --gate empty --exit-code
query "SELECT run_id, outcome FROM pipeline_runs ORDER BY run_id, attempt LIMIT 2"
query --format csv "SELECT run_id, outcome FROM pipeline_runs ORDER BY run_id, attempt LIMIT 2"
query "SELECT nothing FROM pipeline_runs"
query "DROP TABLE pipeline_runs"
query "COPY (SELECT 1) TO '/tmp/x.csv'"
query "SELECT 1" --as-of yesterday
risk
risk --source https://ci.example/acme/shop -a lines=many
tables nowhere
events send nowhere.ndjson
events send broken.ndjson
import runs.csv --mapping nowhere.yaml
sources list
sources add jenkins
sources test nobody
sources remove nobody
sources replay github --since yesterday
sources explain nowhere
persons show nobody
persons forget "no body"
token create x --role king
token revoke nobody
status --token kiro_wrong
"#;

/// The words of a line as a shell would give them.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let plain = |(at, part): (usize, &str)| -> Vec<String> {
        if at % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
    };
    parts.flat_map(plain).collect()
}

fn run(server: &Server, url: &str, line: &str) -> Result<Answer> {
    let mut command = Command::new(program("kirolinter")?);
    command.current_dir(&server.dir).env_remove("KIROLINTER_TOKEN").env("KIROLINTER_SERVER", url).args(words(line));
    Answer::of(command.output()?)
}

fn started(test: &str) -> Result<Server> {
    let dir = directory(&format!("{test}_files"))?;
    std::fs::write(dir.join("quality_gates.yaml"), GATES)?;
    let server = Server::start(test, &format!("{OPEN}gates_file: {}/quality_gates.yaml\n", dir.display()))?;
    let lines: Vec<String> = runs().iter().flat_map(native).collect();
    server.send("events.ndjson", "application/x-ndjson", &lines.join("\n"))?;
    std::fs::write(server.dir.join("broken.ndjson"), lines[0].replace("pipeline\"", "pipelin\""))?;
    Ok(server)
}

#[test]
fn answers_and_errors_are_to_the_letter() -> Result<()> {
    let server = started("commands")?;
    let url = format!("http://127.0.0.1:{}", server.http);
    let mut found = String::new();
    for line in LINES.trim().lines() {
        let answer = run(&server, &url, line)?;
        let code = answer.code.context("it was killed")?;
        write!(found, "$ kirolinter {line}\nexit {code}\n")?;
        for (name, text) in [("out", &answer.out), ("err", &answer.err)] {
            text.lines().try_for_each(|line| writeln!(found, "{name}| {line}"))?;
        }
        found.push('\n');
    }
    let away = format!("http://127.0.0.1:{}", free_port()?);
    let answer = run(&server, &away, "status")?;
    ensure!(answer.code == Some(2) && answer.err.contains(&format!("cannot reach the server at {away}")), "{answer:?}");
    let golden = kiro_tests::root().join("tests/end_to_end/commands.txt");
    if std::env::var_os("KIRO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found)?;
    }
    let expected = std::fs::read_to_string(&golden).context("commands.txt; KIRO_UPDATE_GOLDEN=1 writes it")?;
    for (found, expected) in found.split("\n\n").zip(expected.split("\n\n")) {
        ensure!(found == expected, "found\n{found}\n\nexpected\n{expected}");
    }
    ensure!(found == expected, "not as many commands");
    Ok(())
}

#[test]
fn the_status_tells_who_keeps_the_lake_and_how() -> Result<()> {
    let server = started("status")?;
    let url = format!("http://127.0.0.1:{}", server.http);
    let told = wait_for("the upkeep of the tables", 60, || {
        let answer = run(&server, &url, "status")?;
        Ok(answer.out.lines().any(|line| line.starts_with("pipeline_runs_events ")).then_some(answer))
    })?;
    ensure!(told.code == Some(0) && told.out.starts_with("version ") && told.out.contains("ready\nlog: up\n"), "{told:?}");
    let upkeep = told.out.lines().find(|line| line.starts_with("upkeep of the lake: ")).context("nothing of upkeep")?;
    ensure!(upkeep.contains("by up/") && upkeep.ends_with(" s ago"), "{upkeep}");
    let head = "table  version  age  files  small  a day  compacted  checkpoint  vacuum  log";
    let words: Vec<&str> = head.split_whitespace().collect();
    ensure!(told.out.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == words), "{told:?}");
    let status = run(&server, &url, "status --format json")?.json()?;
    ensure!(status["upkeep"]["state"] == "kept" && status["upkeep"]["compaction"] == true, "{status}");
    Ok(())
}

/// A step of Jenkins: `def gate = readJSON text: sh(returnStdout: true, script: '…')`.
#[test]
fn a_jenkins_step_reads_the_decision_and_nothing_else() -> Result<()> {
    let server = started("jenkins")?;
    let program = program("kirolinter")?;
    let folder = program.parent().context("a program lies in a folder")?.display().to_string();
    for script in [
        "kirolinter devops gate --type=pre-deploy --format=json -p branch=main",
        "kirolinter --format=json devops gate --type=pre-deploy -p branch=main",
        "kirolinter gate --format json --type=pre-deploy -p branch=main 2>/dev/null",
    ] {
        let mut step = Command::new("sh");
        step.args(["-xe", "-c", &format!("PATH={folder}:$PATH; {script}")]);
        let answer = Answer::of(step.env("KIROLINTER_SERVER", format!("http://127.0.0.1:{}", server.http)).output()?)?;
        ensure!(answer.code == Some(0), "{answer:?}");
        let decision = answer.json()?;
        ensure!(decision["status"] == "passed" && decision["criteria"][0]["reason"] == "0.854167 is >= 0.8", "{decision}");
        ensure!(answer.err.lines().all(|line| line.starts_with('+')), "something is said beside the decision: {answer:?}");
    }
    Ok(())
}
