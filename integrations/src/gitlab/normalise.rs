//! GitLab's payloads to events, in the words that GitHub's become.
//!
//! # Source
//! GitLab Docs, "Webhook events". Times come in two forms, RFC 3339 and `2016-08-12 15:23:28 UTC`. `status` is GitLab's own word.
//! A retried job has a new id, and its attempt is one more than its `retries_count`; a retried pipeline stays the same run.

use kiro_schemas::{Event, Micros};
use serde::Deserialize;

use crate::reading::Text;

pub(super) mod changes;
pub(super) mod deployments;
pub(super) mod issues;
pub(super) mod runs;
pub(super) mod versions;

/// What a project's pipelines are called unless it names another file.
const PIPELINE_FILE: &str = ".gitlab-ci.yml";

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Project<'a> {
    web_url: Text<'a>,
    name: Option<Text<'a>>,
    path_with_namespace: Option<Text<'a>>,
    ci_config_path: Option<Text<'a>>,
    default_branch: Option<Text<'a>>,
}

impl<'a> Project<'a> {
    fn pipeline(self) -> Text<'a> {
        self.ci_config_path.filter(|path| !path.0.is_empty()).unwrap_or(Text(PIPELINE_FILE.into()))
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct User<'a> {
    id: Option<i64>,
    username: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

fn username(user: Option<User<'_>>) -> Option<Text<'_>> {
    user.and_then(|user| user.username.or(user.name))
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Label<'a> {
    title: Option<Text<'a>>,
}

/// Seconds that may have a fraction, in microseconds.
fn micros(seconds: f64) -> Option<i64> {
    let duration = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    i64::try_from(duration.as_micros()).ok()
}

/// A time moved by seconds.
fn after(time: Option<Micros>, seconds: Option<f64>) -> Option<Micros> {
    time.zip(seconds.and_then(micros)).map(|(time, micros)| time.plus(micros))
}

fn before(time: Option<Micros>, seconds: Option<f64>) -> Option<Micros> {
    time.zip(seconds.and_then(micros)).map(|(time, micros)| time.plus(-micros))
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct SystemEvent<'a> {
    object_kind: Option<Text<'a>>,
    event_name: Option<Text<'a>>,
}

/// A server's own hooks say only in the payload what they are.
pub(super) fn system(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let SystemEvent { object_kind, event_name } = serde_json::from_slice(payload)?;
    match object_kind.or(event_name).as_ref().map(|kind| &*kind.0) {
        Some("pipeline") => runs::pipeline(payload),
        Some("build") => runs::job(payload),
        Some("deployment") => deployments::deployment(payload),
        Some("merge_request") => changes::merge_request(payload),
        Some("push") => changes::push(payload),
        Some("tag_push") => versions::tag_push(payload),
        Some("issue") => issues::issue(payload),
        Some("release") => versions::release(payload),
        _ => Ok(Vec::new()),
    }
}
