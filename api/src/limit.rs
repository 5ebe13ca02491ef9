//! How often one caller may ask: a quota per class of routes, and the headers that tell what is left of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use kiro_ports::Principal;
use kiro_schemas::Micros;

/// Callers that are remembered; beyond it the others share one quota, so that addresses made up fill no memory.
const MOST_CALLERS: usize = 65_536;

/// What a route counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing: probes, which must answer always.
    Free,
    /// Events, webhooks and imports.
    Ingest,
    /// Everything that asks.
    Query,
}

impl Class {
    /// The name in headers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Ingest => "ingest",
            Self::Query => "query",
        }
    }
}

/// So many requests in so long a time, for each caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests in the window; all of them may come at once. 0 is no limit.
    pub requests: u32,
    /// The window, in whole seconds.
    pub window: Duration,
}

/// The quotas of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of [`Class::Ingest`].
    pub ingest: Quota,
    /// Of [`Class::Query`].
    pub query: Quota,
}

impl Default for Limits {
    /// 2,000 posts (of up to 10,000 events) and 1,000 questions a second, kept up for a minute.
    fn default() -> Self {
        let a_minute = |requests| Quota { requests, window: Duration::from_mins(1) };
        Self { ingest: a_minute(120_000), query: a_minute(60_000) }
    }
}

/// Who is counted: the token where there is one, else the address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    Token {
        tenant: String,
        name: String,
    },
    Address(Option<IpAddr>),
    /// All whom there is no room to remember.
    Others,
}

impl Caller {
    /// An address; of version 6 the network of 64 bits, as one machine has all of it.
    pub(crate) fn address(ip: Option<IpAddr>) -> Self {
        Self::Address(ip.map(|ip| match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 @ IpAddr::V4(_) => v4,
        }))
    }

    pub(crate) fn of(principal: Option<&Principal>, ip: Option<IpAddr>) -> Self {
        let token = |p: &Principal| Self::Token { tenant: p.tenant.as_str().to_owned(), name: p.name.clone() };
        principal.map_or_else(|| Self::address(ip), token)
    }
}

/// What is left of a quota after a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) class: Class,
    pub(crate) quota: Quota,
    /// Requests that may follow at once.
    pub(crate) remaining: u32,
    /// When the whole quota is there again; for one who is refused: when the next request is let in.
    pub(crate) reset: Duration,
    pub(crate) is_over: bool,
}

impl Standing {
    /// Whole seconds until [`Standing::reset`], never 0 for one who is refused.
    pub(crate) fn reset_seconds(&self) -> u64 {
        self.reset.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX).max(u64::from(self.is_over))
    }

    /// Tells it.
    ///
    /// # Source
    /// draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` (q, w) and `RateLimit` (r, t).
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let (name, window) = (self.class.as_str(), self.quota.window.as_secs());
        let fields = [
            ("ratelimit-policy", format!("\"{name}\";q={};w={window}", self.quota.requests)),
            ("ratelimit", format!("\"{name}\";r={};t={}", self.remaining, self.reset_seconds())),
        ];
        for (field, text) in fields {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(field, value);
            }
        }
    }
}

/// Counts requests.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    /// Of each caller and class the moment, in microseconds, when its whole quota is there again.
    full_at: Mutex<HashMap<(Class, Caller), i64>>,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, full_at: Mutex::default() }
    }

    /// Counts a request; `None` where nothing is limited. One that is refused costs nothing.
    ///
    /// # Source
    /// The generic cell rate algorithm (ITU-T I.371, annex A) as a virtual schedule: one number a caller.
    pub(crate) fn count(&self, class: Class, caller: Caller, now: Micros) -> Option<Standing> {
        let quota = match class {
            Class::Free => return None,
            Class::Ingest => self.limits.ingest,
            Class::Query => self.limits.query,
        };
        let window = i64::try_from(quota.window.as_micros()).ok()?;
        let each = window.checked_div(i64::from(quota.requests))?.max(1);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let key = room(&mut full_at, (class, caller), now);
        let stands = full_at.get(&key).copied().unwrap_or(now.0).max(now.0);
        let is_over = stands + each > now.0 + each * i64::from(quota.requests);
        let after = if is_over { stands } else { stands + each };
        full_at.insert(key, after);
        let left = now.0 + each * i64::from(quota.requests) - after;
        let wait = if is_over { each - left } else { after - now.0 };
        Some(Standing {
            class,
            quota,
            remaining: u32::try_from(left / each).unwrap_or(0),
            reset: Duration::from_micros(u64::try_from(wait).unwrap_or(0)),
            is_over,
        })
    }
}

/// The key to count under: forgets those whose quota is whole when there is no room, else `Others`.
fn room(full_at: &mut HashMap<(Class, Caller), i64>, key: (Class, Caller), now: Micros) -> (Class, Caller) {
    if full_at.len() < MOST_CALLERS || full_at.contains_key(&key) {
        return key;
    }
    full_at.retain(|_, full| *full > now.0);
    if full_at.len() < MOST_CALLERS { key } else { (key.0, Caller::Others) }
}

#[cfg(test)]
mod tests;
