//! The promises, one function each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kiro_ports::{EventLog, LogState, NewRecord, Record, Subscription};
use kiro_schemas::{Fault, FaultKind, TopicPartition};

use super::reader::{Reader, expect, record, text};
use super::{Bench, Broken};

type Log = Arc<dyn EventLog>;

pub(super) async fn unknown_topic(log: &Log, topic: &str) -> Result<(), Broken> {
    let appended = log.append(vec![record(topic, None, "x")]).await;
    let kind = appended.as_ref().map(Vec::len).map_err(Fault::kind);
    expect(kind == Err(FaultKind::NotFound), || format!("an append to no topic gave {kind:?}"))?;
    let kind = log.watermarks(topic).await.map(|marks| marks.len()).map_err(|error| error.kind());
    expect(kind == Err(FaultKind::NotFound), || format!("watermarks of no topic gave {kind:?}"))
}

/// One partition: records come in the order of the appends, at dense offsets from 0, and positions say so.
pub(super) async fn order(log: &Log, topic: &str, group: Option<String>) -> Result<(), Broken> {
    log.ensure_topic(topic, 1).await?;
    log.ensure_topic(topic, 1).await?;
    let at = TopicPartition::new(topic, 0);
    for part in 0..5_i64 {
        let records = (0..20).map(|n| record(topic, None, format!("{}", part * 20 + n))).collect();
        let positions = log.append(records).await?;
        let right = positions.iter().zip(part * 20..).all(|(position, offset)| position.at == at && position.offset == offset);
        expect(right && positions.len() == 20, || format!("positions of append {part} are {positions:?}"))?;
    }
    expect(log.append(Vec::new()).await?.is_empty(), || "an append of nothing has positions".to_owned())?;
    expect(log.state() == LogState::Up, || "it is not up".to_owned())?;
    let mut reader = Reader::open(log, &[topic], group, &[]).await?;
    reader.until(|reader| reader.count() >= 100).await?;
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    expect(reader.values(&at) == expected, || format!("the values are {:?}", reader.values(&at)))?;
    let dense = reader.records[&at].iter().zip(0..).all(|(record, offset)| record.offset == offset && record.recorded_at.0 > 0);
    expect(dense, || "offsets are not dense, or records have no time".to_owned())?;
    let marks = log.watermarks(topic).await?;
    expect(marks.len() == 1 && marks[0].1.low == 0 && marks[0].1.high == 100, || format!("the watermarks are {marks:?}"))
}

/// Records of one key stay in one partition and keep their order.
pub(super) async fn keys(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 4).await?;
    for n in 0..25 {
        log.append((0..8).map(|key| record(topic, Some(&format!("key-{key}")), n.to_string())).collect()).await?;
    }
    let mut reader = Reader::open(log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.count() >= 200).await?;
    let mut of_key: BTreeMap<String, (BTreeSet<i32>, Vec<String>)> = BTreeMap::new();
    for (at, records) in &reader.records {
        for record in records {
            let (partitions, values) = of_key.entry(text(record.key.as_ref())).or_default();
            partitions.insert(at.partition);
            values.push(text(record.value.as_ref()));
        }
    }
    let expected: Vec<String> = (0..25).map(|n: i32| n.to_string()).collect();
    let kept = of_key.len() == 8 && of_key.values().all(|(partitions, values)| partitions.len() == 1 && *values == expected);
    expect(kept, || format!("keys did not keep their order: {of_key:?}"))?;
    expect(reader.records.len() > 1, || "all keys share one partition".to_owned())
}

/// Records without a key all arrive, wherever the positions said.
pub(super) async fn spread(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 3).await?;
    let mut expected = BTreeMap::new();
    for n in 0..30 {
        for position in log.append(vec![record(topic, None, n.to_string())]).await? {
            expected.insert((position.at, position.offset), n.to_string());
        }
    }
    let mut reader = Reader::open(log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.count() >= 30).await?;
    let got: BTreeMap<_, _> =
        reader.records.iter().flat_map(|(at, all)| all.iter().map(|r| ((at.clone(), r.offset), text(r.value.as_ref())))).collect();
    expect(got == expected && reader.assigned.len() == 3, || format!("{got:?} came for {expected:?}"))
}

/// One append and one consumer over two topics.
pub(super) async fn topics(log: &Log, topic: &str) -> Result<(), Broken> {
    let names = [format!("{topic}-a"), format!("{topic}-b")];
    log.ensure_topic(&names[0], 2).await?;
    log.ensure_topic(&names[1], 1).await?;
    let positions = log.append((0..10).map(|n| record(&names[n % 2], Some("k"), n.to_string())).collect()).await?;
    let in_order = positions.iter().zip(0..).all(|(position, n): (_, usize)| *position.at.topic == *names[n % 2]);
    expect(in_order, || format!("positions are not in the order of the records: {positions:?}"))?;
    let mut reader = Reader::open(log, &[&names[0], &names[1]], None, &[]).await?;
    reader.until(|reader| reader.count() >= 10).await?;
    let at = TopicPartition::new(names[1].as_str(), 0);
    expect(reader.values(&at) == ["1", "3", "5", "7", "9"], || format!("{at} has {:?}", reader.values(&at)))?;
    expect(reader.assigned.len() == 3, || format!("assigned are {:?}", reader.assigned))
}

/// Keys, headers and empty values come back as they were.
pub(super) async fn shapes(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 1).await?;
    let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
    let headers = vec![header("kiro-format", b"github"), header("x", b""), header("x", &[0, 255, 7])];
    let bare = NewRecord { topic: topic.to_owned(), ..NewRecord::default() };
    let full = NewRecord { key: Some(Bytes::from_static(b"")), value: Bytes::from(vec![0xff_u8; 300_000]), headers, ..bare.clone() };
    log.append(vec![bare.clone(), full.clone()]).await?;
    let mut reader = Reader::open(log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.count() >= 2).await?;
    let got = &reader.records[&TopicPartition::new(topic, 0)];
    for (record, sent) in got.iter().zip([bare, full]) {
        let same = record.key == sent.key && record.value.as_ref() == Some(&sent.value) && record.headers == sent.headers;
        expect(same, || format!("offset {} came back with key {:?} and headers {:?}", record.offset, record.key, record.headers))?;
    }
    Ok(())
}

/// Each partition starts where it was told, the end included.
pub(super) async fn starts(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 1).await?;
    log.append((0..10).map(|n| record(topic, None, n.to_string())).collect()).await?;
    let at = TopicPartition::new(topic, 0);
    for group in [None, Some(format!("{topic}-group"))] {
        let mut reader = Reader::open(log, &[topic], group, &[(at.clone(), 7)]).await?;
        reader.until(|reader| reader.count() >= 3).await?;
        expect(reader.values(&at) == ["7", "8", "9"], || format!("from 7 on there is {:?}", reader.values(&at)))?;
    }
    let mut reader = Reader::open(log, &[topic], None, &[(at.clone(), 10)]).await?;
    reader.until(|reader| !reader.assigned.is_empty()).await?;
    log.append(vec![record(topic, None, "10")]).await?;
    reader.until(|reader| reader.count() >= 1).await?;
    expect(reader.values(&at) == ["10"] && reader.gaps.is_empty(), || format!("from the end on there is {:?}", reader.values(&at)))
}

/// A batch has the bytes that were asked for at most, or one record.
pub(super) async fn batches(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 1).await?;
    log.append((0..10).map(|n| record(topic, None, n.to_string().repeat(1000))).collect()).await?;
    let subscription = Subscription { topics: vec![topic.to_owned()], group: None, max_batch_bytes: 100 };
    let mut reader = Reader::open_sized(log, subscription, &[]).await?;
    reader.until(|reader| reader.count() >= 10).await?;
    expect(reader.batches == 10, || format!("ten records that are too large came in {} batches", reader.batches))
}

/// Appends at the same time: nothing is lost, no position twice, and each caller's records keep their order.
pub(super) async fn concurrent(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 3).await?;
    let calls = (0..24).map(|caller| {
        let log = Arc::clone(log);
        let key = format!("caller-{caller}");
        async move {
            let mut positions = Vec::new();
            for n in 0..10 {
                positions.extend(log.append(vec![record(topic, Some(&key), format!("{caller}-{n}")); 2]).await?);
            }
            Ok::<_, Broken>(positions)
        }
    });
    let positions: Vec<_> = futures::future::try_join_all(calls).await?.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = positions.iter().map(|position| (position.at.clone(), position.offset)).collect();
    expect(distinct.len() == 480, || format!("480 records have {} positions", distinct.len()))?;
    let mut reader = Reader::open(log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.count() >= 480).await?;
    for caller in 0..24 {
        let own = format!("{caller}-");
        let values = reader.records.keys().flat_map(|at| reader.values(at)).filter(|value| value.starts_with(&own));
        let expected = (0..10).flat_map(|n| [format!("{caller}-{n}"), format!("{caller}-{n}")]);
        expect(values.eq(expected), || format!("the records of caller {caller} are out of order"))?;
    }
    Ok(())
}

/// A poll of nothing is idle, and what is appended later still comes.
pub(super) async fn live(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 2).await?;
    let mut reader = Reader::open(log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.assigned.len() == 2).await?;
    expect(!reader.poll().await?, || "an empty topic brought something".to_owned())?;
    for n in 0..3 {
        log.append(vec![record(topic, Some("k"), n.to_string())]).await?;
        reader.until(|reader| reader.count() > n).await?;
    }
    Ok(())
}

/// One record by its offset, or none.
pub(super) async fn read(log: &Log, topic: &str) -> Result<(), Broken> {
    log.ensure_topic(topic, 1).await?;
    log.append((0..5).map(|n| record(topic, Some("k"), n.to_string())).collect()).await?;
    let at = TopicPartition::new(topic, 0);
    for offset in [3_i64, 0, 4] {
        let found = log.read(&at, offset).await?;
        let right = found.as_ref().is_some_and(|r| r.offset == offset && text(r.value.as_ref()) == offset.to_string());
        expect(right, || format!("offset {offset} reads {found:?}"))?;
    }
    let each = log.read_each(&at, &[0, 2, 3, 5, 9_000]).await?;
    let offsets: Vec<Option<i64>> = each.iter().map(|found| found.as_ref().map(|record| record.offset)).collect();
    expect(offsets == [Some(0), Some(2), Some(3), None, None], || format!("offsets 0, 2, 3, 5, 9000 read {offsets:?}"))?;
    log.append((5..6_000).map(|n| record(topic, Some("k"), n.to_string())).collect()).await?;
    let wanted: Vec<i64> = (0..40).chain([3_000, 3_001, 5_999]).collect();
    let each = log.read_each(&at, &wanted).await?;
    let is_right = |(found, offset): (&Option<Record>, &i64)| found.as_ref().is_some_and(|r| text(r.value.as_ref()) == offset.to_string());
    expect(each.len() == wanted.len() && each.iter().zip(&wanted).all(is_right), || "far offsets read other records".to_owned())?;
    expect(log.read(&at, 6_000).await?.is_none(), || "there is a record at the end".to_owned())
}

/// A start beyond the end stops the partition, the others go on.
pub(super) async fn gap_beyond(log: &Log, topic: &str) -> Result<(), Broken> {
    for group in [None, Some(format!("{topic}-group"))] {
        let topic = format!("{topic}{}", group.as_ref().map_or("", |_| "-g"));
        let other = format!("{topic}-other");
        log.ensure_topic(&topic, 1).await?;
        log.ensure_topic(&other, 1).await?;
        log.append(vec![record(&topic, None, "0"), record(&other, None, "1")]).await?;
        let at = TopicPartition::new(topic.as_str(), 0);
        let mut reader = Reader::open(log, &[&topic, &other], group, &[(at.clone(), 900)]).await?;
        reader.until(|reader| reader.count() == 1 && reader.gaps.len() == 1).await?;
        let gap = &reader.gaps[0];
        expect(gap.at == at && gap.expected == 900 && gap.found.is_none(), || format!("the gap is {gap:?}"))?;
        log.append(vec![record(&topic, None, "2"), record(&other, None, "3")]).await?;
        reader.until(|reader| reader.count() == 2).await?;
        reader.poll().await?;
        expect(!reader.records.contains_key(&at), || "a stopped partition goes on".to_owned())?;
    }
    Ok(())
}

/// A start that retention passed is a gap; the beginning is none.
pub(super) async fn gap_below(bench: &mut dyn Bench, topic: &str) -> Result<(), Broken> {
    let log = bench.log();
    log.ensure_topic(topic, 1).await?;
    log.append((0..10).map(|n| record(topic, None, n.to_string())).collect()).await?;
    let at = TopicPartition::new(topic, 0);
    bench.trim(topic).await?;
    let low = log.watermarks(topic).await?[0].1.low;
    expect(low > 1, || format!("the low watermark is {low} after the trim"))?;
    log.append(vec![record(topic, None, "last")]).await?;
    for start in [0, 1] {
        let mut reader = Reader::open(&log, &[topic], None, &[(at.clone(), start)]).await?;
        reader.until(|reader| !reader.gaps.is_empty()).await?;
        let gap = &reader.gaps[0];
        expect(gap.at == at && gap.expected == start && gap.found == Some(low), || format!("the gap is {gap:?}"))?;
    }
    let each = log.read_each(&at, &[0, 1, low]).await?;
    let is_there: Vec<bool> = each.iter().map(Option::is_some).collect();
    expect(is_there == [false, false, true], || format!("of deleted records, and one that is there, are read {is_there:?}"))?;
    let mut reader = Reader::open(&log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.values(&at).last().is_some_and(|value| value == "last")).await?;
    let first = reader.records[&at][0].offset;
    expect(first == low && reader.gaps.is_empty(), || format!("the beginning is at {first}, not {low}"))
}

/// What was acknowledged is there after the log was opened again, and offsets go on.
pub(super) async fn durable(bench: &mut dyn Bench, topic: &str) -> Result<(), Broken> {
    let log = bench.log();
    log.ensure_topic(topic, 2).await?;
    let before = log.append((0..40).map(|n| record(topic, Some(&n.to_string()), n.to_string())).collect()).await?;
    drop(log);
    bench.reopen().await?;
    let log = bench.log();
    let after = log.append((40..60).map(|n| record(topic, Some(&n.to_string()), n.to_string())).collect()).await?;
    let mut reader = Reader::open(&log, &[topic], None, &[]).await?;
    reader.until(|reader| reader.count() >= 60).await?;
    for (position, n) in before.iter().chain(&after).zip(0..) {
        let found = reader.records.get(&position.at).into_iter().flatten().find(|record| record.offset == position.offset);
        let value = text(found.and_then(|record| record.value.as_ref()));
        expect(value == n.to_string(), || format!("{}@{} holds {value}, not {n}", position.at, position.offset))?;
    }
    expect(reader.count() == 60, || format!("60 records became {}", reader.count()))
}
