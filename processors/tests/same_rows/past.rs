//! The past of a small repository, read without a server: the questions are asked of the world itself.

use std::collections::{BTreeMap, VecDeque};

use kiro_integrations::backfill::{self, Known, Span};
use kiro_integrations::platform;
use kiro_schemas::{Event, Micros};
use serde_json::{Map, Value, json};

use crate::github_world::{self, Hook};
use crate::gitlab_world;

/// The clock of the platform.
pub(crate) const NOW: &str = "2026-03-01T12:00:00Z";

/// Rows, and the field that they stand in, if any; or one object.
#[derive(Debug, Clone)]
pub(crate) enum Thing {
    One(Value),
    List(Vec<Value>, Option<&'static str>),
}

/// What there is, by its path.
pub(crate) type World = BTreeMap<String, Thing>;

/// The past of a repository of GitHub, and the webhooks of the same facts.
pub(crate) fn github(count: i64) -> (Vec<Event<'static>>, Vec<Hook>) {
    let world = github_world::world(count);
    (events("github", github_world::REPOSITORY, &world), github_world::hooks(&world))
}

/// The same of GitLab.
pub(crate) fn gitlab(count: i64) -> (Vec<Event<'static>>, Vec<Hook>) {
    (events("gitlab", gitlab_world::PROJECT, &gitlab_world::world(count)), gitlab_world::hooks(count))
}

/// All pages are one, and what is not there is gone.
fn answer(world: &World, path: &str) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let range = query.split('&').find_map(|pair| pair.strip_prefix("created=")?.split_once(".."));
    let is_asked = |row: &Value| range.is_none_or(|(from, to)| (from..=to).contains(&row["created_at"].as_str().expect("a time")));
    match world.get(path) {
        None => Value::Null,
        Some(Thing::One(one)) => one.clone(),
        Some(Thing::List(rows, field)) => {
            let rows: Vec<_> = rows.iter().filter(|row| is_asked(row)).collect();
            field.map_or_else(|| json!(rows), |field| json!({"total_count": rows.len(), field: rows}))
        }
    }
}

fn events(name: &str, repository: &str, world: &World) -> Vec<Event<'static>> {
    let platform = platform(name).expect("a platform");
    let of = backfill::of(platform).expect("a past");
    let until = Micros::parse(NOW).expect("a time");
    let since = until.plus(-365 * 86_400_000_000);
    let (span, mut about, mut events) = (Span { since, fresh: since, until }, Map::new(), Vec::new());
    let mut asks = VecDeque::from_iter((of.begin)(repository));
    while let Some(ask) = asks.pop_front() {
        let body = answer(world, &ask.path).to_string();
        let page = (of.read)(&ask, &Known { span, about: &about, has_next: false }, body.as_bytes()).expect("a page");
        about.extend(page.learnt);
        let mut further = Vec::new();
        for row in page.rows {
            events.extend(row.told.iter().flat_map(|told| told.events(platform).expect("events")));
            further.extend(row.asks);
        }
        further.extend(page.asks);
        further.into_iter().rev().for_each(|ask| asks.push_front(ask));
    }
    events
}
