//! Merge requests and pushed commits.

use std::collections::BTreeSet;

use kiro_schemas::{Event, Subject, Transition, Value};
use serde::Deserialize;

use super::{Label, Project, User, username};
use crate::reading::{Named, Text, When, first_line, list, note, note_all, set, set_int, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct MergeEvent<'a> {
    user: Option<User<'a>>,
    project: Project<'a>,
    object_attributes: MergeRequest<'a>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Label<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct MergeRequest<'a> {
    iid: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    action: Option<Text<'a>>,
    source_branch: Option<Text<'a>>,
    target_branch: Option<Text<'a>>,
    last_commit: Option<LastCommit<'a>>,
    merge_commit_sha: Option<Text<'a>>,
    squash_commit_sha: Option<Text<'a>>,
    draft: Option<bool>,
    url: Option<Text<'a>>,
    created_at: When,
    updated_at: Option<When>,
    merged_at: Option<When>,
    closed_at: Option<When>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct LastCommit<'a> {
    id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PushEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    project: Project<'a>,
    #[serde(default, deserialize_with = "list")]
    commits: Vec<Commit<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Commit<'a> {
    id: Text<'a>,
    message: Option<Text<'a>>,
    timestamp: When,
    url: Option<Text<'a>>,
    author: Option<Named<'a>>,
    #[serde(default, deserialize_with = "list")]
    added: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    modified: Vec<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    removed: Vec<Text<'a>>,
}

pub(in crate::gitlab) fn merge_request(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let MergeEvent { user, project, object_attributes: merge, labels } = serde_json::from_slice(payload)?;
    let changed = merge.updated_at.unwrap_or(merge.created_at).0;
    let action = merge.action.clone();
    let action = action.as_ref().map(|action| &*action.0);
    let (transition, time) = match action {
        Some("open") => (Transition::Created, merge.created_at.0),
        Some("merge") => (Transition::Merged, merge.merged_at.map_or(changed, |time| time.0)),
        Some("close") => (Transition::Abandoned, merge.closed_at.map_or(changed, |time| time.0)),
        Some("approved" | "approval") => (Transition::Reviewed, changed),
        _ => (Transition::Updated, changed),
    };
    let mut said = Event::new(Subject::Change, transition, project.web_url.0, merge.iid.to_string(), time);
    set_time(&mut said, "created_at", Some(merge.created_at.0));
    let user = username(user);
    match transition {
        // Only who opens it is its author for sure.
        Transition::Created => set(&mut said, "author", user),
        Transition::Merged => set_time(&mut said, "merged_at", Some(time)),
        Transition::Abandoned => set_time(&mut said, "closed_at", Some(time)),
        _ if action.is_some_and(|action| action.contains("appro")) => {
            // Approvals do not change the request: who and what tell them apart.
            let (who, what) = (user.as_ref().map_or("", |user| &*user.0), action.unwrap_or_default());
            tell_apart(&mut said, format_args!("{what}/{who}"));
            note(&mut said, "reviewer", user.map(|user| user.0));
            note(&mut said, "review_state", action.map(str::to_owned));
        }
        _ => {}
    }
    note_all(&mut said, "labels", labels.iter().filter_map(|label| label.title.as_ref()));
    describe_merge(&mut said, merge, transition == Transition::Merged);
    Ok(vec![said])
}

fn describe_merge<'a>(said: &mut Event<'a>, merge: MergeRequest<'a>, is_merged: bool) {
    let last = merge.last_commit.and_then(|commit| commit.id);
    if is_merged {
        // A fast-forward makes no commit of its own: the last one is then on the target branch.
        let named = |text: &Text<'_>| !text.0.is_empty();
        let made = merge.merge_commit_sha.filter(named).or(merge.squash_commit_sha.filter(named));
        set(said, "merge_commit_sha", made.or_else(|| last.clone()));
    }
    set(said, "title", merge.title);
    set(said, "status", merge.state);
    set(said, "branch", merge.source_branch);
    set(said, "base_branch", merge.target_branch);
    set(said, "commit_sha", last);
    set(said, "url", merge.url);
    note(said, "draft", merge.draft.filter(|is| *is).map(|_| "true"));
}

/// The pushed commits, at most the twenty that GitLab sends.
pub(in crate::gitlab) fn push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PushEvent { reference, project, commits } = serde_json::from_slice(payload)?;
    let Some(branch) = reference.0.strip_prefix("refs/heads/") else { return Ok(Vec::new()) };
    Ok(commits.into_iter().map(|commit| pushed(commit, project.web_url.clone(), branch)).collect())
}

fn pushed<'a>(commit: Commit<'a>, source: Text<'a>, branch: &str) -> Event<'a> {
    let time = commit.timestamp.0;
    let mut said = Event::new(Subject::Change, Transition::Created, source.0, commit.id.0.clone(), time);
    set_time(&mut said, "created_at", Some(time));
    let files: BTreeSet<&str> = commit.added.iter().chain(&commit.modified).chain(&commit.removed).map(|file| &*file.0).collect();
    set_int(&mut said, "files_changed", i64::try_from(files.len()).ok().filter(|count| *count > 0));
    set(&mut said, "title", commit.message.map(first_line));
    set(&mut said, "commit_sha", Some(commit.id));
    set(&mut said, "author", commit.author.and_then(|author| author.name));
    set(&mut said, "url", commit.url);
    said.set("branch", Value::text(branch.to_owned()));
    said
}
