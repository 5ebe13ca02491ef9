//! Issues. The rules say which of them are incidents, often by a label: a new one is `labeled` at GitHub, `label_updated` at Gitea;
//! a new type is `typed`.

use kiro_schemas::{Event, Micros, Subject, Transition};
use serde::Deserialize;

use super::Repository;
use crate::reading::{Named, Text, issue_type, list, note, note_all, set, set_time, severity};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct IssueEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    issue: Issue<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Issue<'a> {
    number: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    state_reason: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: Option<Named<'a>>,
    html_url: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Named<'a>>,
    created_at: Micros,
    updated_at: Micros,
    closed_at: Option<Micros>,
}

/// An issue may become an incident later, by its label: it was one from its beginning.
pub(crate) fn issue(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let IssueEvent { action, repository, issue } = serde_json::from_slice(payload)?;
    let (transition, time) = match &*action.0 {
        "opened" | "labeled" | "label_updated" | "typed" => (Transition::Reported, issue.created_at),
        "closed" => (Transition::Resolved, issue.closed_at.unwrap_or(issue.updated_at)),
        _ => (Transition::Updated, issue.updated_at),
    };
    let mut said = Event::new(Subject::Incident, transition, repository.html_url.0, issue.number.to_string(), time);
    set_time(&mut said, "detected_at", Some(issue.created_at));
    // One that was opened again still says when it was closed.
    let is_closed = issue.state.as_ref().is_some_and(|state| state.0 == "closed");
    set_time(&mut said, "resolved_at", issue.closed_at.filter(|_| is_closed));
    set(&mut said, "service", repository.name);
    set(&mut said, "title", issue.title);
    set(&mut said, "status", issue.state);
    set(&mut said, "url", issue.html_url);
    note(&mut said, "resolution", issue.state_reason.map(|reason| reason.0));
    issue_type(&mut said, issue.kind.and_then(|kind| kind.name));
    note_all(&mut said, "labels", issue.labels.iter().filter_map(|label| label.name.as_ref()));
    set(&mut said, "severity", severity(issue.labels.into_iter().filter_map(|label| label.name)));
    Ok(vec![said])
}
