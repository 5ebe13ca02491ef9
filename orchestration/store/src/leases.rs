//! Leases: who does what only one may do, and in which epoch.

use kiro_schemas::Micros;

use crate::store::with_pool;
use crate::{Error, Result, Store};

/// What one process holds for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is about.
    pub name: String,
    /// Who has it.
    pub holder: String,
    /// Counts the holders: whoever writes under a lease says the epoch, and a smaller one is refused.
    pub epoch: i64,
    /// When it runs out.
    pub until: Micros,
}

/// One statement takes: whoever comes second finds the later time.
const TAKE: &str = "INSERT INTO leases (name, holder, epoch, until) VALUES ($1, $2, 1, $4) \
     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = leases.epoch + 1, until = excluded.until \
     WHERE leases.until <= $3 RETURNING epoch";

impl Store {
    /// Takes a lease that nobody has, or whose time is over at `now`; `None` when somebody else has it.
    ///
    /// Clocks of several machines may differ: a wrong clock moves a lease too early or too late, and the epoch keeps what
    /// is written under it right.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn take_lease(&self, name: &str, holder: &str, now: Micros, until: Micros) -> Result<Option<Lease>> {
        let taken: Option<(i64,)> = with_pool!(&self.pool, db => {
            sqlx::query_as(TAKE).bind(name).bind(holder).bind(now.0).bind(until.0).fetch_optional(db).await
        })
        .map_err(Error::query("take a lease"))?;
        Ok(taken.map(|(epoch,)| Lease { name: name.to_owned(), holder: holder.to_owned(), epoch, until }))
    }

    /// Counts a lease on to an epoch that was seen elsewhere: the next holder gets a larger one. A store that is new, or was put
    /// back from a back-up, would else count epochs that are taken.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn raise_epoch(&self, name: &str, seen: i64) -> Result<()> {
        let sql = "INSERT INTO leases (name, holder, epoch, until) VALUES ($1, '', $2, 0) \
                   ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch WHERE leases.epoch < excluded.epoch";
        with_pool!(&self.pool, db => sqlx::query(sql).bind(name).bind(seen).execute(db).await.map(|_| ()))
            .map_err(Error::query("count a lease on"))
    }

    /// Keeps a lease until a later time; whether it was still ours.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn renew_lease(&self, lease: &Lease, until: Micros) -> Result<bool> {
        self.change_lease(lease, until).await
    }

    /// Gives a lease back, so that the next one need not wait; the epoch stays counted.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn release_lease(&self, lease: &Lease) -> Result<bool> {
        self.change_lease(lease, Micros(0)).await
    }

    /// A lease as it is written down, whether its time is over or not.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        let sql = "SELECT holder, epoch, until FROM leases WHERE name = $1";
        let found: Option<(String, i64, i64)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(name).fetch_optional(db).await).map_err(Error::query("read a lease"))?;
        Ok(found.map(|(holder, epoch, until)| Lease { name: name.to_owned(), holder, epoch, until: Micros(until) }))
    }

    /// All leases as they are written down; one whose time is 0 was given back.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn leases(&self) -> Result<Vec<Lease>> {
        let sql = "SELECT name, holder, epoch, until FROM leases ORDER BY name";
        let found: Vec<(String, String, i64, i64)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).fetch_all(db).await).map_err(Error::query("read leases"))?;
        Ok(found.into_iter().map(|(name, holder, epoch, until)| Lease { name, holder, epoch, until: Micros(until) }).collect())
    }

    async fn change_lease(&self, lease: &Lease, until: Micros) -> Result<bool> {
        let sql = "UPDATE leases SET until = $4 WHERE name = $1 AND holder = $2 AND epoch = $3";
        let changed = with_pool!(&self.pool, db => {
            let query = sqlx::query(sql).bind(&lease.name).bind(&lease.holder).bind(lease.epoch).bind(until.0);
            query.execute(db).await.map(|done| done.rows_affected())
        });
        Ok(changed.map_err(Error::query("keep a lease"))? > 0)
    }
}
