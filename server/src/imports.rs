//! Imports as jobs of the server: bytes are spooled, then read by the mapping and appended to the log.
//!
//! A job survives a restart: its bytes and its status lie in files. It is read from its beginning again then, and counts
//! nothing twice, since the ids of events follow from their content.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use kiro_ingest::mapping::{Mapping, Row, RowError};
use kiro_ports::{ImportStatus, Imports, NewImport, NewRecord, PortError, Principal};
use kiro_schemas::{FaultKind, Tenant};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::Error;
use crate::journal::Journal;

/// Events that are appended at a time.
const CHUNK: usize = 500;
/// Chunks that wait to be appended: enough to overlap reading and writing.
const WAITING: usize = 4;
/// After an append it rests as long as that took, and no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// JSON is read as a whole: no larger file is taken.
const MOST_JSON_BYTES: u64 = 512 << 20;

/// The version of a job's file.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    /// See [`FORMAT`]; 0 where it is not told.
    #[serde(default)]
    format: u32,
    tenant: String,
    import: NewImport,
    status: ImportStatus,
}

/// The imports of this process.
#[derive(Debug, Clone)]
pub(crate) struct Importer {
    dir: PathBuf,
    journal: Journal,
    jobs: Arc<Mutex<HashMap<String, Job>>>,
}

fn refused(kind: FaultKind, what: impl Into<String>) -> PortError {
    Error::Import { kind, what: what.into() }.into()
}

fn io(error: std::io::Error) -> PortError {
    Error::ImportBytes(error).into()
}

impl Importer {
    /// Opens the folder of imports and finds those that were interrupted.
    pub(crate) fn new(dir: PathBuf, journal: Journal) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut jobs = HashMap::new();
        for entry in std::fs::read_dir(&dir)?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")) {
            let job: Job =
                serde_json::from_slice(&std::fs::read(entry.path())?).with_context(|| format!("{} is damaged", entry.path().display()))?;
            jobs.insert(job.status.id.clone(), job);
        }
        Ok(Self { dir, journal, jobs: Arc::new(Mutex::new(jobs)) })
    }

    /// Goes on with the jobs that ran when the process ended.
    pub(crate) fn resume(&self) {
        let running: Vec<String> = self.lock().values().filter(|j| j.status.state == "running").map(|j| j.status.id.clone()).collect();
        for id in running {
            self.spawn(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.part"))
    }

    fn find(&self, who: &Principal, id: &str) -> Result<Job, PortError> {
        let job = self.lock().get(id).filter(|job| job.tenant == who.tenant.as_str()).cloned();
        job.ok_or_else(|| refused(FaultKind::NotFound, format!("no import {id:?}")))
    }

    /// Changes a job and keeps it: written beside, synced, renamed.
    fn update(&self, id: &str, change: impl FnOnce(&mut ImportStatus)) -> Result<ImportStatus, PortError> {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(id) else { return Err(refused(FaultKind::NotFound, format!("no import {id:?}"))) };
        change(&mut job.status);
        self.keep(job)?;
        Ok(job.status.clone())
    }

    fn keep(&self, job: &Job) -> Result<(), PortError> {
        let text = serde_json::to_vec(job).unwrap_or_default();
        let (new, file) = (self.dir.join(format!("{}.new", job.status.id)), self.dir.join(format!("{}.json", job.status.id)));
        let mut out = File::create(&new).map_err(io)?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(io)?;
        std::fs::rename(&new, &file).and_then(|()| File::open(&self.dir)?.sync_all()).map_err(io)
    }

    fn spawn(&self, id: String) {
        let importer = self.clone();
        tokio::spawn(async move {
            let result = importer.run(&id).await;
            let ended = importer.update(&id, |status| match &result {
                Ok(()) => "done".clone_into(&mut status.state),
                Err(error) => (status.state, status.error) = ("failed".to_owned(), Some(error.clone())),
            });
            if let Err(error) = ended {
                tracing::error!(%error, id, "cannot keep an import's status");
            }
            // The bytes are in the log, or the job is over: an orphan file would only take space.
            drop(std::fs::remove_file(importer.bytes_file(&id)));
        });
    }

    async fn run(&self, id: &str) -> Result<(), String> {
        let job = self.lock().get(id).cloned().ok_or("the import is gone")?;
        let mapping = Mapping::parse(&job.import.mapping).map_err(|_problems| "the mapping cannot be read any more")?;
        let read = Arc::new(AtomicU64::new(0));
        let (send, mut chunks) = mpsc::channel::<(u64, Vec<NewRecord>)>(WAITING);
        let reader = Reader { tenant: Tenant::new(job.tenant.as_str()), journal: self.journal.clone(), send, read: Arc::clone(&read) };
        let (file, format) = (self.bytes_file(id), job.import.format.clone());
        let reading = tokio::task::spawn_blocking(move || reader.read(&mapping, &file, &format));
        let (mut rows, mut events) = (0, 0);
        while let Some((count, records)) = chunks.recv().await {
            rows += count;
            events += records.len() as u64;
            let began = Instant::now();
            self.journal.log.append(records).await.map_err(|e| format!("cannot append: {e}"))?;
            // What happens now is appended by the same writer: it has the other half of the time.
            tokio::time::sleep(began.elapsed().min(LONGEST_REST)).await;
            let read_bytes = read.load(Ordering::Relaxed);
            if let Some(job) = self.lock().get_mut(id) {
                (job.status.rows, job.status.events, job.status.read_bytes) = (rows, events, read_bytes);
            }
        }
        reading.await.map_err(|e| format!("reading broke: {e}"))?
    }
}

/// Reads a file on a thread of its own.
struct Reader {
    tenant: Tenant,
    journal: Journal,
    send: mpsc::Sender<(u64, Vec<NewRecord>)>,
    read: Arc<AtomicU64>,
}

impl Reader {
    fn read(self, mapping: &Mapping, file: &Path, format: &str) -> Result<(), String> {
        let open = File::open(file).map_err(|e| format!("cannot read the import's bytes: {e}"))?;
        if format == "csv" {
            let counted = Counted { inner: BufReader::with_capacity(1 << 20, open), count: Arc::clone(&self.read) };
            return self.pass(mapping.csv(counted));
        }
        let bytes = std::fs::read(file).map_err(|e| format!("cannot read the import's bytes: {e}"))?;
        self.read.store(bytes.len() as u64, Ordering::Relaxed);
        match mapping.json(&bytes) {
            Ok(rows) => self.pass(rows),
            // Not one document: one object a line.
            Err(_) if bytes.contains(&b'\n') => self.pass(mapping.ndjson(&bytes)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn pass(&self, rows: impl Iterator<Item = Result<Row, RowError>>) -> Result<(), String> {
        let (mut count, mut records) = (0, Vec::new());
        for row in rows {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    self.hand_over(count, records)?;
                    return Err(error.to_string());
                }
            };
            count += 1;
            records.extend(row.events.iter().map(|event| self.journal.record(&self.tenant, event)));
            if records.len() >= CHUNK {
                self.hand_over(std::mem::take(&mut count), std::mem::take(&mut records))?;
            }
        }
        self.hand_over(count, records)
    }

    fn hand_over(&self, count: u64, records: Vec<NewRecord>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        self.send.blocking_send((count, records)).map_err(|_closed| "the import was stopped".to_owned())
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[async_trait]
impl Imports for Importer {
    async fn begin(&self, who: &Principal, import: NewImport) -> Result<ImportStatus, PortError> {
        let mapping = Mapping::parse(&import.mapping).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            refused(FaultKind::Invalid, format!("the mapping has {} problem(s): {}", lines.len(), lines.join("; ")))
        })?;
        if mapping.tenant().is_some_and(|tenant| *tenant != who.tenant) {
            return Err(refused(FaultKind::Forbidden, "the mapping names another tenant than the token's"));
        }
        if !matches!(import.format.as_str(), "csv" | "json") {
            return Err(refused(FaultKind::Invalid, format!("format {:?} is not known; csv or json", import.format)));
        }
        if import.format == "json" && import.size_bytes > MOST_JSON_BYTES {
            return Err(refused(FaultKind::TooLarge, "JSON files of more than 512 MiB are not taken; cut them by lines"));
        }
        let identity = [who.tenant.as_str(), &import.sha256, &import.format, &import.mapping].join("\n");
        let id = hex::encode(&Sha256::digest(identity.as_bytes())[..16]);
        let known = self.lock().get(&id).map(|job| job.status.clone());
        if let Some(status) = known.filter(|s| matches!(s.state.as_str(), "receiving" | "running")) {
            return Ok(status);
        }
        let status = ImportStatus {
            id: id.clone(),
            name: import.name.clone(),
            state: "receiving".to_owned(),
            received_bytes: 0,
            size_bytes: import.size_bytes,
            read_bytes: 0,
            rows: 0,
            events: 0,
            error: None,
        };
        File::create(self.bytes_file(&id)).map_err(io)?;
        let job = Job { format: FORMAT, tenant: who.tenant.to_string(), import, status: status.clone() };
        self.keep(&job)?;
        self.lock().insert(id, job);
        Ok(status)
    }

    async fn receive(&self, who: &Principal, id: &str, offset: u64, bytes: Bytes) -> Result<ImportStatus, PortError> {
        let job = self.find(who, id)?;
        if job.status.state != "receiving" || offset != job.status.received_bytes {
            // The client has missed an answer: it goes on from where this one says.
            return Ok(job.status);
        }
        let received = offset + bytes.len() as u64;
        if received > job.status.size_bytes {
            return Err(refused(FaultKind::TooLarge, format!("more bytes than the {} that were announced", job.status.size_bytes)));
        }
        let path = self.bytes_file(id);
        let mut file = File::options().write(true).open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&bytes)).and_then(|()| file.sync_data()).map_err(io)?;
        let is_whole = received == job.status.size_bytes;
        if is_whole && digest(&path).map_err(io)? != job.import.sha256 {
            let text = "the bytes are not those of the announced SHA-256; the file changed while it was sent".to_owned();
            return self.update(id, |s| (s.state, s.error) = ("failed".to_owned(), Some(text)));
        }
        let status = self.update(id, |s| {
            s.received_bytes = received;
            if is_whole {
                "running".clone_into(&mut s.state);
            }
        })?;
        if is_whole {
            self.spawn(id.to_owned());
        }
        Ok(status)
    }

    async fn status(&self, who: &Principal, id: &str) -> Result<ImportStatus, PortError> {
        Ok(self.find(who, id)?.status)
    }
}

fn digest(path: &Path) -> std::io::Result<String> {
    let (mut hasher, mut file, mut buffer) = (Sha256::new(), File::open(path)?, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}
