use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;

use super::{LARGE, MOST_LARGE, Patience, Places, read};
use crate::Error;

const LIMIT: usize = 4 << 20;
const NEVER: Duration = Duration::from_mins(10);

fn places(silence: Duration, whole: Duration, grace: Duration) -> Arc<Places> {
    Arc::new(Places { held: std::sync::Mutex::default(), patience: Patience { silence, whole, grace } })
}

#[expect(clippy::unnecessary_wraps, reason = "pieces of a stream may fail")]
fn piece(bytes: usize) -> Result<Bytes, Infallible> {
    Ok(vec![b'x'; bytes].into())
}

fn whole(bytes: usize) -> Body {
    Body::from(vec![b'x'; bytes])
}

/// Sends so much, then nothing, and does not end.
fn stuck(bytes: usize) -> Body {
    Body::from_stream(stream::iter([piece(bytes)]).chain(stream::pending()))
}

/// Sends so much, then a byte now and then, without end.
fn dripping(bytes: usize, every: Duration) -> Body {
    let drops = stream::unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((piece(1), ()))
    });
    Body::from_stream(stream::iter([piece(bytes)]).chain(drops))
}

/// Reads and forgets: what became of it.
fn reading(body: Body, places: &Arc<Places>) -> JoinHandle<Result<usize, Error>> {
    let places = Arc::clone(places);
    tokio::spawn(async move { read(body, LIMIT, &places).await.map(|(bytes, _place)| bytes.len()) })
}

async fn taken(places: &Places, count: usize) {
    let all = async {
        while places.lock().taken.len() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("places are taken");
}

#[tokio::test]
async fn a_place_is_taken_with_the_second_mebibyte_and_given_back() {
    let places = places(NEVER, NEVER, NEVER);
    let small: Vec<_> = (0..MOST_LARGE * 2).map(|_| reading(stuck(LARGE), &places)).collect();
    let mut held = Vec::new();
    for _ in 0..MOST_LARGE {
        held.push(read(whole(LARGE + 1), LIMIT, &places).await.expect("a place"));
    }
    assert!(matches!(read(whole(LARGE + 1), LIMIT, &places).await, Err(Error::Crowded)));
    assert_eq!(read(whole(LARGE), LIMIT, &places).await.expect("it needs no place").0.len(), LARGE);
    held.pop();
    assert!(read(whole(LARGE + 1), LIMIT, &places).await.is_ok(), "a place was given back");
    assert!(matches!(read(whole(LIMIT + 1), LIMIT, &places).await, Err(Error::TooLarge { limit: LIMIT, .. })));
    drop(held);
    assert!(places.lock().taken.is_empty());
    assert!(small.iter().all(|task| !task.is_finished()));
}

#[tokio::test]
async fn who_is_slow_makes_room_and_who_has_come_whole_does_not() {
    let places = places(NEVER, NEVER, Duration::ZERO);
    let kept = read(whole(LARGE + 1), LIMIT, &places).await.expect("a place");
    let mut slow: Vec<_> = (1..MOST_LARGE).map(|_| reading(stuck(LARGE + 1), &places)).collect();
    taken(&places, MOST_LARGE).await;
    for _ in 1..MOST_LARGE {
        slow.push(reading(stuck(LARGE + 1), &places));
        let (ended, _, rest) = futures::future::select_all(slow).await;
        assert!(matches!(ended.expect("it ran"), Err(Error::Slow { .. })));
        slow = rest;
    }
    let mut whole = Vec::new();
    for _ in 1..MOST_LARGE {
        whole.push(read(self::whole(LARGE + 1), LIMIT, &places).await.expect("the place of one that was slow"));
    }
    assert!(matches!(read(self::whole(LARGE + 1), LIMIT, &places).await, Err(Error::Crowded)), "all have come whole");
    drop((kept, whole));
    for task in slow {
        assert!(matches!(task.await.expect("it ran"), Err(Error::Slow { .. })));
    }
    assert!(places.lock().taken.is_empty());
}

#[tokio::test]
async fn silence_and_slowness_end() {
    let (short, gap) = (Duration::from_millis(80), Duration::from_millis(10));
    for (patience, body, reason) in [
        (places(short, NEVER, NEVER), stuck(10), "nothing came for 0.08 s"),
        (places(short, NEVER, NEVER), stuck(LARGE + 1), "nothing came for 0.08 s"),
        (places(NEVER, short, NEVER), dripping(10, gap), "it was not whole after 0.08 s"),
        (places(NEVER, short, NEVER), dripping(LARGE + 1, gap), "it was not whole after 0.08 s"),
    ] {
        let ended = tokio::time::timeout(Duration::from_secs(20), read(body, LIMIT, &patience)).await.expect("it ends");
        let error = ended.expect_err("refused").to_string();
        assert!(error.contains(reason), "{error}");
        assert!(patience.lock().taken.is_empty());
    }
}
