//! Pull requests, their reviews, their way through the merge queue, and pushed commits.

use kiro_schemas::{Event, Micros, Subject, Transition};
use serde::Deserialize;

use super::{Repository, User, login, queued_pull};
use crate::reading::{Commit, Named, Push, Text, list, note, note_all, set, set_int, set_time, tell_apart};

/// GitHub's and Gitea's.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct PullEvent<'a> {
    pub(crate) action: Text<'a>,
    pub(crate) repository: Repository<'a>,
    pub(crate) pull_request: Pull<'a>,
    pub(crate) review: Option<Review<'a>>,
    pub(crate) sender: Option<User<'a>>,
    /// The newest commit before others were pushed.
    before: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Branch<'a> {
    #[serde(rename = "ref")]
    reference: Option<Text<'a>>,
    sha: Option<Text<'a>>,
    repo: Option<BranchRepository<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct BranchRepository<'a> {
    html_url: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Pull<'a> {
    pub(crate) number: i64,
    title: Option<Text<'a>>,
    state: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    user: Option<User<'a>>,
    head: Branch<'a>,
    base: Branch<'a>,
    merge_commit_sha: Option<Text<'a>>,
    merged: Option<bool>,
    mergeable_state: Option<Text<'a>>,
    draft: Option<bool>,
    #[serde(default, deserialize_with = "list")]
    labels: Vec<Named<'a>>,
    additions: Option<i64>,
    deletions: Option<i64>,
    changed_files: Option<i64>,
    commits: Option<i64>,
    created_at: Micros,
    pub(crate) updated_at: Micros,
    merged_at: Option<Micros>,
    closed_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Review<'a> {
    id: Option<i64>,
    state: Option<Text<'a>>,
    user: Option<User<'a>>,
    submitted_at: Option<Micros>,
    /// Gitea's word for what is said.
    #[serde(rename = "type")]
    pub(crate) kind: Option<Text<'a>>,
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
    before: Option<Text<'a>>,
    after: Option<Text<'a>>,
    repository: Repository<'a>,
    #[serde(default, deserialize_with = "list")]
    commits: Vec<Commit<'a>>,
}

impl Pull<'_> {
    fn is_merged(&self) -> bool {
        self.merged.unwrap_or(false) || self.merged_at.is_some()
    }

    /// What an action did, and when.
    pub(crate) fn step(&self, action: &str) -> (Transition, Micros) {
        match action {
            "opened" => (Transition::Created, self.created_at),
            "closed" if self.is_merged() => (Transition::Merged, self.merged_at.unwrap_or(self.updated_at)),
            "closed" => (Transition::Abandoned, self.closed_at.unwrap_or(self.updated_at)),
            _ => (Transition::Updated, self.updated_at),
        }
    }
}

pub(in crate::github) fn pull_request(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, repository, pull_request: pull, before, .. } = serde_json::from_slice(payload)?;
    let (transition, time) = pull.step(&action.0);
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    note(&mut said, "previous_commit_sha", before.map(|sha| sha.0));
    describe_pull(&mut said, pull);
    Ok(vec![said])
}

pub(in crate::github) fn review(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, repository, pull_request: pull, review, .. } = serde_json::from_slice(payload)?;
    let submitted = review.as_ref().and_then(|review| review.submitted_at);
    let (transition, time) = match (&*action.0, submitted) {
        ("submitted", Some(submitted)) => (Transition::Reviewed, submitted),
        _ => (Transition::Updated, pull.updated_at),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    describe_pull(&mut said, pull);
    if let Some(review) = review {
        // Two people may review at the same second.
        tell_apart(&mut said, review.id.unwrap_or_default());
        note(&mut said, "reviewer", login(review.user).map(|login| login.0));
        note(&mut said, "review_state", review.state.map(|state| state.0));
    }
    Ok(vec![said])
}

pub(crate) fn describe_pull<'a>(said: &mut Event<'a>, pull: Pull<'a>) {
    set_time(said, "created_at", Some(pull.created_at));
    set_time(said, "merged_at", pull.merged_at);
    if pull.is_merged() {
        // Before the merge this is a commit that only tries it.
        set(said, "merge_commit_sha", pull.merge_commit_sha);
    } else {
        set_time(said, "closed_at", pull.closed_at);
        note(said, "merge_status", pull.mergeable_state.filter(|state| state.0 != "unknown").map(|state| state.0));
    }
    let address = |repo: Option<BranchRepository<'a>>| repo.and_then(|repo| repo.html_url).map(|url| url.0);
    if let Some(base) = address(pull.base.repo) {
        // The repository of a branch is gone when a fork was deleted.
        let head = address(pull.head.repo).unwrap_or("unknown".into());
        note(said, "head_source", Some(head).filter(|head| *head != base));
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

pub(crate) fn push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PushEvent { reference, before, after, repository, commits } = serde_json::from_slice(payload)?;
    let Repository { html_url: source, default_branch, .. } = repository;
    Ok(Push { source, reference, default_branch, before, after, commits }.events())
}
