//! Posts at a steady rate, whatever becomes of them, and keeps the account.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::http::{self, Reply};
use crate::server::{Answer, Server, wait_for};

pub(super) const SECRET: &str = "a secret of the webhook";
/// So many posts wait for their answers at the same time.
const SENDERS: usize = 48;
/// Bytes that are no event, posted again and again: each post is a dead letter of its own.
const SAME_POISON: &str = "no JSON, and always the same";

/// A run as a native event.
pub(super) fn run(id: &str) -> String {
    json!({
        "subject": "pipeline_run", "transition": "finished", "source": "https://ci.example/outage", "subject_id": id,
        "time": "2026-03-01T00:00:00Z", "fields": {"pipeline": "ci", "outcome": "success"},
    })
    .to_string()
}

/// A run as GitHub tells it.
fn webhook(number: usize) -> String {
    json!({
        "action": "completed", "repository": {"html_url": "https://github.example/outage", "name": "outage"},
        "workflow": {"name": "ci"},
        "workflow_run": {
            "id": number, "name": "ci", "run_attempt": 1, "status": "completed", "conclusion": "success", "event": "push",
            "html_url": "https://github.example/outage/1", "path": ".github/workflows/ci.yml", "pull_requests": [],
            "created_at": "2026-03-01T00:00:00Z", "run_started_at": "2026-03-01T00:00:00Z", "updated_at": "2026-03-01T00:01:00Z",
        },
    })
    .to_string()
}

/// What a post is, by its number: most are events, some are webhooks, a few of those cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Event,
    Webhook,
    Poison,
    SamePoison,
}

impl Kind {
    const fn of(number: usize) -> Self {
        match number % 40 {
            3 => Self::Poison,
            7 => Self::SamePoison,
            n if n % 8 == 1 => Self::Webhook,
            _ => Self::Event,
        }
    }
}

/// A post and its answer: the number, when it was to be sent and how long it took from then, the status if one came.
#[derive(Debug)]
struct Posted {
    number: usize,
    took: Duration,
    status: Option<u16>,
}

/// Posts numbered events and webhooks.
#[derive(Debug)]
pub(super) struct Poster {
    port: u16,
    /// Posts a second.
    rate: u32,
    only_events: bool,
    next: AtomicUsize,
    ended: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    posted: Mutex<Vec<Posted>>,
    /// What should not have been answered.
    wrong: Mutex<Option<String>>,
}

impl Poster {
    pub(super) fn new(port: u16, rate: u32) -> Self {
        Self {
            port,
            rate,
            only_events: false,
            next: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            posted: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Posts no webhooks.
    pub(super) fn events(port: u16, rate: u32) -> Self {
        Self { only_events: true, ..Self::new(port, rate) }
    }

    /// Posts while something happens.
    #[expect(clippy::disallowed_methods, reason = "a steady rate is kept by the clock")]
    pub(super) fn during(&self, happens: impl FnOnce() -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| self.send(begin));
            }
            let outcome = happens();
            self.ended.store(true, Ordering::Relaxed);
            outcome
        })?;
        match self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(wrong) => bail!(wrong),
            None => Ok(()),
        }
    }

    fn send(&self, begin: Instant) {
        while !self.ended.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // The rate does not wait for answers: a post that is late counts from when it was to be sent.
            let due = begin + Duration::from_secs(1) / self.rate * u32::try_from(number).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(now()));
            let reply = self.post(number);
            let posted = Posted { number, took: now() - due, status: reply.as_ref().map(|reply| reply.status) };
            match &reply {
                Some(reply) if reply.status == 202 => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
                Some(reply) if reply.status == 503 && reply.header("retry-after").is_some() => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Some(reply) => *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{reply:?}")),
                // The server is not there.
                None => {}
            }
            self.posted.lock().unwrap_or_else(PoisonError::into_inner).push(posted);
        }
    }

    fn kind(&self, number: usize) -> Kind {
        if self.only_events { Kind::Event } else { Kind::of(number) }
    }

    fn post(&self, number: usize) -> Option<Reply> {
        let body = match self.kind(number) {
            Kind::Event => {
                let headers = [("content-type", "application/x-ndjson")];
                return http::ask(self.port, "POST /api/v1/events", &headers, run(&format!("event-{number}")).as_bytes());
            }
            Kind::Webhook => webhook(number),
            Kind::Poison => format!("no JSON {number}"),
            Kind::SamePoison => SAME_POISON.to_owned(),
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).ok()?;
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let delivery = format!("delivery-{number}");
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", "workflow_run"),
            ("x-github-delivery", delivery.as_str()),
            ("x-hub-signature-256", signature.as_str()),
        ];
        http::ask(self.port, "POST /webhooks/github", &headers, body.as_bytes())
    }

    /// Waits until so many more were acknowledged.
    pub(super) fn wait_more(&self, more: usize) -> Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("posts to be acknowledged", 180, || Ok((self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())))
    }

    /// Waits until so many more were refused with 503 and `Retry-After`.
    pub(super) fn wait_refused(&self, more: usize) -> Result<()> {
        let goal = self.refused.load(Ordering::Relaxed) + more;
        wait_for("posts to be refused", 180, || Ok((self.refused.load(Ordering::Relaxed) >= goal).then_some(())))
    }

    /// Prints what the answers took, from when a post was to be sent; none may have taken longer than `longest`.
    pub(super) fn report(&self, what: &str, longest: Duration) -> Result<()> {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<Duration> = posted.iter().filter(|p| p.status.is_some()).map(|p| p.took).collect();
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default();
        eprintln!(
            "{what}: {} posts, {} acknowledged, {} refused; answers: median {:?}, p99 {:?}, longest {:?}",
            posted.len(),
            self.acknowledged.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
            at(50),
            at(99),
            at(100)
        );
        ensure!(at(100) <= longest, "an answer took {:?}", at(100));
        Ok(())
    }

    /// Numbers of a kind: those that were acknowledged, and those that may be there or not.
    fn numbers(&self, kind: Kind) -> (Vec<usize>, Vec<usize>) {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut acknowledged, mut unsure) = (Vec::new(), Vec::new());
        for posted in posted.iter().filter(|posted| self.kind(posted.number) == kind) {
            if posted.status == Some(202) { acknowledged.push(posted.number) } else { unsure.push(posted.number) }
        }
        (acknowledged, unsure)
    }

    /// What was acknowledged is there once; the rest at most once.
    pub(super) fn check(&self, server: &Server) -> Result<()> {
        server.send("nothing.ndjson", "application/x-ndjson", "")?;
        let name = |kind, number: usize| match kind {
            Kind::Event => format!("event-{number}"),
            Kind::Webhook => number.to_string(),
            Kind::Poison => hex::encode(Sha256::digest(format!("no JSON {number}"))),
            Kind::SamePoison => hex::encode(Sha256::digest(SAME_POISON)),
        };
        for table in ["pipeline_runs_events", "pipeline_runs"] {
            // In parts: after a long run there are more than one answer may hold.
            let part = |digit: u32| {
                count(server, &format!("SELECT run_id AS id, count(*) AS n FROM {table} WHERE run_id LIKE '%{digit}' GROUP BY 1"))
            };
            let mut found = BTreeMap::new();
            (0..10).try_for_each(|digit| part(digit).map(|rows| found.extend(rows)))?;
            let mut known = 0;
            for kind in [Kind::Event, Kind::Webhook] {
                let (acknowledged, unsure) = self.numbers(kind);
                let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(&name(kind, **number))).collect();
                ensure!(lost.is_empty(), "{table}: {} of {} {kind:?} are lost, such as {:?}", lost.len(), acknowledged.len(), lost[0]);
                known += acknowledged.len() + unsure.iter().filter(|number| found.contains_key(&name(kind, **number))).count();
            }
            let twice: Vec<_> = found.iter().filter(|(_, n)| **n != 1).collect();
            ensure!(twice.is_empty(), "{table}: {} stand more than once, such as {:?}", twice.len(), twice[0]);
            ensure!(known == found.len(), "{table}: {} rows of {known} posts", found.len());
        }
        let letters = count(server, "SELECT sha256 AS id, count(*) AS n FROM dead_letters GROUP BY 1")?;
        let (acknowledged, unsure) = self.numbers(Kind::Poison);
        for number in &acknowledged {
            ensure!(letters.get(&name(Kind::Poison, *number)) == Some(&1), "dead letter {number}: {letters:?}");
        }
        ensure!(unsure.iter().all(|number| letters.get(&name(Kind::Poison, *number)).is_none_or(|n| *n == 1)), "{letters:?}");
        let (same, perhaps) = self.numbers(Kind::SamePoison);
        let found = usize::try_from(letters.get(&name(Kind::SamePoison, 0)).copied().unwrap_or(0))?;
        ensure!(
            (same.len()..=same.len() + perhaps.len()).contains(&found),
            "{found} dead letters of the same bytes, {} acknowledged",
            same.len()
        );
        eprintln!("{} dead letters, {} repeats were dropped", acknowledged.len() + found, server.must(&["status"])?["repeats"]);
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "how long an answer takes is what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn count(server: &Server, sql: &str) -> Result<BTreeMap<String, u64>> {
    Ok(server.rows(sql)?.iter().filter_map(|row| Some((row["id"].as_str()?.to_owned(), row["n"].as_u64()?))).collect())
}

/// Counts again without the product's code. A repeat leaves its place in the log empty: the places are not dense.
pub(super) fn recount(server: &Server) -> Result<()> {
    let scripts = kiro_tests::root().join("scripts");
    let python = Answer::of(Command::new(scripts.join("python.sh")).output()?)?;
    ensure!(python.code == Some(0), "{python:?}");
    let lake = server.data().join("lake");
    let answer = Answer::of(Command::new(python.out.trim()).arg(scripts.join("check_lake.py")).arg(lake).output().context("python")?)?;
    ensure!(answer.code == Some(0), "{}\n{}", answer.out, answer.err);
    Ok(())
}
