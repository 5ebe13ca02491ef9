//! Pushed commits, which are told alike by GitHub, GitLab and Gitea.

use std::collections::BTreeSet;

use kiro_schemas::{Event, Subject, Transition, Value};
use serde::Deserialize;

use super::{Text, When, first_line, is_named, list, note, set, set_int, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Commit<'a> {
    id: Text<'a>,
    /// Whether it had not been pushed before. Only GitHub says so.
    distinct: Option<bool>,
    message: Option<Text<'a>>,
    url: Option<Text<'a>>,
    author: Option<Author<'a>>,
    timestamp: When,
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

/// What stands before the default branch in an id: less than the `/` before any other.
const ON_DEFAULT: char = '#';

/// A push.
pub(crate) struct Push<'a> {
    pub(crate) source: Text<'a>,
    /// `refs/heads/main`.
    pub(crate) reference: Text<'a>,
    pub(crate) default_branch: Option<Text<'a>>,
    /// The newest commit of the branch before and after.
    pub(crate) before: Option<Text<'a>>,
    pub(crate) after: Option<Text<'a>>,
    pub(crate) commits: Vec<Commit<'a>>,
}

impl<'a> Push<'a> {
    /// The commits that came to the default branch, and those that were new on another; tags and deletions say nothing of changes.
    ///
    /// A commit may come to several branches, in any order of deliveries. What it says on each has an id of its own, and the default
    /// branch alone is where it goes to (`base_branch`), so that the commit's row is the same whichever is told first. The default
    /// branch's id comes before the others by the order of letters: where a commit comes from outlasts where it went to. None of them
    /// is the bare id, which programs before this one gave to whatever push told of a commit first.
    pub(crate) fn events(mut self) -> Vec<Event<'a>> {
        let commits = std::mem::take(&mut self.commits);
        let Some(branch) = self.reference.0.strip_prefix("refs/heads/") else { return Vec::new() };
        let is_default = self.default_branch.as_ref().is_some_and(|name| name.0 == branch);
        let told = commits.into_iter().filter(|commit| is_default || commit.distinct != Some(false));
        told.map(|commit| self.event(commit, branch, is_default)).collect()
    }

    fn event(&self, commit: Commit<'a>, branch: &str, is_default: bool) -> Event<'a> {
        let time = commit.timestamp.0;
        let mut said = Event::new(Subject::Change, Transition::Created, self.source.0.clone(), commit.id.0.clone(), time);
        said.set("branch", Value::text(branch.to_owned()));
        if is_default {
            said.set("base_branch", Value::text(branch.to_owned()));
            said.id = format!("{}{ON_DEFAULT}{branch}", said.id).into();
            note(&mut said, "pushed_with", self.after.clone().map(|sha| sha.0));
            note(&mut said, "pushed_onto", self.before.clone().filter(|sha| !is_nothing(sha)).map(|sha| sha.0));
        } else {
            tell_apart(&mut said, branch);
            let began = self.before.as_ref().filter(|sha| is_nothing(sha)).and(self.after.as_ref());
            note(&mut said, "new_branch", began.map(|sha| format!("{branch}@{}", sha.0)));
        }
        set_time(&mut said, "created_at", Some(time));
        let files: BTreeSet<&str> = commit.added.iter().chain(&commit.modified).chain(&commit.removed).map(|file| &*file.0).collect();
        set_int(&mut said, "files_changed", i64::try_from(files.len()).ok().filter(|count| *count > 0));
        set(&mut said, "title", commit.message.map(first_line));
        set(&mut said, "commit_sha", Some(commit.id));
        set(&mut said, "author", commit.author.and_then(|author| author.username.filter(is_named).or(author.name)));
        set(&mut said, "url", commit.url);
        said
    }
}

/// Whether a commit is none: platforms write zeros for the past of a new branch and the future of a deleted one.
pub(crate) fn is_nothing(sha: &Text<'_>) -> bool {
    sha.0.bytes().all(|byte| byte == b'0')
}
