//! A platform that fails in every way: nothing is lost, nothing is told that is not so, and the last word is told clearly.

use std::time::Duration;

use kiro_integrations::Error;
use kiro_integrations::backfill::{Course, Walk};

use crate::forge::{Fault, Forge, Seen, TOKEN, Thing};
use crate::github_world::{DESCRIPTION, REPOSITORY, rows, run, world};
use crate::{api, course, named, said, walk};

fn github(at: std::net::SocketAddr, course: Course) -> Walk {
    Walk::new(named("github"), api(named("github"), at, TOKEN), course).expect("a walk")
}

async fn whole(runs: i64) -> Vec<String> {
    let forge = Forge::new(DESCRIPTION, world(runs));
    said(&walk(&mut github(forge.open().await, course(named("github"), REPOSITORY))).await.expect("a past"))
}

/// How long it was before the request after one of a status.
fn pause(seen: &[Seen], at: usize) -> Duration {
    seen[at + 1].at - seen[at].at
}

#[tokio::test]
async fn faults_change_nothing() {
    let expected = whole(60).await;
    let forge = Forge::new(DESCRIPTION, world(60));
    let kinds = [
        Fault::Status(500),
        Fault::Cut,
        Fault::Secondary,
        Fault::Status(502),
        Fault::Cut,
        Fault::Status(503),
        Fault::RetryAfter(429, 0),
        Fault::Cut,
    ];
    forge.fail((0..400).filter(|at| at % 5 == 2).map(|at| (at, kinds[at / 5 % kinds.len()])));
    let found = walk(&mut github(forge.open().await, course(named("github"), REPOSITORY))).await.expect("a past");
    assert_eq!(said(&found), expected);
    let failed = forge.seen().iter().filter(|seen| !matches!(seen.status, 200 | 304 | 404)).count();
    assert!(failed > 30, "only {failed} faults");
    assert_eq!(forge.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_limit_is_kept_by_the_clock_of_the_platform() {
    let forge = Forge::new(DESCRIPTION, world(10));
    // The clock of this platform is months away from ours: a wait by our own would last as long, or not at all.
    forge.fail([(1, Fault::RetryAfter(429, 1)), (3, Fault::Window), (5, Fault::RetryAfter(403, 1))]);
    walk(&mut github(forge.open().await, course(named("github"), REPOSITORY))).await.expect("a past");
    let seen = forge.seen();
    for at in [1, 3, 5] {
        let pause = pause(&seen, at);
        assert!((Duration::from_millis(990)..Duration::from_secs(8)).contains(&pause), "{at}: {pause:?}");
        assert_eq!((&seen[at].path, &seen[at].query), (&seen[at + 1].path, &seen[at + 1].query), "another question");
    }
}

#[tokio::test]
async fn what_does_not_end_is_given_up_and_taken_up_again() {
    let expected = whole(30).await;
    let forge = Forge::new(DESCRIPTION, world(30));
    let at = forge.open().await;
    forge.fail((20..24).map(|at| (at, Fault::Status(500))).chain((40..44).map(|at| (at, Fault::Secondary))).chain([(60, Fault::Garbage)]));
    let (mut kept, mut events, mut told) = (course(named("github"), REPOSITORY), Vec::new(), Vec::new());
    loop {
        let mut going = github(at, kept.clone());
        let result = loop {
            match going.step().await {
                Ok(Some(found)) => {
                    events.extend(found);
                    kept = going.course.clone();
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => break,
            Err(error) => told.push(error.to_string()),
        }
    }
    assert_eq!(said(&events), expected);
    assert!(
        told.len() == 3 && told[0].contains("HTTP 500") && told[1].contains("limit does not end") && told[2].contains("cannot read /repos"),
        "{told:?}"
    );
}

#[tokio::test]
async fn any_answer_may_be_the_last_before_a_kill() {
    let expected = whole(30).await;
    let forge = Forge::new(DESCRIPTION, world(30));
    let at = forge.open().await;
    let (mut kept, mut events) = (serde_json::to_string(&course(named("github"), REPOSITORY)).expect("JSON"), Vec::new());
    for round in 0.. {
        let mut going = github(at, serde_json::from_str(&kept).expect("a course"));
        let Some(found) = going.step().await.expect("a page") else { break };
        // Every third answer is lost before it is kept.
        if round % 3 != 2 {
            events.extend(found);
            kept = serde_json::to_string(&going.course).expect("JSON");
        }
        assert!(round < 2_000, "it does not end");
    }
    assert_eq!(said(&events), expected);
}

#[tokio::test]
async fn pages_that_change_while_they_are_read_lose_nothing() {
    // All in one range, so that there are several pages of it.
    let mut crowded = world(10);
    let row = rows(&crowded, "actions/runs").pop().expect("a run");
    let busy: Vec<_> = (0..700).map(|number| run(&row, 20_000 + number, 1, 9_000 + number, 8_999 + number)).collect();
    let Some(Thing::List(runs, _)) = crowded.get_mut("/repos/acme/shop/actions/runs") else { panic!("no runs") };
    runs.extend(busy);
    let forge = Forge::new(DESCRIPTION, crowded);
    // While the pages are read, runs on pages that were read are deleted, so that others move there, and new ones come.
    for step in 0..6_i64 {
        let row = row.clone();
        forge.change_at(usize::try_from(90 + step * 101).expect("a number"), move |world| {
            let Some(Thing::List(runs, _)) = world.get_mut("/repos/acme/shop/actions/runs") else { panic!("no runs") };
            let newest = 9_020_000 + step * 30;
            runs.retain(|run| !(newest..newest + 3).contains(&run["id"].as_i64().expect("a number")));
            runs.push(run(&row, 30_000 + step, 1, 8_990, 8_989));
        });
    }
    let found = walk(&mut github(forge.open().await, course(named("github"), REPOSITORY))).await.expect("a past");
    let ids: std::collections::BTreeSet<&str> = found.iter().map(|event| &*event.subject_id).collect();
    for number in 0..700 {
        let is_deleted = (0..6).any(|step| (step * 30..step * 30 + 3).contains(&number));
        let id = (9_020_000 + number).to_string();
        assert!(is_deleted || ids.contains(id.as_str()), "{id} was skipped");
    }
    for step in 0..6 {
        assert!(ids.contains((9_030_000 + step).to_string().as_str()), "{step} was skipped");
    }
}

#[tokio::test]
async fn the_last_word_is_told_clearly() {
    let forge = Forge::new(DESCRIPTION, world(10));
    let at = forge.open().await;
    let fails = async |course: Course, token: &str| {
        let mut walk = Walk::new(named("github"), api(named("github"), at, token), course).expect("a walk");
        walk.step().await.expect_err("it fails").to_string()
    };
    let wrong = fails(course(named("github"), REPOSITORY), "secret-and-wrong").await;
    assert!(wrong.contains("does not accept the token") && !wrong.contains("secret-and-wrong"), "{wrong}");
    let absent = fails(course(named("github"), "acme/nowhere"), TOKEN).await;
    assert!(absent.contains("/repos/acme/nowhere") && absent.contains("no access"), "{absent}");
    forge.fail([(forge.seen().len(), Fault::Status(403))]);
    let refused = fails(course(named("github"), REPOSITORY), TOKEN).await;
    assert!(refused.contains("does not permit") && refused.contains("403"), "{refused}");
    forge.fail([(forge.seen().len(), Fault::Status(301))]);
    let moved = fails(course(named("github"), REPOSITORY), TOKEN).await;
    assert!(moved.contains("moved"), "{moved}");
    let error = Course::new(named("github"), "https://github.com/acme/shop").expect_err("no name");
    assert!(matches!(error, Error::Repository { .. }) && error.to_string().contains("octocat/hello-world"), "{error}");
}
