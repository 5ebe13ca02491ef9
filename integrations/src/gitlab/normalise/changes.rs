//! Merge requests and pushed commits.

use kiro_schemas::{Event, Subject, Transition};
use serde::Deserialize;

use super::{Label, Project, User, username};
use crate::reading::{Commit, Push, Text, When, is_named, is_nothing, list, note, note_all, set, set_time, tell_apart};

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
    author_id: Option<i64>,
    source_branch: Option<Text<'a>>,
    target_branch: Option<Text<'a>>,
    source_project_id: Option<i64>,
    target_project_id: Option<i64>,
    source: Option<Source<'a>>,
    /// The newest commit before others were pushed.
    oldrev: Option<Text<'a>>,
    last_commit: Option<LastCommit<'a>>,
    merge_commit_sha: Option<Text<'a>>,
    squash_commit_sha: Option<Text<'a>>,
    draft: Option<bool>,
    work_in_progress: Option<bool>,
    merge_status: Option<Text<'a>>,
    detailed_merge_status: Option<Text<'a>>,
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
    timestamp: Option<When>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Source<'a> {
    web_url: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PushEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    before: Option<Text<'a>>,
    after: Option<Text<'a>>,
    project: Project<'a>,
    #[serde(default, deserialize_with = "list")]
    commits: Vec<Commit<'a>>,
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
    // Who acts is the author for sure only who opens it, or has the author's number.
    let is_author =
        transition == Transition::Created || merge.author_id.is_some() && user.as_ref().and_then(|user| user.id) == merge.author_id;
    let user = username(user);
    if is_author {
        set(&mut said, "author", user.clone());
    }
    match transition {
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
    let newest = merge.last_commit.as_ref().and_then(|commit| commit.timestamp);
    let last = merge.last_commit.and_then(|commit| commit.id);
    if is_merged {
        // A fast-forward makes no commit of its own: the last one is then on the target branch.
        let made = merge.merge_commit_sha.filter(is_named).or(merge.squash_commit_sha.filter(is_named));
        set(said, "merge_commit_sha", made.or_else(|| last.clone()));
    } else {
        note(said, "merge_status", merge.detailed_merge_status.or(merge.merge_status).map(|status| status.0));
    }
    if merge.source_project_id.is_some() && merge.source_project_id != merge.target_project_id {
        note(said, "head_source", Some(merge.source.and_then(|source| source.web_url).map_or("unknown".into(), |url| url.0)));
    }
    note(said, "newest_commit_at", newest.map(|time| time.0.to_string()));
    note(said, "previous_commit_sha", merge.oldrev.filter(|sha| !is_nothing(sha)).map(|sha| sha.0));
    set(said, "title", merge.title);
    set(said, "status", merge.state);
    set(said, "branch", merge.source_branch);
    set(said, "base_branch", merge.target_branch);
    set(said, "commit_sha", last);
    set(said, "url", merge.url);
    note(said, "draft", merge.draft.or(merge.work_in_progress).filter(|is| *is).map(|_| "true"));
}

/// The pushed commits, at most the twenty that GitLab sends.
pub(in crate::gitlab) fn push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PushEvent { reference, before, after, project, commits } = serde_json::from_slice(payload)?;
    let Project { web_url: source, default_branch, .. } = project;
    Ok(Push { source, reference, default_branch, before, after, commits }.events())
}
