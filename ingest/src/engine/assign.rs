//! Where the consumer starts: at what all tables of events contain.

use std::sync::Arc;

use kiro_ports::{Assignment, TableSink};
use kiro_schemas::TopicPartition;
use tokio::runtime::Handle;
use tracing::warn;

use super::shared::{Partition, Shared};
use super::table::Side;

#[derive(Debug)]
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    /// Asked again at each assignment when partitions are shared: another member may have moved the tables.
    pub(super) sink: Option<Arc<dyn TableSink>>,
    pub(super) runtime: Handle,
}

impl Start {
    fn reload(&self) {
        let Some(sink) = &self.sink else { return };
        let tables: Vec<_> = {
            let inner = self.shared.lock();
            inner.tables.iter().enumerate().filter(|(_, s)| s.commits && s.side == Side::Events).map(|(at, s)| (at, s.table)).collect()
        };
        for (at, table) in tables {
            // On a thread of its own: the caller may be within the runtime, where nothing may block on it.
            let read = std::thread::scope(|scope| scope.spawn(|| self.runtime.block_on(sink.offsets(table))).join());
            match read {
                Ok(Ok(offsets)) => self.shared.lock().tables[at].stands(&offsets),
                Ok(Err(error)) => warn!(table = table.name, %error, "offsets were not read again"),
                Err(_) => warn!(table = table.name, "offsets were not read again"),
            }
        }
    }
}

impl Assignment for Start {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<i64> {
        self.reload();
        let mut inner = self.shared.lock();
        inner.is_assigned = true;
        let contained = inner.contained();
        let mut starts = Vec::with_capacity(partitions.len());
        for at in partitions {
            if !inner.partitions.get(at).is_some_and(|p| p.is_owned) {
                let generation = inner.partitions.get(at).map_or(0, |p| p.generation);
                inner.partitions.insert(at.clone(), Partition { is_owned: true, generation, ..Partition::default() });
                inner.vector.set(at.clone(), contained.next(at));
            }
            starts.push(inner.vector.next(at));
        }
        starts
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        self.shared.revoke(partitions);
    }
}
