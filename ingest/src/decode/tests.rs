use std::sync::Arc;

use bytes::Bytes;
use kiro_ports::{Headers, NormaliseError, Normaliser};
use kiro_schemas::{Event, Fault, FaultKind, Subject, Transition, Value};
use proptest::prelude::*;

use super::{DecodeError, Decoder, Limits, cdevents, http};
use crate::mapping::Mapping;

const NATIVE: &str = r#"{"subject":"change","transition":"merged","source":"https://a","subject_id":"1","time":"2026-11-23T09:40:00Z"}"#;
const RUN: &[u8] = include_bytes!("../../tests/cdevents/conformance/pipelinerun_finished.json");

#[derive(Debug)]
struct Told;

impl Normaliser for Told {
    fn format(&self) -> &'static str {
        "told"
    }

    fn headers_read(&self, headers: &Headers) -> Headers {
        headers.iter().filter(|(name, _)| name == "x-told").cloned().collect()
    }

    fn normalise<'a>(&self, _headers: &Headers, payload: &'a [u8]) -> Result<Vec<Event<'a>>, NormaliseError> {
        Event::from_json(payload).map(|event| vec![event]).map_err(|error| NormaliseError { reason: error.to_string() })
    }
}

fn decoder() -> Decoder {
    let mapping = "version: 1\nsource: {const: s}\nevents: [{subject: other, transition: recorded, fields: {subject_id: id, time: at}}]";
    Decoder::new(vec![Arc::new(Told)], vec![("rows".to_owned(), Mapping::parse(mapping).expect("a mapping"))])
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

/// Topic, headers, bytes, and what they are about.
type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c str, Subject);

#[test]
fn headers_and_topic_choose_the_reading() {
    let run = std::str::from_utf8(RUN).expect("text");
    let structured =
        format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"dev.cdevents.pipelinerun.finished.0.3.0","data":{run}}}"#);
    let ce = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "s"), ("ce_type", "my.type"), ("ce_time", "2026-11-23T09:40:00Z")];
    let row = r#"{"id":"9","at":"2026-11-23T09:40:00Z"}"#;
    let cases: [Case<'_>; 6] = [
        ("events", &[], NATIVE, Subject::Change),
        ("events", &[("kiro-format", "told")], NATIVE, Subject::Change),
        ("rows", &[("kiro-format", "native")], NATIVE, Subject::Change),
        ("events", &[("content-type", "Application/CloudEvents+json; charset=UTF-8")], structured.as_str(), Subject::PipelineRun),
        ("events", &ce, r#"{"a":{"b":1}}"#, Subject::Other),
        ("rows", &[], row, Subject::Other),
    ];
    for (topic, pairs, body, expected) in cases {
        let events = decoder().decode(topic, &headers(pairs), body.as_bytes()).expect(body);
        assert_eq!(events.iter().map(|event| event.subject).collect::<Vec<_>>(), [expected], "{pairs:?}");
    }
    let events = decoder().decode("events", &headers(&ce), br#"{"a":{"b":1}}"#).expect("an event");
    assert_eq!(events[0].attributes, [("a.b".into(), "1".into())]);
    assert_eq!(events[0].get("type").as_text(), Some("my.type"));
}

#[test]
fn errors_name_reason_and_place() {
    let decode = |pairs: &[(&str, &str)], body: &str| decoder().decode("t", &headers(pairs), body.as_bytes()).expect_err(body).to_string();
    assert_eq!(decode(&[("kiro-format", "x")], ""), r#"unknown format "x""#);
    assert_eq!(decode(&[("content-type", "application/cloudevents+json")], "{\n1"), "not JSON at line 2 column 1: key must be a string");
    assert_eq!(decode(&[("content-type", "application/cloudevents+json")], "{}"), "specversion: is missing or empty");
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert_eq!(decode(&[("content-type", "application/cloudevents+json")], &deep), "JSON is more than 64 levels deep");
    let small = decoder().with_limits(Limits { record_bytes: 10, ..Limits::default() });
    assert_eq!(small.decode("t", &Headers::new(), NATIVE.as_bytes()).expect_err("too large").kind(), FaultKind::TooLarge);
    let few = decoder().with_limits(Limits { attributes: 1, ..Limits::default() });
    let many = NATIVE.replace("\"subject\":", "\"attributes\":{\"a\":\"1\",\"b\":\"2\"},\"subject\":");
    assert_eq!(few.decode("t", &Headers::new(), many.as_bytes()).expect_err("too many").code(), "KIR-0201");
}

#[test]
fn a_cdevent_fills_columns_and_custom_data_too() {
    let json = String::from_utf8(RUN.to_vec()).expect("text").trim_end().strip_suffix('}').expect("object").to_owned()
        + r#","customData":{"commitSha":"abc","refName":"main","runAttempt":2,"queuedAt":"2023-03-20T14:00:00Z","knownAt":"2023-03-20T15:00:00Z","trigger":"push","team":"a"}}"#;
    let event = cdevents::decode(json.as_bytes()).expect("an event");
    assert_eq!((event.subject, event.transition, event.attempt), (Subject::PipelineRun, Transition::Finished, 2));
    assert_eq!(event.id, "271069a8-fc18-44f1-b38f-9d70a1695819");
    for (name, text) in [("outcome", "failure"), ("pipeline", "myPipeline"), ("commit_sha", "abc"), ("branch", "main"), ("trigger", "push")]
    {
        assert_eq!(event.get(name).as_text(), Some(text), "{name}");
    }
    assert_eq!(event.get("queued_at").as_time().map(|time| time.to_string()).as_deref(), Some("2023-03-20T14:00:00Z"));
    assert!(event.known_at.is_some());
    assert!(event.attributes.contains(&("team".into(), "a".into())));
    let error =
        cdevents::decode(json.replace("\"failure\"", "\"fine\"").replace("0.3.0", "0.3.1").as_bytes()).expect_err("bad").to_string();
    assert!(error.starts_with("subject.content.outcome: \"fine\" is not one of"), "{error}");
}

#[test]
fn a_service_event_is_a_deployment_that_succeeded() {
    let event = cdevents::decode(include_bytes!("../../tests/cdevents/conformance/service_rolledback.json")).expect("an event");
    assert_eq!((event.subject, event.transition), (Subject::Deployment, Transition::RolledBack));
    assert_eq!(event.get("is_rollback"), &Value::Bool(true));
    assert_eq!(event.get("outcome").as_text(), Some("success"));
    assert!(event.get("service").as_text().is_some() && event.get("environment").as_text().is_some());
}

#[test]
fn a_post_becomes_records() {
    let none = Headers::new();
    let split = |kind: &str, headers: &Headers, body: &str| http::split(kind, headers, &Bytes::copy_from_slice(body.as_bytes()));
    assert_eq!(split("application/cloudevents-batch+json", &none, "[]").expect("none").len(), 0);
    assert_eq!(split("application/cloudevents-batch+json", &none, "[{},{}]").expect("two").len(), 2);
    assert!(matches!(split("application/cloudevents-batch+json", &none, "[{},1]"), Err(DecodeError::At { index: 1, .. })));
    assert_eq!(split("application/x-ndjson", &none, "{}\n\n{}\r\n").expect("two").len(), 2);
    assert!(matches!(split("application/x-ndjson", &none, "{}\n{"), Err(DecodeError::At { index: 1, .. })));
    assert_eq!(split("application/json", &none, NATIVE).expect("one")[0].headers, headers(&[("kiro-format", "native")]));
    let euro = |value| split("application/json", &headers(&[("ce-specversion", "1.0"), ("ce-subject", value)]), "{}");
    let events = euro("Euro%20%E2%82%AC%20%F0%9F%98%80").expect("one");
    assert_eq!(events[0].headers[2], ("ce_subject".to_owned(), Bytes::from("Euro € 😀")));
    assert_eq!(euro("\"a\\\"b\"").expect("one")[0].headers[2].1, Bytes::from("a\"b"));
    for bad in ["%C0%A0", "%4", "%zz"] {
        assert!(matches!(euro(bad), Err(DecodeError::Header { .. })), "{bad}");
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), json in "[\\[\\]{}:,\"a-z0-9 .%-]{0,60}", choice in 0_usize..5) {
        let pairs: &[(&str, &str)] = match choice {
            0 => &[],
            1 => &[("content-type", "application/cloudevents")],
            2 => &[("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "s"), ("ce_type", "t")],
            3 => &[("kiro-format", "told")],
            _ => &[("ce-specversion", "1.0")],
        };
        for input in [bytes.as_slice(), json.as_bytes()] {
            drop(decoder().decode("rows", &headers(pairs), input));
            drop(cdevents::decode(input));
            drop(http::split("application/x-ndjson", &headers(pairs), &Bytes::copy_from_slice(input)));
            let header = vec![("ce-specversion".to_owned(), Bytes::copy_from_slice(input))];
            drop(http::split("a/b", &header, &Bytes::new()));
            let _ = super::uri::is_uri(&json, choice == 0);
        }
    }
}
