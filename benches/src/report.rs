//! What is printed: Markdown, so that it can be published as it is.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::machine;
use crate::program::Bench;

/// Prints what is found, as it is found, and keeps it in a file.
pub(crate) struct Report {
    begin: Instant,
    file: File,
}

impl Report {
    pub(crate) fn new(bench: &Bench) -> Result<Self> {
        let mut report = Self { begin: machine::now(), file: File::create(bench.work.join("report.md"))? };
        report.print(&format!("Machine: {}. Profile: `{}`. Seed: {}.", machine::describe()?, bench.profile, bench.seed))?;
        Ok(report)
    }

    #[expect(clippy::print_stdout, reason = "the report is what the program is for")]
    fn print(&mut self, text: &str) -> Result<()> {
        println!("{text}");
        Ok(writeln!(self.file, "{text}")?)
    }

    pub(crate) fn section(&mut self, title: &str, what: &str, columns: &[&str]) -> Result<()> {
        self.print(&format!("\n## {title}\n\n{what}\n\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len())))
    }

    pub(crate) fn row(&mut self, cells: &[String]) -> Result<()> {
        self.print(&format!("| {} |", cells.join(" | ")))
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.print(&format!("\n{text}"))
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        let took = self.begin.elapsed().as_secs();
        self.line(&format!("Took {took} s."))
    }
}

/// Milliseconds, with as many digits as mean something.
pub(crate) fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

/// The duration that a share of durations does not pass.
pub(crate) fn percentile(durations: &mut [Duration], percent: usize) -> Duration {
    durations.sort_unstable();
    let at = (durations.len() * percent).div_ceil(100).max(1) - 1;
    durations.get(at).copied().unwrap_or_default()
}

/// How much of something a second gives.
pub(crate) fn per(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}
