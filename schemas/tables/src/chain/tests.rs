//! What is done to rows, and whether the chain tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray, StringViewArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};

use super::{CHAIN, ChainBreak, ChainHeads, ChainReport, Trail, seal};
use crate::{EventRows, Stamp, Table};

type Anchors = BTreeMap<TopicPartition, (i64, String)>;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("kiro.events", partition)
}

/// Audit rows of a partition, with two rows at each third offset.
fn rows(partition: i32, offsets: std::ops::Range<i64>) -> RecordBatch {
    let mut collected = EventRows::default();
    let (tenant, at) = (Tenant::default(), at(partition));
    for offset in offsets {
        for part in 0..=i64::from(offset % 3 == 0) {
            let id = format!("{partition}-{offset}-{part}");
            let mut event = Event::new(Subject::AuditEntry, Transition::Recorded, "urn:kirolinter", id, Micros(offset * 1_000));
            event.set("actor", Value::text("ci"));
            event.set("action", Value::text("gate.evaluate"));
            event.attributes.push(("b".into(), format!("{offset}").into()));
            event.attributes.push(("a".into(), "x".into()));
            collected.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(offset), at: &at, offset }).expect("a row");
        }
    }
    collected.finish().expect("batches").pop().expect("one table").1
}

/// The rows that one process wrote, commit by commit.
fn sealed() -> (RecordBatch, ChainHeads) {
    let mut heads = ChainHeads::new();
    let mut all = Vec::new();
    for from in [0, 5, 10, 15] {
        all.extend(seal(&[rows(1, from..from + 5), rows(0, from..from + 3), rows(0, from + 3..from + 5)], &mut heads).expect("sealed"));
    }
    (concat_batches(&all[0].schema(), &all).expect("one table"), heads)
}

fn anchors(heads: &ChainHeads) -> Anchors {
    heads.iter().map(|(at, head)| (at.clone(), (head.offset, head.chain()))).collect()
}

fn verify(batches: &[RecordBatch], anchors: &Anchors) -> Vec<ChainReport> {
    let mut trail = Trail::default();
    for batch in batches {
        trail.add(batch).expect("audit rows");
    }
    trail.verify(anchors)
}

fn broken(batch: &RecordBatch, anchors: &Anchors) -> Option<(i64, ChainBreak)> {
    verify(std::slice::from_ref(batch), anchors)
        .into_iter()
        .find_map(|report| report.breaks.into_iter().next().map(|(offset, _, what)| (offset, what)))
}

/// Where the chain of rows ends.
fn ends(batch: &RecordBatch) -> ChainHeads {
    verify(std::slice::from_ref(batch), &Anchors::new()).into_iter().filter_map(|report| Some((report.at, report.head?))).collect()
}

/// The rows that a condition on partition and offset keeps, in another order.
fn kept(batch: &RecordBatch, keep: impl Fn(i64, i64) -> bool) -> RecordBatch {
    let int = |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().clone();
    let (partitions, offsets) = (int("_partition"), int("_offset"));
    let rows = (0..batch.num_rows()).rev().filter(|row| keep(partitions.value(*row), offsets.value(*row)));
    take_record_batch(batch, &rows.map(|row| u32::try_from(row).expect("small")).collect::<UInt32Array>()).expect("rows")
}

fn with_column(batch: &RecordBatch, name: &str, values: impl Iterator<Item = Option<String>>) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of(name).expect("a column")] = Arc::new(values.collect::<StringViewArray>());
    RecordBatch::try_new(batch.schema(), columns).expect("rows")
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    batch.column_by_name(name).expect("a column").as_string_view().iter().map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn what_was_written_verifies_in_any_order_and_form() {
    let (batch, heads) = sealed();
    let anchors = anchors(&heads);
    let shuffled = kept(&batch, |_, _| true);
    for (batches, count) in
        [(vec![batch.clone()], 1), (vec![shuffled], 1), (vec![kept(&batch, |p, _| p == 0), kept(&batch, |p, _| p == 1)], 2)]
    {
        let reports = verify(&batches, &anchors);
        assert_eq!((reports.len(), batches.len()), (2, count));
        for report in reports {
            assert_eq!((report.breaks, report.unchained, report.rows), (vec![], 0, 27), "{}", report.at);
            assert_eq!(report.head, heads.get(&report.at).copied());
        }
    }
    // Other readers give other types of text, and a column that came later is null in older rows.
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns).filter(|(field, _)| *field.data_type() == DataType::Utf8View) {
        *column = cast(column, &DataType::Utf8).expect("texts");
        *field = Arc::new(Field::new(field.name(), DataType::Utf8, true));
    }
    fields.push(Arc::new(Field::new("a_later_column", DataType::Utf8, true)));
    columns.push(Arc::new(StringArray::new_null(batch.num_rows())));
    let plain = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows");
    assert_eq!(broken(&plain, &anchors), None);
    assert_eq!(ends(&plain), heads, "who takes over goes on from here");
}

#[test]
fn the_chain_of_known_rows_never_changes() {
    let (_, heads) = sealed();
    let chains: Vec<String> = heads.values().map(super::ChainHead::chain).collect();
    assert_eq!(
        chains,
        [
            "1:ece5ea9e023648c69254914e101053a8564f8262b38b2bddf0a0a5ada295e662",
            "1:7d7bc591aa81946771f59779449e38102fb2ad3553b32873a51057444921597f"
        ]
    );
}

#[test]
fn every_change_of_a_row_is_found_at_its_place() {
    let (batch, heads) = sealed();
    let anchors = anchors(&heads);
    for name in ["tenant", "source", "entry_id", "actor", "action", "transition", "event_id", "object"] {
        let mut values = texts(&batch, name);
        values[30] = Some("other".to_owned());
        let changed = with_column(&batch, name, values.into_iter());
        assert!(matches!(broken(&changed, &anchors), Some((_, ChainBreak::DoesNotFollow))), "{name}");
    }
    let offsets = batch.column_by_name("_offset").expect("a column").as_primitive::<Int64Type>();
    let mut ids = texts(&batch, "entry_id");
    ids.swap(0, 3);
    let swapped = with_column(&batch, "entry_id", ids.into_iter());
    assert_eq!(broken(&swapped, &anchors), Some((offsets.value(0), ChainBreak::DoesNotFollow)), "two rows swapped");
    let mut actors = texts(&batch, "actor");
    // Rows that are alone at their offset: two of one record may change places.
    for row in (0..batch.num_rows()).filter(|row| offsets.value(*row) % 3 == 1).take(2) {
        actors[row] = Some("somebody else".to_owned());
    }
    let reports = verify(&[with_column(&batch, "actor", actors.into_iter())], &anchors);
    assert_eq!(reports.iter().map(|report| report.breaks.len()).sum::<usize>(), 2, "each is told once");
}

#[test]
fn what_is_removed_or_added_is_found() {
    let (batch, heads) = sealed();
    let anchors = anchors(&heads);
    let removed = kept(&batch, |partition, offset| (partition, offset) != (1, 7));
    assert_eq!(broken(&removed, &anchors), Some((8, ChainBreak::DoesNotFollow)));
    let beginning = kept(&batch, |partition, offset| partition == 0 || offset > 1);
    assert_eq!(broken(&beginning, &anchors), Some((2, ChainBreak::DoesNotFollow)));
    let end = kept(&batch, |partition, offset| partition == 0 || offset < 18);
    assert_eq!(broken(&end, &anchors), Some((19, ChainBreak::NotAsAnchored)));
    assert_eq!(broken(&end, &Anchors::new()), None, "only the anchor knows of the end");
    let partition = kept(&batch, |partition, _| partition == 0);
    assert_eq!(broken(&partition, &anchors), Some((19, ChainBreak::NotAsAnchored)), "a whole partition");
    let twice = concat_batches(&batch.schema(), &[batch.clone(), kept(&batch, |p, o| (p, o) == (1, 4))]).expect("rows");
    assert_eq!(broken(&twice, &anchors), Some((4, ChainBreak::DoesNotFollow)));
    let mut more = heads.clone();
    let more = seal(&[rows(1, 20..22)], &mut more).expect("sealed").remove(0);
    let longer = concat_batches(&batch.schema(), &[batch, more]).expect("rows");
    assert_eq!(broken(&longer, &anchors), None, "a process may die between commit and anchor");
}

#[test]
fn rows_from_before_the_chain_are_chained_by_those_that_follow() {
    let old = rows(1, 0..10);
    assert_eq!(broken(&old, &Anchors::new()), None, "no chain yet");
    let mut heads = ends(&old);
    let new = seal(&[rows(1, 10..14)], &mut heads).expect("sealed").remove(0);
    let all = concat_batches(&old.schema(), &[old.clone(), new.clone()]).expect("rows");
    let report = verify(std::slice::from_ref(&all), &anchors(&heads)).remove(0);
    assert_eq!((report.breaks, report.rows, report.unchained), (vec![], 19, 14));
    let mut actors = texts(&all, "actor");
    actors[2] = Some("other".to_owned());
    assert_eq!(broken(&with_column(&all, "actor", actors.into_iter()), &Anchors::new()), Some((10, ChainBreak::DoesNotFollow)));
    // A program without the chain writes in between: it is told, and the next one goes on.
    let between = concat_batches(&old.schema(), &[all, rows(1, 14..16)]).expect("rows");
    let mut heads = ends(&between);
    let after = seal(&[rows(1, 16..18)], &mut heads).expect("sealed").remove(0);
    let all = concat_batches(&old.schema(), &[between, after]).expect("rows");
    assert_eq!(broken(&all, &anchors(&heads)), Some((14, ChainBreak::Unchained)));
    let erased = with_column(&all, CHAIN, texts(&all, CHAIN).into_iter().map(|_| None));
    assert_eq!(broken(&erased, &anchors(&heads)).map(|found| found.1), None, "erasing all chains leaves the anchor: the rows are the same");
    let table = Table::find("audit_log").expect("a table");
    assert_eq!(table.columns.last().map(|column| column.name), Some(CHAIN));
}
