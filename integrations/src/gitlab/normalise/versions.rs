//! Releases and tags.

use kiro_schemas::{Event, Subject, Transition};
use serde::Deserialize;

use super::Project;
use crate::reading::{Text, When, list, note, purl, set, set_time};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ReleaseEvent<'a> {
    action: Option<Text<'a>>,
    tag: Text<'a>,
    name: Option<Text<'a>>,
    url: Option<Text<'a>>,
    created_at: When,
    released_at: Option<When>,
    project: Project<'a>,
    commit: Option<Commit<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Commit<'a> {
    id: Option<Text<'a>>,
    timestamp: Option<When>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct TagEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    after: Option<Text<'a>>,
    checkout_sha: Option<Text<'a>>,
    user_username: Option<Text<'a>>,
    user_name: Option<Text<'a>>,
    project: Project<'a>,
    #[serde(default, deserialize_with = "list")]
    commits: Vec<Commit<'a>>,
}

fn artifact(project: &Project<'_>, version: &str) -> String {
    let address = || project.web_url.0.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let name = project.path_with_namespace.as_ref().map(|path| &*path.0).or_else(address);
    purl("gitlab", name.unwrap_or_default(), version)
}

/// `update` repeats what `create` told. A deletion has no time of its own: the newest that is said.
pub(in crate::gitlab) fn release(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let ReleaseEvent { action, tag, name, url, created_at, released_at, project, commit } = serde_json::from_slice(payload)?;
    let (created, released) = (created_at.0, released_at.unwrap_or(created_at).0);
    let (transition, time) = match action.as_ref().map(|action| &*action.0) {
        Some("create") | None => (Transition::Published, released),
        Some("delete") => (Transition::Deleted, released.max(created)),
        Some(_) => return Ok(Vec::new()),
    };
    let id = artifact(&project, &tag.0);
    let mut said = Event::new(Subject::Artifact, transition, project.web_url.0, id, time);
    set_time(&mut said, "created_at", Some(created));
    set_time(&mut said, "published_at", Some(released));
    note(&mut said, "version", Some(tag.0));
    note(&mut said, "title", name.map(|name| name.0));
    note(&mut said, "url", url.map(|url| url.0));
    note(&mut said, "commit_sha", commit.and_then(|commit| commit.id).map(|id| id.0));
    Ok(vec![said])
}

/// A tag says no time but that of its commits: without them, or when it is deleted, there is nothing that could be dated.
pub(in crate::gitlab) fn tag_push(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let told: TagEvent<'_> = serde_json::from_slice(payload)?;
    let time = told.commits.iter().filter_map(|commit| Some(commit.timestamp?.0)).max();
    let is_deleted = told.after.as_ref().is_some_and(|sha| sha.0.bytes().all(|byte| byte == b'0'));
    let (Some(tag), Some(time), false) = (told.reference.0.strip_prefix("refs/tags/"), time, is_deleted) else { return Ok(Vec::new()) };
    let id = artifact(&told.project, tag);
    let mut said = Event::new(Subject::Artifact, Transition::Packaged, told.project.web_url.0, id, time);
    set_time(&mut said, "created_at", Some(time));
    set(&mut said, "actor", told.user_username.or(told.user_name));
    note(&mut said, "version", Some(tag.to_owned()));
    note(&mut said, "commit_sha", told.checkout_sha.or(told.after).map(|sha| sha.0));
    Ok(vec![said])
}
