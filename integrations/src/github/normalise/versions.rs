//! Releases, and branches and tags that come and go.

use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use serde::Deserialize;

use super::{User, login};
use crate::reading::{Text, note, purl, set, set_time, tell_apart};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Repository<'a> {
    html_url: Text<'a>,
    full_name: Text<'a>,
    updated_at: Micros,
    pushed_at: Option<Micros>,
}

impl Repository<'_> {
    /// GitHub does not say when something was deleted, or a branch or tag was made: the newest time that it says.
    fn newest(&self) -> Micros {
        self.pushed_at.map_or(self.updated_at, |pushed| pushed.max(self.updated_at))
    }

    fn artifact(&self, kind: &str, version: &str) -> String {
        purl(kind, &self.full_name.0, version)
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ReleaseEvent<'a> {
    action: Text<'a>,
    repository: Repository<'a>,
    release: Release<'a>,
    sender: Option<User<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Release<'a> {
    tag_name: Text<'a>,
    name: Option<Text<'a>>,
    html_url: Option<Text<'a>>,
    target_commitish: Option<Text<'a>>,
    prerelease: Option<bool>,
    created_at: Option<Micros>,
    published_at: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ReferenceEvent<'a> {
    #[serde(rename = "ref")]
    reference: Text<'a>,
    ref_type: Text<'a>,
    repository: Repository<'a>,
    sender: Option<User<'a>>,
}

pub(in crate::github) fn release(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    release_of("github", payload)
}

/// `released`, `prereleased` and `edited` repeat what `published` told. `kind` is the type of its package URL.
pub(crate) fn release_of<'a>(kind: &str, payload: &'a [u8]) -> serde_json::Result<Vec<Event<'a>>> {
    let ReleaseEvent { action, repository, release, sender } = serde_json::from_slice(payload)?;
    let step = match &*action.0 {
        "created" => release.created_at.map(|time| (Transition::Packaged, time)),
        "published" => release.published_at.or(release.created_at).map(|time| (Transition::Published, time)),
        "deleted" => Some((Transition::Deleted, repository.newest())),
        _ => None,
    };
    let Some((transition, time)) = step else { return Ok(Vec::new()) };
    let id = repository.artifact(kind, &release.tag_name.0);
    let mut said = Event::new(Subject::Artifact, transition, repository.html_url.0, id, time);
    set_time(&mut said, "created_at", release.created_at);
    set_time(&mut said, "published_at", release.published_at);
    set(&mut said, "actor", login(sender));
    note(&mut said, "version", Some(release.tag_name.0));
    note(&mut said, "title", release.name.map(|name| name.0));
    note(&mut said, "target", release.target_commitish.map(|target| target.0));
    note(&mut said, "prerelease", release.prerelease.filter(|is| *is).map(|_| "true"));
    note(&mut said, "url", release.html_url.map(|url| url.0));
    Ok(vec![said])
}

pub(in crate::github) fn reference_created(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    reference(payload, Transition::Packaged, "dev.cdevents.branch.created")
}

pub(in crate::github) fn reference_deleted(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    reference(payload, Transition::Deleted, "dev.cdevents.branch.deleted")
}

/// A tag is a version that was made; of a branch we keep that it came or went, in the word of CDEvents.
fn reference<'a>(payload: &'a [u8], transition: Transition, branch: &'static str) -> serde_json::Result<Vec<Event<'a>>> {
    let ReferenceEvent { reference, ref_type, repository, sender } = serde_json::from_slice(payload)?;
    let (actor, time, id) = (login(sender), repository.newest(), repository.artifact("github", &reference.0));
    if ref_type.0 == "tag" {
        let mut said = Event::new(Subject::Artifact, transition, repository.html_url.0, id, time);
        set(&mut said, "actor", actor);
        note(&mut said, "version", Some(reference.0));
        return Ok(vec![said]);
    }
    if ref_type.0 != "branch" {
        return Ok(Vec::new());
    }
    let mut said = Event::new(Subject::Other, Transition::Recorded, repository.html_url.0, reference.0, time);
    said.set("type", Value::text(branch));
    tell_apart(&mut said, branch);
    note(&mut said, "actor", actor.map(|actor| actor.0));
    Ok(vec![said])
}
