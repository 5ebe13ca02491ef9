//! Which rule says that an event is a deployment, a hotfix, a rollback, an incident, and why not.

use bytes::Bytes;
use kiro_ingest::decode::http::split;
use kiro_ports::{ExplainRequest, Headers, PortError, Principal, SqlRequest};
use kiro_schemas::delivery::{Facts, Settings};
use kiro_schemas::subject::{Role, spec};
use kiro_schemas::{FaultKind, Subject};
use serde_json::{Map, Value, json};

use super::desk::{SourceDesk, refused};
use crate::rows;

/// What rules are asked about.
const SUBJECTS: [Subject; 4] = [Subject::Deployment, Subject::PipelineRun, Subject::Incident, Subject::Change];
/// Subjects of one id that are explained at once.
const MOST: usize = 20;

/// Explains a payload, or what is in the lake.
pub(super) async fn explain(desk: &SourceDesk, who: &Principal, request: ExplainRequest) -> Result<Value, PortError> {
    let (events, note) = match (&request.event, &request.payload) {
        (Some(id), None) => (stored(desk, who, id).await?, "nothing of this id is there that rules are asked about"),
        (None, Some(payload)) => {
            let note = "the payload gives no event that rules are asked about: its event type is not read, or says nothing of a deployment, \
                        run, change or incident";
            (told(desk, &request, payload)?, note)
        }
        _ => return Err(refused(FaultKind::Invalid, "either an event's id or a payload is needed")),
    };
    let note = events.is_empty().then_some(note);
    Ok(json!({"events": events, "note": note}))
}

fn entry(settings: &Settings, facts: &Facts<'_>, id: &str, attempt: Option<i64>, transition: Option<&str>) -> Value {
    let reasons: Vec<Value> = settings
        .explain(facts)
        .into_iter()
        .map(|reason| json!({"question": reason.question, "answer": reason.answer, "because": reason.because}))
        .collect();
    let source = facts.get(kiro_schemas::delivery::Field::Source);
    json!({
        "subject": facts.subject.to_string(), "source": source, "subject_id": id, "attempt": attempt, "transition": transition,
        "reasons": reasons,
    })
}

/// The events of a payload, as the door would read it.
fn told(desk: &SourceDesk, request: &ExplainRequest, payload: &str) -> Result<Vec<Value>, PortError> {
    let invalid = |what: String| refused(FaultKind::Invalid, what);
    let body = Bytes::copy_from_slice(payload.as_bytes());
    let records: Vec<(Headers, Bytes)> = if let Some(name) = &request.platform {
        let platform = kiro_integrations::platform(name).ok_or_else(|| invalid(format!("{name:?} is no platform that is known")))?;
        let mut headers: Headers = vec![("kiro-format".to_owned(), Bytes::from_static(platform.name.as_bytes()))];
        if let Some(header) = platform.event_header {
            let kind = request.kind.clone().ok_or_else(|| invalid(format!("--kind is needed: what {name} says in the header {header}")))?;
            headers.push((header.to_owned(), Bytes::from(kind)));
        }
        vec![(headers, body)]
    } else {
        let is_standard = serde_json::from_str::<Value>(payload).is_ok_and(|value| value.get("specversion").is_some());
        let kind = if is_standard { "application/cloudevents+json" } else { "application/x-ndjson" };
        let events = split(kind, &Headers::new(), &body).map_err(|error| invalid(error.to_string()))?;
        events.into_iter().map(|event| (event.headers, event.bytes)).collect()
    };
    let mut told = Vec::new();
    for (headers, bytes) in records.iter().take(MOST) {
        let events = desk.raw.decoder.told(&desk.raw.topic, headers, bytes).map_err(|error| invalid(error.to_string()))?;
        let asked = events.iter().filter(|event| SUBJECTS.contains(&event.subject));
        told.extend(asked.map(|event| {
            entry(desk.settings(), &Facts::of(event), &event.subject_id, Some(event.attempt), Some(event.transition.as_str()))
        }));
    }
    Ok(told)
}

/// What is in the lake under an id: of a subject, or of an event.
async fn stored(desk: &SourceDesk, who: &Principal, id: &str) -> Result<Vec<Value>, PortError> {
    let mut found = Vec::new();
    for subject in SUBJECTS {
        let of = spec(subject);
        let Some(column) = of.columns.iter().find(|column| column.role == Role::Id).map(|column| column.name) else { continue };
        let (table, events) = (of.table, of.events_table);
        let sql = format!(
            "SELECT * FROM {table} WHERE {column} = $1 OR {column} IN (SELECT {column} FROM {events} WHERE event_id = $1) \
             ORDER BY source, {column} LIMIT {MOST}"
        );
        let mut request = SqlRequest::new(who.tenant.clone(), sql);
        request.parameters = vec![Some(id.to_owned())];
        let answer = rows::ask(&desk.sql, request).await?;
        for row in answer.rows {
            let row: Map<String, Value> = answer.columns.iter().cloned().zip(row).collect();
            let facts = of_row(subject, &row);
            let id = row.get(column).and_then(Value::as_str).unwrap_or_default();
            found.push(entry(desk.settings(), &facts, id, row.get("attempt").and_then(Value::as_i64), None));
        }
    }
    Ok(found)
}

fn of_row(subject: Subject, row: &Map<String, Value>) -> Facts<'_> {
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let attribute = |name: &str| row.get("attributes").and_then(|all| all.get(name)).and_then(Value::as_str);
    let is_rollback = row.get("is_rollback").and_then(Value::as_bool).unwrap_or(false);
    Facts::new(subject, text("source").unwrap_or_default(), text, attribute).with_rollback(is_rollback)
}
