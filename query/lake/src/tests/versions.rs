//! What upkeep writes down, and tables of older versions of the folds.

use kiro_schemas::Micros;

use super::*;
use crate::{KeptTable, TableVersion, UpkeepNote};

async fn fold(store: &Arc<dyn ObjectStore>, version: u32) -> Lake {
    lake_on(Arc::clone(store)).await.with_version(version, &[table()])
}

async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let found: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    let mut names: Vec<String> = found.into_iter().map(|object| object.location.to_string()).collect();
    names.sort();
    names
}

fn told(versions: &[TableVersion]) -> Vec<(u32, i64)> {
    versions.iter().map(|version| (version.version, version.offsets.get(&app(0)).copied().unwrap_or(-1))).collect()
}

#[tokio::test]
async fn older_versions_are_found_and_removed_one_by_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = local_store(dir.path()).expect("a store");
    let (first, second, third) = (fold(&store, 1).await, fold(&store, 2).await, fold(&store, 3).await);
    assert!(third.table_versions(table()).await.expect("versions").is_empty());
    for at in 0..60 {
        first.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    first.checkpoint(table()).await.expect("a checkpoint");
    second.commit(table(), commit(0, 0, 70)).await.expect("a commit");
    third.commit(table(), commit(0, 0, 80)).await.expect("a commit");
    let versions = third.table_versions(table()).await.expect("versions");
    assert_eq!(told(&versions), [(1, 60), (2, 70), (3, 80)]);
    assert!(versions.iter().all(|version| version.created_at <= version.committed_at && version.created_at.is_some()));
    assert!(first.table_versions(table()).await.expect("versions").is_empty(), "what is newer is none of its business");
    for wrong in [0, 3, 4] {
        assert!(matches!(third.remove_old_version(table(), wrong).await, Err(Error::Invalid { .. })), "version {wrong}");
    }
    let kept: Vec<String> = objects(&store).await.into_iter().filter(|name| !name.starts_with("tables/pipeline_runs_events/")).collect();
    let deleted = third.remove_old_version(table(), 1).await.expect("removed");
    assert!(deleted.files > 120 && deleted.bytes > 0, "{deleted:?}");
    assert_eq!(objects(&store).await, kept, "nothing else is touched");
    assert_eq!(told(&third.table_versions(table()).await.expect("versions")), [(2, 70), (3, 80)]);
    assert_eq!((places(&second).await.0, places(&third).await.0), (70, 80));
    // An older program that is put back derives all of it again.
    let back = fold(&store, 1).await;
    assert_eq!(stands(&back, 0).await, 0);
    back.commit(table(), commit(0, 0, 5)).await.expect("a commit");
    assert_eq!(places(&back).await.0, 5);
}

/// At each object it may be killed: what is left is an older state, or files that the next try removes.
#[tokio::test]
async fn a_removal_that_is_killed_is_gone_on_with() {
    for survivors in 0..9 {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (old, new) = (fold(&store, 1).await, fold(&store, 2).await);
        for at in 0..4 {
            old.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
        }
        new.commit(table(), commit(0, 0, 9)).await.expect("a commit");
        let mut log: Vec<String> = objects(&store).await.into_iter().filter(|name| name.contains("events/_delta_log/")).collect();
        let mut rows: Vec<String> = objects(&store).await.into_iter().filter(|name| name.contains("events/part-")).collect();
        assert_eq!((log.len(), rows.len()), (5, 4));
        log.reverse();
        log.append(&mut rows);
        for name in &log[..log.len() - survivors] {
            store.delete(&Path::from(name.as_str())).await.expect("deleted");
        }
        let versions = new.table_versions(table()).await.expect("versions");
        let left = versions.iter().find(|version| version.version == 1);
        assert_eq!(left.is_some(), survivors > 0);
        assert_eq!(left.is_some_and(|left| left.committed_at.is_none()), (1..=4).contains(&survivors), "{survivors}");
        if survivors > 0 {
            assert_eq!(new.remove_old_version(table(), 1).await.expect("removed").files, survivors);
        }
        assert!(objects(&store).await.iter().all(|name| name == "lake.json" || name.contains("events.v2/")));
        assert_eq!(places(&new).await.0, 9);
    }
}

/// What an older version derived may have had other columns: it is found and removed all the same.
#[tokio::test]
async fn columns_of_an_older_version_may_be_others() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (old, new) = (fold(&store, 1).await, fold(&store, 2).await);
    old.commit(table(), commit(0, 0, 3)).await.expect("a commit");
    new.commit(table(), commit(0, 0, 4)).await.expect("a commit");
    let first = Path::from(format!("tables/{}/_delta_log/{:020}.json", table().name, 0));
    let text = store.get(&first).await.expect("there").bytes().await.expect("read");
    let text = String::from_utf8(text.to_vec()).expect("text");
    let other = text.replace("run_id", "other_id");
    assert_ne!(text, other);
    store.put(&first, other.into()).await.expect("written");
    assert!(matches!(fold(&store, 1).await.check_tables().await, Err(Error::Schema { .. })));
    let seen = fold(&store, 2).await;
    seen.check_tables().await.expect("what is not its own is not read");
    assert_eq!(told(&seen.table_versions(table()).await.expect("versions")), [(1, 3), (2, 4)]);
    seen.remove_old_version(table(), 1).await.expect("removed");
    assert_eq!(told(&seen.table_versions(table()).await.expect("versions")), [(2, 4)]);
}

#[tokio::test]
async fn what_upkeep_writes_down_is_read_by_others() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (keeper, other) = (lake_on(Arc::clone(&store)).await, lake_on(Arc::clone(&store)).await);
    assert_eq!(other.upkeep_note().await.expect("an answer"), None);
    let mut note = UpkeepNote { by: "maintain/1".into(), at: Micros(5), compaction: true, ..UpkeepNote::default() };
    assert!(keeper.stored(table()).await.expect("an answer").is_none());
    for at in 0..10 {
        keeper.commit(table(), commit(0, at, at + 1)).await.expect("a commit");
    }
    let mut kept = KeptTable { vacuumed_at: Some(Micros(7)), ..KeptTable::default() };
    kept.has(keeper.stored(table()).await.expect("an answer").expect("a table"));
    // Rows of 1970: the day is over.
    assert_eq!((kept.version, kept.files, kept.small_files, kept.most_files_a_day, kept.checkpoint), (10, 10, 10, 10, None));
    assert!(kept.committed_at.is_some_and(|at| at > Micros(0)) && kept.bytes > 0);
    keeper.compact(table(), crate::Retention::new(Duration::ZERO)).await.expect("compaction");
    keeper.checkpoint(table()).await.expect("a checkpoint");
    kept.has(keeper.stored(table()).await.expect("an answer").expect("a table"));
    assert_eq!((kept.version, kept.files, kept.small_files, kept.most_files_a_day, kept.checkpoint), (11, 1, 0, 1, Some(11)));
    note.tables.insert(table().name.to_owned(), kept);
    keeper.note_upkeep(&note).await.expect("written");
    keeper.note_upkeep(&note).await.expect("written again");
    assert_eq!(other.upkeep_note().await.expect("an answer"), Some(note));
    store.put(&Path::from("upkeep.json"), "{".into()).await.expect("damaged");
    assert!(matches!(other.upkeep_note().await, Err(Error::Corrupt { .. })));
    store.put(&Path::from("upkeep.json"), r#"{"by":"later","more":{"of":"it"},"tables":{"x":{"new":1}}}"#.into()).await.expect("newer");
    assert_eq!(other.upkeep_note().await.expect("an answer").expect("a note").by, "later");
}
