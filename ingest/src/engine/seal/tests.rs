//! The chain over commits, takeovers and losses, on a real lake.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_lake::Lake;
use kiro_ports::{Anchors, Clock, Commit, Committed, SystemClock, TableSink as _, TableSource as _, Transaction};
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition};
use kiro_tables::{ChainBreak, EventRows, Stamp, Table, Trail};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use url::Url;

use super::Seal;
use crate::engine::table::Cut;
use crate::engine::tests::SimAnchors;

fn table() -> &'static Table {
    Table::find("audit_log").expect("a table")
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("events", partition)
}

fn rows(partition: i32, offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), at(partition));
    for offset in offsets {
        let event = Event::new(Subject::AuditEntry, Transition::Recorded, "urn:a", format!("{offset}"), Micros(offset));
        collected.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

/// A move of one partition, with rows at its offsets or without.
fn cut(partition: i32, start: i64, next: i64, has_rows: bool) -> Cut {
    let transaction = Transaction { app: format!("kiro/test/events/{partition}"), start, next };
    let rows = if has_rows { vec![rows(partition, start..next)] } else { Vec::new() };
    Cut::of(Commit { rows, transactions: vec![transaction] }, vec![(at(partition), next)])
}

struct Member {
    lake: Lake,
    seal: Seal,
}

impl Member {
    async fn new(store: &Arc<InMemory>, anchors: &Arc<SimAnchors>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let root = Url::parse("memory:///").expect("a url");
        let lake = Lake::open(Arc::clone(store) as _, root, Arc::clone(&clock)).await.expect("a lake");
        let anchors: Arc<dyn Anchors> = Arc::clone(anchors) as _;
        Self { lake, seal: Seal::of(table(), &anchors, &clock).expect("it has a chain") }
    }

    /// Commits; whether it was let.
    async fn commit(&mut self, mut cut: Cut) -> bool {
        let ends = self.seal.fill(table(), &self.lake, &mut cut).await.expect("filled");
        match self.lake.commit(table(), cut.commit.clone()).await.expect("an outcome") {
            Committed::Done(_) => {
                self.seal.done(ends).await;
                true
            }
            Committed::Fenced(_) => {
                self.seal.forget();
                false
            }
        }
    }
}

async fn breaks(lake: &Lake, anchors: &SimAnchors) -> Vec<(i64, ChainBreak)> {
    let mut trail = Trail::default();
    for batch in lake.scan(table(), &[]).await.expect("rows") {
        trail.add(&batch).expect("audit rows");
    }
    let anchors: BTreeMap<_, _> = anchors.anchors().await.expect("anchors");
    trail.verify(&anchors).into_iter().flat_map(|report| report.breaks).map(|(offset, _, what)| (offset, what)).collect()
}

#[tokio::test]
async fn members_hand_a_partition_over_and_the_chain_goes_on() {
    let (store, anchors) = (Arc::new(InMemory::new()), Arc::new(SimAnchors::default()));
    let (mut first, mut second) = (Member::new(&store, &anchors).await, Member::new(&store, &anchors).await);
    assert!(first.commit(cut(0, 0, 3, true)).await && first.commit(cut(1, 0, 2, true)).await);
    assert!(first.commit(cut(0, 3, 9, false)).await && first.commit(cut(0, 9, 11, true)).await);
    assert!(second.commit(cut(0, 11, 14, true)).await);
    assert!(!first.commit(cut(0, 11, 15, true)).await, "the partition was moved");
    assert!(first.commit(cut(0, 14, 16, true)).await, "and comes back");
    assert!(second.commit(cut(1, 2, 4, false)).await && second.commit(cut(1, 4, 6, true)).await, "what it has not seen it reads");
    assert_eq!(breaks(&first.lake, &anchors).await, []);
    let remembered = anchors.anchors().await.expect("anchors");
    assert_eq!((remembered[&at(0)].0, remembered[&at(1)].0), (15, 5));
}

#[tokio::test]
async fn a_lost_end_is_filled_again_or_seen_for_ever() {
    for comes_again in [true, false] {
        let (store, anchors) = (Arc::new(InMemory::new()), Arc::new(SimAnchors::default()));
        let mut first = Member::new(&store, &anchors).await;
        for start in [0, 3, 6] {
            assert!(first.commit(cut(0, start, start + 3, true)).await);
        }
        let last = Path::from(format!("tables/audit_log/_delta_log/{:020}.json", 3));
        store.delete(&last).await.expect("deleted");
        let mut second = Member::new(&store, &anchors).await;
        assert_eq!(breaks(&second.lake, &anchors).await, [(8, ChainBreak::NotAsAnchored)]);
        if comes_again {
            assert!(second.commit(cut(0, 6, 9, true)).await && second.commit(cut(0, 9, 12, true)).await);
            assert_eq!(breaks(&second.lake, &anchors).await, []);
        } else {
            // The log is gone, too: somebody moves the table on without the rows.
            assert!(second.commit(cut(0, 6, 9, false)).await && second.commit(cut(0, 9, 12, true)).await);
            assert_eq!(breaks(&second.lake, &anchors).await, [(9, ChainBreak::DoesNotFollow)]);
            let mut third = Member::new(&store, &anchors).await;
            assert!(third.commit(cut(0, 12, 15, true)).await);
            assert_eq!(breaks(&third.lake, &anchors).await, [(9, ChainBreak::DoesNotFollow)], "what follows it is whole");
        }
    }
}
