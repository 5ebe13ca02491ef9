//! Asks the API of a platform: within its limits, again when it fails, and no longer than is reasonable.
//!
//! # Source
//! GitHub Docs, "Rate limits for the REST API" and "Best practices": `x-ratelimit-remaining`, `x-ratelimit-reset` (seconds since
//! 1970), `retry-after`; a passed limit is 403 or 429; without a header, wait a minute and then exponentially longer; an answer
//! of 304 does not count. GitLab Docs, "Rate limits": `ratelimit-remaining`, `ratelimit-reset`, `retry-after`, 429. RFC 9110
//! §10.2.3 and §5.6.7: `Retry-After` is seconds or a date.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiro_ports::Clock;
use kiro_schemas::{Micros, Secret};
use reqwest::header::HeaderMap;

use super::{Backfill, Turn, of};
use crate::outbound::{Client, Got};
use crate::{Error, Platform, Result};

/// How long and how often it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often a request is sent that fails or breaks off.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each.
    pub pause: Duration,
    /// The wait at a limit that does not say for how long; it doubles with each.
    pub limit: Duration,
    /// How often a request waits for a limit.
    pub waits: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 6, pause: Duration::from_secs(1), limit: Duration::from_mins(1), waits: 12 }
    }
}

/// The longest wait for a limit: the windows of both platforms are an hour at most.
const LONGEST_WAIT: i64 = 2 * 3_600;

/// How things stand with the platform's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests that are left in its window.
    pub remaining: Option<u64>,
    /// Until when it is waited.
    pub waiting_until: Option<Micros>,
    /// Why it is waited.
    pub waiting_for: Option<&'static str>,
}

/// A page, or that it is as it was.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200, or 304 for a page that is as it was.
    pub status: u16,
    /// What is on it.
    pub body: Vec<u8>,
    /// The headers.
    pub headers: HeaderMap,
}

impl Reply {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The query of the page after this one. The address before it is not taken from the answer: it could lead elsewhere.
    ///
    /// # Source
    /// RFC 8288: `<https://…?page=2>; rel="next", <…>; rel="last"`.
    pub(super) fn next(&self) -> Option<&str> {
        let link = self
            .header("link")?
            .split(',')
            .find(|link| link.split(';').skip(1).any(|parameter| parameter.trim().replace('"', "").eq_ignore_ascii_case("rel=next")))?;
        let address = link.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
        address.split_once('?').map(|(_, query)| query).filter(|query| !query.is_empty())
    }

    /// The platform's clock.
    pub(super) fn date(&self) -> Option<Micros> {
        self.header("date").and_then(http_date)
    }
}

/// The API of one platform, with one token.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: String,
    host: String,
    backfill: &'static Backfill,
    token: Secret,
    clock: Arc<dyn Clock>,
    patience: Patience,
    standing: Arc<Mutex<Standing>>,
    dice: Arc<AtomicU64>,
    turn: Option<Turn>,
}

/// What is to be done about an answer.
enum Verdict {
    Take,
    Wait(Duration, &'static str),
    Again(Error),
    Fail(Error),
}

impl Api {
    /// Knows where the API is and the token for it.
    ///
    /// # Errors
    /// [`Error::NoHistory`]; [`Error::Address`] when the address is none.
    pub fn new(client: Client, platform: &Platform, url: Option<&str>, token: Secret, clock: Arc<dyn Clock>) -> Result<Self> {
        let backfill = of(platform)?;
        let base = url.unwrap_or(backfill.api).trim_end_matches('/').to_owned();
        let parsed = url::Url::parse(&base).map_err(|_source| Error::Address { reason: "the address of the API is no URL" })?;
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let dice = Arc::new(AtomicU64::new(clock.now().0.unsigned_abs()));
        Ok(Self { client, base, host, backfill, token, clock, patience: Patience::default(), standing: Arc::default(), dice, turn: None })
    }

    /// The same with another patience.
    #[must_use]
    pub fn patient(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same for a walk that takes turns with others: it gives its turn back while it waits.
    #[must_use]
    pub fn in_turn(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// How things stand with the platform's limit.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks for a page until it comes; with a tag, only if it is another than that.
    ///
    /// # Errors
    /// [`Error::Token`], [`Error::Permission`], [`Error::Absent`]: the platform's last word. [`Error::Answer`] and
    /// [`Error::Call`]: it failed as often as it is tried.
    pub async fn get(&self, path: &str, tag: Option<&str>) -> Result<Reply> {
        let (mut tries, mut waits) = (0, 0);
        loop {
            let mut headers = (self.backfill.headers)(&self.token);
            headers.extend(tag.map(|tag| ("if-none-match", tag.to_owned())));
            let fault = match self.client.get(&format!("{}{path}", self.base), headers).await {
                Err(fault @ Error::Call { .. }) => fault,
                Err(error) => return Err(error),
                Ok(got) => match self.judge(path, &got, waits) {
                    Verdict::Take => {
                        self.rest_at_zero(&got.headers).await;
                        return Ok(Reply { status: got.status, body: got.body, headers: got.headers });
                    }
                    Verdict::Fail(error) => return Err(error),
                    Verdict::Wait(..) if waits >= self.patience.waits => {
                        return Err(self.answer(path, got.status, ": its limit does not end"));
                    }
                    Verdict::Wait(wait, why) => {
                        waits += 1;
                        self.leave_alone(wait, why).await;
                        continue;
                    }
                    Verdict::Again(fault) => fault,
                },
            };
            tries += 1;
            if tries >= self.patience.tries {
                return Err(fault);
            }
            self.wait(self.jittered(doubled(self.patience.pause, tries - 1)), "the platform failed").await;
        }
    }

    fn answer(&self, path: &str, status: u16, hint: &'static str) -> Error {
        Error::Answer { host: self.host.clone(), path: path.to_owned(), status, hint }
    }

    pub(super) fn now(&self) -> Micros {
        self.clock.now()
    }

    fn judge(&self, path: &str, got: &Got, waits: u32) -> Verdict {
        let remaining = number(&got.headers, &["x-ratelimit-remaining", "ratelimit-remaining"]);
        self.stand(|standing| standing.remaining = remaining.or(standing.remaining));
        if Self::is_limit(got, remaining) {
            return self.limit(got, remaining, waits);
        }
        let (host, at) = (self.host.clone(), path.to_owned());
        match got.status {
            200 | 304 => Verdict::Take,
            301 | 302 | 307 | 308 => Verdict::Fail(self.answer(path, got.status, ": it has moved, ask by its new name and address")),
            401 => Verdict::Fail(Error::Token { host }),
            403 => Verdict::Fail(Error::Permission { host, path: at, needs: needs(&got.headers) }),
            404 | 410 => Verdict::Fail(Error::Absent { host, path: at, status: got.status }),
            408 | 425 | 500..=599 => Verdict::Again(self.answer(path, got.status, "")),
            _ => Verdict::Fail(self.answer(path, got.status, "")),
        }
    }

    fn is_limit(got: &Got, remaining: Option<u64>) -> bool {
        let begin = got.body.get(..got.body.len().min(4_096)).unwrap_or_default();
        let says_so = || String::from_utf8_lossy(begin).to_lowercase().contains("rate limit");
        got.status == 429 || (got.status == 403 && (got.headers.contains_key("retry-after") || remaining == Some(0) || says_so()))
    }

    /// What the platform says, else longer each time; never by our own clock when it tells its own.
    fn limit(&self, got: &Got, remaining: Option<u64>, waits: u32) -> Verdict {
        if let Some(wait) = header(&got.headers, "retry-after").and_then(|text| self.retry_after(text, &got.headers)) {
            return Verdict::Wait(wait, "the platform asked to wait");
        }
        if let Some(wait) = self.until_reset(&got.headers).filter(|_| remaining == Some(0)) {
            return Verdict::Wait(wait, "no requests are left in the platform's window");
        }
        Verdict::Wait(self.jittered(doubled(self.patience.limit, waits)), "the platform limits requests")
    }

    fn now_there(&self, headers: &HeaderMap) -> Micros {
        header(headers, "date").and_then(http_date).unwrap_or_else(|| self.clock.now())
    }

    fn retry_after(&self, text: &str, headers: &HeaderMap) -> Option<Duration> {
        let seconds = text.trim().parse().ok().or_else(|| Some((http_date(text)?.0 - self.now_there(headers).0) / 1_000_000))?;
        u64::try_from(i64::clamp(seconds, 0, LONGEST_WAIT)).ok().map(Duration::from_secs)
    }

    fn until_reset(&self, headers: &HeaderMap) -> Option<Duration> {
        let reset = number(headers, &["x-ratelimit-reset", "ratelimit-reset"]).and_then(|seconds| i64::try_from(seconds).ok())?;
        let seconds = reset.saturating_sub(self.now_there(headers).0.div_euclid(1_000_000)).saturating_add(1);
        u64::try_from(seconds.clamp(0, LONGEST_WAIT)).ok().map(Duration::from_secs)
    }

    /// The last request of a window was answered: the next one would be refused.
    async fn rest_at_zero(&self, headers: &HeaderMap) {
        if self.patience.waits > 0
            && number(headers, &["x-ratelimit-remaining", "ratelimit-remaining"]) == Some(0)
            && let Some(wait) = self.until_reset(headers)
        {
            self.leave_alone(wait, "no requests are left in the platform's window").await;
        }
    }

    /// Waits for the platform, and so does everybody who takes turns with this one.
    async fn leave_alone(&self, wait: Duration, why: &'static str) {
        if let Some(turn) = &self.turn {
            turn.close(wait);
        }
        self.wait(wait, why).await;
    }

    async fn wait(&self, wait: Duration, why: &'static str) {
        let until = self.clock.now().plus(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        self.stand(|standing| (standing.waiting_until, standing.waiting_for) = (Some(until), Some(why)));
        if let Some(turn) = &self.turn {
            turn.give();
        }
        tokio::time::sleep(wait).await;
        if let Some(turn) = &self.turn {
            turn.take().await;
        }
        self.stand(|standing| (standing.waiting_until, standing.waiting_for) = (None, None));
    }

    /// Three quarters to five quarters, so that those who failed together do not come again together.
    fn jittered(&self, wait: Duration) -> Duration {
        let mut z = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let parts = u32::try_from((z ^ (z >> 31)) % 513).unwrap_or(256);
        wait / 1_024 * (768 + parts)
    }

    pub(super) fn unreadable(&self, path: &str, source: serde_json::Error) -> Error {
        Error::Page { host: self.host.clone(), path: path.to_owned(), source }
    }
}

fn doubled(wait: Duration, times: u32) -> Duration {
    wait.saturating_mul(1 << times.min(6))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn number(headers: &HeaderMap, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| header(headers, name)?.trim().parse().ok())
}

/// What GitHub says that a token would need.
fn needs(headers: &HeaderMap) -> String {
    let told = ["x-accepted-oauth-scopes", "x-accepted-github-permissions"].iter().find_map(|name| header(headers, name));
    told.filter(|needed| !needed.trim().is_empty()).map_or_else(String::new, |needed| format!("; it needs: {}", needed.trim()))
}

/// `Tue, 24 Nov 2026 12:38:03 GMT`.
fn http_date(text: &str) -> Option<Micros> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.trim().split(' ').skip(1);
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Micros::parse(&format!("{year}-{month:02}-{day:0>2}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::{Reply, http_date};

    #[test]
    fn dates_of_headers() {
        assert_eq!(http_date("Tue, 24 Nov 2026 12:38:03 GMT").map(|time| time.to_string()).as_deref(), Some("2026-11-24T12:38:03Z"));
        for text in ["", "now", "Tue, 24 Nov 2026", "Tue, 24 Nix 2026 12:38:03 GMT", "Tue, 99 Nov 2026 12:38:03 GMT"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    fn next(link: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("link", HeaderValue::from_static(link));
        Reply { status: 200, body: Vec::new(), headers }.next().map(str::to_owned)
    }

    #[test]
    fn the_next_page_is_a_query_and_no_address() {
        let github =
            "<https://api.github.com/repositories/1/actions/runs?per_page=100&page=2>; rel=\"next\", <https://x/?page=9>; rel=\"last\"";
        assert_eq!(next(github).as_deref(), Some("per_page=100&page=2"));
        assert_eq!(next("<https://evil.example/?page=3>;rel=next").as_deref(), Some("page=3"));
        for none in
            ["", "<https://x/?page=1>; rel=\"prev\"", "https://x/?page=2; rel=\"next\"", "<https://x/>; rel=\"next\"", "<>; rel=next"]
        {
            assert_eq!(next(none), None, "{none}");
        }
    }
}
