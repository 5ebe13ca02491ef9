//! What is read of the reports of each tool, to the letter. `KIRO_UPDATE_GOLDEN=1` writes `expected.txt` anew.

#![expect(clippy::expect_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::events;
use flate2::Compression;
use flate2::write::GzEncoder;
use kiro_schemas::{Event, Value};

fn reports() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects");
    let entries = std::fs::read_dir(folder).expect("reports").flatten().map(|entry| entry.path());
    let mut reports: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e != "txt" && e != "md")).collect();
    reports.sort();
    reports
}

fn shown(event: &Event<'_>) -> String {
    let mut line = format!("{} {}", event.subject, event.attempt);
    let of_scope = ["run_id", "run_attempt", "service", "branch", "commit_sha", "finished_at"];
    for (column, value) in event.spec().columns.iter().zip(&event.fields).filter(|(c, v)| !v.is_null() && !of_scope.contains(&c.name)) {
        let value = match value {
            Value::Text(text) => format!("{text:?}"),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Time(value) => value.to_string(),
            other => format!("{other:?}"),
        };
        write!(line, " {}={value}", column.name).expect("text");
    }
    for (name, value) in event.attributes.iter().filter(|(name, _)| name != "report") {
        write!(line, " [{name}={value:?}]").expect("text");
    }
    write!(line, " @{} {}", event.time, &event.subject_id.get(..6).unwrap_or_default()).expect("text");
    line
}

#[test]
fn each_dialect_is_read_to_the_letter() {
    let mut found = String::new();
    for report in reports() {
        let bytes = std::fs::read(&report).expect("a report");
        let name = report.file_name().expect("a name").to_string_lossy();
        let (counts, events) = events(&bytes, None, 8_192).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = &mut found;
        writeln!(found, "## {name}: {}", serde_json::to_string(&counts).expect("JSON")).expect("text");
        for event in events {
            for (column, value) in [("run_id", "42"), ("service", "shop"), ("branch", "main"), ("commit_sha", "c0ffee")] {
                assert_eq!(event.get(column).as_text(), Some(value), "{name}: {event:?}");
            }
            writeln!(found, "{}", shown(&event)).expect("text");
        }
        found.push('\n');
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects/expected.txt");
    if std::env::var_os("KIRO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).expect("a writable file");
    }
    let expected = std::fs::read_to_string(&golden).expect("expected.txt; KIRO_UPDATE_GOLDEN=1 writes it");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn pieces_of_any_size_and_a_second_time_give_the_same_events() {
    for report in reports() {
        let bytes = std::fs::read(&report).expect("a report");
        let whole = events(&bytes, None, 1 << 20).expect("a report");
        let ids: BTreeSet<_> = whole.1.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), whole.1.len(), "{}: events share an id", report.display());
        for piece in [1, 2, 3, 7, 61, 1_000] {
            assert_eq!(events(&bytes, None, piece).expect("a report"), whole, "{} in pieces of {piece}", report.display());
        }
        for event in &whole.1 {
            let json = serde_json::to_vec(event).expect("JSON");
            let mut event = event.clone();
            event.attributes.sort();
            assert_eq!(Event::from_json(&json).expect("an event"), event, "it is written and read");
        }
    }
}

#[test]
fn every_report_is_said_where_it_is_from() {
    let sources = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects/SOURCES.md")).expect("SOURCES.md");
    for report in reports() {
        let name = report.file_name().expect("a name").to_string_lossy();
        assert!(sources.contains(&format!("`{name}`")), "{name} is not in SOURCES.md");
    }
}

/// What was packed on its way says the same, in one part or several, and what does not unpack is refused.
#[test]
fn a_packed_report_is_read_as_it_was() {
    let pack = |bytes: &[u8]| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).expect("packed");
        packed.finish().expect("packed")
    };
    for report in reports() {
        let bytes = std::fs::read(&report).expect("a report");
        let whole = events(&bytes, None, 8_192).expect("a report");
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for packed in [pack(&bytes), [pack(first), pack(second)].concat()] {
            for piece in [7, 1 << 20] {
                assert_eq!(events(&packed, None, piece).expect("a report"), whole, "{}", report.display());
            }
        }
    }
    let mut packed = pack(b"<testsuite><testcase name='a'/></testsuite>");
    let cut = packed.len() / 2;
    let error = events(packed.get(..cut).expect("within"), None, 64).expect_err("cut").to_string();
    assert!(error.starts_with("cannot receive the report: "), "{error}");
    packed[15] ^= 0xff;
    assert!(events(&packed, None, 64).is_err(), "a byte is another one");
    let twice = events(&pack(&pack(b"<testsuite/>")), None, 64).expect_err("packed twice");
    assert!(matches!(twice, kiro_analyzers::Error::Unknown), "{twice}");
}

/// Little that becomes much is refused as much is.
#[test]
fn a_packed_bomb_is_refused() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(b"<testsuite><testcase name='a'><system-out>").expect("packed");
    packed.write_all(&vec![b'x'; 4 << 20]).expect("packed");
    let packed = packed.finish().expect("packed");
    let limits = kiro_analyzers::Limits { total_bytes: 1 << 20, ..kiro_analyzers::Limits::default() };
    let error = common::count(limits, kiro_analyzers::Format::Junit, &mut &packed[..]).expect_err("refused").to_string();
    assert!(packed.len() < 16 << 10 && error.contains("it is too large; the limit is 1048576"), "{} {error}", packed.len());
}

/// Much that becomes nothing is refused as well: parts without a byte.
#[test]
fn packed_bytes_without_end_are_refused() {
    let packed = GzEncoder::new(Vec::new(), Compression::fast()).finish().expect("packed").repeat(200_000);
    let limits = kiro_analyzers::Limits { total_bytes: 1 << 20, ..kiro_analyzers::Limits::default() };
    for format in [kiro_analyzers::Format::Junit, kiro_analyzers::Format::Sarif, kiro_analyzers::Format::Lcov] {
        let mut rest = packed.as_slice();
        let error = common::count(limits, format, &mut rest).expect_err("refused");
        assert!(matches!(error, kiro_analyzers::Error::TooLarge { limit: 1_048_576, .. }), "{error}");
        assert!(packed.len() - rest.len() <= 1 << 20, "{} bytes were read", packed.len() - rest.len());
    }
}

/// A time that cannot be read leaves its test without one, and is told.
#[test]
fn absurd_times_are_counted() {
    let case = |number: usize, time: &str| format!("<testcase name='t{number}' time='{time}'/>");
    let times = ["1,234.5", "1.234,5", "0.25", "", "NaN", "-3", "1e300", "soon"];
    let cases: String = times.iter().enumerate().map(|(number, time)| case(number, time)).collect();
    let report = format!("<testsuite time='-1' timestamp='yesterday'>{cases}</testsuite>");
    let (counts, events) = events(report.as_bytes(), None, 64).expect("a report");
    assert_eq!((counts.success, counts.unread_times), (8, 6), "four of cases, two of the suite");
    let took: Vec<Value<'_>> = events.iter().map(|event| event.get("duration_ms").clone()).collect();
    let expected = [Value::Int(1_234_500), Value::Int(1_234_500), Value::Int(250)];
    assert_eq!(took, expected.into_iter().chain(std::iter::repeat_n(Value::Null, 5)).collect::<Vec<_>>());
}
