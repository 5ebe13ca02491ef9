//! Other people's files: what tools leave behind, to events.
//!
//! Must not know: routes, the event log, where a file lies or how it comes; it sees bytes and calls back with events.
//!
//! Entry points: [`read`] (a report, as a stream), [`Format::guess`] (which one it is).
//!
//! ```text
//! bytes ──► head (which format, which encoding) ──► xml | lines | JSON ──► junit     ──► test_result, test_result, …
//!                                                    in pieces, bounded ├► coverage  ──► metric, …  at the end
//!                                                                       └► sarif     ──► metric, …  at the end
//! ```
//!
//! Whatever the file, what is held of it is bounded: text between tags is never collected beyond what is kept of it.

mod coverage;
mod emit;
mod error;
mod format;
mod input;
mod junit;
mod sarif;
mod seen;
mod text;
mod xml;

use std::io::BufRead;

use kiro_schemas::Event;
use kiro_schemas::report::{ReportCounts, ReportScope};

use crate::emit::Emitter;

pub use error::{Error, Result};
pub use format::Format;

/// What a report may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole; of what is packed, before and after it is unpacked.
    pub total_bytes: u64,
    /// Elements, objects and lists within each other.
    pub depth: usize,
    /// Bytes of one tag with its attributes, of one text in JSON, or of one line.
    pub piece_bytes: usize,
    /// Test cases.
    pub cases: usize,
    /// Retries of one test case.
    pub retries: usize,
    /// Bytes that are kept of why a test ended so.
    pub reason_bytes: usize,
    /// Bytes that are kept of a name.
    pub name_bytes: usize,
    /// Packages or rules that are told apart; the rest is `other`.
    pub groups: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 1 << 30,
            depth: 64,
            piece_bytes: 4 << 20,
            cases: 1_500_000,
            retries: 100,
            reason_bytes: 4 << 10,
            name_bytes: 1 << 10,
            groups: 10_000,
        }
    }
}

/// Whoever takes the events wants no more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Takes an event; it borrows from the reader, so that nothing is copied that is not kept.
pub type Emit<'e> = dyn FnMut(Event<'_>) -> std::result::Result<(), Stopped> + 'e;

/// Reads a report from its bytes as they come, packed by gzip or not; without a format it is guessed. The ids of the events follow from the scope and
/// from what is said, so that the same report gives the same events again.
///
/// # Errors
/// Where the report is broken or beyond a limit; events that were told before stay told.
///
/// # Example
/// ```
/// use kiro_analyzers::{Limits, read};
/// use kiro_schemas::report::ReportScope;
///
/// let xml = br#"<testsuite name="s"><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>"#;
/// let scope = ReportScope { source: "https://ci/a".into(), run_id: "7".into(), ..ReportScope::default() };
/// let mut outcomes = Vec::new();
/// let counts = read(&scope, None, Limits::default(), &mut &xml[..], &mut |event| {
///     outcomes.push(event.get("outcome").as_text().map(str::to_owned));
///     Ok(())
/// })?;
/// assert_eq!((counts.success, counts.failure), (1, 1));
/// assert_eq!(outcomes, [Some("success".to_owned()), Some("failure".to_owned())]);
/// # Ok::<(), kiro_analyzers::Error>(())
/// ```
pub fn read(
    scope: &ReportScope,
    format: Option<Format>,
    limits: Limits,
    input: &mut dyn BufRead,
    emit: &mut Emit<'_>,
) -> Result<ReportCounts> {
    let head = input::head(input)?;
    if !input::is_packed(&head) {
        return read_plain(scope, format, limits, (head.as_slice(), input), emit);
    }
    let mut plain = input::unpacked(input::restored(&head, input), limits);
    let head = input::head(&mut plain)?;
    read_plain(scope, format, limits, (head.as_slice(), &mut plain), emit)
}

/// Reads what is not packed, of which the beginning was looked at.
fn read_plain(
    scope: &ReportScope,
    format: Option<Format>,
    limits: Limits,
    (head, input): (&[u8], &mut dyn BufRead),
    emit: &mut Emit<'_>,
) -> Result<ReportCounts> {
    let Some(format) = format.or_else(|| Format::guess(head)) else { return Err(Error::Unknown) };
    let mut emitter = Emitter::new(scope, format, limits, emit);
    let encoding = input::encoding(head)?;
    let mut input = input::restored(head, input);
    match format {
        Format::Junit => input::elements(&mut input, encoding, limits, &mut junit::Junit::new(&mut emitter, limits))?,
        Format::Cobertura => {
            let mut read = coverage::Cobertura::new(limits);
            input::elements(&mut input, encoding, limits, &mut read)?;
            read.coverage.tell(&mut emitter)?;
        }
        Format::Jacoco => {
            let mut read = coverage::Jacoco::new(limits);
            input::elements(&mut input, encoding, limits, &mut read)?;
            read.coverage.tell(&mut emitter)?;
        }
        Format::Lcov => coverage::lcov(&mut input, limits)?.tell(&mut emitter)?,
        Format::Sarif => sarif::read(&mut input, limits)?.tell(&mut emitter)?,
    }
    Ok(emitter.counts)
}
