//! Where the consumer starts: at what all tables of events contain.

use std::sync::Arc;

use kiro_ports::{Assignment, Snapshot, TableSource};
use kiro_schemas::TopicPartition;
use tokio::runtime::Handle;
use tracing::warn;

use super::load::OWN;
use super::shared::{Partition, Shared};
use super::table::Side;

#[derive(Debug)]
pub(super) struct Start {
    /// The topics that are assigned, all at once.
    pub(super) topics: Vec<String>,
    pub(super) shared: Arc<Shared>,
    /// Asked again at each assignment: another process may have moved the tables.
    pub(super) source: Arc<dyn TableSource>,
    pub(super) runtime: Handle,
}

impl Start {
    fn reload(&self) {
        let tables: Vec<_> = {
            let inner = self.shared.lock();
            inner.tables.iter().enumerate().filter(|(_, s)| s.commits && s.side == Side::Events).map(|(at, s)| (at, s.table)).collect()
        };
        let read = async {
            let mut found: Vec<(usize, Arc<dyn Snapshot>)> = Vec::new();
            for (at, table) in tables {
                match self.source.snapshot(table).await {
                    Ok(Some(snapshot)) => found.push((at, snapshot)),
                    Ok(None) => {}
                    Err(error) => warn!(table = table.name, %error, "the table was not read again"),
                }
            }
            found
        };
        // On a thread of its own: the caller may be within the runtime, where nothing may block on it.
        let found = std::thread::scope(|scope| scope.spawn(|| self.runtime.block_on(read)).join());
        if let Ok(found) = found {
            self.shared.follow(found);
        } else {
            warn!("the tables were not read again");
        }
    }
}

impl Assignment for Start {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        self.reload();
        let mut inner = self.shared.lock();
        inner.assigned(&self.topics);
        let contained = inner.contained();
        let mut starts = Vec::with_capacity(partitions.len());
        for at in partitions {
            if !inner.partitions.get(at).is_some_and(|p| p.is_owned) {
                let generation = inner.partitions.get(at).map_or(0, |p| p.generation);
                inner.partitions.insert(at.clone(), Partition { is_owned: true, generation, ..Partition::default() });
                inner.vector.set(at.clone(), contained.next(at));
            }
            let next = inner.vector.next(at);
            let is_seen = next > 0 || inner.is_seen(at);
            starts.push(is_seen.then_some(next));
            if let (false, Some(table)) = (is_seen, inner.tables.iter().find(|s| s.table.name == OWN[1])) {
                // One table notes at once that the partition is read.
                table.full.notify_one();
            }
        }
        starts
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        self.shared.revoke(partitions);
    }

    fn generation(&self, partition: &TopicPartition) -> u64 {
        self.shared.lock().partitions.get(partition).map_or(0, |p| p.generation)
    }
}
