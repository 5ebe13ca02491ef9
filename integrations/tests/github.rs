//! What becomes of GitHub's own example payloads.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiro_integrations::github::GithubNormaliser;
use kiro_ports::{Headers, Normaliser};
use kiro_schemas::{Event, Role, Value};
use serde_json::{Map, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/github")
}

fn headers(event: &str) -> Headers {
    vec![("x-github-event".to_owned(), Bytes::from(event.to_owned()))]
}

fn normalise<'p>(event: &str, payload: &'p [u8]) -> Vec<Event<'p>> {
    GithubNormaliser.normalise(&headers(event), payload).expect("a payload of its shape")
}

fn print(event: &Event<'_>) -> serde_json::Value {
    let mut map = Map::new();
    for (name, value) in [
        ("id", event.id.to_string()),
        ("source", event.source.to_string()),
        ("subject", event.subject.to_string()),
        ("subject_id", event.subject_id.to_string()),
        ("transition", event.transition.to_string()),
        ("time", event.time.to_string()),
    ] {
        map.insert(name.to_owned(), json!(value));
    }
    map.insert("attempt".to_owned(), json!(event.attempt));
    for (column, value) in event.spec().columns.iter().zip(&event.fields).filter(|(column, _)| column.role == Role::Field) {
        let value = match value {
            Value::Null => continue,
            Value::Text(text) => json!(text),
            Value::Int(value) => json!(value),
            Value::Float(value) => json!(value),
            Value::Bool(value) => json!(value),
            Value::Time(value) => json!(value),
            Value::Map(pairs) => json!(pairs),
        };
        map.insert(format!("fields.{}", column.name), value);
    }
    serde_json::Value::Object(map)
}

#[test]
fn the_examples_give_these_events() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() >= 30, "{} payloads", files.len());
    let mut found = String::new();
    for path in &files {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let payload = std::fs::read(path).expect("a payload");
        let events = normalise(name.split('.').next().expect("an event"), &payload);
        writeln!(found, "{}", json!({"payload": name, "events": events.len()})).expect("written");
        for event in &events {
            writeln!(found, "{}", print(event)).expect("written");
        }
    }
    let golden = folder().join("events.ndjson");
    if std::env::var_os("KIRO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).expect("written");
    }
    let expected = std::fs::read_to_string(&golden).expect("events.ndjson; KIRO_UPDATE_GOLDEN=1 writes it");
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {}", line + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn a_delivery_and_its_repetition_are_the_same_event() {
    let payload = std::fs::read(folder().join("workflow_run.completed.json")).expect("a payload");
    assert_eq!(normalise("workflow_run", &payload), normalise("workflow_run", &payload));
    let text = String::from_utf8(payload).expect("text");
    let again = text.replace("\"run_attempt\": 1", "\"run_attempt\": 2");
    assert_ne!(text, again);
    let (first, second) = (normalise("workflow_run", text.as_bytes()).remove(0), normalise("workflow_run", again.as_bytes()).remove(0));
    assert_eq!((first.subject_id, first.attempt, second.attempt), (second.subject_id, 1, 2));
    assert_ne!(first.id, second.id);
}

#[test]
fn conclusions_become_outcomes_and_stay_as_they_are() {
    let text = std::fs::read_to_string(folder().join("workflow_run.completed.json")).expect("a payload");
    let words = [
        ("success", Some("success")),
        ("failure", Some("failure")),
        ("cancelled", Some("cancel")),
        ("timed_out", Some("error")),
        ("stale", Some("error")),
        ("startup_failure", Some("error")),
        ("skipped", Some("skip")),
        ("neutral", Some("skip")),
        ("action_required", None),
        ("a word of tomorrow", None),
    ];
    for (word, outcome) in words {
        let payload = text.replace("\"conclusion\": \"success\"", &format!("\"conclusion\": \"{word}\""));
        let event = normalise("workflow_run", payload.as_bytes()).remove(0);
        assert_eq!((event.get("outcome").as_text(), event.get("status").as_text()), (outcome, Some(word)));
    }
}

#[test]
fn what_is_not_known_or_not_whole() {
    let nothing: &[u8] = b"not even JSON";
    assert!(GithubNormaliser.normalise(&headers("star"), nothing).expect("no error").is_empty());
    for event in ["workflow_run", "workflow_job", "deployment", "deployment_status", "pull_request", "push"] {
        for payload in [nothing, b"{}", b"[]", b"null", b"{\"action\": 1}"] {
            let error = GithubNormaliser.normalise(&headers(event), payload).expect_err("not of its shape");
            assert!(error.reason.contains(event), "{error}");
        }
    }
    assert!(GithubNormaliser.normalise(&Headers::new(), b"{}").is_err());
    let payload = std::fs::read(folder().join("workflow_run.completed.json")).expect("a payload");
    for end in (0..payload.len()).step_by(97) {
        assert!(GithubNormaliser.normalise(&headers("workflow_run"), &payload[..end]).is_err(), "cut at {end}");
    }
}
