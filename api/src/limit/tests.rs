//! Quotas over a clock that the test moves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use axum::http::HeaderMap;
use kiro_schemas::Micros;

use super::{Caller, Class, Limiter, Limits, MOST_CALLERS, Quota, Standing};

const SECOND: i64 = 1_000_000;

fn limiter(requests: u32, seconds: u64) -> Limiter {
    let quota = Quota { requests, window: Duration::from_secs(seconds) };
    Limiter::new(Limits { ingest: quota, query: Quota { requests: 2, ..quota } })
}

fn caller(last: u8) -> Caller {
    Caller::address(Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))))
}

fn ask(limiter: &Limiter, last: u8, at: i64) -> Standing {
    limiter.count(Class::Ingest, caller(last), Micros(at)).expect("a limit")
}

#[test]
fn a_whole_quota_may_come_at_once_and_then_fills_up_evenly() {
    let limiter = limiter(10, 5);
    let left: Vec<u32> = (0..10).map(|_| ask(&limiter, 1, 0).remaining).collect();
    assert_eq!(left, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    let refused = ask(&limiter, 1, 0);
    assert!(refused.is_over);
    assert_eq!((refused.remaining, refused.reset, refused.reset_seconds()), (0, Duration::from_millis(500), 1));
    assert!(ask(&limiter, 1, SECOND / 2 - 1).is_over, "a moment too early");
    assert!(!ask(&limiter, 1, SECOND / 2).is_over);
    let rested = ask(&limiter, 1, 60 * SECOND);
    assert_eq!((rested.is_over, rested.remaining), (false, 9), "what is not used does not add up beyond the quota");
}

#[test]
fn callers_and_classes_do_not_share() {
    let limiter = limiter(1, 60);
    assert!(!ask(&limiter, 1, 0).is_over);
    assert!(ask(&limiter, 1, 0).is_over);
    assert!(!ask(&limiter, 2, 0).is_over);
    assert!(!limiter.count(Class::Query, caller(1), Micros(0)).expect("a limit").is_over);
    assert!(limiter.count(Class::Free, caller(1), Micros(0)).is_none());
    let six = |host: u16| Caller::address(Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, host))));
    assert_eq!(six(1), six(2), "one network of version 6 is one caller");
}

#[test]
fn no_requests_is_no_limit() {
    assert!(limiter(0, 60).count(Class::Ingest, caller(1), Micros(0)).is_none());
}

#[test]
fn made_up_addresses_fill_no_memory() {
    let limiter = limiter(1, 60);
    let of = |n: usize| Caller::address(Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(n).expect("small")))));
    for n in 0..MOST_CALLERS {
        limiter.count(Class::Ingest, of(n), Micros(0));
    }
    let first = limiter.count(Class::Ingest, of(MOST_CALLERS), Micros(1)).expect("a limit");
    let second = limiter.count(Class::Ingest, of(MOST_CALLERS + 1), Micros(1)).expect("a limit");
    assert!(!first.is_over && second.is_over, "those beyond share one quota");
    assert_eq!(limiter.full_at.lock().expect("no panic").len(), MOST_CALLERS + 1);
    assert!(!limiter.count(Class::Ingest, of(MOST_CALLERS + 2), Micros(61 * SECOND)).expect("a limit").is_over);
    assert_eq!(limiter.full_at.lock().expect("no panic").len(), 1, "who has rested is forgotten");
}

#[test]
fn headers_follow_the_draft() {
    let limiter = limiter(10, 5);
    let mut headers = HeaderMap::new();
    ask(&limiter, 1, 0).tell(&mut headers);
    assert_eq!(headers["ratelimit-policy"], "\"ingest\";q=10;w=5");
    assert_eq!(headers["ratelimit"], "\"ingest\";r=9;t=1");
}
