//! The past of repositories as jobs of the server: asked page by page, appended to the history topic.
//!
//! What was reached lies in a file beside the job, written after what it tells is in the log: killed at any moment, a job goes on
//! from there, and what it repeats counts nothing twice, since the ids of events follow from their content. The token is read from
//! its file when a job begins and is kept nowhere.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use kiro_ingest::engine::EngineHandle;
use kiro_integrations::backfill::{Api, Course, Turn, Turns, Walk, is_beside};
use kiro_integrations::outbound::Client;
use kiro_integrations::{Platform, platform};
use kiro_ports::{BackfillStatus, Backfills, NewBackfill, NewRecord, PortError, Principal, SqlEngine};
use kiro_schemas::{Event, FaultKind, Tenant};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
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
/// After an append that failed since the log is away, doubled each time; longer than this it is not waited for.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// After an append it rests as long as that took, and no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// How often it is looked whether a repository is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Walks of a platform at a time: platforms limit requests that come at once, too.
const MOST_WALKS: usize = 4;
/// The version of the files of jobs.
pub(crate) const FORMAT: u32 = 1;
/// One that failed is looked after again so soon, if it ever came to its end.
const AGAIN_MINUTES: u32 = 5;

/// A job as its file has it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// See [`FORMAT`]; the first where it is not told.
    #[serde(default = "first")]
    format: u32,
    tenant: String,
    status: BackfillStatus,
    /// Whether it looks for what webhooks missed.
    is_reconciling: bool,
    course: Course,
}

const fn first() -> u32 {
    1
}

/// A job as this process has it.
#[derive(Debug)]
struct Job {
    tenant: Tenant,
    status: BackfillStatus,
    /// How many seconds back it looks.
    age: i64,
    /// While it runs.
    api: Option<Api>,
    /// When it ended in this process.
    ended: Option<Instant>,
}

impl Job {
    /// What somebody is told who asks for so many seconds while it runs.
    fn answer(&self, age: i64) -> Result<BackfillStatus, PortError> {
        if age <= self.age {
            return Ok(self.status.clone());
        }
        let what = "it is being read from less far back; ask again when that has ended (kirolinter import without --since waits for it)";
        Err(refused(FaultKind::Conflict, what))
    }
}

/// What one walk is about.
struct Errand {
    platform: &'static Platform,
    tenant: Tenant,
    /// Whether it looks for what webhooks missed.
    is_reconciling: bool,
    turn: Turn,
}

/// Reads the past of repositories.
#[derive(Debug, Clone)]
pub(crate) struct Backfiller {
    dir: PathBuf,
    base: Base,
    journal: Journal,
    client: Client,
    sql: Arc<dyn SqlEngine>,
    engine: EngineHandle,
    telemetry: Telemetry,
    /// By platform: one that is away holds up no other.
    turns: Arc<BTreeMap<&'static str, Turns>>,
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
    pub(crate) fn new(base: &Base, sql: Arc<dyn SqlEngine>, engine: EngineHandle) -> anyhow::Result<Self> {
        let dir = base.config.data_dir.join("backfills");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut jobs = HashMap::new();
        for entry in std::fs::read_dir(&dir)?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")) {
            // One that cannot be read keeps nobody from starting; asked for again, it says so.
            let kept = match serde_json::from_slice::<Kept>(&std::fs::read(entry.path())?) {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::error!(%error, file = %entry.path().display(), "an import's file is damaged");
                    continue;
                }
            };
            let age = kept.course.age_seconds();
            let job = Job { tenant: Tenant::new(kept.tenant.as_str()), status: kept.status, age, api: None, ended: None };
            jobs.insert(job.status.id.clone(), job);
        }
        let (journal, telemetry) = (base.history(), base.telemetry.clone());
        let client = outbound::client(&base.config, CALL)?;
        let turns = kiro_integrations::platforms().iter().map(|platform| (platform.name, Turns::new(MOST_WALKS))).collect();
        let (turns, jobs) = (Arc::new(turns), Arc::new(Mutex::new(jobs)));
        Ok(Self { dir, base: base.clone(), journal, client, sql, engine, telemetry, turns, jobs })
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

    fn turn(&self, platform: &Platform) -> Turn {
        self.turns.get(platform.name).map_or_else(|| Turns::new(MOST_WALKS).one(), Turns::one)
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
        let kept: Kept = serde_json::from_slice(&bytes)
            .map_err(|error| refused(FaultKind::Internal, format!("{} is damaged: {error}", self.file(id).display())))?;
        // As this program writes it.
        Ok(Kept { format: FORMAT, ..kept })
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
        let before = {
            let mut jobs = self.lock();
            if let Some(running) = jobs.get(&id).filter(|job| job.api.is_some()) {
                return running.answer(kept.course.age_seconds());
            }
            let (tenant, age) = (Tenant::new(kept.tenant.as_str()), kept.course.age_seconds());
            jobs.insert(id.clone(), Job { tenant, status: status.clone(), age, api: Some(api.clone()), ended: None })
        };
        if let Err(error) = self.keep(&kept) {
            let mut jobs = self.lock();
            match before {
                Some(before) => drop(jobs.insert(id, before)),
                None => drop(jobs.remove(&id)),
            }
            return Err(error);
        }
        let backfiller = self.clone();
        tokio::spawn(async move {
            let (tenant, turn) = (Tenant::new(kept.tenant.as_str()), backfiller.turn(platform));
            let errand = Errand { platform, tenant, is_reconciling: kept.is_reconciling, turn };
            let result = backfiller.run(&errand, api.in_turn(errand.turn.clone()), kept).await;
            if let Err(error) = &result {
                tracing::warn!(%error, id, "a platform's past cannot be read to its end; the next try goes on from here");
            }
            errand.turn.give();
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
            Ok(kept.status)
        });
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(id) else { return };
        // Whatever became of the file, it runs no more.
        (job.api, job.ended) = (None, Some(Instant::now()));
        match told {
            Ok(status) => job.status = status,
            Err(error) => {
                tracing::error!(%error, id, "cannot keep how a job ended");
                "failed".clone_into(&mut job.status.state);
                job.status.error = Some(error.to_string());
            }
        }
    }

    async fn run(&self, errand: &Errand, api: Api, mut kept: Kept) -> Result<(), PortError> {
        let walk = Walk::new(errand.platform, api, kept.course).map_err(PortError::of)?;
        let mut walk = walk.with_rules(self.base.config.delivery.clone());
        let mut last = Instant::now();
        // What the tables lack is told when they have been read as far as they go.
        while !self.engine.status().is_ready {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        errand.turn.take().await;
        loop {
            let told = walk.step().await;
            let is_over = !matches!(&told, Ok(Some(_)));
            if let Ok(Some(events)) = &told {
                kept.status.missed += self.append(errand, events).await? as u64;
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

    /// Appends the events that the tables lack; when it looks for what webhooks missed, how many those are.
    async fn append(&self, errand: &Errand, events: &[Event<'_>]) -> Result<usize, PortError> {
        let Errand { platform, tenant, is_reconciling, turn } = errand;
        let known = rows::known(&self.sql, tenant, events).await?;
        let missed: Vec<&Event<'_>> = events.iter().filter(|event| !known.has(event)).collect();
        let count = if *is_reconciling { missed.iter().filter(|event| !is_beside(event)).count() } else { 0 };
        self.telemetry.backfilled(platform.name, Found::Known, events.len() - missed.len());
        self.telemetry.backfilled(platform.name, Found::Missed, count);
        self.telemetry.backfilled(platform.name, Found::Imported, missed.len() - count);
        if !missed.is_empty() {
            let began = Instant::now();
            let records: Vec<NewRecord> = missed.iter().map(|event| self.journal.record(tenant, event)).collect();
            let mut pause = FIRST_PAUSE;
            // A log that is away for a while does not end a walk of hours.
            while let Err(error) = self.journal.log.append(records.clone()).await {
                if error.kind != FaultKind::Unavailable || pause > LONGEST_PAUSE {
                    return Err(error);
                }
                turn.give();
                tokio::time::sleep(pause).await;
                turn.take().await;
                pause *= 2;
            }
            // What happens now is appended by the same writer: it has the other half of the time.
            tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
        }
        Ok(count)
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
        if let Some(running) = self.lock().get(&id).filter(|job| job.status.state == "running") {
            // Who says no age takes what there is.
            return running.answer(if new.since.is_some() { age } else { 0 });
        }
        let status = BackfillStatus { id: id.clone(), platform: new.platform, repository: new.repository, ..BackfillStatus::default() };
        let is_known = self.file(&id).exists();
        let kept = if is_known {
            self.load(&id)?
        } else {
            Kept { format: FORMAT, tenant: tenant.to_string(), status, is_reconciling: false, course }
        };
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
