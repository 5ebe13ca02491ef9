//! What a platform is: data that says how its webhooks are proven, named, cleaned and read. The list is the only place that knows all;
//! `docs/adding-a-platform.md` tells how one is added.

use std::borrow::Cow;

use kiro_ports::{Headers, NormaliseError, Normaliser, header};
use kiro_schemas::{Event, Micros, Secret};

use crate::backfill::Backfill;
use crate::{alertmanager, devlake, gitea, github, gitlab, opsgenie, pagerduty};

mod proof;
mod redact;

pub use proof::{Proof, Refusal};

/// Reads a payload of one event type.
pub type Reader = for<'a> fn(&'a [u8]) -> serde_json::Result<Vec<Event<'a>>>;

/// One platform.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// Its name in addresses, in the configuration and in the `kiro-format` header of the log.
    pub name: &'static str,
    /// The ways in which a delivery may prove who sent it; the first that is given counts.
    pub proofs: &'static [Proof],
    /// The header that names the event type; `None` when there is one type alone.
    pub event_header: Option<&'static str>,
    /// The headers that name a delivery, the best first.
    pub delivery_headers: &'static [&'static str],
    /// Fields that may hold secrets, at any depth: their values never reach the log.
    pub secret_fields: &'static [&'static str],
    /// The event types that are read, each with its reader; one of no name when there is one type alone.
    pub events: &'static [(&'static str, Reader)],
    /// How its past is read, where its API tells it.
    pub backfill: Option<&'static Backfill>,
}

static PLATFORMS: [&Platform; 7] = [
    &github::PLATFORM,
    &gitlab::PLATFORM,
    &gitea::PLATFORM,
    &pagerduty::PLATFORM,
    &opsgenie::PLATFORM,
    &alertmanager::PLATFORM,
    &devlake::PLATFORM,
];

/// All platforms.
#[must_use]
pub fn platforms() -> &'static [&'static Platform] {
    &PLATFORMS
}

/// A platform by its name.
#[must_use]
pub fn platform(name: &str) -> Option<&'static Platform> {
    PLATFORMS.into_iter().find(|platform| platform.name == name)
}

impl Platform {
    /// Verifies the raw bytes of a body with each of the secrets that are live. Empty secrets prove nothing and are passed over.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, secrets: &[Secret], headers: &Headers, body: &[u8], now: Micros) -> Result<(), Refusal> {
        if secrets.iter().all(|secret| secret.expose().is_empty()) {
            return Err(Refusal::NoSecret);
        }
        match (self.proofs.iter().find(|proof| proof.is_given(headers)), self.proofs.last()) {
            (Some(proof), _) => proof.verify(secrets, headers, body, now),
            (None, Some(last)) => Err(Refusal::NoProof { header: last.header() }),
            (None, None) => Err(Refusal::NoSecret),
        }
    }

    /// The headers of a delivery as the platform sends it, proven in the way that comes last: it tries whether a secret is live.
    #[must_use]
    pub fn sign(&self, secret: &Secret, (event, id): (&str, &str), body: &[u8], now: Micros) -> Headers {
        let named = self.event_header.map(|name| (name, event.to_owned()));
        let delivery = self.delivery_headers.first().map(|name| (*name, id.to_owned()));
        let proof = self.proofs.last().map(|proof| proof.prove(secret, id, body, now)).unwrap_or_default();
        named.into_iter().chain(delivery).chain(proof).map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    /// The name of the event type.
    #[must_use]
    pub fn event_name<'h>(&self, headers: &'h Headers) -> Option<&'h str> {
        self.event_header.map_or(Some(""), |name| header(headers, name))
    }

    /// Whether an event type is read: another gives no events, which is no error.
    #[must_use]
    pub fn reads(&self, kind: &str) -> bool {
        self.reader(kind).is_some()
    }

    fn reader(&self, kind: &str) -> Option<Reader> {
        self.events.iter().find(|(name, _)| *name == kind).map(|(_, read)| *read)
    }

    /// What names the delivery, if the platform does.
    #[must_use]
    pub fn delivery_id<'h>(&self, headers: &'h Headers) -> Option<&'h str> {
        self.delivery_headers.iter().find_map(|name| header(headers, name)).filter(|id| !id.is_empty())
    }

    /// The headers that are needed later; no others go into the log.
    #[must_use]
    pub fn kept_headers(&self, headers: &Headers) -> Headers {
        let is_kept = |name: &str| self.event_header == Some(name) || self.delivery_headers.contains(&name);
        headers.iter().filter(|(name, _)| is_kept(name)).cloned().collect()
    }

    /// The body with `null` for the value of each field that may hold a secret; the same bytes when there is none.
    #[must_use]
    pub fn redact<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        redact::redact(body, self.secret_fields).map_or(Cow::Borrowed(body), Cow::Owned)
    }
}

impl Normaliser for Platform {
    fn headers_read(&self, headers: &Headers) -> Headers {
        self.kept_headers(headers)
    }

    fn format(&self) -> &'static str {
        self.name
    }

    fn normalise<'a>(&self, headers: &Headers, payload: &'a [u8]) -> Result<Vec<Event<'a>>, NormaliseError> {
        let Some(kind) = self.event_name(headers) else {
            return Err(NormaliseError { reason: format!("there is no {} header", self.event_header.unwrap_or_default()) });
        };
        let Some(read) = self.reader(kind) else { return Ok(Vec::new()) };
        let what = if kind.is_empty() { self.name } else { kind };
        read(payload).map_err(|error| NormaliseError { reason: format!("cannot read {what}: {error}") })
    }
}
