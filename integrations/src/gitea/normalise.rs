//! Gitea's payloads to events. They have the shape of GitHub's, whose readers they share.
//!
//! # Source
//! Gitea's `modules/structs`: `PushPayload`, `PullRequestPayload`, `IssuePayload`, `ReleasePayload`. A list that is empty may be null,
//! and the year 1 stands for "never".

use kiro_schemas::{Event, Subject, Transition};

use crate::github::normalise::changes::{PullEvent, describe_pull};
use crate::github::normalise::{login, versions};
use crate::reading::{note, tell_apart};

pub(super) use crate::github::normalise::changes::push;
pub(super) use crate::github::normalise::issues::issue;

/// A request, and its reviews, which have neither ids nor times of their own.
pub(super) fn pull_request(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let PullEvent { action, pull_request: pull, repository, review, sender, .. } = serde_json::from_slice(payload)?;
    let (transition, time) = match &*action.0 {
        "reviewed" => (Transition::Reviewed, pull.updated_at),
        action => pull.step(action),
    };
    let mut said = Event::new(Subject::Change, transition, repository.html_url.0, pull.number.to_string(), time);
    if let Some(review) = review {
        let reviewer = login(sender);
        tell_apart(&mut said, reviewer.as_ref().map_or("", |reviewer| &*reviewer.0));
        note(&mut said, "reviewer", reviewer.map(|reviewer| reviewer.0));
        note(&mut said, "review_state", review.kind.map(|kind| kind.0));
    }
    describe_pull(&mut said, pull);
    Ok(vec![said])
}

/// `updated` and `deleted` have no time of their own, so only what is published is told.
pub(super) fn release(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let mut events = versions::release_of("gitea", payload)?;
    events.retain(|said| said.transition == Transition::Published);
    Ok(events)
}
