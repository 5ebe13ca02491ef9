//! The past of repositories as jobs of the server: asked page by page, appended to the history topic.
//!
//! What was reached lies in a file beside the job, written after what it tells is in the log: killed at any moment, a job goes on
//! from there, and what it repeats counts nothing twice, since the ids of events follow from their content. The token is read from
//! its file when a job begins and is kept nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use kiro_integrations::backfill::{Api, Course, Walk};
use kiro_integrations::outbound::Client;
use kiro_integrations::{Platform, platform};
use kiro_ports::{BackfillStatus, Backfills, NewBackfill, PortError, Principal, SqlEngine, SqlRequest};
use kiro_schemas::{Event, FaultKind, Tenant};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, secret};
use crate::config::Source;
use crate::error::Error;
use crate::journal::Journal;
use crate::telemetry::{Found, Telemetry};
use crate::{outbound, rows};

/// Time for one answer of a platform.
const CALL: Duration = Duration::from_mins(1);
/// What was reached is kept this often, and at the end.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// After an append it rests as long as that took, and no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// How often it is looked whether a repository is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Walks at a time: platforms limit requests that come at once, too.
const MOST_WALKS: usize = 4;
/// One that failed is looked after again so soon, if it ever came to its end.
const AGAIN_MINUTES: u32 = 5;
/// Ids of one question whether they are known.
const MOST_IDS: usize = 200;

/// A job as its file has it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    tenant: String,
    status: BackfillStatus,
    /// Whether it looks for what webhooks missed.
    is_reconciling: bool,
    course: Course,
}

/// A job as this process has it.
#[derive(Debug)]
struct Job {
    tenant: Tenant,
    status: BackfillStatus,
    /// While it runs.
    api: Option<Api>,
    /// When it ended in this process.
    ended: Option<Instant>,
}

/// Reads the past of repositories.
#[derive(Debug, Clone)]
pub(crate) struct Backfiller {
    dir: PathBuf,
    base: Base,
    journal: Journal,
    client: Client,
    sql: Arc<dyn SqlEngine>,
    telemetry: Telemetry,
    walks: Arc<Semaphore>,
    jobs: Arc<Mutex<HashMap<String, Job>>>,
}

fn refused(kind: FaultKind, what: impl Into<String>) -> PortError {
    Error::Import { kind, what: what.into() }.into()
}

fn io(error: std::io::Error) -> PortError {
    Error::ImportBytes(error).into()
}

/// `365d`, `52w`, `12h` in seconds.
fn age(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let number: i64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(unit).filter(|seconds| (1..=50 * 366 * 86_400).contains(seconds))
}

impl Backfiller {
    /// Opens the folder of jobs.
    pub(crate) fn new(base: &Base, sql: Arc<dyn SqlEngine>) -> anyhow::Result<Self> {
        let dir = base.config.data_dir.join("backfills");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut jobs = HashMap::new();
        for entry in std::fs::read_dir(&dir)?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")) {
            let damaged = || format!("{} is damaged", entry.path().display());
            let kept: Kept = serde_json::from_slice(&std::fs::read(entry.path())?).with_context(damaged)?;
            let job = Job { tenant: Tenant::new(kept.tenant.as_str()), status: kept.status, api: None, ended: None };
            jobs.insert(job.status.id.clone(), job);
        }
        let (journal, telemetry) = (base.history(), base.telemetry.clone());
        let client = outbound::client(&base.config, CALL)?;
        let (walks, jobs) = (Arc::new(Semaphore::new(MOST_WALKS)), Arc::new(Mutex::new(jobs)));
        Ok(Self { dir, base: base.clone(), journal, client, sql, telemetry, walks, jobs })
    }

    /// Goes on with the jobs that ran when the process ended.
    pub(crate) fn resume(&self) {
        let running: Vec<String> = self.lock().values().filter(|j| j.status.state == "running").map(|j| j.status.id.clone()).collect();
        for id in running {
            let going = self.load(&id).and_then(|kept| self.spawn(kept));
            if let Err(error) = going {
                self.end(&id, Some(error.to_string()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self, name: &str) -> Result<(&'static Platform, &Source), PortError> {
        let known = platform(name).ok_or_else(|| refused(FaultKind::Invalid, format!("{name:?} is no platform that is known")))?;
        kiro_integrations::backfill::of(known).map_err(PortError::of)?;
        let source = self.base.config.raw.sources.get(name).filter(|source| source.token_file.is_some());
        let none = || refused(FaultKind::NotFound, format!("no token is configured for {name}: set sources.{name}.token_file"));
        Ok((known, source.ok_or_else(none)?))
    }

    fn api(&self, platform: &Platform, source: &Source) -> Result<Api, PortError> {
        let unread = |error: anyhow::Error| refused(FaultKind::Unavailable, format!("{error:#}"));
        let token = source.token_file.as_deref().context("no token_file").and_then(secret).map_err(unread)?;
        let url = source.api_url.as_deref();
        Api::new(self.client.clone(), platform, url, token, Arc::clone(&self.base.clock)).map_err(PortError::of)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn load(&self, id: &str) -> Result<Kept, PortError> {
        let bytes = std::fs::read(self.file(id)).map_err(io)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| refused(FaultKind::Internal, format!("{} is damaged: {error}", self.file(id).display())))
    }

    /// Written beside, synced, renamed.
    fn keep(&self, kept: &Kept) -> Result<(), PortError> {
        let id = &kept.status.id;
        let new = self.dir.join(format!("{id}.new"));
        let mut out = File::create(&new).map_err(io)?;
        out.write_all(&serde_json::to_vec(kept).unwrap_or_default()).and_then(|()| out.sync_all()).map_err(io)?;
        std::fs::rename(&new, self.file(id)).and_then(|()| File::open(&self.dir)?.sync_all()).map_err(io)
    }

    /// Keeps a job that is to run, and runs it.
    fn spawn(&self, mut kept: Kept) -> Result<BackfillStatus, PortError> {
        let (platform, source) = self.source(&kept.status.platform)?;
        let api = self.api(platform, source)?;
        kept.status.error = None;
        "running".clone_into(&mut kept.status.state);
        show(&mut kept.status, &kept.course);
        let (id, status) = (kept.status.id.clone(), kept.status.clone());
        {
            let mut jobs = self.lock();
            if let Some(running) = jobs.get(&id).filter(|job| job.api.is_some()) {
                return Ok(running.status.clone());
            }
            let job = Job { tenant: Tenant::new(kept.tenant.as_str()), status: status.clone(), api: Some(api.clone()), ended: None };
            jobs.insert(id.clone(), job);
        }
        if let Err(error) = self.keep(&kept) {
            self.lock().remove(&id);
            return Err(error);
        }
        let backfiller = self.clone();
        tokio::spawn(async move {
            // It is never closed.
            let turn = backfiller.walks.acquire().await;
            let result = backfiller.run(platform, api, kept).await;
            if let Err(error) = &result {
                tracing::warn!(%error, id, "a platform's past cannot be read to its end; the next try goes on from here");
            }
            drop(turn);
            backfiller.end(&id, result.err().map(|error| error.to_string()));
        });
        Ok(status)
    }

    /// Keeps how a job ended.
    fn end(&self, id: &str, error: Option<String>) {
        let told = self.load(id).and_then(|mut kept| {
            (if error.is_none() { "done" } else { "failed" }).clone_into(&mut kept.status.state);
            kept.status.error = error;
            show(&mut kept.status, &kept.course);
            self.keep(&kept)?;
            if let Some(job) = self.lock().get_mut(id) {
                (job.status, job.api, job.ended) = (kept.status, None, Some(Instant::now()));
            }
            Ok(())
        });
        if let Err(error) = told {
            tracing::error!(%error, id, "cannot keep how a job ended");
        }
    }

    async fn run(&self, platform: &'static Platform, api: Api, mut kept: Kept) -> Result<(), PortError> {
        let tenant = Tenant::new(kept.tenant.as_str());
        let mut walk = Walk::new(platform, api, kept.course).map_err(PortError::of)?;
        let mut last = Instant::now();
        loop {
            let told = walk.step().await;
            let is_over = !matches!(&told, Ok(Some(_)));
            if let Ok(Some(events)) = &told {
                kept.status.missed += self.append(platform, &tenant, events, kept.is_reconciling).await? as u64;
            }
            show(&mut kept.status, &walk.course);
            if let Some(job) = self.lock().get_mut(&kept.status.id) {
                job.status = kept.status.clone();
            }
            if is_over || last.elapsed() >= KEEP_EVERY {
                kept.course = walk.course.clone();
                tokio::task::block_in_place(|| self.keep(&kept))?;
                last = Instant::now();
            }
            if is_over {
                return told.map(drop).map_err(PortError::of);
            }
        }
    }

    /// Appends events; when it looks for what webhooks missed, only that, and how many those are.
    async fn append(&self, platform: &Platform, tenant: &Tenant, events: &[Event<'_>], is_reconciling: bool) -> Result<usize, PortError> {
        let known = if is_reconciling { self.known(tenant, events).await? } else { BTreeSet::new() };
        let missed: Vec<&Event<'_>> = events.iter().filter(|event| !known.contains(&*event.id)).collect();
        let found = if is_reconciling { Found::Missed } else { Found::Imported };
        self.telemetry.backfilled(platform.name, Found::Known, events.len() - missed.len());
        self.telemetry.backfilled(platform.name, found, missed.len());
        if !missed.is_empty() {
            let began = Instant::now();
            self.journal.log.append(missed.iter().map(|event| self.journal.record(tenant, event)).collect()).await?;
            // What happens now is appended by the same writer: it has the other half of the time.
            tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
        }
        Ok(if is_reconciling { missed.len() } else { 0 })
    }

    /// The ids among those of the events that are in the tables.
    async fn known(&self, tenant: &Tenant, events: &[Event<'_>]) -> Result<BTreeSet<String>, PortError> {
        let mut by_place: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for event in events {
            by_place.entry((event.spec().events_table, &event.source)).or_default().push(&event.id);
        }
        let mut known = BTreeSet::new();
        for ((table, source), ids) in by_place {
            for ids in ids.chunks(MOST_IDS) {
                let places: Vec<String> = (2..ids.len() + 2).map(|at| format!("${at}")).collect();
                let sql = format!("SELECT DISTINCT event_id FROM {table} WHERE source = $1 AND event_id IN ({})", places.join(", "));
                let mut question = SqlRequest::new(tenant.clone(), sql);
                question.parameters = std::iter::once(source).chain(ids.iter().copied()).map(|text| Some(text.to_owned())).collect();
                let answer = rows::ask(&self.sql, question).await?;
                known.extend(answer.rows.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)));
            }
        }
        Ok(known)
    }

    /// Looks now and then for what webhooks missed, in each repository that was imported: at the start, since webhooks come to
    /// nobody while the server is down, and then as often as is configured.
    pub(crate) async fn reconcile(self, stop: CancellationToken) {
        loop {
            for (id, minutes) in self.reconciled() {
                let due = |job: &Job| job.ended.is_none_or(|ended| ended.elapsed() >= Duration::from_mins(minutes.into()));
                let is_due = self.lock().get(&id).is_some_and(|job| job.status.state != "running" && due(job));
                if is_due && let Err(error) = self.load(&id).and_then(|kept| self.again(kept, None)) {
                    tracing::warn!(%error, id, "it cannot be looked for what webhooks missed");
                    self.end(&id, Some(error.to_string()));
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The jobs of sources that are to be looked after, and how often.
    fn reconciled(&self) -> Vec<(String, u32)> {
        let sources = &self.base.config.raw.sources;
        let minutes = |job: &Job| {
            let minutes = sources.get(&job.status.platform)?.reconcile_minutes?;
            let is_broken_off = job.status.state == "failed" && job.status.reached.is_some();
            Some(if is_broken_off { minutes.min(AGAIN_MINUTES) } else { minutes })
        };
        self.lock().iter().filter_map(|(id, job)| Some((id.clone(), minutes(job)?))).collect()
    }

    /// Begins again from what was reached; for an age when somebody asks, else to look for what was missed.
    fn again(&self, mut kept: Kept, age: Option<i64>) -> Result<BackfillStatus, PortError> {
        let (platform, _) = self.source(&kept.status.platform)?;
        kept.course.begin(platform, age.unwrap_or_else(|| kept.course.age_seconds())).map_err(PortError::of)?;
        // What an import has not come to is imported.
        kept.is_reconciling = age.is_none() && kept.course.reached().is_some();
        kept.status.missed = 0;
        self.spawn(kept)
    }
}

/// What the course says.
fn show(status: &mut BackfillStatus, course: &Course) {
    (status.at, status.progress) = (course.at().map(str::to_owned), course.done);
    (status.requests, status.unchanged, status.events) = (course.requests, course.unchanged, course.events);
    (status.waiting, status.reached) = (course.waiting() as u64, course.reached());
    status.notes.clone_from(&course.notes);
}

#[async_trait]
impl Backfills for Backfiller {
    async fn begin(&self, who: &Principal, new: NewBackfill) -> Result<BackfillStatus, PortError> {
        let (platform, source) = self.source(&new.platform)?;
        let tenant = source.tenant.as_deref().map_or_else(Tenant::default, Tenant::new);
        if tenant != who.tenant {
            return Err(refused(FaultKind::Forbidden, format!("sources.{} belongs to another tenant than the token's", platform.name)));
        }
        let since = new.since.as_deref().unwrap_or("365d");
        let wrong = || refused(FaultKind::Invalid, format!("since {since:?} is not understood; a number and h, d or w, such as 365d"));
        let age = age(since).ok_or_else(wrong)?;
        let course = Course::new(platform, &new.repository).map_err(PortError::of)?;
        let identity = [who.tenant.as_str(), platform.name, &new.repository.to_ascii_lowercase()].join("\n");
        let id = hex::encode(&Sha256::digest(identity.as_bytes())[..16]);
        let running = self.lock().get(&id).filter(|job| job.status.state == "running").map(|job| job.status.clone());
        if let Some(status) = running {
            return Ok(status);
        }
        let status = BackfillStatus { id: id.clone(), platform: new.platform, repository: new.repository, ..BackfillStatus::default() };
        let is_known = self.lock().contains_key(&id);
        let kept = if is_known { self.load(&id)? } else { Kept { tenant: tenant.to_string(), status, is_reconciling: false, course } };
        self.again(kept, Some(age))
    }

    async fn status(&self, who: &Principal, id: &str) -> Result<BackfillStatus, PortError> {
        let jobs = self.lock();
        let job = jobs.get(id).filter(|job| job.tenant == who.tenant);
        let job = job.ok_or_else(|| refused(FaultKind::NotFound, format!("no import {id:?}")))?;
        let standing = job.api.as_ref().map(Api::standing).unwrap_or_default();
        Ok(BackfillStatus {
            remaining: standing.remaining,
            waiting_until: standing.waiting_until,
            waiting_for: standing.waiting_for.map(str::to_owned),
            ..job.status.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn ages_have_a_unit() {
        assert_eq!((age("365d"), age("12h"), age("2w")), (Some(31_536_000), Some(43_200), Some(1_209_600)));
        for text in ["", "d", "365", "0d", "-1d", "1.5d", "d365", "99999999999999999999d", "9999999w", "1é"] {
            assert_eq!(age(text), None, "{text}");
        }
    }
}
