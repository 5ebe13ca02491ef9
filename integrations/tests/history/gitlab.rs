//! GitLab's past: all of it, once, in the words of its webhooks.

use bytes::Bytes;
use kiro_integrations::backfill::Walk;
use kiro_integrations::{Reach, reach};
use kiro_ports::Normaliser as _;
use kiro_schemas::Event;

use crate::forge::{Fault, Forge, TOKEN};
use crate::gitlab_world::{DESCRIPTION, PROJECT, hooks, world};
use crate::{api, course, named, said, walk};

fn told(pipelines: i64) -> Vec<Event<'static>> {
    let read = |(event, body): &crate::github_world::Hook| {
        let (headers, body) = (vec![("x-gitlab-event".to_owned(), Bytes::from_static(event.as_bytes()))], body.to_string());
        let events = named("gitlab").normalise(&headers, body.as_bytes()).expect("a webhook");
        events.into_iter().map(Event::into_owned).collect::<Vec<_>>()
    };
    hooks(pipelines).iter().flat_map(read).collect()
}

#[tokio::test]
async fn the_past_is_told_in_the_words_of_the_webhooks() {
    let forge = Forge::new(DESCRIPTION, world(240));
    forge.fail((0..300).filter(|at| at % 7 == 3).map(|at| (at, if at % 2 == 0 { Fault::Cut } else { Fault::Status(429) })));
    let at = forge.open().await;
    let mut first = Walk::new(named("gitlab"), api(named("gitlab"), at, TOKEN), course(named("gitlab"), PROJECT)).expect("a walk");
    let events = walk(&mut first).await.expect("a past");
    assert_eq!(forge.problems(), Vec::<String>::new());
    // That a merge request was opened, and by whom, is told beside its end.
    let ends: Vec<Event<'_>> = events.iter().filter(|event| event.transition != kiro_schemas::Transition::Created).cloned().collect();
    let opened = events.len() - ends.len();
    let (found, expected) = (said(&ends), said(&told(240)));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!((found.len(), opened), (expected.len(), 80));
    assert!(events.iter().any(|event| event.attributes.iter().any(|(name, text)| name == "first_commit_at" && !text.is_empty())));

    let mut kept = first.course.clone();
    kept.begin(named("gitlab"), crate::YEAR).expect("a beginning");
    let asked = forge.seen().len();
    let mut second = Walk::new(named("gitlab"), api(named("gitlab"), at, TOKEN), kept).expect("a walk");
    assert!(walk(&mut second).await.expect("a past").is_empty(), "nothing changed");
    assert!(forge.seen().len() - asked < 10, "{} questions", forge.seen().len() - asked);
}

#[tokio::test]
async fn parts_that_are_switched_off_are_noted_and_the_others_read() {
    let forge = Forge::new(DESCRIPTION, world(9));
    forge.fail([(1, Fault::Status(403))]);
    let mut all =
        Walk::new(named("gitlab"), api(named("gitlab"), forge.open().await, TOKEN), course(named("gitlab"), PROJECT)).expect("a walk");
    let events = walk(&mut all).await.expect("a past");
    assert!(!events.is_empty() && events.iter().all(|event| event.spec().name != "pipeline_run"));
    assert!(all.course.notes.len() == 1 && all.course.notes[0].contains("pipelines"), "{:?}", all.course.notes);
}

#[tokio::test]
async fn a_token_tells_whose_it_is() {
    let forge = Forge::new(DESCRIPTION, world(3));
    let found = reach(named("gitlab"), &api(named("gitlab"), forge.open().await, TOKEN)).await.expect("an account");
    let expected = Reach { account: "ada".to_owned(), scopes: vec!["read_api".to_owned()], missing: Vec::new(), remaining: Some(4_999) };
    assert_eq!(found, expected);
}
