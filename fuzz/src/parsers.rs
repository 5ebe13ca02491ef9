//! Parsers that are public. Each function panics when its parser breaks its word.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use kiro_analyzers::Format;
use kiro_ingest::decode::{Decoder, Limits, http};
use kiro_ingest::mapping::Mapping;
use kiro_integrations::backfill::{Ask, Known, Span};
use kiro_integrations::communication::webhook::{self, SigningKey};
use kiro_integrations::{platform, platforms};
use kiro_models::{AssessRequest, RiskModel};
use kiro_orchestration::{Condition, GateFile};
use kiro_ports::{
    ExplainRequest, FeatureRow, GateRequest, Headers, NewBackfill, NewImport, NewSource, Normaliser, ReplayRequest, RiskRequest,
};
use kiro_schemas::report::{ReportCounts, ReportScope};
use kiro_schemas::{Event, Micros, OffsetVector, Problem, Secret, Value};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// A parser's function by its name, which is also that of its folder of seeds.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const PARSERS: &[Parser] = &[
    ("native_event", native_event),
    ("log_record", log_record),
    ("http_post", http_post),
    ("mapping_file", mapping_file),
    ("mapping_rows", mapping_rows),
    ("github_webhook", github_webhook),
    ("gitlab_webhook", gitlab_webhook),
    ("gitea_webhook", gitea_webhook),
    ("pagerduty_webhook", pagerduty_webhook),
    ("opsgenie_webhook", opsgenie_webhook),
    ("alertmanager_webhook", alertmanager_webhook),
    ("devlake_webhook", devlake_webhook),
    ("github_page", github_page),
    ("gitlab_page", gitlab_page),
    ("webhook_signature", webhook_signature),
    ("gate_file", gate_file),
    ("model_file", model_file),
    ("request_body", request_body),
    ("junit_report", junit_report),
    ("coverage_report", coverage_report),
    ("sarif_report", sarif_report),
];

/// How the rows of the topic `rows` are read.
const ROWS: &str = "version: 1\nrows: $.data\nsource: {const: s}\nkeep: true\nevents:\n  - subject: pipeline_run\n    transition: finished\n    \
                    fields: {subject_id: id, time: at, outcome: {column: result, map: {red: failure, green: success}}}\n";

/// An event is written so that it is read as the same event again; floats may differ in their last bits.
fn assert_written_and_read(event: &Event<'_>) {
    let text = serde_json::to_vec(event).expect("an event is JSON");
    let back = Event::from_json(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    assert_eq!((back.subject, back.transition, back.attempt), (event.subject, event.transition, event.attempt));
    assert_eq!((&back.id, &back.source, &back.subject_id), (&event.id, &event.source, &event.subject_id));
    assert_eq!((back.time, back.known_at), (event.time, event.known_at));
    for pair in back.fields.iter().zip(&event.fields) {
        match pair {
            (Value::Float(a), Value::Float(b)) => assert!((a - b).abs() <= b.abs() * 1e-12, "{a} was {b}"),
            (a, b) => assert_eq!(a, b),
        }
    }
}

/// An event that a decoder lets through keeps the limits.
fn assert_bounded(event: &Event<'_>) {
    let limits = Limits::default();
    assert!(event.attributes.len() <= limits.attributes && event.attempt >= 1, "{event:?}");
    assert!(event.attributes.iter().all(|(name, value)| name.len() <= limits.key_bytes && value.len() <= limits.value_bytes));
    assert!(event.id.len().max(event.source.len()).max(event.subject_id.len()) <= limits.value_bytes);
    let times = event.fields.iter().filter_map(Value::as_time).chain(event.known_at).chain([event.time]);
    assert!(times.into_iter().all(Micros::is_storable), "{event:?}");
}

/// Made once: a mapping takes longer to read than a record.
static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let rows = Mapping::parse(ROWS).expect("our mapping");
    let normalisers = platforms().iter().map(|platform| Arc::new(**platform) as Arc<dyn Normaliser>);
    Decoder::new(normalisers.collect(), vec![("rows".to_owned(), rows)])
});

/// `name: value` lines, an empty line, the rest.
fn headers_and_body(data: &[u8]) -> (Headers, &[u8]) {
    let (mut headers, mut rest) = (Headers::new(), data);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        headers.push((String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(), Bytes::copy_from_slice(value)));
    }
    (headers, rest)
}

/// The native form of an event.
pub fn native_event(data: &[u8]) {
    if let Ok(event) = Event::from_json(data) {
        assert_written_and_read(&event);
    }
    if let Ok(events) = DECODER.decode("events", &Headers::new(), data) {
        events.iter().for_each(assert_bounded);
    }
}

/// A record of the log: its headers say how its bytes are read. The header `topic` stands for its topic.
pub fn log_record(data: &[u8]) {
    let (headers, body) = headers_and_body(data);
    let topic = kiro_ports::header(&headers, "topic").unwrap_or("events").to_owned();
    if let Ok(events) = DECODER.decode(&topic, &headers, body) {
        events.iter().for_each(assert_bounded);
    }
}

/// A post of events: CloudEvents in three modes, NDJSON, native JSON.
pub fn http_post(data: &[u8]) {
    let (headers, body) = headers_and_body(data);
    let kind = kiro_ports::header(&headers, "content-type").unwrap_or("application/json").to_owned();
    let Ok(posts) = http::split(&kind, &headers, &Bytes::copy_from_slice(body)) else { return };
    assert!(posts.iter().map(|post| post.bytes.len()).sum::<usize>() <= body.len(), "events are parts of the post");
    for post in posts.iter().take(1_000) {
        if let Ok(events) = DECODER.decode("events", &post.headers, &post.bytes) {
            events.iter().for_each(assert_bounded);
        }
    }
}

fn assert_told(problems: &[Problem]) {
    assert!(!problems.is_empty(), "refused without a problem");
    assert!(problems.iter().all(|problem| !problem.text.is_empty()), "a problem without a text");
}

/// A mapping file.
pub fn mapping_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = Mapping::parse(text) {
        assert_told(&problems);
    }
}

/// `csv`, `json` or `ndjson`, a mapping, `%%`, and the rows that it reads. What it makes of them can be written to the log.
pub fn mapping_rows(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (format, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(at) = rest.windows(4).position(|part| part == b"\n%%\n") else { return };
    let (Ok(text), rows) = (std::str::from_utf8(&rest[..at]), &rest[at + 4..]) else { return };
    let Ok(mapping) = Mapping::parse(text) else { return };
    let written = |row: Result<kiro_ingest::mapping::Row, kiro_ingest::mapping::RowError>| {
        if let Ok(row) = row {
            row.events.iter().for_each(assert_written_and_read);
        }
    };
    match format {
        b"csv" => mapping.csv(rows).take(1_000).for_each(written),
        b"ndjson" => mapping.ndjson(rows).take(1_000).for_each(written),
        _ => mapping.json(rows).into_iter().flatten().take(1_000).for_each(written),
    }
}

/// The platform's event type (an empty line where it has none), a line end, the payload.
fn webhook_of(name: &str, data: &[u8]) {
    let platform = platform(name).expect("a known platform");
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (kind, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut headers = vec![("kiro-format".to_owned(), Bytes::copy_from_slice(name.as_bytes()))];
    headers.extend(platform.event_header.map(|header| (header.to_owned(), Bytes::copy_from_slice(kind))));
    let kept = platform.redact(payload);
    if let Ok(events) = platform.normalise(&headers, payload) {
        assert_eq!(platform.normalise(&headers, &kept).as_ref(), Ok(&events), "what is kept says something else");
    }
    if let Ok(events) = DECODER.decode("events", &headers, payload) {
        events.iter().for_each(assert_bounded);
    }
}

/// A webhook of GitHub.
pub fn github_webhook(data: &[u8]) {
    webhook_of("github", data);
}

/// A webhook of GitLab.
pub fn gitlab_webhook(data: &[u8]) {
    webhook_of("gitlab", data);
}

/// A webhook of Gitea.
pub fn gitea_webhook(data: &[u8]) {
    webhook_of("gitea", data);
}

/// A webhook of PagerDuty.
pub fn pagerduty_webhook(data: &[u8]) {
    webhook_of("pagerduty", data);
}

/// A webhook of Opsgenie.
pub fn opsgenie_webhook(data: &[u8]) {
    webhook_of("opsgenie", data);
}

/// A webhook of Alertmanager.
pub fn alertmanager_webhook(data: &[u8]) {
    webhook_of("alertmanager", data);
}

/// A webhook of what posts to DevLake.
pub fn devlake_webhook(data: &[u8]) {
    webhook_of("devlake", data);
}

/// What is asked for, what its reader was given, each on a line, and a page of the API. What the page leads to is below the API,
/// and what it tells is such as is taken.
fn page_of(name: &str, data: &[u8]) {
    let platform = platform(name).expect("a known platform");
    let backfill = platform.backfill.expect("a past");
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (what, with, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(with) = serde_json::from_slice::<serde_json::Value>(with) else { return };
    let asked = serde_json::json!({"what": String::from_utf8_lossy(what), "path": "/repos/acme/shop", "with": with, "follow": "no", "without": "gone"});
    let ask: Ask = serde_json::from_value(asked).expect("a question");
    let about = serde_json::json!({
        "repository": {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop", "updated_at": "2026-01-01T00:00:00Z"},
        "project": {"id": 15, "web_url": "https://gitlab.com/acme/shop"},
    });
    let span = Span { since: Micros(0), fresh: Micros(0), until: Micros::from_seconds(1_800_000_000) };
    let known = Known { span, about: about.as_object().expect("an object"), has_next: false };
    let Ok(page) = (backfill.read)(&ask, &known, body) else { return };
    for ask in page.asks.iter().chain(page.rows.iter().flat_map(|row| &row.asks)) {
        let is_below = ask.path.starts_with("/repos/") || ask.path.starts_with("/projects/");
        assert!(is_below && ask.path.is_ascii() && !ask.path.contains("/../"), "{}", ask.path);
        let back: Ask = serde_json::from_slice(&serde_json::to_vec(ask).expect("JSON")).expect("a question");
        assert_eq!((&back.what, &back.path), (&ask.what, &ask.path), "it is kept as another");
    }
    for told in page.rows.iter().flat_map(|row| &row.told) {
        let mut headers = vec![("kiro-format".to_owned(), Bytes::copy_from_slice(name.as_bytes()))];
        headers.extend(platform.event_header.map(|header| (header.to_owned(), Bytes::from_static(told.event.as_bytes()))));
        assert!(platform.reads(told.event), "{} is not read", told.event);
        if let Ok(events) = DECODER.decode("events", &headers, told.payload.to_string().as_bytes()) {
            events.iter().for_each(assert_bounded);
        }
    }
}

/// A page of GitHub's API.
pub fn github_page(data: &[u8]) {
    page_of("github", data);
}

/// A page of GitLab's API.
pub fn gitlab_page(data: &[u8]) {
    page_of("gitlab", data);
}

/// Signatures that come with a body. Nobody here knows the secret, so none may fit; our own fits.
pub fn webhook_signature(data: &[u8]) {
    let (headers, body) = headers_and_body(data);
    let secret = Secret::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    let now = Micros::from_seconds(1_700_000_000);
    for platform in platforms() {
        let told = platform.verify(std::slice::from_ref(&secret), &headers, body, now);
        assert!(told.is_err(), "a forged proof of {}", platform.name);
    }
    let key = SigningKey::of(&secret).expect("our key");
    assert!(!webhook::verify(std::slice::from_ref(&key), &headers, body, now), "a forged signature");
    let own = webhook::headers(&key, "d1", now, body).map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    assert!(webhook::verify(&[key], &own.into(), body, now), "our own signature");
    drop(SigningKey::of(&Secret::new(String::from_utf8_lossy(data))));
}

/// A file of gates: each gate is found by its name, each condition is printed as it is read.
pub fn gate_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = match GateFile::parse(text) {
        Ok(file) => file,
        Err(problems) => return assert_told(&problems),
    };
    for gate in &file.gates {
        assert_eq!(file.find(&gate.name).ok(), Some(gate));
        for criterion in &gate.criteria {
            assert!(criterion.weight.is_finite() && criterion.weight >= 0.0, "{criterion:?}");
            for condition in criterion.pass.0.iter().chain(&criterion.warning.0).flatten() {
                assert_eq!(Condition::parse(&condition.to_string()), Ok(*condition));
            }
        }
    }
}

/// The content of a model file, with the hash that fits it: what it answers is a probability.
pub fn model_file(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    drop(RiskModel::from_json(body));
    let file = format!(r#"{{"format_version":1,"version":"{}","body":{body}}}"#, hex::encode(Sha256::digest(body)));
    let Ok(model) = RiskModel::from_json(&file) else { return };
    for known_runs in [0, 5, 500] {
        let history = vec![1.0; kiro_tables::feature_names().len()];
        let row = FeatureRow { history, declared: [("lines_added".to_owned(), 10.0)].into(), known_runs };
        let offsets = OffsetVector::default();
        let answer = model.assess(AssessRequest { deployment_id: "d".to_owned(), row, now: Micros(0), offsets });
        let [low, high] = answer.interval;
        assert!((0.0..=1.0).contains(&answer.overall_risk_score) && low <= high, "{answer:?}");
    }
}

fn assert_body<T: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(body) {
        let text = serde_json::to_vec(&read).expect("a request is JSON");
        assert!(serde_json::from_slice::<T>(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
    }
}

/// The body of a question about risk or a gate, of a new import, of what is asked of sources.
pub fn request_body(data: &[u8]) {
    assert_body::<RiskRequest>(data);
    assert_body::<GateRequest>(data);
    assert_body::<NewImport>(data);
    assert_body::<NewBackfill>(data);
    // These are read and never written.
    drop(serde_json::from_slice::<NewSource>(data));
    drop(serde_json::from_slice::<ExplainRequest>(data));
    drop(serde_json::from_slice::<ReplayRequest>(data));
}

/// Reads a report in pieces of a size: what was found, and the first events.
fn reported(data: &[u8], format: Option<Format>, piece: usize) -> Option<(ReportCounts, Vec<Event<'static>>)> {
    let scope = ReportScope { source: "s".to_owned(), run_id: "7".to_owned(), attempt: 1, ..ReportScope::default() };
    let (mut events, mut input) = (Vec::new(), std::io::BufReader::with_capacity(piece, data));
    let counts = kiro_analyzers::read(&scope, format, kiro_analyzers::Limits::default(), &mut input, &mut |event| {
        if events.len() < 1_000 {
            events.push(event.into_owned());
        }
        Ok(())
    });
    Some((counts.ok()?, events))
}

/// A report says the same in pieces of any size, and its events are such as are taken.
fn assert_report(data: &[u8], format: Option<Format>) {
    let whole = reported(data, format, 1 << 16);
    assert_eq!(reported(data, format, 7), whole, "in pieces it is another report");
    for event in whole.iter().flat_map(|(_, events)| events) {
        assert_bounded(event);
        assert_written_and_read(event);
    }
}

/// `JUnit` XML.
pub fn junit_report(data: &[u8]) {
    assert_report(data, Some(Format::Junit));
}

/// Coverage in the format that it begins as, and as lcov.
pub fn coverage_report(data: &[u8]) {
    assert_report(data, None);
    assert_report(data, Some(Format::Lcov));
}

/// SARIF.
pub fn sarif_report(data: &[u8]) {
    assert_report(data, Some(Format::Sarif));
}
