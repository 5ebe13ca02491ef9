//! Persons: a pseudonym for each name. A name itself is not kept, only its digest: whoever has the name finds the row, however long
//! it is and whatever is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use async_trait::async_trait;
use kiro_ports::{Persons, PortError};
use kiro_schemas::{Micros, Tenant, person};
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;

use crate::store::with_pool;
use crate::{Error, Result, Store};

/// Names of one statement.
const MOST_NAMES: usize = 500;
/// Rounds in which all names of a statement have a pseudonym: one, unless they are forgotten meanwhile.
const MOST_ROUNDS: u32 = 10;
/// Where it is counted how often somebody was forgotten.
const FORGOTTEN: &str = "persons/forgotten";

type NameDigest = [u8; 32];

#[async_trait]
impl Persons for Store {
    async fn pseudonyms(&self, tenant: &Tenant, names: &[String], now: Micros) -> Result<Vec<String>, PortError> {
        let mut all = Vec::with_capacity(names.len());
        for names in names.chunks(MOST_NAMES) {
            all.extend(self.name_persons(tenant, names, now).await.map_err(PortError::of)?);
        }
        Ok(all)
    }

    async fn pseudonym(&self, tenant: &Tenant, name: &str) -> Result<Option<String>, PortError> {
        let wanted = BTreeSet::from([digest(name)]);
        let known = self.known_persons(tenant, &wanted).await.map_err(PortError::of)?;
        Ok(known.into_values().next())
    }

    async fn forget(&self, tenant: &Tenant, name: &str, now: Micros) -> Result<Option<String>, PortError> {
        self.forget_person(tenant, name, now).await.map_err(PortError::of)
    }

    async fn forgotten(&self) -> Result<i64, PortError> {
        let count = self.setting(FORGOTTEN).await.map_err(PortError::of)?;
        let Some(text) = count else { return Ok(0) };
        text.parse().map_err(|_source| PortError::of(Error::Corrupt { column: "settings.value", value: text }))
    }
}

impl Store {
    async fn name_persons(&self, tenant: &Tenant, names: &[String], now: Micros) -> Result<Vec<String>> {
        let digests: Vec<NameDigest> = names.iter().map(|name| digest(name)).collect();
        // In order: two that come with the same names do not wait for each other crosswise.
        let mut wanted: BTreeSet<NameDigest> = digests.iter().copied().collect();
        let mut known = BTreeMap::new();
        for _ in 0..MOST_ROUNDS {
            let found = self.known_persons(tenant, &wanted).await?;
            wanted.retain(|name| !found.contains_key(name));
            known.extend(found);
            if wanted.is_empty() {
                return Ok(digests.iter().filter_map(|name| known.get(name).cloned()).collect());
            }
            self.add_persons(tenant, &wanted, now).await?;
        }
        Err(Error::Missing { what: "pseudonyms", key: format!("{} of {tenant}", wanted.len()) })
    }

    async fn known_persons(&self, tenant: &Tenant, names: &BTreeSet<NameDigest>) -> Result<BTreeMap<NameDigest, String>> {
        let mut sql = "SELECT name_sha256, pseudonym FROM persons WHERE tenant = $1 AND name_sha256 IN (".to_owned();
        for at in 0..names.len() {
            let comma = if at == 0 { "" } else { ", " };
            write!(sql, "{comma}${}", at + 2).unwrap_or_default();
        }
        sql.push(')');
        let rows: Vec<(Vec<u8>, String)> = with_pool!(&self.pool, db => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(tenant.as_str());
            for name in names {
                query = query.bind(name.as_slice());
            }
            query.fetch_all(db).await
        })
        .map_err(Error::query("read the pseudonyms of persons"))?;
        let row = |(name, pseudonym): (Vec<u8>, String)| {
            let name =
                NameDigest::try_from(name).map_err(|name| Error::Corrupt { column: "persons.name_sha256", value: hex::encode(name) })?;
            Ok((name, pseudonym))
        };
        rows.into_iter().map(row).collect()
    }

    /// Gives pseudonyms to names; who has one keeps it.
    async fn add_persons(&self, tenant: &Tenant, names: &BTreeSet<NameDigest>, now: Micros) -> Result<()> {
        let mut sql = "INSERT INTO persons (tenant, named_at, name_sha256, pseudonym) VALUES ".to_owned();
        let mut pseudonyms = Vec::with_capacity(names.len());
        for at in 0..names.len() {
            let (comma, place) = (if at == 0 { "" } else { ", " }, 2 * at + 3);
            write!(sql, "{comma}($1, $2, ${place}, ${})", place + 1).unwrap_or_default();
            let mut random = [0_u8; 20];
            OsRng.try_fill_bytes(&mut random).map_err(|source| Error::Random { source })?;
            pseudonyms.push(person::pseudonym(random));
        }
        sql.push_str(" ON CONFLICT (tenant, name_sha256) DO NOTHING");
        with_pool!(&self.pool, db => {
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind(tenant.as_str()).bind(now.0);
            for (name, pseudonym) in names.iter().zip(&pseudonyms) {
                query = query.bind(name.as_slice()).bind(pseudonym.as_str());
            }
            query.execute(db).await.map(|_| ())
        })
        .map_err(Error::query("give persons their pseudonyms"))
    }

    /// The row and the count in one transaction: who sees that somebody was forgotten does not find them any more.
    async fn forget_person(&self, tenant: &Tenant, name: &str, now: Micros) -> Result<Option<String>> {
        const DROP: &str = "DELETE FROM persons WHERE tenant = $1 AND name_sha256 = $2 RETURNING pseudonym";
        const COUNT: &str = "INSERT INTO settings (key, value, updated_at) VALUES ($1, '1', $2) ON CONFLICT (key) DO UPDATE SET \
             value = CAST(CAST(settings.value AS BIGINT) + 1 AS TEXT), updated_at = excluded.updated_at";
        let (failed, name) = (Error::query("forget a person"), digest(name));
        with_pool!(&self.pool, db, is_sqlite => {
            let mut at = db.begin().await.map_err(&failed)?;
            let dropped: Option<(String,)> =
                sqlx::query_as(DROP).bind(tenant.as_str()).bind(name.as_slice()).fetch_optional(&mut *at).await.map_err(&failed)?;
            let Some((pseudonym,)) = dropped else { return Ok(None) };
            sqlx::query(COUNT).bind(FORGOTTEN).bind(now.0).execute(&mut *at).await.map_err(&failed)?;
            at.commit().await.map_err(&failed)?;
            if is_sqlite {
                // The write-ahead log still has the row.
                sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(db).await.map_err(&failed)?;
            }
            Ok(Some(pseudonym))
        })
    }
}

fn digest(name: &str) -> NameDigest {
    Sha256::digest(name.as_bytes()).into()
}
