//! Alertmanager's notifications: each alert in one is an incident.
//!
//! # Source
//! Prometheus Docs, `webhook_config`, version 4 of the payload. An alert that fires again has the same fingerprint and begins anew, so
//! both name the incident. What still fires ends in the year 1.

use kiro_schemas::{Event, Micros, Subject, Transition};
use serde::Deserialize;

use crate::reading::{Text, list, note, set, set_time};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Notification<'a> {
    #[serde(rename = "externalURL")]
    external_url: Text<'a>,
    #[serde(default, deserialize_with = "list")]
    alerts: Vec<Alert<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
struct Alert<'a> {
    status: Text<'a>,
    labels: Labels<'a>,
    annotations: Option<Annotations<'a>>,
    starts_at: Micros,
    ends_at: Option<Micros>,
    #[serde(rename = "generatorURL")]
    generator_url: Option<Text<'a>>,
    fingerprint: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Labels<'a> {
    alertname: Option<Text<'a>>,
    severity: Option<Text<'a>>,
    service: Option<Text<'a>>,
    app: Option<Text<'a>>,
    job: Option<Text<'a>>,
    environment: Option<Text<'a>>,
    env: Option<Text<'a>>,
    namespace: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Annotations<'a> {
    summary: Option<Text<'a>>,
}

pub(super) fn notification(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let Notification { external_url, alerts } = serde_json::from_slice(payload)?;
    let source = external_url.0.trim_end_matches('/');
    Ok(alerts.into_iter().map(|alert| incident(alert, source)).collect())
}

fn incident<'a>(alert: Alert<'a>, source: &str) -> Event<'a> {
    let ended = alert.ends_at.filter(|_| alert.status.0 == "resolved");
    let (transition, time) = ended.map_or((Transition::Detected, alert.starts_at), |ended| (Transition::Resolved, ended));
    let id = format!("{}-{}", alert.fingerprint.0, alert.starts_at);
    let mut said = Event::new(Subject::Incident, transition, source.to_owned(), id, time);
    set_time(&mut said, "detected_at", Some(alert.starts_at));
    set_time(&mut said, "resolved_at", ended);
    let Labels { alertname, severity, service, app, job, environment, env, namespace } = alert.labels;
    note(&mut said, "alert", alertname.clone().map(|name| name.0));
    note(&mut said, "namespace", namespace.map(|name| name.0));
    set(&mut said, "title", alert.annotations.and_then(|annotations| annotations.summary).or(alertname));
    set(&mut said, "severity", severity);
    set(&mut said, "service", service.or(app).or(job));
    set(&mut said, "environment", environment.or(env));
    set(&mut said, "status", Some(alert.status));
    set(&mut said, "url", alert.generator_url);
    said
}
