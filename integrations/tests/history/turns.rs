//! Several walks of one platform: who waits holds up nobody, and whom the platform asks to wait keeps the others from asking.

use std::time::Duration;

use kiro_integrations::backfill::{Patience, Turns, Walk};

use crate::forge::{Fault, Forge, TOKEN};
use crate::github_world::{DESCRIPTION, REPOSITORY, world};
use crate::{api, course, named, walk};

const FOR_EVER: Duration = Duration::from_hours(1);

/// Walks a platform in its turn, and waits for so long after a failure.
fn walking(at: std::net::SocketAddr, turns: &Turns, pause: Duration) -> tokio::task::JoinHandle<usize> {
    let turn = turns.one();
    let patience = Patience { tries: 4, pause, limit: pause, waits: 3 };
    let api = api(named("github"), at, TOKEN).patient(patience).in_turn(turn.clone());
    tokio::spawn(async move {
        turn.take().await;
        let mut going = Walk::new(named("github"), api, course(named("github"), REPOSITORY)).expect("a walk");
        let events = walk(&mut going).await.expect("a past").len();
        turn.give();
        events
    })
}

async fn asked(forge: &Forge, count: usize) {
    let all = async {
        while forge.seen().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("it is asked");
}

#[tokio::test]
async fn who_waits_after_a_failure_holds_up_nobody() {
    let (broken, well) = (Forge::new(DESCRIPTION, world(10)), Forge::new(DESCRIPTION, world(10)));
    broken.fail([(3, Fault::Status(500))]);
    let turns = Turns::new(1);
    let waiting = walking(broken.open().await, &turns, FOR_EVER);
    asked(&broken, 4).await;
    let at = well.open().await;
    for _ in 0..2 {
        let other = tokio::time::timeout(Duration::from_secs(20), walking(at, &turns, FOR_EVER));
        assert!(other.await.expect("it has its turn").expect("it ran") > 0);
    }
    assert!(!waiting.is_finished() && broken.seen().len() == 4);
    waiting.abort();
}

#[tokio::test]
async fn while_the_platform_asks_to_wait_nobody_asks_it() {
    let forge = Forge::new(DESCRIPTION, world(10));
    forge.fail([(2, Fault::RetryAfter(429, 2))]);
    let (at, turns) = (forge.open().await, Turns::new(4));
    let first = walking(at, &turns, FOR_EVER);
    asked(&forge, 3).await;
    // What was answered has to be read there.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let others: Vec<_> = (0..6).map(|_| walking(at, &turns, FOR_EVER)).collect();
    for walk in others.into_iter().chain([first]) {
        assert!(tokio::time::timeout(Duration::from_secs(30), walk).await.expect("it goes on").expect("it ran") > 0);
    }
    let seen = forge.seen();
    let (refused, next) = (&seen[2], &seen[3]);
    assert_eq!(refused.status, 429);
    assert!(next.at - refused.at >= Duration::from_millis(1_900), "asked again after {:?}", next.at - refused.at);
    assert_eq!(seen.iter().filter(|seen| seen.status == 429).count(), 1);
}

/// Whoever waits, no more go at a time.
#[tokio::test]
async fn turns_are_no_more_than_there_are() {
    let turns = Turns::new(2);
    let (first, second, third) = (turns.one(), turns.one(), turns.one());
    first.take().await;
    second.take().await;
    assert!(tokio::time::timeout(Duration::from_millis(50), third.take()).await.is_err(), "a third turn");
    first.give();
    tokio::time::timeout(Duration::from_secs(20), third.take()).await.expect("it was given back");
    assert!(tokio::time::timeout(Duration::from_millis(50), first.take()).await.is_err(), "a third turn");
}
