//! Sources that were added at run time, and what came from each source.

use async_trait::async_trait;
use kiro_ports::{PortError, SourceCounts, SourceStore, StoredSource};
use kiro_schemas::{Micros, Tenant};

use crate::store::with_pool;
use crate::{Error, Result, Store};

/// The columns of a source, in order.
type Row = (String, String, String, String, Option<String>, Option<String>, Option<String>, i64);
/// The columns of counts, in order.
type Counted = (String, i64, i64, i64, i64, i64, String, i64, String);

const ALL: &str = "SELECT name, platform, tenant, secret_file, previous_secret_file, token_file, api, added_at FROM sources ORDER BY name";
const REMOVE: &str = "DELETE FROM sources WHERE tenant = $1 AND name = $2 \
     RETURNING name, platform, tenant, secret_file, previous_secret_file, token_file, api, added_at";
/// The later moment has the word.
const COUNT: &str = "INSERT INTO source_counts (name, taken, unread, known, refused, taken_at, last_event, refused_at, last_refusal) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET \
     taken = source_counts.taken + excluded.taken, unread = source_counts.unread + excluded.unread, \
     known = source_counts.known + excluded.known, refused = source_counts.refused + excluded.refused, \
     last_event = CASE WHEN excluded.taken_at >= source_counts.taken_at THEN excluded.last_event ELSE source_counts.last_event END, \
     taken_at = CASE WHEN excluded.taken_at >= source_counts.taken_at THEN excluded.taken_at ELSE source_counts.taken_at END, \
     last_refusal = CASE WHEN excluded.refused_at >= source_counts.refused_at THEN excluded.last_refusal \
     ELSE source_counts.last_refusal END, \
     refused_at = CASE WHEN excluded.refused_at >= source_counts.refused_at THEN excluded.refused_at ELSE source_counts.refused_at END";

#[async_trait]
impl SourceStore for Store {
    async fn add(&self, source: StoredSource) -> Result<(), PortError> {
        self.add_source(source).await.map_err(PortError::of)
    }

    async fn sources(&self) -> Result<Vec<StoredSource>, PortError> {
        let rows: Vec<Row> = with_pool!(&self.pool, db => sqlx::query_as(ALL).fetch_all(db).await)
            .map_err(Error::query("list sources"))
            .map_err(PortError::of)?;
        Ok(rows.into_iter().map(source).collect())
    }

    async fn remove(&self, tenant: &Tenant, name: &str) -> Result<Option<StoredSource>, PortError> {
        self.remove_source(tenant, name).await.map_err(PortError::of)
    }

    async fn rotate(&self, before: &StoredSource, secret_file: &str) -> Result<bool, PortError> {
        let sql =
            "UPDATE sources SET previous_secret_file = secret_file, secret_file = $3 WHERE tenant = $1 AND name = $2 AND secret_file = $4";
        with_pool!(&self.pool, db => {
            let asked = sqlx::query(sql).bind(before.tenant.as_str()).bind(&before.name).bind(secret_file).bind(&before.secret_file);
            asked.execute(db).await.map(|done| done.rows_affected() > 0)
        })
        .map_err(Error::query("give a source another secret"))
        .map_err(PortError::of)
    }

    async fn count(&self, name: &str, counts: &SourceCounts) -> Result<(), PortError> {
        let [taken, unread, known, refused] =
            [counts.taken, counts.unread, counts.known, counts.refused].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        with_pool!(&self.pool, db => {
            sqlx::query(COUNT)
                .bind(name)
                .bind(taken)
                .bind(unread)
                .bind(known)
                .bind(refused)
                .bind(counts.taken_at.0)
                .bind(&counts.last_event)
                .bind(counts.refused_at.0)
                .bind(&counts.last_refusal)
                .execute(db)
                .await
                .map(|_| ())
        })
        .map_err(Error::query("count deliveries of a source"))
        .map_err(PortError::of)
    }

    async fn counts(&self) -> Result<Vec<(String, SourceCounts)>, PortError> {
        let sql =
            "SELECT name, taken, unread, known, refused, taken_at, last_event, refused_at, last_refusal FROM source_counts ORDER BY name";
        let rows: Vec<Counted> = with_pool!(&self.pool, db => sqlx::query_as(sql).fetch_all(db).await)
            .map_err(Error::query("read what came from sources"))
            .map_err(PortError::of)?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let counts = |(name, taken, unread, known, refused, taken_at, last_event, refused_at, last_refusal): Counted| {
            let counts = SourceCounts {
                taken: count(taken),
                unread: count(unread),
                known: count(known),
                refused: count(refused),
                taken_at: Micros(taken_at),
                last_event,
                refused_at: Micros(refused_at),
                last_refusal,
            };
            (name, counts)
        };
        Ok(rows.into_iter().map(counts).collect())
    }
}

impl Store {
    async fn add_source(&self, source: StoredSource) -> Result<()> {
        check_source_name(&source.name)?;
        let sql = "INSERT INTO sources (name, platform, tenant, secret_file, previous_secret_file, token_file, api, added_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING";
        let made = with_pool!(&self.pool, db => {
            sqlx::query(sql)
                .bind(&source.name)
                .bind(&source.platform)
                .bind(source.tenant.as_str())
                .bind(&source.secret_file)
                .bind(&source.previous_secret_file)
                .bind(&source.token_file)
                .bind(&source.api)
                .bind(source.added_at.0)
                .execute(db)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(Error::query("add a source"))?;
        if made == 0 { Err(Error::Taken { what: "source", name: source.name }) } else { Ok(()) }
    }

    async fn remove_source(&self, tenant: &Tenant, name: &str) -> Result<Option<StoredSource>> {
        let removed: Option<Row> =
            with_pool!(&self.pool, db => sqlx::query_as(REMOVE).bind(tenant.as_str()).bind(name).fetch_optional(db).await)
                .map_err(Error::query("remove a source"))?;
        if removed.is_some() {
            let sql = "DELETE FROM source_counts WHERE name = $1";
            with_pool!(&self.pool, db => sqlx::query(sql).bind(name).execute(db).await.map(|_| ()))
                .map_err(Error::query("forget what came from a source"))?;
        }
        Ok(removed.map(source))
    }
}

fn source((name, platform, tenant, secret_file, previous_secret_file, token_file, api, added_at): Row) -> StoredSource {
    StoredSource {
        name,
        platform,
        tenant: Tenant::new(tenant),
        secret_file,
        previous_secret_file,
        token_file,
        api,
        added_at: Micros(added_at),
    }
}

/// Checks the name of a source, which stands in addresses and in the names of files.
///
/// # Errors
/// [`Error::Invalid`] says what is allowed.
pub fn check_source_name(name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let value = name.chars().take(80).collect();
    Err(Error::Invalid { what: "the source's name", value, rule: "1 to 63 of a-z, 0-9, hyphen and underscore" })
}
