//! The events of each payload, compared with the file `events.ndjson` beside them.

use std::fmt::Write as _;
use std::path::Path;

use kiro_integrations::{Platform, platform, platforms};
use kiro_ports::Normaliser;
use kiro_schemas::{Event, Role, Value};
use serde_json::{Map, json};

use crate::{events, folder, json_files, payloads};

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
    for (name, value) in &event.attributes {
        assert!(map.insert(format!("attributes.{name}"), json!(value)).is_none(), "{name} stands twice");
    }
    serde_json::Value::Object(map)
}

/// Compares a text with a golden file, or writes that when `KIRO_UPDATE_GOLDEN` is set.
fn check(golden: &Path, found: &str) {
    if std::env::var_os("KIRO_UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, found).expect("written");
    }
    let expected = std::fs::read_to_string(golden).unwrap_or_default();
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{}, line {}; KIRO_UPDATE_GOLDEN=1 writes it anew", golden.display(), line + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{}", golden.display());
}

#[test]
fn the_payloads_give_these_events() {
    for platform in platforms() {
        let payloads = payloads(platform);
        assert!(payloads.len() >= 2, "{} has no payloads", platform.name);
        let mut found = String::new();
        for payload in &payloads {
            let events = payload.events();
            writeln!(found, "{}", json!({"payload": payload.name, "events": events.len()})).expect("written");
            for event in &events {
                assert!(event.spec().transition(event.transition).is_some(), "{}: {event:?}", payload.name);
                writeln!(found, "{}", print(event)).expect("written");
            }
        }
        check(&folder(platform).join("events.ndjson"), &found);
    }
}

/// Each event that a platform reads is shown by a payload that gives some.
#[test]
fn every_event_that_is_read_has_a_payload() {
    for platform in platforms() {
        let payloads = payloads(platform);
        for (event, _) in platform.events {
            let shown = payloads.iter().any(|payload| payload.event == *event && !payload.events().is_empty());
            // These are read as others of the same shape are.
            let is_same = matches!(*event, "Build Hook" | "pull_request_rejected");
            assert!(shown || is_same, "{} {event} has no payload that gives an event", platform.name);
        }
    }
}

/// GitHub's whole set of examples, by the ids of their events.
#[test]
fn all_examples_of_github_give_these_ids() {
    let github = platform("github").expect("a platform");
    let place = "shared/data/webhooks/github-octokit/payload-examples/api.github.com";
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join(place));
    let Some(set) = beside.into_iter().find(|folder| folder.is_dir()) else {
        println!("THE WHOLE SET OF GITHUB'S EXAMPLES IS SKIPPED: {place} is nowhere above");
        return;
    };
    let mut kinds: Vec<_> = std::fs::read_dir(&set).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    kinds.retain(|path| path.is_dir());
    kinds.sort();
    let (mut found, mut count) = (String::new(), 0);
    for kind in &kinds {
        let event = kind.file_name().expect("a name").to_string_lossy();
        for path in json_files(kind) {
            let body = std::fs::read(&path).expect("a payload");
            let ids: Vec<String> = events(github, &event, &body).iter().map(|event| event.id.to_string()).collect();
            writeln!(
                found,
                "{}",
                json!({"payload": format!("{event}/{}", path.file_stem().expect("a name").to_string_lossy()), "ids": ids})
            )
            .expect("written");
            count += 1;
        }
    }
    assert!(count > 260, "{count} examples");
    check(&folder(github).join("all.ndjson"), &found);
}

#[test]
fn what_is_not_known_or_not_whole() {
    for platform in platforms() {
        let nothing: &[u8] = b"not even JSON";
        if platform.event_header.is_some() {
            assert!(events(platform, "an event of tomorrow", nothing).is_empty(), "{}", platform.name);
            assert!(platform.normalise(&Vec::new(), b"{}").is_err(), "{} without a header", platform.name);
        }
        for payload in payloads(platform).iter().filter(|payload| platform.reads(&payload.event)) {
            let headers = crate::headers(platform, &payload.event);
            for body in [nothing, b"", b"[]", b"null", b"{\"action\": 1, \"object_kind\": 1}"] {
                let error = platform.normalise(&headers, body).expect_err("not of its shape");
                assert!(error.reason.starts_with("cannot read "), "{error}");
            }
            let whole = payload.body.trim_ascii();
            for end in (0..whole.len()).step_by(97) {
                let cut = whole.get(..end).expect("within");
                assert!(platform.normalise(&headers, cut).is_err(), "{} cut at {end}", payload.name);
            }
        }
    }
}

/// A platform is named once, and its headers are in lower case as headers come.
#[test]
fn platforms_are_well_formed() {
    let lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let mut names: Vec<&str> = platforms().iter().map(|platform: &&Platform| platform.name).collect();
    for known in platforms() {
        assert!(lower(known.name) && !known.proofs.is_empty() && !known.events.is_empty(), "{}", known.name);
        assert!(known.event_header.iter().chain(known.delivery_headers).all(|header| lower(header)), "{}", known.name);
        assert!(known.proofs.iter().all(|proof| lower(proof.header())), "{}", known.name);
        assert_eq!(platform(known.name).map(|found| found.name), Some(known.name));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), platforms().len());
    assert!(platform("nobody").is_none());
}
