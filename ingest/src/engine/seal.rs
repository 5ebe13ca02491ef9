//! The chain of the audit log: filled in by the one who commits a partition, from where the table's chain ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiro_ports::{Anchors, Clock, TableSource, Transaction};
use kiro_schemas::TopicPartition;
use kiro_tables::{CHAIN, ChainBreak, ChainHead, ChainHeads, Table, Trail, seal};
use tracing::{error, warn};

use super::table::Cut;
use super::{EngineError, EngineResult};

/// Of a partition: where the table stands after a commit, and the end of its chain there.
type Known = BTreeMap<TopicPartition, (i64, Option<ChainHead>)>;

/// What a commit leads to.
#[derive(Debug, Default)]
pub(super) struct Ends {
    known: Known,
    /// The last of the rows that it brings.
    last: ChainHeads,
}

/// Seals what one committer writes.
#[derive(Debug)]
pub(super) struct Seal {
    anchors: Arc<dyn Anchors>,
    clock: Arc<dyn Clock>,
    /// After our last commit. Whose partition starts elsewhere has not seen all rows before, and reads them.
    known: Known,
}

impl Seal {
    /// What a table needs: nothing, unless it has a chain.
    pub(super) fn of(table: &Table, anchors: &Arc<dyn Anchors>, clock: &Arc<dyn Clock>) -> Option<Self> {
        table.position(CHAIN)?;
        Some(Self { anchors: Arc::clone(anchors), clock: Arc::clone(clock), known: Known::new() })
    }

    /// Fills in the chain of the rows that are to be committed.
    pub(super) async fn fill(&self, table: &'static Table, source: &dyn TableSource, cut: &mut Cut) -> EngineResult<Ends> {
        let moves: Vec<_> = cut.moves.iter().zip(&cut.commit.transactions).map(|((at, next), t)| (at.clone(), t.clone(), *next)).collect();
        let known = |at: &TopicPartition, start: i64| self.known.get(at).filter(|(stands, _)| *stands == start).map(|(_, head)| *head);
        let is_read = !cut.commit.rows.is_empty() && moves.iter().any(|(at, t, _)| known(at, t.start).is_none());
        let before: ChainHeads = if is_read {
            self.read(table, source, &moves.iter().map(|(at, transaction, _)| (at, transaction)).collect::<Vec<_>>()).await?
        } else {
            moves.iter().filter_map(|(at, t, _)| Some((at.clone(), known(at, t.start)??))).collect()
        };
        let mut after = before.clone();
        cut.commit.rows = seal(&cut.commit.rows, &mut after).map_err(EngineError::rows(table.name))?;
        let seen = moves.into_iter().filter(|(at, t, _)| is_read || known(at, t.start).is_some());
        let known = seen.map(|(at, _, next)| (at.clone(), (next, after.get(&at).copied()))).collect();
        after.retain(|at, head| before.get(at) != Some(head));
        Ok(Ends { known, last: after })
    }

    /// The rows are in the table: where they end is remembered, here and where nobody writes who writes to the lake.
    pub(super) async fn done(&mut self, ends: Ends) {
        self.known.extend(ends.known);
        for (at, head) in ends.last {
            if let Err(error) = self.anchors.anchor(&at, head.offset, &head.chain(), self.clock.now()).await {
                warn!(%at, %error, "the end of the audit log was not anchored; the next commit does it");
            }
        }
    }

    /// Where the chain of the table ends, in a version that holds all that the transactions start from. Where rows are gone that
    /// were anchored, and cannot come again, it goes on from the anchor: the hole can be seen for ever.
    async fn read(
        &self,
        table: &'static Table,
        source: &dyn TableSource,
        starts: &[(&TopicPartition, &Transaction)],
    ) -> EngineResult<ChainHeads> {
        let failed = || EngineError::port("read the end of the audit log");
        let anchors = self.anchors.anchors().await.map_err(failed())?;
        let snapshot = source.snapshot(table).await.map_err(failed())?;
        let stands = |app: &str| snapshot.as_ref().and_then(|s| s.offsets().get(app)).copied().unwrap_or(0);
        if let Some((_, late)) = starts.iter().find(|(_, transaction)| stands(&transaction.app) < transaction.start) {
            return Err(EngineError::Behind { table: table.name, app: late.app.clone() });
        }
        let mut trail = Trail::default();
        for batch in source.scan(table, &[]).await.map_err(failed())? {
            trail.add(&batch).map_err(EngineError::rows(table.name))?;
        }
        let mut heads = ChainHeads::new();
        for report in trail.verify(&anchors) {
            let is_gone = report.breaks.iter().any(|(.., what)| *what == ChainBreak::NotAsAnchored);
            let start = starts.iter().find(|(at, _)| **at == report.at).map_or(0, |(_, transaction)| transaction.start);
            let anchor = anchors.get(&report.at).filter(|(offset, _)| is_gone && *offset < start);
            if let Some((offset, _)) = anchor {
                error!(at = %report.at, offset, "rows of the audit log are gone that were there; see kirolinter audit verify");
            }
            let head = anchor.map_or(report.head, |(offset, chain)| ChainHead::read(*offset, chain));
            heads.extend(head.map(|head| (report.at, head)));
        }
        Ok(heads)
    }

    /// It is not known what is in the table.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests;
