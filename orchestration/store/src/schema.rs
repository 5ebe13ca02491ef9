//! The migrations: each runs once, all in one transaction.

use crate::store::{Pool, with_pool};
use crate::{Error, Result};

/// SQLite's and PostgreSQL's form of each version, from 1.
const MIGRATIONS: &[(&str, &str)] = &[
    (include_str!("../migrations/sqlite/0001_begin.sql"), include_str!("../migrations/postgres/0001_begin.sql")),
    (include_str!("../migrations/sqlite/0002_leases.sql"), include_str!("../migrations/postgres/0002_leases.sql")),
    (include_str!("../migrations/sqlite/0003_audit_anchors.sql"), include_str!("../migrations/postgres/0003_audit_anchors.sql")),
    (include_str!("../migrations/sqlite/0004_sources.sql"), include_str!("../migrations/postgres/0004_sources.sql")),
    (include_str!("../migrations/sqlite/0005_persons.sql"), include_str!("../migrations/postgres/0005_persons.sql")),
];

/// The version of the schema that this program makes.
pub(crate) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version of the schema as it is.
pub(crate) async fn version(pool: &Pool) -> Result<i64> {
    let failed = Error::query("read the version of the schema");
    let found: Option<(i64,)> =
        with_pool!(pool, db => sqlx::query_as("SELECT version FROM kiro_schema").fetch_optional(db).await).map_err(failed)?;
    Ok(found.map_or(0, |(version,)| version))
}

/// Brings the schema to the newest version.
pub(crate) async fn migrate(pool: &Pool) -> Result<()> {
    let failed = Error::query("migrate");
    let known = known();
    with_pool!(pool, db, is_sqlite => {
        // The lock is taken before anything is read: two programs that start together do not both migrate.
        let begin = if is_sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let mut at = db.begin_with(begin).await.map_err(&failed)?;
        if !is_sqlite {
            sqlx::raw_sql("SELECT pg_advisory_xact_lock(7533010)").execute(&mut *at).await.map_err(&failed)?;
        }
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS kiro_schema (version BIGINT NOT NULL)").execute(&mut *at).await.map_err(&failed)?;
        let found: Option<(i64,)> =
            sqlx::query_as("SELECT version FROM kiro_schema").fetch_optional(&mut *at).await.map_err(&failed)?;
        let found = found.map_or(0, |(version,)| version);
        if found > known {
            return Err(Error::Newer { found, known });
        }
        let pending = MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0));
        for (sqlite, postgres) in pending {
            let sql: &'static str = if is_sqlite { sqlite } else { postgres };
            sqlx::raw_sql(sql).execute(&mut *at).await.map_err(&failed)?;
        }
        if found < known {
            sqlx::raw_sql("DELETE FROM kiro_schema").execute(&mut *at).await.map_err(&failed)?;
            sqlx::query("INSERT INTO kiro_schema (version) VALUES ($1)").bind(known).execute(&mut *at).await.map_err(&failed)?;
        }
        at.commit().await.map_err(&failed)
    })
}
