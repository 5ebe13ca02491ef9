//! What still has to be sent.

use async_trait::async_trait;
use kiro_ports::{Delivery, NewDelivery, Outbox, PortError};
use kiro_schemas::{Micros, Tenant};

use crate::store::with_pool;
use crate::{Error, Result, Store};

/// A delivery that was tried so often is given up and kept for inspection: about a day, when waits double up to 2 hours.
pub const MAX_ATTEMPTS: u32 = 24;

/// One statement claims: whoever comes second sees the later time. What a killed process claimed comes again at that time.
const CLAIM_SQLITE: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = $2 WHERE key IN \
     (SELECT key FROM outbox WHERE state = 'waiting' AND next_at <= $1 ORDER BY created_at, key LIMIT $3) \
     RETURNING key, tenant, target, payload, attempts, created_at";
const CLAIM_POSTGRES: &str = "UPDATE outbox SET attempts = attempts + 1, next_at = $2 WHERE key IN \
     (SELECT key FROM outbox WHERE state = 'waiting' AND next_at <= $1 ORDER BY created_at, key LIMIT $3 FOR UPDATE SKIP LOCKED) \
     RETURNING key, tenant, target, payload, attempts, created_at";

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadDelivery {
    /// Its key.
    pub key: String,
    /// Its target.
    pub target: String,
    /// How often it was tried.
    pub attempts: u64,
    /// Why it was given up.
    pub reason: String,
}

/// Deliveries of one target that do not go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The target.
    pub target: String,
    /// `dead`: given up after attempts; `waiting`: due and sent by nobody; `held`: nobody has looked what became of the decision.
    pub state: String,
    /// How many.
    pub count: i64,
    /// The last reason of a failure, if there was one.
    pub reason: String,
}

#[async_trait]
impl Outbox for Store {
    async fn hold(&self, delivery: NewDelivery, now: Micros) -> Result<(), PortError> {
        // Dead without an attempt: it was dropped while it was held.
        let sql = "INSERT INTO outbox (key, tenant, target, payload, state, attempts, created_at, next_at) \
                   VALUES ($1, $2, $3, $4, 'held', 0, $5, $5) ON CONFLICT (key) DO UPDATE \
                   SET state = 'held', payload = excluded.payload, next_at = excluded.next_at, reason = NULL \
                   WHERE outbox.state = 'held' OR (outbox.state = 'dead' AND outbox.attempts = 0)";
        with_pool!(&self.pool, db => {
            sqlx::query(sql)
                .bind(&delivery.key)
                .bind(delivery.tenant.as_str())
                .bind(&delivery.target)
                .bind(&delivery.payload)
                .bind(now.0)
                .execute(db)
                .await
                .map(|_| ())
        })
        .map_err(Error::query("hold a delivery"))
        .map_err(PortError::of)
    }

    async fn release(&self, key: &str, now: Micros) -> Result<(), PortError> {
        let sql = "UPDATE outbox SET state = 'waiting', next_at = $2 WHERE key = $1 AND state = 'held'";
        with_pool!(&self.pool, db => sqlx::query(sql).bind(key).bind(now.0).execute(db).await.map(|_| ()))
            .map_err(Error::query("release a delivery"))
            .map_err(PortError::of)
    }

    async fn held(&self, before: Micros, limit: u32) -> Result<Vec<NewDelivery>, PortError> {
        let sql = "SELECT key, tenant, target, payload FROM outbox WHERE state = 'held' AND next_at < $1 ORDER BY next_at, key LIMIT $2";
        let rows: Vec<(String, String, String, String)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(before.0).bind(i64::from(limit)).fetch_all(db).await)
                .map_err(Error::query("list held deliveries"))
                .map_err(PortError::of)?;
        let delivery = |(key, tenant, target, payload): (String, String, String, String)| NewDelivery {
            key,
            tenant: Tenant::new(tenant),
            target,
            payload,
        };
        Ok(rows.into_iter().map(delivery).collect())
    }

    async fn due(&self, now: Micros, retry_at: Micros, limit: u32) -> Result<Vec<Delivery>, PortError> {
        self.claim(now, retry_at, limit).await.map_err(PortError::of)
    }

    async fn done(&self, key: &str, now: Micros) -> Result<(), PortError> {
        let sql = "UPDATE outbox SET state = 'done', done_at = $2, reason = NULL WHERE key = $1";
        let done = with_pool!(&self.pool, db => sqlx::query(sql).bind(key).bind(now.0).execute(db).await.map(|d| d.rows_affected()));
        found(done.map_err(Error::query("end a delivery")), key).map_err(PortError::of)
    }

    async fn failed(&self, key: &str, reason: &str, next: Option<Micros>) -> Result<(), PortError> {
        // A late report of a failure does not undo an arrival.
        let sql = "UPDATE outbox SET reason = $2, next_at = COALESCE($3, next_at), \
                   state = CASE WHEN $3 IS NULL OR attempts >= $4 THEN 'dead' ELSE 'waiting' END \
                   WHERE key = $1 AND state <> 'done'";
        let reason: String = reason.chars().take(1000).collect();
        let next = next.map(|at| at.0);
        with_pool!(&self.pool, db => {
            sqlx::query(sql).bind(key).bind(&reason).bind(next).bind(i64::from(MAX_ATTEMPTS)).execute(db).await.map(|_| ())
        })
        .map_err(Error::query("postpone a delivery"))
        .map_err(PortError::of)
    }

    async fn waiting(&self) -> Result<u64, PortError> {
        let sql = "SELECT COUNT(*) FROM outbox WHERE state IN ('waiting', 'held')";
        let (count,): (i64,) = with_pool!(&self.pool, db => sqlx::query_as(sql).fetch_one(db).await)
            .map_err(Error::query("count deliveries"))
            .map_err(PortError::of)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

impl Store {
    async fn claim(&self, now: Micros, retry_at: Micros, limit: u32) -> Result<Vec<Delivery>> {
        let claim = Error::query("claim deliveries");
        // What kills its process each time is never reported as failed.
        let give_up = "UPDATE outbox SET state = 'dead', reason = COALESCE(reason, 'it was tried too often') \
                       WHERE state = 'waiting' AND next_at <= $1 AND attempts >= $2";
        with_pool!(&self.pool, db => sqlx::query(give_up).bind(now.0).bind(i64::from(MAX_ATTEMPTS)).execute(db).await.map(|_| ()))
            .map_err(&claim)?;
        let mut rows: Vec<(String, String, String, String, i64, i64)> = with_pool!(&self.pool, db, is_sqlite => {
            let sql = if is_sqlite { CLAIM_SQLITE } else { CLAIM_POSTGRES };
            sqlx::query_as(sql).bind(now.0).bind(retry_at.0).bind(i64::from(limit)).fetch_all(db).await
        })
        .map_err(&claim)?;
        rows.sort_by(|a, b| (a.5, &a.0).cmp(&(b.5, &b.0)));
        let delivery = |(key, tenant, target, payload, attempts, created_at): (String, String, String, String, i64, i64)| Delivery {
            delivery: NewDelivery { key, tenant: Tenant::new(tenant), target, payload },
            attempts: u32::try_from(attempts - 1).unwrap_or(0),
            created_at: Micros(created_at),
        };
        Ok(rows.into_iter().map(delivery).collect())
    }

    /// Makes due what another process has claimed or postponed. Only for who knows that there is no other process any more.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn take_over_deliveries(&self, now: Micros) -> Result<u64> {
        let sql = "UPDATE outbox SET next_at = $1 WHERE state = 'waiting' AND next_at > $1";
        with_pool!(&self.pool, db => sqlx::query(sql).bind(now.0).execute(db).await.map(|done| done.rows_affected()))
            .map_err(Error::query("take over deliveries"))
    }

    /// What was given up, newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn dead_deliveries(&self, tenant: &Tenant, limit: u32) -> Result<Vec<DeadDelivery>> {
        let sql = "SELECT key, target, attempts, COALESCE(reason, '') FROM outbox WHERE tenant = $1 AND state = 'dead' \
                   ORDER BY created_at DESC, key LIMIT $2";
        let rows: Vec<(String, String, i64, String)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(tenant.as_str()).bind(i64::from(limit)).fetch_all(db).await)
                .map_err(Error::query("list dead deliveries"))?;
        let dead = |(key, target, attempts, reason)| DeadDelivery { key, target, attempts: u64::try_from(attempts).unwrap_or(0), reason };
        Ok(rows.into_iter().map(dead).collect())
    }

    /// What is given up, and what was due or held before a time and still is, of all tenants.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn stuck_deliveries(&self, before: Micros) -> Result<Vec<Stuck>> {
        let sql = "SELECT target, state, COUNT(*), COALESCE(MAX(reason), '') FROM outbox WHERE (state = 'dead' AND attempts > 0) \
                   OR (state IN ('waiting', 'held') AND next_at < $1) GROUP BY target, state ORDER BY target, state";
        let rows: Vec<(String, String, i64, String)> = with_pool!(&self.pool, db => sqlx::query_as(sql).bind(before.0).fetch_all(db).await)
            .map_err(Error::query("list stuck deliveries"))?;
        Ok(rows.into_iter().map(|(target, state, count, reason)| Stuck { target, state, count, reason }).collect())
    }

    /// Forgets deliveries that arrived before a time; their keys may be used again.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn prune_deliveries(&self, before: Micros) -> Result<u64> {
        let sql = "DELETE FROM outbox WHERE state = 'done' AND done_at < $1";
        with_pool!(&self.pool, db => sqlx::query(sql).bind(before.0).execute(db).await.map(|done| done.rows_affected()))
            .map_err(Error::query("prune deliveries"))
    }
}

fn found(rows: Result<u64>, key: &str) -> Result<()> {
    if rows? == 0 { Err(Error::Missing { what: "delivery", key: key.to_owned() }) } else { Ok(()) }
}
