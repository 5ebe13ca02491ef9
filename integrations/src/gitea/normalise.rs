//! Gitea's payloads to events, in the words that GitHub's become.
//!
//! # Source
//! Gitea's `modules/structs`: `PushPayload`, `PullRequestPayload`, `IssuePayload`, `ReleasePayload`. A list that is empty may be null,
//! and the year 1 stands for "never".

use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use serde::Deserialize;

use crate::reading::{Named, Text, first_line, is_incident, note, note_all, purl, set, set_time, severity, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Repository<'a> {
    html_url: Text<'a>,
    name: Option<Text<'a>>,
    full_name: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct User<'a> {
    login: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PushEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    commits: Option<Vec<Commit<'a>>>,
    repository: Repository<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Commit<'a> {
    id: Text<'a>,
    message: Option<Text<'a>>,
    url: Option<Text<'a>>,
    author: Option<Named<'a>>,
    timestamp: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PullEvent<'a> {
    action: Text<'a>,
    pull_request: Pull<'a>,
    repository: Repository<'a>,
    review: Option<Review<'a>>,
    sender: Option<User<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Review<'a> {
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Pull<'a> {
    number: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    user: Option<User<'a>>,
    head: Branch<'a>,
    base: Branch<'a>,
    labels: Option<Vec<Named<'a>>>,
    merge_commit_sha: Option<Text<'a>>,
    merged: Option<bool>,
    created_at: Micros,
    updated_at: Micros,
    merged_at: Option<Micros>,
    closed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Branch<'a> {
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    sha: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct IssueEvent<'a> {
    action: Text<'a>,
    issue: Issue<'a>,
    repository: Repository<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Issue<'a> {
    number: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    labels: Option<Vec<Named<'a>>>,
    created_at: Micros,
    updated_at: Micros,
    closed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ReleaseEvent<'a> {
    action: Text<'a>,
    release: Release<'a>,
    repository: Repository<'a>,
    sender: Option<User<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Release<'a> {
    tag_name: Text<'a>,
    name: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    created_at: Micros,
    published_at: Option<Micros>,
}

fn login(user: Option<User<'_>>) -> Option<Text<'_>> {
    user.and_then(|user| user.login)
}

fn names<'l, 'a>(labels: Option<&'l Vec<Named<'a>>>) -> impl Iterator<Item = &'l Text<'a>> + use<'l, 'a> {
    labels.into_iter().flatten().filter_map(|label| label.name.as_ref())
}

/// The pushed commits of a branch.
pub(super) fn push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PushEvent { reference, commits, repository } = serde_json::from_slice(payload)?;
    let Some(branch) = reference.0.strip_prefix("refs/heads/") else { return Ok(Vec::new()) };
    Ok(commits.unwrap_or_default().into_iter().map(|commit| pushed(commit, repository.html_url.clone(), branch)).collect())
}

fn pushed<'a>(commit: Commit<'a>, source: Text<'a>, branch: &str) -> Event<'a> {
    let mut said = Event::new(Subject::Change, Transition::Created, source.0, commit.id.0.clone(), commit.timestamp);
    set_time(&mut said, "created_at", Some(commit.timestamp));
    set(&mut said, "title", commit.message.map(first_line));
    set(&mut said, "commit_sha", Some(commit.id));
    set(&mut said, "author", commit.author.and_then(|author| author.name));
    set(&mut said, "url", commit.url);
    said.set("branch", Value::text(branch.to_owned()));
    said
}

/// A request, and its reviews, which have no time but that of the request.
pub(super) fn pull_request(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, pull_request: pull, repository, review, sender } = serde_json::from_slice(payload)?;
    let is_merged = pull.merged.unwrap_or(false);
    let (transition, time) = match &*action.0 {
        "opened" => (Transition::Created, pull.created_at),
        "closed" if is_merged => (Transition::Merged, pull.merged_at.unwrap_or(pull.updated_at)),
        "closed" => (Transition::Abandoned, pull.closed_at.unwrap_or(pull.updated_at)),
        "reviewed" => (Transition::Reviewed, pull.updated_at),
        _ => (Transition::Updated, pull.updated_at),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    if let Some(review) = review {
        let reviewer = login(sender);
        tell_apart(&mut said, reviewer.as_ref().map_or("", |reviewer| &*reviewer.0));
        note(&mut said, "reviewer", reviewer.map(|reviewer| reviewer.0));
        note(&mut said, "review_state", review.kind.map(|kind| kind.0));
    }
    describe_pull(&mut said, pull, is_merged);
    Ok(vec![said])
}

fn describe_pull<'a>(said: &mut Event<'a>, pull: Pull<'a>, is_merged: bool) {
    set_time(said, "created_at", Some(pull.created_at));
    set_time(said, "merged_at", pull.merged_at);
    if is_merged {
        set(said, "merge_commit_sha", pull.merge_commit_sha);
    } else {
        set_time(said, "closed_at", pull.closed_at);
    }
    note_all(said, "labels", names(pull.labels.as_ref()));
    set(said, "title", pull.title);
    set(said, "status", pull.state);
    set(said, "branch", pull.head.reference);
    set(said, "commit_sha", pull.head.sha);
    set(said, "base_branch", pull.base.reference);
    set(said, "author", login(pull.user));
    set(said, "url", pull.html_url);
}

/// Issues with a label that says that they are incidents.
pub(super) fn issue(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let IssueEvent { action, issue, repository } = serde_json::from_slice(payload)?;
    if !is_incident(names(issue.labels.as_ref())) {
        return Ok(Vec::new());
    }
    let (transition, time) = match &*action.0 {
        "opened" | "label_updated" => (Transition::Reported, issue.created_at),
        "closed" => (Transition::Resolved, issue.closed_at.unwrap_or(issue.updated_at)),
        _ => (Transition::Updated, issue.updated_at),
    };
    let mut said = Event::new(Subject::Incident, transition, repository.html_url.0, issue.number.to_string(), time);
    set_time(&mut said, "detected_at", Some(issue.created_at));
    set_time(&mut said, "resolved_at", Some(time).filter(|_| transition == Transition::Resolved));
    set(&mut said, "service", repository.name);
    set(&mut said, "title", issue.title);
    set(&mut said, "status", issue.state);
    set(&mut said, "url", issue.html_url);
    note_all(&mut said, "labels", names(issue.labels.as_ref()));
    set(&mut said, "severity", severity(issue.labels.into_iter().flatten().filter_map(|label| label.name)));
    Ok(vec![said])
}

/// `updated` and `deleted` have no time of their own, so only what is published is told.
pub(super) fn release(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let ReleaseEvent { action, release, repository, sender } = serde_json::from_slice(payload)?;
    if action.0 != "published" {
        return Ok(Vec::new());
    }
    let published = release.published_at.unwrap_or(release.created_at);
    let id = purl("gitea", &repository.full_name.0, &release.tag_name.0);
    let mut said = Event::new(Subject::Artifact, Transition::Published, repository.html_url.0, id, published);
    set_time(&mut said, "created_at", Some(release.created_at));
    set_time(&mut said, "published_at", Some(published));
    set(&mut said, "actor", login(sender));
    note(&mut said, "version", Some(release.tag_name.0));
    note(&mut said, "title", release.name.map(|name| name.0));
    note(&mut said, "url", release.html_url.map(|url| url.0));
    Ok(vec![said])
}
