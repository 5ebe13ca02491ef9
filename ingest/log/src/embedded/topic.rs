//! One topic: a folder of segments, the newest of which is written to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kiro_ports::{Record, Watermarks};
use kiro_schemas::{Micros, TopicPartition};

use super::EmbeddedOptions;
use super::segment::{Row, Segment};
use crate::codec::fnv1a;
use crate::error::{Error, Result};
use crate::folder::sync_folder;

const MAX_PARTITIONS: i32 = 1024;

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    folder: PathBuf,
    segments: RwLock<Vec<Arc<Segment>>>,
    next: Vec<AtomicI64>,
    spread: AtomicU64,
}

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Found {
    /// Records from the offset on; none when it is the next one.
    Records(Vec<Record>),
    /// Retention passed the offset; this is the first that is there.
    Trimmed(i64),
}

impl Topic {
    /// Creates the folder with an empty segment.
    pub(super) fn create(topics: &Path, name: &str, partitions: i32) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let named = (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(plain);
        if !named || !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(Error::TopicShape { topic: name.to_owned(), partitions });
        }
        let folder = topics.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let bases: Vec<i64> = (0..partitions).map(|_| 0).collect();
        let segment = Segment::create(file_of(&folder, 0), 0, bases)?;
        sync_folder(&folder)?;
        sync_folder(topics)?;
        Self::of(name, folder, vec![segment])
    }

    /// Opens all topics of a folder, to be written to or only to be looked at.
    pub(super) fn open_all(folder: &Path, is_written: bool) -> Result<BTreeMap<Arc<str>, Arc<Self>>> {
        if is_written {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let mut topics = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let name = entry.map_err(Error::io(folder))?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(topic) = Self::open(folder, name, is_written)? {
                topics.insert(Arc::clone(&topic.name), Arc::new(topic));
            }
        }
        Ok(topics)
    }

    /// Opens a folder, to be written to or only to be looked at; `None` when the topic's creation was interrupted.
    pub(super) fn open(topics: &Path, name: &str, is_written: bool) -> Result<Option<Self>> {
        let folder = topics.join(name);
        let mut sequences = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let file = entry.map_err(Error::io(&folder))?.file_name();
            sequences.extend(file.to_str().and_then(|f| f.strip_suffix(".redb")).and_then(|f| f.parse::<u64>().ok()));
        }
        sequences.sort_unstable();
        let mut segments = Vec::with_capacity(sequences.len());
        while let Some(newest) = sequences.pop() {
            let path = file_of(&folder, newest);
            match Segment::open(path.clone(), newest, is_written && segments.is_empty())? {
                Some(segment) => segments.push(segment),
                None if !is_written => {}
                None => std::fs::remove_file(&path).map_err(Error::io(&path))?,
            }
        }
        segments.reverse();
        if segments.is_empty() { Ok(None) } else { Self::of(name, folder, segments).map(Some) }
    }

    fn of(name: &str, folder: PathBuf, segments: Vec<Segment>) -> Result<Self> {
        let ends = segments.last().map_or_else(|| Ok(Vec::new()), Segment::ends)?;
        let segments = segments.into_iter().map(Arc::new).collect();
        let next = ends.into_iter().map(AtomicI64::new).collect();
        Ok(Self { name: name.into(), folder, segments: RwLock::new(segments), next, spread: AtomicU64::new(0) })
    }

    fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its partitions.
    pub(super) fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        (0..).zip(&self.next).map(move |(partition, _)| TopicPartition::new(Arc::clone(&self.name), partition))
    }

    /// The partition of a key: the same one always; without a key each in turn.
    pub(super) fn partition_of(&self, key: Option<&[u8]>) -> i32 {
        let hash = key.map_or_else(|| self.spread.fetch_add(1, Ordering::Relaxed), fnv1a);
        let count = u64::try_from(self.next.len()).unwrap_or(1).max(1);
        i32::try_from(hash % count).unwrap_or(0)
    }

    /// The next offset of each partition.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.next.iter().map(|next| next.load(Ordering::Acquire)).collect()
    }

    /// The watermarks of a partition.
    pub(super) fn watermarks(&self, at: &TopicPartition) -> Result<Watermarks> {
        let unknown = || Error::UnknownPartition { at: at.clone() };
        let index = usize::try_from(at.partition).map_err(|_negative| unknown())?;
        let high = self.next.get(index).ok_or_else(unknown)?.load(Ordering::Acquire);
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let low = segments.first().and_then(|segment| segment.bases.get(index)).copied().unwrap_or(high);
        Ok(Watermarks { low, high })
    }

    /// Reads records of one partition from an offset on.
    pub(super) fn read(&self, at: &TopicPartition, from: i64, max_bytes: usize) -> Result<Found> {
        let marks = self.watermarks(at)?;
        if from < marks.low {
            return Ok(Found::Trimmed(marks.low));
        }
        if from >= marks.high {
            return Ok(Found::Records(Vec::new()));
        }
        let index = usize::try_from(at.partition).unwrap_or(0);
        let segments = self.segments();
        match segments.iter().rev().find(|segment| segment.bases.get(index).is_some_and(|base| *base <= from)) {
            Some(segment) => segment.read(at, from, marks.high, max_bytes).map(Found::Records),
            // Retention came between the two looks.
            None => Ok(Found::Trimmed(self.watermarks(at)?.low)),
        }
    }

    /// Writes rows whose offsets follow [`Self::ends`]; `ends` are the offsets after them. Only the writer calls this.
    pub(super) fn append(&self, rows: &[Row], ends: &[i64], now: Micros, options: &EmbeddedOptions) -> Result<()> {
        let active = self.active(now, options)?;
        if let Err(error) = active.append(rows, now) {
            // What was tried is not there after the file is opened anew, or it is and is written over.
            if let Err(again) = active.reopen() {
                tracing::warn!(topic = %self.name, error = %again, "segment cannot be opened after a failed write");
            }
            return Err(error);
        }
        for (next, end) in self.next.iter().zip(ends) {
            next.store(*end, Ordering::Release);
        }
        Ok(())
    }

    /// The segment to write to; a new one when the newest is full or old.
    fn active(&self, now: Micros, options: &EmbeddedOptions) -> Result<Arc<Segment>> {
        let newest = self.segments().pop().ok_or(Error::Closed { part: "topic" })?;
        let facts = newest.facts();
        let full = facts.bytes >= micros_or_bytes(options.segment_bytes);
        let old = options.segment_age.is_some_and(|age| facts.bytes > 0 && facts.oldest.plus(micros_or_bytes(age.as_micros())) <= now);
        if !full && !old {
            return Ok(newest);
        }
        let sequence = newest.sequence + 1;
        let path = file_of(&self.folder, sequence);
        let segment = Arc::new(Segment::create(path, sequence, self.ends())?);
        sync_folder(&self.folder)?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&segment));
        Ok(segment)
    }

    /// Deletes whole segments that retention no longer wants, oldest first. Only the writer calls this.
    pub(super) fn enforce_retention(&self, now: Micros, options: &EmbeddedOptions) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let segments = self.segments();
            let [oldest, _newer, ..] = segments.as_slice() else { break };
            let bytes: i64 = segments.iter().map(|segment| segment.facts().bytes).sum();
            let large = options.retention_bytes.is_some_and(|limit| bytes > micros_or_bytes(limit));
            let age = options.ages.get(&*self.name).copied().or(options.retention_age);
            let old = age.is_some_and(|age| oldest.facts().newest.plus(micros_or_bytes(age.as_micros())) <= now);
            if !large && !old {
                break;
            }
            self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(0);
            std::fs::remove_file(&oldest.path).map_err(Error::io(&oldest.path))?;
            deleted += 1;
        }
        if deleted > 0 {
            sync_folder(&self.folder)?;
        }
        Ok(deleted)
    }
}

fn micros_or_bytes(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn file_of(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.redb"))
}
