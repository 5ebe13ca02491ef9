//! What the lake lies on: a directory whose writes survive a power cut, or S3.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use kiro_schemas::{Micros, Secret};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result as StoreResult, UploadPart,
};
use uuid::Uuid;

use crate::upkeep::Deleted;
use crate::{Error, Result};

const NAME: &str = "DurableLocalStore";

/// An object store over a directory: what a put has answered is on the disk, file and directory both.
#[derive(Debug, Clone)]
pub struct DurableLocalStore {
    inner: LocalFileSystem,
}

impl DurableLocalStore {
    /// Opens a directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`Error::Directory`] when it cannot be made.
    pub fn open(dir: &FsPath) -> Result<Self> {
        make_dirs(dir).map_err(|source| Error::Directory { path: dir.to_path_buf(), source })?;
        let inner = LocalFileSystem::new_with_prefix(dir)
            .map_err(|source| Error::Directory { path: dir.to_path_buf(), source: std::io::Error::other(source) })?;
        Ok(Self { inner })
    }

    async fn sync_parent(&self, location: &Path) -> StoreResult<()> {
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || sync_dir(&path).map_err(|e| failed(&path, e))).await
    }
}

/// Opens a directory as the lake's store.
///
/// # Errors
/// [`Error::Directory`] when it cannot be made.
pub fn local_store(dir: &FsPath) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(DurableLocalStore::open(dir)?))
}

/// Where a lake on S3 is.
#[derive(Debug, Clone, Default)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket; empty for the bucket itself.
    pub prefix: String,
    /// The region.
    pub region: Option<String>,
    /// An endpoint other than Amazon's.
    pub endpoint: Option<String>,
    /// The access key; without one the machine's role is used.
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// Whether the endpoint may be spoken to without TLS.
    pub allow_http: bool,
}

/// Opens a bucket as the lake's store. It must know conditional puts (`If-None-Match`).
///
/// # Errors
/// [`Error::Store`] when the configuration is not complete.
pub fn s3_store(config: &S3Config) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_allow_http(config.allow_http)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(key) = &config.access_key_id {
        builder = builder.with_access_key_id(key);
    }
    if let Some(secret) = &config.secret_access_key {
        builder = builder.with_secret_access_key(secret.expose());
    }
    let store = builder.build().map_err(|source| Error::store("open", &config.bucket, source))?;
    if config.prefix.is_empty() {
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(PrefixStore::new(store, config.prefix.as_str())))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> StoreResult<T> + Send + 'static) -> StoreResult<T> {
    tokio::task::spawn_blocking(work).await?
}

fn failed(path: &FsPath, source: std::io::Error) -> object_store::Error {
    let path = path.display().to_string();
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: source.into() },
        std::io::ErrorKind::NotFound => object_store::Error::NotFound { path, source: source.into() },
        std::io::ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: source.into() },
        _ => object_store::Error::Generic { store: NAME, source: source.into() },
    }
}

/// Makes a directory and those above it, each durable in the one above.
fn make_dirs(dir: &FsPath) -> std::io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => sync_dir(dir),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes the entry of a path durable in its directory.
fn sync_dir(path: &FsPath) -> std::io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// A name beside `path` that listings leave out: `#` and digits at the end.
fn staged_name(path: &FsPath) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}", Uuid::now_v7().as_u128()));
    PathBuf::from(name)
}

/// Deletes, below a directory, what writes left behind under such names before a time.
pub(crate) fn sweep(dir: &FsPath, before: Micros) -> std::io::Result<Deleted> {
    let mut deleted = Deleted::default();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sweep(&entry.path(), before)?,
            Ok(metadata) if is_staged(&entry.path()) && is_older(&metadata, before) => match std::fs::remove_file(entry.path()) {
                Ok(()) => Deleted { files: 1, bytes: metadata.len() },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            },
            // Others come and go meanwhile.
            Ok(_) | Err(_) => continue,
        };
        deleted = Deleted { files: deleted.files + found.files, bytes: deleted.bytes + found.bytes };
    }
    Ok(deleted)
}

fn is_staged(path: &FsPath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    name.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn is_older(metadata: &std::fs::Metadata, before: Micros) -> bool {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_micros()).ok()).is_some_and(|at| at < before.0)
}

fn write_staged(staged: &FsPath, payload: &PutPayload) -> std::io::Result<()> {
    let mut file = File::create_new(staged)?;
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn publish(staged: &FsPath, path: &FsPath, create: bool) -> std::io::Result<()> {
    if create {
        std::fs::hard_link(staged, path)?;
        std::fs::remove_file(staged)?;
    } else {
        std::fs::rename(staged, path)?;
    }
    sync_dir(path)
}

fn write_durably(path: &FsPath, payload: &PutPayload, create: bool) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        make_dirs(dir)?;
    }
    let staged = staged_name(path);
    let done = write_staged(&staged, payload).and_then(|()| publish(&staged, path, create));
    if done.is_err() {
        drop(std::fs::remove_file(&staged));
    }
    done
}

/// Readers of a Delta log take commits in the order of their names; a directory has none of its own.
fn sorted(found: BoxStream<'static, StoreResult<ObjectMeta>>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
    let all = async move {
        let mut all: Vec<ObjectMeta> = found.try_collect().await?;
        all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, object_store::Error>(stream::iter(all.into_iter().map(Ok)))
    };
    stream::once(all).try_flatten().boxed()
}

impl std::fmt::Display for DurableLocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{NAME}({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableLocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || write_durably(&path, &payload, create).map_err(|e| failed(&path, e))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _opts: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let upload = blocking(move || DurableUpload::begin(&path).map_err(|e| failed(&path, e))).await?;
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync_parent(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync_parent(to).await
    }
}

/// A file that comes in parts and appears when it is complete.
#[derive(Debug)]
struct DurableUpload {
    file: Arc<File>,
    staged: Option<PathBuf>,
    path: PathBuf,
    length: u64,
}

impl DurableUpload {
    fn begin(path: &FsPath) -> std::io::Result<Self> {
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        let staged = staged_name(path);
        let file = Arc::new(File::create_new(&staged)?);
        Ok(Self { file, staged: Some(staged), path: path.to_path_buf(), length: 0 })
    }
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, path, mut at) = (Arc::clone(&self.file), self.path.clone(), self.length);
        self.length += data.content_length() as u64;
        Box::pin(blocking(move || {
            for part in &data {
                file.write_all_at(part, at).map_err(|e| failed(&path, e))?;
                at += part.len() as u64;
            }
            Ok(())
        }))
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let Some(staged) = self.staged.clone() else {
            return Err(failed(&path, std::io::Error::other("the upload has ended")));
        };
        blocking(move || file.sync_all().and_then(|()| publish(&staged, &path, false)).map_err(|e| failed(&path, e))).await?;
        self.staged = None;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> StoreResult<()> {
        match self.staged.take() {
            Some(staged) => blocking(move || std::fs::remove_file(&staged).map_err(|e| failed(&staged, e))).await,
            None => Ok(()),
        }
    }
}

impl Drop for DurableUpload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            drop(std::fs::remove_file(staged));
        }
    }
}
