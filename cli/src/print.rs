//! Output: tables for people, JSON for programs.

use std::io::{Write as _, stdout};

use anyhow::Result;
use kiro_schemas::figure;
use serde_json::Value;

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<()> {
    Ok(writeln!(stdout().lock(), "{text}")?)
}

/// Prints a JSON document.
pub(crate) fn json(value: &Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints rows as a table whose columns are aligned; numbers to the right.
pub(crate) fn table(columns: &[String], rows: &[Vec<Value>]) -> Result<()> {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(name.chars().count()))
        .collect();
    let mut out = stdout().lock();
    let pad = |text: &str, width: usize, is_right: bool| if is_right { format!("{text:>width$}") } else { format!("{text:<width$}") };
    let head: Vec<String> = columns.iter().zip(&widths).map(|(name, width)| pad(name, *width, false)).collect();
    writeln!(out, "{}", head.join("  ").trim_end())?;
    writeln!(out, "{}", widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>().join("  "))?;
    for (row, values) in cells.iter().zip(rows) {
        let text: Vec<String> =
            row.iter().zip(values).zip(&widths).map(|((text, value), width)| pad(text, *width, value.is_number())).collect();
        writeln!(out, "{}", text.join("  ").trim_end())?;
    }
    writeln!(out, "({} row{})", rows.len(), if rows.len() == 1 { "" } else { "s" })?;
    Ok(())
}

/// Control characters of other people's texts must not reach the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |f| figure(f).to_string()),
        other => other.to_string(),
    };
    let clean = clean(&text);
    if clean.chars().count() > 80 { clean.chars().take(79).chain(['…']).collect() } else { clean }
}
