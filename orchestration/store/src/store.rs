//! The store: one pool, and the settings.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiro_schemas::{Micros, Secret};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::{Error, Result, schema};

/// Where the store is.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A file that one process owns.
    Sqlite(PathBuf),
    /// A server that several processes share: `postgres://…`.
    Postgres(Secret),
}

#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Does the same with either pool; the third name says which one it is.
macro_rules! with_pool {
    ($pool:expr, $db:ident, $is_sqlite:ident => $body:expr) => {
        match $pool {
            $crate::store::Pool::Sqlite($db) => {
                let $is_sqlite = true;
                $body
            }
            $crate::store::Pool::Postgres($db) => {
                let $is_sqlite = false;
                $body
            }
        }
    };
    ($pool:expr, $db:ident => $body:expr) => {
        match $pool {
            $crate::store::Pool::Sqlite($db) => $body,
            $crate::store::Pool::Postgres($db) => $body,
        }
    };
}
pub(crate) use with_pool;

/// The control store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: Pool,
}

impl Store {
    /// Opens the store and brings its schema to the newest version; makes the file when it is not there.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::File`]; [`Error::Newer`] when a newer program has used it.
    pub async fn open(config: StoreConfig) -> Result<Self> {
        let pool = match config {
            StoreConfig::Sqlite(path) => Pool::Sqlite(open_sqlite(&path).await?),
            StoreConfig::Postgres(url) => Pool::Postgres(open_postgres(&url).await?),
        };
        schema::migrate(&pool).await?;
        Ok(Self { pool })
    }

    /// Opens the store only to look at it: its schema stays as it is. `None` when there is no file.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Newer`], and [`Error::Older`] when the next start will bring its schema up to date.
    pub async fn look(config: StoreConfig) -> Result<Option<Self>> {
        let pool = match config {
            StoreConfig::Sqlite(path) if !path.exists() => return Ok(None),
            StoreConfig::Sqlite(path) => Pool::Sqlite(look_at_sqlite(&path).await?),
            StoreConfig::Postgres(url) => Pool::Postgres(open_postgres(&url).await?),
        };
        let (found, known) = (schema::version(&pool).await?, schema::known());
        match found.cmp(&known) {
            Ordering::Less => Err(Error::Older { found, known }),
            Ordering::Equal => Ok(Some(Self { pool })),
            Ordering::Greater => Err(Error::Newer { found, known }),
        }
    }

    /// Closes it; what was answered before is on disk in any case.
    pub async fn close(&self) {
        with_pool!(&self.pool, db => db.close().await);
    }

    /// A setting.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn setting(&self, key: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM settings WHERE key = $1";
        let found: Option<(String,)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(key).fetch_optional(db).await).map_err(Error::query("read a setting"))?;
        Ok(found.map(|(value,)| value))
    }

    /// The settings whose keys begin with a text.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT key, value FROM settings WHERE substr(key, 1, length($1)) = $1 ORDER BY key";
        with_pool!(&self.pool, db => sqlx::query_as(sql).bind(prefix).fetch_all(db).await).map_err(Error::query("read settings"))
    }

    /// Sets a setting.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn set_setting(&self, key: &str, value: &str, now: Micros) -> Result<()> {
        let sql = "INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";
        with_pool!(&self.pool, db => sqlx::query(sql).bind(key).bind(value).bind(now.0).execute(db).await.map(|_| ()))
            .map_err(Error::query("write a setting"))
    }
}

/// Write-ahead log, fsync at each commit, and a single connection: there is one writer.
async fn open_sqlite(path: &Path) -> Result<SqlitePool> {
    make_file(path).await.map_err(|source| Error::File { path: path.to_owned(), source })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .foreign_keys(true)
        // What is deleted is gone: of persons, and of tokens.
        .pragma("secure_delete", "ON");
    let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(30));
    pool.connect_with(options).await.map_err(|source| Error::Open { source })
}

/// Reads beside the process that it belongs to, if that runs.
async fn look_at_sqlite(path: &Path) -> Result<SqlitePool> {
    // Where nothing waits to be taken over from the write-ahead log, not even the files beside it are made.
    let mut waiting = path.as_os_str().to_owned();
    waiting.push("-wal");
    let is_quiet = !Path::new(&waiting).exists();
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(is_quiet).busy_timeout(Duration::from_secs(10));
    SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(|source| Error::Open { source })
}

/// Only its owner may read it: it holds what verifies passwords.
async fn make_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await.map(drop)
}

async fn open_postgres(url: &Secret) -> Result<PgPool> {
    let pool = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(10));
    pool.connect(url.expose()).await.map_err(|source| Error::Open { source })
}
