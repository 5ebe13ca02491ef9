//! The past of platforms, read from servers that check every question and every answer by the description of the API, and fail.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kiro_integrations::backfill::{Api, Course, Patience, Walk, is_beside};
use kiro_integrations::outbound::{Allowed, Client};
use kiro_integrations::{Error, Platform, platform};
use kiro_ports::SystemClock;
use kiro_schemas::{Event, Secret};

mod faults;
mod forge;
mod github;
mod github_world;
mod gitlab;
mod gitlab_world;
mod turns;

/// How far back the tests look, in seconds.
const YEAR: i64 = 365 * 86_400;

fn named(name: &str) -> &'static Platform {
    platform(name).expect("a known platform")
}

fn api(platform: &Platform, at: SocketAddr, token: &str) -> Api {
    // The second test of a process finds it installed.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let client = Client::new(vec![Allowed::parse("127.0.0.0/8").expect("a network")], Duration::from_secs(10)).expect("a client");
    let api = Api::new(client, platform, Some(&format!("http://{at}")), Secret::new(token), Arc::new(SystemClock)).expect("an API");
    api.patient(Patience { tries: 4, pause: Duration::from_millis(5), limit: Duration::from_millis(20), waits: 3 })
}

fn course(platform: &Platform, repository: &str) -> Course {
    let mut course = Course::new(platform, repository).expect("a course");
    course.begin(platform, YEAR).expect("a beginning");
    course
}

/// Walks to the end; what was told, in order.
async fn walk(walk: &mut Walk) -> Result<Vec<Event<'static>>, Error> {
    let (mut all, mut done) = (Vec::new(), 0.0);
    while let Some(events) = walk.step().await? {
        all.extend(events);
        assert!(walk.course.done >= done - 1e-9 && walk.course.done <= 1.0 + 1e-9, "progress goes back: {} after {done}", walk.course.done);
        done = walk.course.done;
    }
    assert!(walk.course.at().is_none() && walk.course.reached().is_some());
    Ok(all)
}

/// What events say that webhooks say, too, but for when it was known; each once, in order.
fn said(events: &[Event<'_>]) -> Vec<String> {
    let plain = |event: &Event<'_>| {
        let mut event = event.clone();
        event.known_at = None;
        event.attributes.sort();
        serde_json::to_string(&event).expect("an event is JSON")
    };
    let mut said: Vec<String> = events.iter().filter(|event| !is_beside(event)).map(plain).collect();
    said.sort();
    said.dedup();
    said
}
