//! Where the audit log ended last, by partition.

use async_trait::async_trait;
use kiro_ports::{AnchorMap, Anchors, PortError};
use kiro_schemas::{Micros, TopicPartition};

use crate::store::with_pool;
use crate::{Error, Store};

/// A process that comes late does not take back what its successor has remembered.
const ANCHOR: &str = "INSERT INTO audit_anchors (topic, part, row_offset, chain, updated_at) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (topic, part) DO UPDATE SET row_offset = excluded.row_offset, chain = excluded.chain, updated_at = excluded.updated_at \
     WHERE audit_anchors.row_offset < excluded.row_offset";

#[async_trait]
impl Anchors for Store {
    async fn anchor(&self, at: &TopicPartition, offset: i64, chain: &str, now: Micros) -> Result<(), PortError> {
        with_pool!(&self.pool, db => {
            let query = sqlx::query(ANCHOR).bind(&*at.topic).bind(i64::from(at.partition)).bind(offset).bind(chain).bind(now.0);
            query.execute(db).await.map(|_| ())
        })
        .map_err(Error::query("anchor the audit log"))
        .map_err(PortError::of)
    }

    async fn anchors(&self) -> Result<AnchorMap, PortError> {
        let sql = "SELECT topic, part, row_offset, chain FROM audit_anchors";
        let rows: Vec<(String, i64, i64, String)> = with_pool!(&self.pool, db => sqlx::query_as(sql).fetch_all(db).await)
            .map_err(Error::query("read the anchors of the audit log"))
            .map_err(PortError::of)?;
        let partition = |part: i64| i32::try_from(part).unwrap_or(-1);
        Ok(rows.into_iter().map(|(topic, part, offset, chain)| (TopicPartition::new(topic, partition(part)), (offset, chain))).collect())
    }
}
