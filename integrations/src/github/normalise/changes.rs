//! Pull requests, their reviews, their way through the merge queue, and pushed commits.

use std::collections::BTreeSet;

use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use serde::Deserialize;

use super::{Repository, User, login, queued_pull};
use crate::reading::{Named, Text, first_line, list, note, note_all, set, set_int, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PullEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    pull_request: Pull<'a>,
    review: Option<Review<'a>>,
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
struct Pull<'a> {
    number: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    user: Option<User<'a>>,
    head: Branch<'a>,
    base: Branch<'a>,
    merge_commit_sha: Option<Text<'a>>,
    merged: Option<bool>,
    draft: Option<bool>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Named<'a>>,
    additions: Option<i64>,
    deletions: Option<i64>,
    changed_files: Option<i64>,
    commits: Option<i64>,
    created_at: Micros,
    updated_at: Micros,
    merged_at: Option<Micros>,
    closed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Review<'a> {
    id: i64,
    state: Option<Text<'a>>,
    user: Option<User<'a>>,
    submitted_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct GroupEvent<'a> {
    action: Text<'a>,
    reason: Option<Text<'a>>,
    repository: Repository<'a>,
    merge_group: Group<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Group<'a> {
    #[serde(rename = "head_sha")]
    sha: Option<Text<'a>>,
    #[serde(rename = "head_ref")]
    reference: Text<'a>,
    #[serde(rename = "head_commit")]
    commit: GroupCommit,
}

#[derive(Deserialize)]
struct GroupCommit {
    timestamp: Micros,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PushEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    repository: Repository<'a>,
    #[serde(default, deserialize_with = "list")]
    commits: Vec<Commit<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Commit<'a> {
    id: Text<'a>,
    #[serde(default)]
    distinct: bool,
    message: Option<Text<'a>>,
    url: Option<Text<'a>>,
    author: Option<Author<'a>>,
    timestamp: Micros,
    #[serde(default, deserialize_with = "list")]
    added: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    modified: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    removed: Vec<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Author<'a> {
    username: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

pub(in crate::github) fn pull_request(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, repository, pull_request: pull, .. } = serde_json::from_slice(payload)?;
    let (transition, time) = match &*action.0 {
        "opened" => (Transition::Created, pull.created_at),
        "closed" if is_merged(&pull) => (Transition::Merged, pull.merged_at.unwrap_or(pull.updated_at)),
        "closed" => (Transition::Abandoned, pull.closed_at.unwrap_or(pull.updated_at)),
        _ => (Transition::Updated, pull.updated_at),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    describe_pull(&mut said, pull);
    Ok(vec![said])
}

pub(in crate::github) fn review(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, repository, pull_request: pull, review } = serde_json::from_slice(payload)?;
    let submitted = review.as_ref().and_then(|review| review.submitted_at);
    let (transition, time) = match (&*action.0, submitted) {
        ("submitted", Some(submitted)) => (Transition::Reviewed, submitted),
        _ => (Transition::Updated, pull.updated_at),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    describe_pull(&mut said, pull);
    if let Some(review) = review {
        // Two people may review at the same second.
        tell_apart(&mut said, review.id);
        note(&mut said, "reviewer", login(review.user).map(|login| login.0));
        note(&mut said, "review_state", review.state.map(|state| state.0));
    }
    Ok(vec![said])
}

fn is_merged(pull: &Pull<'_>) -> bool {
    pull.merged.unwrap_or(false) || pull.merged_at.is_some()
}

fn describe_pull<'a>(said: &mut Event<'a>, pull: Pull<'a>) {
    set_time(said, "created_at", Some(pull.created_at));
    set_time(said, "merged_at", pull.merged_at);
    if is_merged(&pull) {
        // Before the merge this is a commit that only tries it.
        set(said, "merge_commit_sha", pull.merge_commit_sha);
    } else {
        set_time(said, "closed_at", pull.closed_at);
    }
    set(said, "title", pull.title);
    set(said, "status", pull.state);
    set(said, "branch", pull.head.reference);
    set(said, "commit_sha", pull.head.sha);
    set(said, "base_branch", pull.base.reference);
    set(said, "author", login(pull.user));
    set(said, "url", pull.html_url);
    set_int(said, "lines_added", pull.additions);
    set_int(said, "lines_deleted", pull.deletions);
    set_int(said, "files_changed", pull.changed_files);
    set_int(said, "commits", pull.commits);
    note_all(said, "labels", pull.labels.iter().filter_map(|label| label.name.as_ref()));
    note(said, "draft", pull.draft.filter(|is| *is).map(|_| "true"));
}

/// The merge queue tries a pull request on top of others, or lets it go: `reason` says why.
pub(in crate::github) fn merge_group(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let GroupEvent { action, reason, repository, merge_group: group } = serde_json::from_slice(payload)?;
    let branch = group.reference.0.strip_prefix("refs/heads/").unwrap_or(&group.reference.0);
    let Some(number) = queued_pull(branch) else { return Ok(Vec::new()) };
    let time = group.commit.timestamp;
    let mut said = Event::new(Subject::Change, Transition::Updated, repository.html_url.0, number.to_owned(), time);
    tell_apart(&mut said, &action.0);
    note(&mut said, "merge_group", Some(action.0));
    note(&mut said, "merge_group_reason", reason.map(|reason| reason.0));
    note(&mut said, "merge_group_sha", group.sha.map(|sha| sha.0));
    Ok(vec![said])
}

/// Each commit that a branch did not have before; tags and deletions say nothing of changes.
pub(in crate::github) fn push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PushEvent { reference, repository, commits } = serde_json::from_slice(payload)?;
    let Some(branch) = reference.0.strip_prefix("refs/heads/") else { return Ok(Vec::new()) };
    let commits = commits.into_iter().filter(|commit| commit.distinct);
    Ok(commits.map(|commit| pushed(commit, repository.html_url.clone(), branch)).collect())
}

fn pushed<'a>(commit: Commit<'a>, source: Text<'a>, branch: &str) -> Event<'a> {
    let mut said = Event::new(Subject::Change, Transition::Created, source.0, commit.id.0.clone(), commit.timestamp);
    set_time(&mut said, "created_at", Some(commit.timestamp));
    let files: BTreeSet<&str> = commit.added.iter().chain(&commit.modified).chain(&commit.removed).map(|file| &*file.0).collect();
    set_int(&mut said, "files_changed", i64::try_from(files.len()).ok().filter(|count| *count > 0));
    set(&mut said, "title", commit.message.map(first_line));
    set(&mut said, "commit_sha", Some(commit.id));
    set(&mut said, "author", commit.author.and_then(|author| author.username.or(author.name)));
    set(&mut said, "url", commit.url);
    said.set("branch", Value::text(branch.to_owned()));
    said
}
