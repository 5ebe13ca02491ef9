use kiro_schemas::{Micros, Outcome, Value};
use proptest::prelude::*;

use super::{Mapping, RowProblem};

const FILE: &str = r#"
version: 1
timezone: Europe/Zurich
tenant: acme
source: {const: "https://ci.example/acme/shop"}
keep: true
events:
  - subject: pipeline_run
    transition: finished
    fields:
      subject_id: build_id
      pipeline: {const: ci}
      time: {column: ended, as: time, format: "%Y-%m-%d %H:%M"}
      known_at: {column: ended, format: "%Y-%m-%d %H:%M", plus: 30m}
      outcome: {column: failed, map: {"1": failure, "0": success}}
      duration_ms: {column: took, as: int}
"#;
const CSV: &str =
    "build_id,ended,failed,took,team\n42,2026-07-01 12:00,1,1500,a\n43,2026-03-29 02:30,0,,b\n44,x,0,1,c\n45,2026-10-25 02:30,0,1,\n";

fn mapping() -> Mapping {
    Mapping::parse(FILE).expect("a mapping")
}

#[test]
fn reads_rows_in_their_time_zone_and_goes_on_after_a_bad_one() {
    let mapping = mapping();
    let rows: Vec<_> = mapping.csv(CSV.as_bytes()).collect();
    assert_eq!(rows.len(), 4);
    let first = &rows[0].as_ref().expect("a row").events[0];
    assert_eq!(first.time.to_string(), "2026-07-01T10:00:00Z");
    assert_eq!(first.known_at, Some(first.time.plus(1_800_000_000)));
    assert_eq!(first.get("outcome").as_text(), Some(Outcome::Failure.as_str()));
    assert_eq!(first.get("duration_ms"), &Value::Int(1500));
    assert_eq!(first.attributes, [("team".into(), "a".into())]);
    assert_eq!(first.id, "pipeline_run/42/1/finished/2026-07-01T10:00:00Z");
    assert_eq!(mapping.tenant().map(ToString::to_string).as_deref(), Some("acme"));
    let gap = &rows[1].as_ref().expect("a row").events[0];
    assert_eq!(gap.time.to_string(), "2026-03-29T01:30:00Z", "02:30 was skipped: it is 03:30");
    assert!(gap.get("duration_ms").is_null());
    let error = rows[2].as_ref().expect_err("a bad time").to_string();
    assert!(error.starts_with("line 4: field \"time\": not a time") || error.starts_with("line 4: field \"known_at\""), "{error}");
    let twice = &rows[3].as_ref().expect("a row").events[0];
    assert_eq!(twice.time.to_string(), "2026-10-25T00:30:00Z", "02:30 was there twice: it is the first");
    let again: Vec<_> = mapping.csv(CSV.as_bytes()).collect();
    assert_eq!(again, rows, "a repeat gives the same events");
}

#[test]
fn an_unknown_column_names_those_that_are_there() {
    let mapping = mapping();
    let error = mapping.csv("id,ended\n1,2\n".as_bytes()).next().expect("a row").expect_err("a problem");
    assert!(matches!(&error.problem, RowProblem::Column { found, .. } if found == &["id", "ended"]), "{error}");
}

#[test]
fn a_line_has_a_limit() {
    let mapping = mapping();
    let csv = format!("build_id,ended\n{}", "x".repeat(3 << 20));
    let problems: Vec<_> = mapping.csv(csv.as_bytes()).map(|row| row.expect_err("too long").problem).collect();
    assert_eq!(problems, [RowProblem::TooLong]);
}

#[test]
fn reads_nested_json() {
    let file = "version: 1\nrows: data.runs\nevents:\n  - subject: pipeline_run\n    transition: started\n    fields: {source: repo.url, subject_id: id, time: {column: at, format: millis}, branch: head.ref}\n";
    let mapping = Mapping::parse(file).expect("a mapping");
    let json =
        br#"{"data":{"runs":[{"id":7,"at":1000,"repo":{"url":"https://a"},"head":{"ref":"main"}},{"id":8,"at":"x","repo":{"url":"u"}}]}}"#;
    let rows: Vec<_> = mapping.json(json).expect("rows").collect();
    let event = &rows[0].as_ref().expect("a row").events[0];
    assert_eq!((event.source.as_ref(), event.subject_id.as_ref(), event.time), ("https://a", "7", Micros(1_000_000)));
    assert_eq!(event.get("branch").as_text(), Some("main"));
    assert_eq!(rows[1].as_ref().expect_err("a bad time").line, 2);
    let lines = [json.as_slice(), b"\n\n{\n"].concat();
    let errors: Vec<u64> = mapping.ndjson(&lines).filter_map(|row| row.err().map(|error| error.line)).collect();
    assert_eq!(errors, [1, 3]);
}

#[test]
fn tells_all_problems_with_their_places() {
    let file = "version: 2\ntimezone: Mars/Olympus\ntenant: A B\nevents:\n  - subject: pipeline_run\n    transition: merged\n    fields:\n      subject_id: id\n      colour: red\n      time: {column: t, format: \"%Y\"}\n      duration_ms: {column: d, as: text}\n      outcome: {column: o, map: {a: fine}}\n  - subject: nothing\n    transition: x\n    fields: {}\n";
    let problems = Mapping::parse(file).expect_err("problems");
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    for path in ["version", "timezone", "tenant", "events[0].transition", "events[0].fields.colour", "events[0].fields.time"] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    for path in ["events[0].fields.duration_ms", "events[0].fields.outcome", "events[0].fields", "events[1].subject"] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert_eq!(problems.iter().find(|problem| problem.path.ends_with("colour")).and_then(|problem| problem.line), Some(9));
    let shape = Mapping::parse("version: 1\nrow: x\nevents: []\n").expect_err("an unknown key");
    assert_eq!(shape[0].line, Some(2), "{shape:?}");
}

proptest! {
    #[test]
    fn never_panics(yaml in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Mapping::parse(&yaml));
        let mapping = mapping();
        prop_assert!(mapping.csv(bytes.as_slice()).count() <= 200);
        prop_assert!(mapping.ndjson(&bytes).count() <= 200);
    }
}
