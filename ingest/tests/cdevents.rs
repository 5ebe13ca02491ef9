//! Our decoder of CDEvents against the official JSON schemas: they must agree on all conformance files and on thousands of
//! seeded mutations of them.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jsonschema::{Registry, Resource, Validator};
use kiro_ingest::decode::cdevents;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const SEED: u64 = 20_261_123;
const MUTATIONS: usize = 120;

/// Where we differ on purpose: a pointer into the document, a value there, and whether we take what the schema refuses.
const DIFFERENCES: &[(&str, &str, bool)] = &[
    // A newer patch or minor version of a known type is taken; the schemas fix all three numbers.
    ("/context/type", "newer", true),
    // Times are stored from 1970 to 9999.
    ("/context/timestamp", "0001-01-01T00:00:00Z", false),
    // The documented keys of `customData` have types; the schemas say nothing of its content.
    ("/customData", "runAttempt", false),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cdevents")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    files
}

/// The validators by type of event.
fn validators() -> BTreeMap<String, Validator> {
    let links = files(&folder().join("schemas/links")).into_iter().map(|path| {
        let schema = read(&path);
        (schema["$id"].as_str().expect("an id").to_owned(), Resource::from_contents(schema))
    });
    let registry = Registry::new().extend(links).expect("resources").prepare().expect("a registry");
    let schemas = files(&folder().join("schemas"));
    let custom = folder().join("custom/schema.json");
    let build = |path: &PathBuf| {
        let mut schema = read(path);
        if path.ends_with("taskrunfinished.json") {
            // As 0.5 has it; see `takes_any_outcome_of_a_task_run`.
            let outcome = schema.pointer_mut("/properties/subject/properties/content/properties/outcome").expect("a property");
            outcome.as_object_mut().expect("a schema").remove("enum").expect("the draft's words");
        }
        let kind = schema["properties"]["context"]["properties"]["type"]["default"].as_str().unwrap_or("custom").to_owned();
        let validator = jsonschema::options().with_registry(&registry).should_validate_formats(true).build(&schema).expect("a schema");
        (kind, validator)
    };
    schemas.iter().chain([&custom]).map(build).collect()
}

fn validator<'v>(validators: &'v BTreeMap<String, Validator>, event: &Value) -> Option<&'v Validator> {
    let kind = event["context"]["type"].as_str()?;
    validators.get(if kind.starts_with("dev.cdeventsx.") { "custom" } else { kind })
}

fn conformance() -> Vec<Value> {
    let custom = folder().join("custom/conformance.json");
    files(&folder().join("conformance")).iter().chain([&custom]).map(|path| read(path)).collect()
}

fn takes(event: &Value) -> Result<(), String> {
    cdevents::decode(event.to_string().as_bytes()).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn takes_all_conformance_files() {
    let validators = validators();
    let events = conformance();
    assert!(events.len() >= 49, "{}", events.len());
    for event in events {
        let name = event["context"]["type"].to_string();
        assert!(validator(&validators, &event).is_some_and(|schema| schema.is_valid(&event)), "{name}");
        assert_eq!(takes(&event), Ok(()), "{name}");
    }
}

/// Pointers of all values of a document.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), out)),
        Value::Array(values) => values.iter().enumerate().for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), out)),
        _ => {}
    }
}

fn mutate(event: &mut Value, random: &mut StdRng) -> String {
    let mut places = Vec::new();
    pointers(event, "", &mut places);
    let place = places.choose(random).expect("a place").clone();
    let texts = [
        "",
        "x",
        " ",
        "other",
        "2023-13-01T00:00:00Z",
        "2023-03-20 14:27:05Z",
        "2023-03-20T14:27:05",
        "http://a b",
        "://",
        "1:2",
        "%zz",
        "a%20b",
        "https://[::1]:80/x?y#z",
        "https://[::1/x",
        "/path",
        "cdevents:v0:github::xibz:spec:pr:42",
        "cdevents:v1:a",
        "success",
        "END",
        "PATH",
        "é",
    ];
    let values = [
        json!(null),
        json!(1),
        json!(true),
        json!([]),
        json!({}),
        json!([1]),
        json!({"id": "x"}),
        json!({"id": "x", "source": "%"}),
        json!({"y": 1}),
    ];
    let choice = random.gen_range(0..4);
    let Some(target) = event.pointer_mut(&place) else { return place };
    match (choice, &mut *target) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = keys.choose(random).expect("a key");
            map.remove(key);
            return format!("{place}: without {key}");
        }
        (1, Value::Object(map)) => {
            map.insert("unknownKey".to_owned(), values.choose(random).expect("a value").clone());
            return format!("{place}: with another key");
        }
        (2, _) => *target = values.choose(random).expect("a value").clone(),
        _ => *target = json!(texts.choose(random).expect("a text")),
    }
    format!("{place} = {target}")
}

/// 0.5 has a free text where the draft has four words, under the same version of the type.
#[test]
fn takes_any_outcome_of_a_task_run() {
    let mut event = read(&folder().join("conformance/taskrun_finished.json"));
    for (word, outcome, status) in [
        ("success", Some("success"), None),
        ("Succeeded", Some("success"), Some("Succeeded")),
        ("TIMED_OUT", Some("error"), Some("TIMED_OUT")),
        ("went fine", None, Some("went fine")),
        ("", None, Some("")),
    ] {
        event["subject"]["content"]["outcome"] = json!(word);
        let bytes = event.to_string();
        let decoded = cdevents::decode(bytes.as_bytes()).expect("an event");
        let text = |column: &str| match &decoded.fields[decoded.spec().field(column).expect("a column")] {
            kiro_schemas::Value::Text(text) => Some(text.to_string()),
            _ => None,
        };
        assert_eq!((text("outcome").as_deref(), text("status").as_deref()), (outcome, status), "{word}");
    }
    event["subject"]["content"]["outcome"] = json!(1);
    assert!(takes(&event).is_err(), "a number is no text");
}

#[test]
fn agrees_with_the_schemas_on_mutations() {
    let validators = validators();
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut taken, mut refused, mut differ) = (0, 0, Vec::new());
    for mut event in conformance() {
        event["customData"] = json!({"team": "a", "nested": {"b": [1, 2]}});
        let Some(schema) = validator(&validators, &event) else { continue };
        for _ in 0..MUTATIONS {
            let mut mutant = event.clone();
            let how = mutate(&mut mutant, &mut random);
            let theirs = schema.is_valid(&mutant);
            let ours = takes(&mutant);
            if theirs {
                taken += 1;
            } else {
                refused += 1;
            }
            if theirs != ours.is_ok() {
                differ.push(format!("{} {how}: schema {theirs}, we {ours:?}", event["context"]["type"]));
            }
        }
    }
    assert!(taken > 500 && refused > 2_000, "taken {taken}, refused {refused}");
    assert!(
        differ.is_empty(),
        "seed {SEED}: {} differences of {}:\n{}",
        differ.len(),
        taken + refused,
        differ[..differ.len().min(25)].join("\n")
    );
}

#[test]
fn differs_only_where_it_is_written_down() {
    let validators = validators();
    let base = read(&folder().join("conformance/pipelinerun_finished.json"));
    let schema = validator(&validators, &base).expect("a schema");
    for (pointer, value, laxer) in DIFFERENCES {
        let mut event = base.clone();
        event["customData"] = json!({});
        *event.pointer_mut(pointer).expect("a place") = match *value {
            "newer" => json!("dev.cdevents.pipelinerun.finished.0.4.1"),
            "runAttempt" => json!({"runAttempt": 0}),
            text => json!(text),
        };
        assert_eq!((schema.is_valid(&event), takes(&event).is_ok()), (!laxer, *laxer), "{pointer} {value}");
    }
}
