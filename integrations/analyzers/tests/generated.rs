//! Generated reports give the counts that another way of counting gives; what is broken or without measure is refused.

#![expect(clippy::format_push_string, reason = "a test")]

mod common;

use common::{count, events, scope};
use kiro_analyzers::{Error, Format, Limits, Stopped, read};
use kiro_schemas::report::ReportCounts;
use proptest::prelude::*;

#[test]
fn bombs_are_refused_and_limits_hold() {
    let small = Limits { cases: 3, retries: 2, ..Limits::default() };
    let entities = "<!DOCTYPE a [<!ENTITY l \"lol\"><!ENTITY m \"&l;&l;&l;&l;\">]><testsuite name=\"&m;\"/>";
    let many = format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(4));
    let reruns = format!("<testsuite><testcase>{}</testcase></testsuite>", "<rerunFailure/>".repeat(9));
    let deep = "<testsuite>".repeat(100_000);
    let nested = format!("{{\"version\":\"2.1.0\",\"x\":{}", "[".repeat(100_000));
    let long = format!("{{\"version\":\"2.1.0\",\"x\":\"{}", "x".repeat(5 << 20));
    for (format, report, error) in [
        (Format::Junit, entities, "line 1, byte 0: a document type that declares entities or elements is refused"),
        (Format::Junit, &many, "line 1, byte 44: there are too many test cases; the limit is 3"),
        (Format::Junit, &reruns, "line 1, byte 66: a test has too many attempts; the limit is 2"),
        (Format::Junit, &deep, "line 1, byte 704: elements lie too deep within each other; the limit is 64"),
        (Format::Junit, "<testsuite><testcase><testcase/></testcase></testsuite>", "line 1, byte 21: a testcase lies within a testcase"),
        (Format::Junit, "<report/>", "line 1, byte 0: <report> is the root, neither <testsuites> nor <testsuite>: this is no JUnit report"),
        (Format::Cobertura, "<coverage clover=\"4\"/>", "line 1, byte 0: this is a Clover report, which is not read; Cobertura is"),
        (Format::Jacoco, "<report><counter type=\"LINE\" missed=\"x\"/></report>", "line 1, byte 8: a counter has no number in missed"),
        (Format::Sarif, &nested, "line 1, byte 86: objects and lists lie too deep within each other; the limit is 64"),
        (Format::Sarif, &long, "line 1, byte 4194328: a text is too long; the limit is 4194304"),
        (Format::Sarif, "{\"runs\":[]}", "line 1, byte 11: it has no version: this is no SARIF at line 1 column 11"),
        (
            Format::Sarif,
            "{\"version\":\"2.0.0\",\"runs\":[]}",
            "line 1, byte 29: it is of version \"2.0.0\"; 2.1.0 is read at line 1 column 29",
        ),
        (Format::Sarif, "{\"version\":\"2.1.0\",\"runs\":[", "line 1, byte 27: the JSON ends too early"),
        (Format::Lcov, "SF:a\nDA:1\n", "line 2, byte 5: DA has no count: \"1\""),
        (Format::Lcov, "SF:a\nDA:1,1\n", "line 3, byte 12: it ends within a record"),
        (Format::Lcov, "end_of_record\n", "line 1, byte 0: a record ends that names no file (SF)"),
        (Format::Lcov, "hello\n", "line 1, byte 0: \"hello\" is no line of a tracefile"),
        (Format::Lcov, "", "line 1, byte 0: it has no record"),
    ] {
        let found = count(small, format, &mut report.as_bytes()).expect_err("refused").to_string();
        assert_eq!(found, format!("cannot read the report at {error}"));
    }
    let unknown = events(b"<html/>", None, 64).expect_err("unknown");
    assert!(matches!(unknown, Error::Unknown), "{unknown}");
}

#[test]
fn whoever_takes_the_events_may_stop() {
    let mut taken = 0;
    let report = b"<testsuite><testcase/><testcase/><testcase/></testsuite>";
    let stopped = read(&scope(), None, Limits::default(), &mut &report[..], &mut |_event| {
        taken += 1;
        if taken < 2 { Ok(()) } else { Err(Stopped) }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(taken, 2);
}

/// One case: its name's number, how it ended, and attempts before.
fn cases() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec((0_u8..255, 0_u8..4, 0_u8..3), 0..60)
}

proptest! {
    #[test]
    fn generated_reports_have_the_counts_of_another_counting(cases in cases(), noise in "[ -~&&[^<&]]{0,40}") {
        let (mut xml, mut expected) = ("<testsuites><testsuite name='s'><testsuite name='t'>".to_owned(), ReportCounts::default());
        for (at, (name, end, flaky)) in cases.iter().enumerate() {
            let flaky = if *end == 0 { *flaky } else { 0 };
            xml += &format!("<testcase name='{name}-{at}' time='{at}.5'>{}", "<flakyFailure message='x'/>".repeat(flaky.into()));
            xml += ["", "<failure/>", "<error>e</error>", "<skipped/>"][usize::from(*end)];
            xml += &format!("<system-out>{noise}</system-out></testcase>\n");
            *[&mut expected.success, &mut expected.failure, &mut expected.error, &mut expected.skip][usize::from(*end)] += 1;
            expected.retries += u64::from(flaky);
        }
        xml += "</testsuite></testsuite></testsuites>";
        expected.events = cases.len() as u64 + expected.retries;
        expected.format = "junit".to_owned();
        let (counts, events) = events(xml.as_bytes(), None, 31).expect("a report");
        prop_assert_eq!(&counts, &expected);
        let told = events.iter().filter(|event| event.get("outcome").as_text() == Some("failure")).count() as u64;
        prop_assert_eq!(told, expected.failure + expected.retries);
        prop_assert!(events.iter().all(|event| event.get("suite").as_text() == Some("t")));
    }

    #[test]
    fn a_line_of_coverage_counts_once_in_each_format(packages in prop::collection::btree_map("[a-z]{1,6}", prop::collection::vec(0_u32..3, 1..20), 1..6)) {
        let (mut cobertura, mut lcov) = ("<coverage><packages>".to_owned(), String::new());
        for (package, hits) in &packages {
            cobertura += &format!("<package name='{package}'><classes><class><lines>");
            lcov += &format!("SF:{package}/file.c\n");
            for (line, hits) in hits.iter().enumerate() {
                cobertura += &format!("<line number='{line}' hits='{hits}'/>");
                lcov += &format!("DA:{line},{hits}\n");
            }
            cobertura += "</lines></class></classes></package>";
            lcov += "end_of_record\n";
        }
        cobertura += "</packages></coverage>";
        let covered = packages.values().flatten().filter(|hits| **hits > 0).count() as f64;
        let total = packages.values().map(Vec::len).sum::<usize>() as f64;
        for report in [&cobertura, &lcov] {
            let (_, events) = events(report.as_bytes(), None, 17).expect("a report");
            let value = |name: &str| events.iter().find(|event| event.get("name").as_text() == Some(name)).map(|event| event.get("value").clone());
            prop_assert_eq!(value("coverage.lines_covered"), Some(kiro_schemas::Value::Float(covered)));
            prop_assert_eq!(value("coverage.lines_total"), Some(kiro_schemas::Value::Float(total)));
            prop_assert_eq!(value("coverage.line_ratio"), Some(kiro_schemas::Value::Float(covered / total)));
            prop_assert_eq!(events.len(), 3 + 3 * packages.len());
        }
    }
}
