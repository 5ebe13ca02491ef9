//! GitLab's past: all of it, once, in the words of its webhooks.

use bytes::Bytes;
use kiro_integrations::backfill::Walk;
use kiro_integrations::{Reach, reach};
use kiro_ports::Normaliser as _;
use kiro_schemas::{Event, Transition};

use crate::forge::{Fault, Forge, TOKEN};
use crate::gitlab_world::{DESCRIPTION, PROJECT, hooks, one_more, world};
use crate::{api, course, named, said, walk};

fn told(pipelines: i64) -> Vec<Event<'static>> {
    let read = |(event, body): &crate::github_world::Hook| {
        let (headers, body) = (vec![("x-gitlab-event".to_owned(), Bytes::from_static(event.as_bytes()))], body.to_string());
        let events = named("gitlab").normalise(&headers, body.as_bytes()).expect("a webhook");
        events.into_iter().map(Event::into_owned).collect::<Vec<_>>()
    };
    hooks(pipelines).iter().flat_map(read).collect()
}

fn untitled(mut event: Event<'static>) -> Event<'static> {
    if event.transition == Transition::Created && event.spec().name == "change" {
        event.set("title", kiro_schemas::Value::Null);
    }
    event
}

#[tokio::test]
async fn the_past_is_told_in_the_words_of_the_webhooks() {
    let forge = Forge::new(DESCRIPTION, world(240));
    forge.fail((0..300).filter(|at| at % 7 == 3).map(|at| (at, if at % 2 == 0 { Fault::Cut } else { Fault::Status(429) })));
    let at = forge.open().await;
    let mut first = Walk::new(named("gitlab"), api(named("gitlab"), at, TOKEN), course(named("gitlab"), PROJECT)).expect("a walk");
    let events = walk(&mut first).await.expect("a past");
    assert_eq!(forge.problems(), Vec::<String>::new());
    // What a merge request was called when it was opened is not told.
    let expected: Vec<_> = told(240).into_iter().map(untitled).collect();
    let (found, expected) = (said(&events), said(&expected));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    let with =
        |name: &str| events.iter().filter(|event| event.attributes.iter().any(|(known, text)| known == name && !text.is_empty())).count();
    assert_eq!((with("first_commit_at"), with("head_source")), (80, 80), "of each its first commit; of each from a fork its begin and end");
    let asked = forge.seen().iter().filter(|seen| seen.path == "/projects/99" && seen.status == 200).count();
    assert_eq!(asked, 1, "a fork is asked for once");

    let mut kept = first.course.clone();
    kept.begin(named("gitlab"), crate::YEAR).expect("a beginning");
    let asked = forge.seen().len();
    let mut second = Walk::new(named("gitlab"), api(named("gitlab"), at, TOKEN), kept).expect("a walk");
    assert!(walk(&mut second).await.expect("a past").is_empty(), "nothing changed");
    assert!(forge.seen().len() - asked < 10, "{} questions", forge.seen().len() - asked);

    forge.change(one_more);
    let mut kept = second.course.clone();
    kept.begin(named("gitlab"), crate::YEAR).expect("a beginning");
    let mut third = Walk::new(named("gitlab"), api(named("gitlab"), at, TOKEN), kept).expect("a walk");
    let ids: Vec<String> = walk(&mut third).await.expect("a past").iter().map(|event| event.subject_id.to_string()).collect();
    assert_eq!(ids, ["7777"]);
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
