//! The way back: the oldest segment goes into the log, then its file goes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use kiro_ports::NewRecord;
use kiro_schemas::FaultKind;

use super::frame::{self, Piece};
use super::queue::Segment;
use super::{Shared, is_outage};
use crate::error::{Error, Result};
use crate::folder::sync_folder;

/// One append has at most so many records, or bytes, or one record.
const MOST_RECORDS: usize = 500;
const MOST_BYTES: usize = 1 << 20;
/// Where bytes are put that cannot go into the log.
const ASIDE: &str = "aside";

/// A record, and where its frame is in the segment.
type Placed = (Range<usize>, NewRecord);

/// Drains until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let oldest = shared.queue().oldest();
        if let Some(segment) = oldest {
            drain(&shared, segment).await;
            continue;
        }
        if shared.queue().end() {
            tracing::info!(path = %shared.folder.display(), "all that was spilled is in the log");
            shared.drained.notify_waiters();
        }
        shared.changed.notified().await;
    }
}

/// Puts a segment into the log, however often it must be tried.
async fn drain(shared: &Arc<Shared>, segment: Segment) {
    let segment = Arc::new(segment);
    let (of, loaded) = (Arc::clone(shared), Arc::clone(&segment));
    let content = Arc::new(insist(shared.try_every, move || load(&of, &loaded)).await);
    let mut parts: Vec<Range<usize>> = parts(&content.records);
    parts.reverse();
    while let Some(part) = parts.pop() {
        let records: Vec<NewRecord> = content.records[part.clone()].iter().map(|(_, record)| record.clone()).collect();
        let Err(error) = shared.inner.append(records).await else {
            shared.queue().status.drained += part.len() as u64;
            continue;
        };
        match error.kind {
            // Alone in the end, a record that the log never takes holds no other up.
            FaultKind::TooLarge | FaultKind::Invalid if part.len() > 1 => {
                let middle = usize::midpoint(part.start, part.end);
                parts.extend([middle..part.end, part.start..middle]);
            }
            FaultKind::TooLarge | FaultKind::Invalid => {
                let (of, from, all) = (Arc::clone(shared), Arc::clone(&segment), Arc::clone(&content));
                let reason = error.to_string();
                insist(shared.try_every, move || put_aside(&of, &from, &all.bytes, &all.records[part.start].0, &reason)).await;
            }
            _ => {
                if !is_outage(&error) {
                    tracing::error!(%error, "the log refuses what is spilled; it is tried again");
                }
                parts.push(part);
                tokio::time::sleep(shared.try_every).await;
            }
        }
    }
    let of = Arc::clone(shared);
    insist(shared.try_every, move || remove(&of, &segment)).await;
    shared.queue().remove_oldest();
}

/// Does what touches the disk where it holds up nobody, until it is done.
async fn insist<T: Send + 'static>(try_every: Duration, work: impl Fn() -> Result<T> + Send + Sync + 'static) -> T {
    let work = Arc::new(work);
    loop {
        let once = Arc::clone(&work);
        match tokio::task::spawn_blocking(move || once()).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => tracing::error!(%error, "the spill cannot be drained; it is tried again"),
            Err(error) => tracing::error!(%error, "the spill cannot be drained; it is tried again"),
        }
        tokio::time::sleep(try_every).await;
    }
}

/// Records in order, in parts of a size that one append bears.
fn parts(records: &[Placed]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, (range, _)) in records.iter().enumerate() {
        bytes += range.len();
        match parts.last_mut() {
            Some(last) if last.len() < MOST_RECORDS && bytes <= MOST_BYTES => last.end = at + 1,
            _ => {
                parts.push(at..at + 1);
                bytes = range.len();
            }
        }
    }
    parts
}

/// What a segment holds.
#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    records: Vec<Placed>,
}

/// Reads a segment; what is no frame is put aside.
fn load(shared: &Shared, segment: &Segment) -> Result<Content> {
    let path = segment.path(&shared.folder);
    let mut bytes = Vec::new();
    File::open(&path).and_then(|file| file.take(segment.bytes).read_to_end(&mut bytes)).map_err(Error::io(&path))?;
    if u64::try_from(bytes.len()).is_ok_and(|found| found < segment.bytes) {
        tracing::error!(path = %path.display(), written = segment.bytes, found = bytes.len(), "a segment of the spill was cut");
    }
    let mut records = Vec::new();
    for (range, piece) in frame::pieces(&segment.marker, &bytes) {
        match piece {
            Piece::Record(record) => records.push((range, record)),
            Piece::Damaged(reason) => put_aside(shared, segment, &bytes, &range, reason)?,
            Piece::Torn => tracing::warn!(path = %path.display(), at = range.start, "the last record was not written to its end: dropped"),
        }
    }
    Ok(Content { bytes, records })
}

/// Keeps bytes that cannot go into the log, for people.
fn put_aside(shared: &Shared, segment: &Segment, bytes: &[u8], range: &Range<usize>, reason: &str) -> Result<()> {
    let folder = shared.folder.join(ASIDE);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let path = folder.join(format!("{}-{}", segment.name(), range.start));
    let write = |mut file: File| {
        file.write_all(bytes.get(range.clone()).unwrap_or_default())?;
        file.sync_all()
    };
    File::create(&path).and_then(write).map_err(Error::io(&path))?;
    sync_folder(&folder)?;
    shared.queue().status.aside += 1;
    tracing::error!(path = %path.display(), reason, "a spilled record cannot go into the log; it is put aside");
    Ok(())
}

fn remove(shared: &Shared, segment: &Segment) -> Result<()> {
    let path = segment.path(&shared.folder);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
        _ => sync_folder(&shared.folder),
    }
}
