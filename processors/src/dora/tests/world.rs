//! Made-up histories: few services, commits and hours, so that much of it meets.

use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use proptest::prelude::*;

use super::{DAY, NOW};

const HOUR: i64 = DAY / 24;
/// Forty days that end a month before [`NOW`], over a change of the clocks and of years' weeks.
const SLOTS: i64 = 320;

/// A history, in the order in which it happened.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) events: Vec<Event<'static>>,
}

fn event(subject: Subject, transition: Transition, source: &str, id: &str, at: i64) -> Event<'static> {
    Event::new(subject, transition, source.to_owned(), id.to_owned(), Micros(at))
}

fn put(event: &mut Event<'static>, fields: &[(&str, Option<&str>)]) {
    for (name, value) in fields {
        event.set_text(name, value.map(str::to_owned));
    }
}

fn put_attributes(event: &mut Event<'static>, attributes: &[(&'static str, Option<String>)]) {
    event.attributes.extend(attributes.iter().filter_map(|(name, value)| Some(((*name).into(), value.clone()?.into()))));
}

/// A deployment to production that ended.
pub(super) fn deployed(source: &str, id: &str, at: i64, outcome: &str) -> Event<'static> {
    let mut event = event(Subject::Deployment, Transition::Finished, source, id, at);
    put(&mut event, &[("environment", Some("production")), ("outcome", Some(outcome))]);
    event
}

/// A change that was merged into `main`.
pub(super) fn merged(source: &str, id: &str, at: i64) -> Event<'static> {
    let mut event = event(Subject::Change, Transition::Merged, source, id, at);
    put(&mut event, &[("base_branch", Some("main")), ("title", Some("Add a cart"))]);
    event.set("created_at", Value::Time(Micros(at - HOUR)));
    event
}

/// An incident, over or not.
pub(super) fn incident(source: &str, id: &str, service: &str, at: i64, resolved: Option<i64>) -> Event<'static> {
    let transition = if resolved.is_some() { Transition::Resolved } else { Transition::Detected };
    let mut event = event(Subject::Incident, transition, source, id, resolved.unwrap_or(at));
    put(&mut event, &[("service", Some(service))]);
    event.set("detected_at", Value::Time(Micros(at)));
    event
}

fn slot() -> impl Strategy<Value = i64> {
    // Moments that meet, and some that do not.
    (0..SLOTS, prop_oneof![4 => Just(0_i64), 1 => 1_i64..90_000_000]).prop_map(|(slot, more)| NOW - 70 * DAY + slot * 3 * HOUR + more)
}

fn commit() -> impl Strategy<Value = String> {
    (0..10).prop_map(|n| format!("c{n}"))
}

fn one(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(of)
}

/// Most of it is one service in production: what follows from the deployments before needs many of them.
const SOURCES: &[&str] =
    &["https://ci/shop", "https://ci/shop", "https://ci/shop", "https://ci/shop", "https://ci/cart", "https://ci/mono/"];
const ENVIRONMENTS: &[&str] = &["production", "production", "production", "prod-eu", "staging", "lab"];
const OUTCOMES: &[&str] = &["success", "success", "success", "success", "failure", "error", "cancel", "skip"];

type Events = Vec<Event<'static>>;

fn deployment(id: usize) -> impl Strategy<Value = Events> {
    let place =
        (one(SOURCES), prop::option::weighted(0.3, one(&["cart", "shop"])), one(ENVIRONMENTS), one(&["main", "main", "main", "hotfix/1"]));
    let what =
        (prop::option::of(commit()), prop::option::of(one(&["v1", "v2", "v3"])), prop::option::of(prop::collection::vec(commit(), 0..4)));
    let how = (one(OUTCOMES), prop::option::weighted(0.1, any::<bool>()), prop::option::weighted(0.15, one(OUTCOMES)));
    (place, what, how, (slot(), 0_i64..5, 1_i64..3)).prop_map(move |(place, what, how, (at, hours, attempt))| {
        let make = |transition, at| {
            let mut event = event(Subject::Deployment, transition, place.0, &(id / 2).to_string(), at);
            event.attempt = attempt + i64::try_from(id % 2).expect("small") * 2;
            put(&mut event, &[("environment", Some(place.2)), ("service", place.1), ("branch", Some(place.3))]);
            event.derive_id();
            event
        };
        let mut ended = make(if how.1 == Some(true) { Transition::RolledBack } else { Transition::Finished }, at + hours * HOUR);
        put(&mut ended, &[("commit_sha", what.0.as_deref()), ("artifact_id", what.1)]);
        if let Some(is_rollback) = how.1 {
            ended.set("is_rollback", Value::Bool(is_rollback));
        }
        if how.1 != Some(true) {
            put(&mut ended, &[("outcome", Some(how.0))]);
        }
        put_attributes(&mut ended, &[("commits", what.2.as_ref().map(|all| all.join(" ")))]);
        let mut events = vec![make(Transition::Started, at), ended];
        events.extend(how.2.map(|outcome| {
            let mut corrected = make(Transition::Updated, at + hours * HOUR + DAY);
            put(&mut corrected, &[("outcome", Some(outcome)), ("environment", Some("production"))]);
            corrected
        }));
        events
    })
}

fn run(id: usize) -> impl Strategy<Value = Events> {
    (one(SOURCES), one(&["ship", "build"]), commit(), one(OUTCOMES), slot()).prop_map(move |(source, pipeline, sha, outcome, at)| {
        let mut event = event(Subject::PipelineRun, Transition::Finished, source, &id.to_string(), at);
        put(&mut event, &[("pipeline", Some(pipeline)), ("commit_sha", Some(&sha)), ("outcome", Some(outcome)), ("branch", Some("main"))]);
        vec![event]
    })
}

fn pull_request(id: usize) -> impl Strategy<Value = Events> {
    let what = (one(SOURCES), commit(), prop::option::of(commit()), one(&["Add a cart", "Add a cart", "Revert \"Add a cart\""]));
    let more = (prop::option::of(0_i64..80), prop::option::weighted(0.1, Just("ui, hotfix")), prop::option::weighted(0.8, 0_i64..60));
    let from = (prop::option::of(one(&["side", "fix"])), prop::option::weighted(0.1, Just("https://ci/fork")), prop::option::of(0_i64..80));
    let ways = (what, more, from, slot(), prop::bool::weighted(0.2));
    ways.prop_map(move |((source, head, merge, title), (first, labels, wait), (branch, fork, newest), at, is_closed)| {
        let make = |transition, at| {
            let mut event = event(Subject::Change, transition, source, &format!("pr{id}"), at);
            put(&mut event, &[("title", Some(title)), ("base_branch", Some("main")), ("commit_sha", Some(&head)), ("branch", branch)]);
            // Some first commits are later than the request: branches are rebased.
            let time = |hours: Option<i64>| hours.map(|hours| Micros(at - (hours - 10) * HOUR).to_string());
            put_attributes(&mut event, &[("labels", labels.map(str::to_owned)), ("head_source", fork.map(str::to_owned))]);
            put_attributes(&mut event, &[("first_commit_at", time(first)), ("newest_commit_at", time(newest))]);
            event
        };
        let mut events = vec![make(Transition::Created, at)];
        events.extend(wait.map(|hours| {
            let end = if is_closed { Transition::Abandoned } else { Transition::Merged };
            let mut ended = make(end, at + hours * HOUR);
            put(&mut ended, &[("merge_commit_sha", merge.as_deref().filter(|_| !is_closed))]);
            ended
        }));
        events
    })
}

fn push(id: usize) -> impl Strategy<Value = Events> {
    let place = (one(SOURCES), one(&["main", "side", "fix"]), prop::option::weighted(0.4, one(&["main", "develop"])));
    // Few have the names that deployments and merges have.
    let sha = prop_oneof![2 => commit(), 1 => Just(format!("p{id}"))];
    let made = prop::option::weighted(0.2, one(&["side@c1", "side@c2", "fix@c1", "fix@c2"]));
    (place, sha, prop::option::of(commit()), made, slot()).prop_map(|((source, branch, base), sha, with, made, at)| {
        let mut event = event(Subject::Change, Transition::Created, source, &sha, at);
        put(&mut event, &[("commit_sha", Some(&sha)), ("branch", Some(branch)), ("base_branch", base)]);
        put_attributes(&mut event, &[("pushed_with", with), ("new_branch", made.map(str::to_owned))]);
        vec![event]
    })
}

fn disturbance(id: usize) -> impl Strategy<Value = Events> {
    let place = (one(&["https://pager", "https://ci/shop", "https://ci/mono/"]), prop::option::of(one(&["shop", "cart", "till"])));
    (place, prop::option::weighted(0.3, one(ENVIRONMENTS)), slot(), prop::option::of(-1_i64..60)).prop_map(
        move |((source, service), environment, at, hours)| {
            let make = |transition, at| {
                let mut event = event(Subject::Incident, transition, source, &id.to_string(), at);
                put(&mut event, &[("service", service), ("environment", environment)]);
                event
            };
            let mut events = vec![make(Transition::Detected, at)];
            events.extend(hours.map(|hours| make(Transition::Resolved, at + hours * HOUR)));
            events
        },
    )
}

/// So many of a kind, each with its number.
fn some<S: Strategy<Value = Events> + 'static>(most: usize, make: impl Fn(usize) -> S + 'static) -> impl Strategy<Value = Events> {
    (0..=most).prop_flat_map(move |count| (0..count).map(&make).collect::<Vec<_>>()).prop_map(|all| all.into_iter().flatten().collect())
}

/// Histories of every size up to some sixty subjects.
pub(super) fn worlds() -> impl Strategy<Value = World> {
    (some(30, deployment), some(4, run), some(16, pull_request), some(14, push), some(12, disturbance)).prop_map(
        |(deployments, runs, requests, pushes, incidents)| {
            let mut events: Vec<_> = [deployments, runs, requests, pushes, incidents].concat();
            events.sort_by(|a, b| (a.time, &a.id, &a.source).cmp(&(b.time, &b.id, &b.source)));
            // Two events of one id are one: what they say must be one, too.
            events.dedup_by(|a, b| a.id == b.id && a.source == b.source);
            World { events }
        },
    )
}
