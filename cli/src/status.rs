//! `kirolinter status`: how the server is, how far it has read, how its lake is kept.

use anyhow::Result;
use serde_json::Value;

use crate::args::Format;
use crate::http::Server;
use crate::print;

/// Columns of a table, by the names under which the server tells them.
type Columns<'c> = &'c [(&'c str, &'c str)];

const PARTITIONS: Columns<'static> =
    &[("partition", "partition"), ("next", "next"), ("committed", "committed"), ("lag", "lag"), ("stopped", "stopped")];
const TABLES: Columns<'static> = &[
    ("table", "table"),
    ("version", "version"),
    ("snapshot_age_seconds", "age"),
    ("files", "files"),
    ("small_files", "small"),
    ("most_files_a_day", "a day"),
    ("compacted_seconds_ago", "compacted"),
    ("checkpointed_seconds_ago", "checkpoint"),
    ("vacuumed_seconds_ago", "vacuum"),
    ("log_cleaned_seconds_ago", "log"),
    ("error", "error"),
];

pub(crate) async fn run(server: &Server, format: Format) -> Result<()> {
    let status = server.get("/api/v1/status").await?;
    if format != Format::Text {
        return print::json(&status);
    }
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    let ready = if status["is_ready"] == true { "ready" } else { "not ready: it is catching up with the log" };
    print::line(&format!("version {}, {ready}", text(&status["version"])))?;
    print::line(&log(&status["log"]))?;
    if let Some(spill) = Some(&status["spill"]).filter(|spill| !spill.is_null()) {
        let since = spill["since"].as_str().map_or_else(String::new, |since| format!(", since {since}"));
        print::line(&format!("spill: {} of {} bytes{since}; set aside {}", spill["bytes"], spill["limit_bytes"], spill["aside"]))?;
    }
    print::line(&format!(
        "tail: {} rows, {} bytes; since the start {} dead letters, {} repeats, {} gaps; deliveries waiting: {}",
        count("tail_rows"),
        count("tail_bytes"),
        count("dead_letters"),
        count("repeats"),
        count("gaps"),
        status["deliveries_waiting"].as_u64().map_or_else(|| "not known".to_owned(), |waiting| waiting.to_string()),
    ))?;
    if let Some(broken) = status["broken_invariants"].as_u64().filter(|broken| *broken > 0) {
        print::line(&format!("{broken} promises of the program were broken: see the server's log"))?;
    }
    print::line("")?;
    rows(PARTITIONS, &status["partitions"])?;
    print::line("")?;
    print::line(&upkeep(&status["upkeep"]))?;
    if status["upkeep"]["tables"].as_array().is_some_and(|tables| !tables.is_empty()) {
        rows(TABLES, &status["upkeep"]["tables"])?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn log(log: &Value) -> String {
    if log["state"] == "up" { "log: up".to_owned() } else { format!("log: does not answer: {}", text(&log["reason"])) }
}

/// Who keeps the lake, in a sentence.
fn upkeep(upkeep: &Value) -> String {
    let start = "start `kirolinterd maintain` (or `kirolinterd up`)";
    let since = age(upkeep["silent_seconds"].as_i64().unwrap_or(0));
    match upkeep["state"].as_str() {
        Some("kept") => {
            let off = if upkeep["compaction"] == false { "; compaction is switched off" } else { "" };
            format!("upkeep of the lake: by {}, seen {since} ago{off}", text(&upkeep["by"]))
        }
        Some("silent") => {
            format!("upkeep of the lake: no maintain process has been seen for {since}; the last was {}; {start}", text(&upkeep["by"]))
        }
        Some("never") => format!("upkeep of the lake: no maintain process has been seen yet; {start}"),
        Some("unknown") => format!("upkeep of the lake: not known: {}", text(&upkeep["reason"])),
        _ => "upkeep of the lake: this server does not tell".to_owned(),
    }
}

fn rows(columns: Columns<'_>, objects: &Value) -> Result<()> {
    let objects: Vec<&Value> = objects.as_array().into_iter().flatten().collect();
    // A column in which nothing stands is left out.
    let shown = |(name, _): &&(&str, &str)| !matches!(*name, "stopped" | "error") || objects.iter().any(|row| !row[*name].is_null());
    let columns: Vec<&(&str, &str)> = columns.iter().filter(shown).collect();
    let heads: Vec<String> = columns.iter().map(|(_, head)| (*head).to_owned()).collect();
    let rows: Vec<Vec<Value>> = objects.iter().map(|row| columns.iter().map(|(name, _)| cell(name, &row[*name])).collect()).collect();
    print::table(&heads, &rows)
}

fn cell(name: &str, value: &Value) -> Value {
    let is_age = name.ends_with("_seconds") || name.ends_with("_seconds_ago");
    match value.as_i64() {
        Some(seconds) if is_age => age(seconds).into(),
        None if is_age => "-".into(),
        _ => value.clone(),
    }
}

/// A span in the largest unit of which there are two.
fn age(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{age, cell, upkeep};

    #[test]
    fn silence_is_said_and_what_to_do() {
        let kept = upkeep(&json!({"state": "kept", "by": "up/7/x", "silent_seconds": 12, "compaction": true}));
        assert_eq!(kept, "upkeep of the lake: by up/7/x, seen 12 s ago");
        let off = upkeep(&json!({"state": "kept", "by": "up/7/x", "silent_seconds": 12, "compaction": false}));
        assert!(off.ends_with("; compaction is switched off"), "{off}");
        let silent = upkeep(&json!({"state": "silent", "by": "maintain/7/x", "silent_seconds": 7_200}));
        assert!(silent.contains("no maintain process has been seen for 2 h; the last was maintain/7/x; start `kirolinterd maintain`"));
        assert!(upkeep(&json!({"state": "never"})).contains("no maintain process has been seen yet; start"));
        assert!(upkeep(&json!({"state": "unknown", "reason": "cannot read upkeep.json"})).ends_with("not known: cannot read upkeep.json"));
        assert!(upkeep(&json!(null)).ends_with("this server does not tell"));
    }

    #[test]
    fn ages_are_short_and_what_never_was_is_a_dash() {
        let ages: Vec<String> = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(age).into();
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!(cell("vacuumed_seconds_ago", &json!(null)), "-");
        assert_eq!(cell("files", &json!(3)), 3);
    }
}
