//! Issues. The rules say which of them are incidents, often by GitLab's own type `Incident` or a label.

use kiro_schemas::{Event, Subject, Transition};
use serde::Deserialize;

use super::{Label, Project};
use crate::reading::{Text, When, issue_type, list, note_all, set, set_time, severity};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct IssueEvent<'a> {
    project: Project<'a>,
    object_attributes: Issue<'a>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Label<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Issue<'a> {
    iid: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    action: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    severity: Option<Text<'a>>,
    confidential: Option<bool>,
    url: Option<Text<'a>>,
    created_at: When,
    updated_at: Option<When>,
    closed_at: Option<When>,
}

pub(in crate::gitlab) fn issue(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let IssueEvent { project, object_attributes: issue, labels } = serde_json::from_slice(payload)?;
    let changed = issue.updated_at.unwrap_or(issue.created_at).0;
    let (transition, time) = match issue.action.as_ref().map(|action| &*action.0) {
        Some("open") => (Transition::Reported, issue.created_at.0),
        Some("close") => (Transition::Resolved, issue.closed_at.map_or(changed, |time| time.0)),
        _ => (Transition::Updated, changed),
    };
    let mut said = Event::new(Subject::Incident, transition, project.web_url.0, issue.iid.to_string(), time);
    set_time(&mut said, "detected_at", Some(issue.created_at.0));
    set_time(&mut said, "resolved_at", Some(time).filter(|_| transition == Transition::Resolved));
    set(&mut said, "service", project.name);
    // What an incident is about stays among those who may read it.
    set(&mut said, "title", issue.title.filter(|_| issue.confidential != Some(true)));
    set(&mut said, "status", issue.state);
    set(&mut said, "url", issue.url);
    issue_type(&mut said, issue.kind);
    note_all(&mut said, "labels", labels.iter().filter_map(|label| label.title.as_ref()));
    let told = issue.severity.filter(|word| !word.0.eq_ignore_ascii_case("unknown"));
    set(&mut said, "severity", told.or_else(|| severity(labels.into_iter().filter_map(|label| label.title))));
    Ok(vec![said])
}
