//! PagerDuty's incidents.

use kiro_schemas::{Event, Micros, Subject, Transition};
use serde::Deserialize;

use crate::reading::{Text, note, origin, set, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Delivery<'a> {
    event: Told<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Told<'a> {
    event_type: Text<'a>,
    resource_type: Option<Text<'a>>,
    occurred_at: Micros,
    data: Option<Incident<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Incident<'a> {
    id: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    status: Option<Text<'a>>,
    title: Option<Text<'a>>,
    urgency: Option<Text<'a>>,
    priority: Option<Reference<'a>>,
    service: Option<Reference<'a>>,
    created_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Reference<'a> {
    summary: Option<Text<'a>>,
}

/// Notes, status updates and the test ping are of other types and give nothing.
pub(super) fn incident(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let Delivery { event: Told { event_type, resource_type, occurred_at, data } } = serde_json::from_slice(payload)?;
    let is_incident = |text: Option<&Text<'_>>| text.is_none_or(|text| text.0 == "incident");
    let Some(incident) = data.filter(|data| is_incident(data.kind.as_ref()) && is_incident(resource_type.as_ref())) else {
        return Ok(Vec::new());
    };
    let (Some(id), Some(url)) = (incident.id, incident.html_url) else { return Ok(Vec::new()) };
    let (transition, time) = match &*event_type.0 {
        "incident.triggered" => (Transition::Detected, incident.created_at.unwrap_or(occurred_at)),
        "incident.resolved" => (Transition::Resolved, occurred_at),
        _ => (Transition::Updated, occurred_at),
    };
    let mut said = Event::new(Subject::Incident, transition, origin(&url.0), id.0, time);
    if transition == Transition::Updated {
        tell_apart(&mut said, &event_type.0);
    }
    set_time(&mut said, "detected_at", incident.created_at);
    set_time(&mut said, "resolved_at", Some(time).filter(|_| transition == Transition::Resolved));
    set(&mut said, "title", incident.title);
    set(&mut said, "status", incident.status);
    set(&mut said, "severity", incident.priority.and_then(|priority| priority.summary).or_else(|| incident.urgency.clone()));
    set(&mut said, "service", incident.service.and_then(|service| service.summary));
    set(&mut said, "url", Some(url));
    note(&mut said, "urgency", incident.urgency.map(|urgency| urgency.0));
    Ok(vec![said])
}
