//! The object store of one process: it takes time, and the process may die before and after each put.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kiro_lake::FaultStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::crash::{CrashPoint, Life};
use super::time::sleep;

pub(super) type Faulty = FaultStore<Arc<InMemory>>;

#[derive(Debug)]
pub(super) struct CrashStore {
    inner: Arc<Faulty>,
    life: Arc<Life>,
    random: Mutex<StdRng>,
}

impl CrashStore {
    pub(super) fn new(inner: Arc<Faulty>, life: Arc<Life>, seed: u64) -> Self {
        Self { inner, life, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// Some time passes, and others go on.
    async fn travel(&self) {
        if self.life.is_dead() {
            std::future::pending::<()>().await;
        }
        let micros = self.random.lock().unwrap_or_else(PoisonError::into_inner).gen_range(1..1_500);
        sleep(Duration::from_micros(micros)).await;
    }
}

/// What a put is: the points before and after it.
fn points(location: &Path, payload: &PutPayload) -> (CrashPoint, CrashPoint) {
    let path = location.as_ref();
    let has = |text: &str| payload.iter().any(|part| part.windows(text.len()).any(|window| window == text.as_bytes()));
    if path == "lake.json" {
        (CrashPoint::Founding, CrashPoint::Founding)
    } else if path.ends_with("/00000000000000000000.json") {
        (CrashPoint::BeforeCreation, CrashPoint::AfterCreation)
    } else if path.ends_with(".parquet") {
        (CrashPoint::BeforeRows, CrashPoint::AfterRows)
    } else if !has("{\"add\"") {
        (CrashPoint::BeforeCommit, CrashPoint::AfterOffsets)
    } else if path.contains("/ingest_gaps/") {
        (CrashPoint::BeforeCommit, CrashPoint::AfterGap)
    } else {
        (CrashPoint::BeforeCommit, CrashPoint::AfterCommit)
    }
}

impl fmt::Display for CrashStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CrashStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (before, after) = points(location, &payload);
        self.travel().await;
        self.life.pass(before).await;
        let result = self.inner.put_opts(location, payload, opts).await;
        self.life.pass(after).await;
        self.travel().await;
        result
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.travel().await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.life.is_dead() { stream::pending().boxed() } else { self.inner.delete_stream(locations) }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
