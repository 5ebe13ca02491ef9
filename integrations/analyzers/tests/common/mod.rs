//! Reading reports in tests.

#![allow(unreachable_pub, dead_code, reason = "each test is a crate, and uses some of it")]

use std::io::BufReader;

use kiro_analyzers::{Error, Format, Limits, read};
use kiro_schemas::report::{ReportCounts, ReportScope};
use kiro_schemas::{Event, Micros};

/// What the reports of the tests are about.
pub fn scope() -> ReportScope {
    ReportScope {
        source: "https://ci.example/acme/shop".to_owned(),
        run_id: "42".to_owned(),
        attempt: 2,
        name: "unit/report".to_owned(),
        commit_sha: Some("c0ffee".to_owned()),
        branch: Some("main".to_owned()),
        service: Some("shop".to_owned()),
        environment: None,
        // 2026-11-23T12:00:00Z
        time: Some(Micros::from_seconds(1_795_435_200)),
    }
}

/// Reads a report in pieces of a size.
pub fn events(bytes: &[u8], format: Option<Format>, piece: usize) -> Result<(ReportCounts, Vec<Event<'static>>), Error> {
    let mut events = Vec::new();
    let mut input = BufReader::with_capacity(piece, bytes);
    let counts = read(&scope(), format, Limits::default(), &mut input, &mut |event| {
        events.push(event.into_owned());
        Ok(())
    })?;
    Ok((counts, events))
}

/// Reads a report and lets its events go by.
pub fn count(limits: Limits, format: Format, input: &mut dyn std::io::BufRead) -> Result<ReportCounts, Error> {
    read(&scope(), Some(format), limits, input, &mut |_event| Ok(()))
}
