//! GitHub's past: all of it, once, in the words of its webhooks.

use bytes::Bytes;
use kiro_integrations::backfill::Walk;
use kiro_integrations::{Error, Reach, reach};
use kiro_ports::Normaliser as _;
use kiro_schemas::Event;
use serde_json::json;

use crate::forge::{Forge, TOKEN, Thing};
use crate::github_world::{DESCRIPTION, Hook, REPOSITORY, ago, hooks, rows, run, world};
use crate::{api, course, named, said, walk};

/// What webhooks tell.
fn told(hooks: &[Hook]) -> Vec<Event<'static>> {
    let read = |(event, body): &Hook| {
        let (headers, body) = (vec![("x-github-event".to_owned(), Bytes::from_static(event.as_bytes()))], body.to_string());
        let events = named("github").normalise(&headers, body.as_bytes()).expect("a webhook");
        events.into_iter().map(Event::into_owned).collect::<Vec<_>>()
    };
    hooks.iter().flat_map(read).collect()
}

#[tokio::test]
async fn the_past_is_told_in_the_words_of_the_webhooks() {
    let world = world(250);
    let expected = said(&told(&hooks(&world)));
    let forge = Forge::new(DESCRIPTION, world);
    let mut first =
        Walk::new(named("github"), api(named("github"), forge.open().await, TOKEN), course(named("github"), REPOSITORY)).expect("a walk");
    let events = walk(&mut first).await.expect("a past");
    assert_eq!(forge.problems(), Vec::<String>::new());
    let found = said(&events);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    assert!(events.iter().all(|event| event.known_at.is_some_and(|known| known > event.time)));
    assert!(events.iter().any(|event| event.attributes.iter().any(|(name, _)| name == "first_commit_at")), "no first commit");
    assert!(!serde_json::to_string(&first.course).expect("JSON").contains("canary"), "the course keeps a payload");
    assert!(first.course.notes.is_empty(), "{:?}", first.course.notes);
}

#[tokio::test]
async fn a_second_walk_asks_little_and_tells_what_is_new() {
    let forge = Forge::new(DESCRIPTION, world(250));
    let at = forge.open().await;
    let mut first = Walk::new(named("github"), api(named("github"), at, TOKEN), course(named("github"), REPOSITORY)).expect("a walk");
    walk(&mut first).await.expect("a past");
    let asked = forge.seen().len();
    // Kept in a file meanwhile.
    let mut kept: kiro_integrations::backfill::Course =
        serde_json::from_str(&serde_json::to_string(&first.course).expect("JSON")).expect("a course");
    kept.begin(named("github"), crate::YEAR).expect("a beginning");
    let mut second = Walk::new(named("github"), api(named("github"), at, TOKEN), kept).expect("a walk");
    let events = walk(&mut second).await.expect("a past");
    let again = forge.seen().len() - asked;
    assert!(again * 5 < asked, "{again} questions after {asked}");
    assert!(second.course.unchanged > 0, "nothing was known by its tag");
    assert!(events.len() < 20, "{} events again", events.len());

    // A run of two weeks ago is run again, and another is new.
    forge.change(|world| {
        let Some(Thing::List(runs, _)) = world.get_mut("/repos/acme/shop/actions/runs") else { panic!("no runs") };
        let row = runs[0].clone();
        let old = runs.iter_mut().find(|row| row["created_at"].as_str().expect("a time") > ago(14 * 1_440).as_str()).expect("a run");
        (old["run_attempt"], old["run_started_at"], old["updated_at"]) = (json!(3), json!(ago(2)), json!(ago(0)));
        runs.push(run(&row, 7_777, 1, 12, 11));
    });
    let mut kept = second.course.clone();
    kept.begin(named("github"), crate::YEAR).expect("a beginning");
    let mut third = Walk::new(named("github"), api(named("github"), at, TOKEN), kept).expect("a walk");
    let events = walk(&mut third).await.expect("a past");
    let ids: Vec<&str> = events.iter().map(|event| &*event.id).collect();
    assert!(ids.iter().any(|id| id.contains("/9007777/1/finished/")), "{ids:?}");
    assert!(events.iter().any(|event| event.attempt == 3), "{ids:?}");
    assert_eq!(forge.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn more_runs_than_a_list_gives_are_all_read() {
    let mut crowded = world(20);
    let row = rows(&crowded, "actions/runs").pop().expect("a run");
    let many: Vec<_> = (0..1_500).map(|number| run(&row, 20_000 + number, 1, 3_000 + number / 4, 2_999 + number / 4)).collect();
    let Some(Thing::List(runs, _)) = crowded.get_mut("/repos/acme/shop/actions/runs") else { panic!("no runs") };
    runs.extend(many);
    let forge = Forge::new(DESCRIPTION, crowded);
    let mut all =
        Walk::new(named("github"), api(named("github"), forge.open().await, TOKEN), course(named("github"), REPOSITORY)).expect("a walk");
    let events = walk(&mut all).await.expect("a past");
    let runs: std::collections::BTreeSet<&str> =
        events.iter().filter(|e| e.spec().name == "pipeline_run").map(|e| &*e.subject_id).collect();
    assert_eq!(runs.len(), 1_520);
    assert_eq!(forge.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_tells_whose_it_is() {
    let forge = Forge::new(DESCRIPTION, world(10));
    let at = forge.open().await;
    let found = reach(named("github"), &api(named("github"), at, TOKEN)).await.expect("an account");
    assert_eq!(found, Reach { account: "octocat".to_owned(), scopes: Vec::new(), missing: Vec::new(), remaining: Some(5_000) });
    let error = reach(named("github"), &api(named("github"), at, "wrong")).await.expect_err("no account");
    assert!(matches!(error, Error::Token { .. }) && !error.to_string().contains("wrong "), "{error}");
    let error = reach(named("gitea"), &api(named("github"), at, TOKEN)).await.expect_err("no past").to_string();
    assert!(error.contains("gitea") && error.contains("github and gitlab"), "{error}");
}
