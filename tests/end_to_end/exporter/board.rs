//! The shipped board: its queries, with what Grafana puts into them, asked as Grafana asks them.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use kiro_ports::{Clock as _, SystemClock};
use serde_json::Value;

use super::prometheus::{Prometheus, metrics_of, shipped};
use crate::server::{Server, wait_for};

const DAY: i64 = 86_400_000_000;
/// How long a query may take to have something to show: scrapes come every second.
const PATIENCE_SECONDS: u32 = 20;

/// The board, and whom its data sources ask.
pub(super) struct Board<'a> {
    server: &'a Server,
    prometheus: &'a Prometheus,
    json: Value,
    /// The values of its variables: all that there are.
    variables: BTreeMap<String, Vec<String>>,
}

impl<'a> Board<'a> {
    /// Reads the board and asks for the values of its variables.
    pub(super) fn read(server: &'a Server, prometheus: &'a Prometheus) -> Result<Self> {
        let text = std::fs::read_to_string(shipped("grafana/dashboards/kirolinter.json"))?;
        let sources = std::fs::read_to_string(shipped("grafana/provisioning/datasources/kirolinter.yml"))?;
        let json: Value = serde_json::from_str(&text)?;
        ensure!(json["uid"] == "kirolinter-devops", "the uid is what links name: it stays");
        let mut board = Self { server, prometheus, json, variables: BTreeMap::new() };
        for uid in board.targets().map(|target| target["datasource"]["uid"].as_str().unwrap_or("none").to_owned()) {
            ensure!(sources.contains(&format!("uid: {uid}\n")), "data source {uid} is not provisioned");
        }
        for variable in board.json["templating"]["list"].as_array().cloned().unwrap_or_default() {
            let name = variable["name"].as_str().context("a variable without a name")?;
            let values = board.sql(variable["query"].as_str().context("a variable without a query")?)?;
            ensure!(!values.is_empty(), "variable {name} has no value");
            board.variables.insert(name.to_owned(), values);
        }
        Ok(board)
    }

    fn targets(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array().into_iter().flatten();
        panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
    }

    /// The names of metrics in its queries.
    pub(super) fn metrics(&self) -> Result<Vec<String>> {
        let names: Vec<String> = self.targets().filter_map(|t| t["expr"].as_str()).flat_map(metrics_of).collect();
        ensure!(names.len() > 40, "only {} names of metrics were found", names.len());
        Ok(names)
    }

    /// Asks every query; how many of metrics and of SQL.
    pub(super) fn ask_everything(&self) -> Result<(usize, usize)> {
        let mut asked = (0, 0);
        for panel in self.json["panels"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let kind = target["datasource"]["type"].as_str().unwrap_or_default();
                match kind {
                    "prometheus" => {
                        self.ask_prometheus(target).with_context(|| format!("panel {title:?}"))?;
                        asked.0 += 1;
                    }
                    "postgres" => {
                        self.ask_sql(target).with_context(|| format!("panel {title:?}"))?;
                        asked.1 += 1;
                    }
                    other => bail!("panel {title:?} has a data source of type {other:?}"),
                }
            }
        }
        Ok(asked)
    }

    fn ask_prometheus(&self, target: &Value) -> Result<()> {
        let expression = target["expr"].as_str().context("no expression")?;
        let full = self.filled(expression, &|values| {
            let escaped: Vec<String> = values.iter().map(|value| for_regex(value)).collect();
            format!("({})", escaped.join("|"))
        });
        let full = full.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$__interval", "15s");
        ensure!(!full.contains('$'), "something is not filled in: {full}");
        let is_instant = target["instant"] == true;
        let shown =
            wait_for("a number", PATIENCE_SECONDS, || Ok(self.prometheus.query(&full, is_instant)?.iter().any(has_number).then_some(())));
        shown.with_context(|| full)
    }

    fn ask_sql(&self, target: &Value) -> Result<()> {
        let raw = target["rawSql"].as_str().context("no SQL")?;
        let rows = self.sql(raw).with_context(|| raw.to_owned())?;
        ensure!(!rows.is_empty(), "no row: {raw}");
        if target["format"] == "time_series" {
            ensure!(raw.contains("AS \"time\"") || raw.contains("$__timeGroupAlias"), "a series needs a column \"time\": {raw}");
            let first = rows[0].split('|').next().unwrap_or_default();
            ensure!(first.parse::<f64>().is_ok_and(|seconds| seconds > 1.7e9), "the time is no number of seconds: {}", rows[0]);
        }
        Ok(())
    }

    /// The lines that psql prints for a query with its macros.
    fn sql(&self, raw: &str) -> Result<Vec<String>> {
        let quoted = |values: &[String]| values.iter().map(|v| format!("'{}'", v.replace('\'', "''"))).collect::<Vec<_>>().join(",");
        let full = with_macros(&self.filled(raw, &quoted))?;
        ensure!(!full.contains('$'), "something is not filled in: {full}");
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "loopback", "-d", "kirolinter", "-p"]);
        let output = psql.arg(self.server.pg.to_string()).args(["-c", &full]).output().context("psql")?;
        ensure!(output.status.success(), "{full}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    fn filled(&self, text: &str, written: &dyn Fn(&[String]) -> String) -> String {
        self.variables.iter().fold(text.to_owned(), |text, (name, values)| text.replace(&format!("${name}"), &written(values)))
    }
}

/// As Grafana's data source for Prometheus escapes a value within a quoted regular expression.
fn for_regex(value: &str) -> String {
    value.chars().map(|c| if r"\^$*{}[]'+?.()|".contains(c) { format!(r"\\{c}") } else { c.to_string() }).collect()
}

fn has_number(series: &Value) -> bool {
    let is_number = |pair: &Value| pair[1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite);
    is_number(&series["value"]) || series["values"].as_array().is_some_and(|pairs| pairs.iter().any(is_number))
}

/// The macros of Grafana's data source for PostgreSQL, for the board's range of a week.
fn with_macros(sql: &str) -> Result<String> {
    let now = SystemClock.now();
    let mut text = sql.to_owned();
    while let Some((before, rest)) = text.split_once("$__") {
        let (name, rest) = rest.split_once('(').context("a macro without arguments")?;
        let (arguments, after) = rest.split_once(')').context("a macro without an end")?;
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let group = |column: &str, width: &str| -> Result<String> {
            let seconds = seconds(width.trim_matches('\''))?;
            Ok(format!("floor(extract(epoch from {column})/{seconds})*{seconds}"))
        };
        let written = match (name, arguments.as_slice()) {
            ("timeFilter", [column]) => format!("{column} BETWEEN '{}' AND '{}'", now.plus(-7 * DAY), now),
            ("timeGroup", [column, width]) => group(column, width)?,
            ("timeGroupAlias", [column, width]) => format!("{} AS \"time\"", group(column, width)?),
            other => bail!("a macro that Grafana may know and this test does not: {other:?}"),
        };
        text = format!("{before}{written}{after}");
    }
    Ok(text)
}

fn seconds(width: &str) -> Result<u64> {
    let (number, unit) = width.split_at(width.len() - 1);
    let unit = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => bail!("no unit: {other:?}"),
    };
    Ok(number.parse::<u64>()? * unit)
}
