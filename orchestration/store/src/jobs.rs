//! Import jobs: how far each is, so that it can go on after a restart.

use kiro_schemas::{Micros, Tenant};

use crate::store::with_pool;
use crate::{Error, Result, Store};

/// How an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportState {
    /// It takes rows.
    Running,
    /// All rows are in.
    Done,
    /// It cannot go on.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl ImportState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Failed, Self::Cancelled].into_iter().find(|state| state.as_str() == text)
    }
}

/// One import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportJob {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// What is imported, for people.
    pub name: String,
    /// How it is.
    pub state: ImportState,
    /// Rows that are in the log.
    pub rows_done: u64,
    /// Bytes that those rows took.
    pub bytes_done: u64,
    /// Bytes in all, where that is known.
    pub bytes_total: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When this was written.
    pub updated_at: Micros,
}

type Row = (String, String, String, String, i64, i64, Option<i64>, Option<String>, i64);

impl Store {
    /// Writes a job, new or changed. The id of another tenant's job is refused.
    ///
    /// # Errors
    /// [`Error::Missing`] for another tenant's id; or the store does not answer.
    pub async fn put_import(&self, job: &ImportJob) -> Result<()> {
        let sql = "INSERT INTO import_jobs (id, tenant, name, state, rows_done, bytes_done, bytes_total, error, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
                   state = excluded.state, rows_done = excluded.rows_done, bytes_done = excluded.bytes_done, \
                   bytes_total = excluded.bytes_total, error = excluded.error, updated_at = excluded.updated_at \
                   WHERE import_jobs.tenant = excluded.tenant";
        let count = |value: u64| {
            let rule = "at most 2^63 - 1";
            i64::try_from(value).map_err(|_source| Error::Invalid { what: "the count", value: value.to_string(), rule })
        };
        let (rows, bytes, total) = (count(job.rows_done)?, count(job.bytes_done)?, job.bytes_total.map(count).transpose()?);
        let written = with_pool!(&self.pool, db => {
            sqlx::query(sql)
                .bind(&job.id)
                .bind(job.tenant.as_str())
                .bind(&job.name)
                .bind(job.state.as_str())
                .bind(rows)
                .bind(bytes)
                .bind(total)
                .bind(&job.error)
                .bind(job.updated_at.0)
                .execute(db)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(Error::query("write an import job"))?;
        if written == 0 { Err(Error::Missing { what: "import job", key: job.id.clone() }) } else { Ok(()) }
    }

    /// A job.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn import(&self, tenant: &Tenant, id: &str) -> Result<Option<ImportJob>> {
        let sql = "SELECT id, tenant, name, state, rows_done, bytes_done, bytes_total, error, updated_at FROM import_jobs \
                   WHERE tenant = $1 AND id = $2";
        let row: Option<Row> = with_pool!(&self.pool, db => sqlx::query_as(sql).bind(tenant.as_str()).bind(id).fetch_optional(db).await)
            .map_err(Error::query("read an import job"))?;
        row.map(read).transpose()
    }

    /// The jobs of a tenant, newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn imports(&self, tenant: &Tenant, limit: u32) -> Result<Vec<ImportJob>> {
        let sql = "SELECT id, tenant, name, state, rows_done, bytes_done, bytes_total, error, updated_at FROM import_jobs \
                   WHERE tenant = $1 ORDER BY updated_at DESC, id LIMIT $2";
        let rows: Vec<Row> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(tenant.as_str()).bind(i64::from(limit)).fetch_all(db).await)
                .map_err(Error::query("list import jobs"))?;
        rows.into_iter().map(read).collect()
    }
}

fn read((id, tenant, name, state, rows, bytes, total, error, updated_at): Row) -> Result<ImportJob> {
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(ImportJob {
        state: ImportState::parse(&state).ok_or(Error::Corrupt { column: "import_jobs.state", value: state })?,
        id,
        tenant: Tenant::new(tenant),
        name,
        rows_done: count(rows),
        bytes_done: count(bytes),
        bytes_total: total.map(count),
        error,
        updated_at: Micros(updated_at),
    })
}
