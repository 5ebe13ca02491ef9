//! What is spilled: segments, oldest first, and who waits to be.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use kiro_schemas::Micros;

use super::SpillStatus;
use super::frame::Marker;
use crate::error::{Error, Result};

const SUFFIX: &str = ".spill";

/// A file of frames: written by one thread, drained whole, then deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) marker: Marker,
    /// What is durable of it; there may be more in the file, of which nobody was told.
    pub(super) bytes: u64,
}

impl Segment {
    /// The sequence gives the order, the marker is what its frames begin with.
    pub(super) fn name(&self) -> String {
        format!("{:020}-{:032x}{SUFFIX}", self.sequence, u128::from_be_bytes(self.marker))
    }

    fn of(name: &str, bytes: u64) -> Option<Self> {
        let (sequence, marker) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let marker = u128::from_str_radix(marker, 16).ok()?.to_be_bytes();
        Some(Self { sequence: sequence.parse().ok()?, marker, bytes }).filter(|segment| segment.name() == name)
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }
}

/// The state of the spill.
#[derive(Debug, Default)]
pub(super) struct Queue {
    segments: VecDeque<Segment>,
    /// Whether the newest segment takes more.
    is_open: bool,
    /// The segment that is being written to this moment.
    written_to: Option<u64>,
    next_sequence: u64,
    /// Appends that go to the spill and are not answered yet.
    waiting: usize,
    /// Whether appends go to the spill: from the first that the log did not take until all are in the log.
    is_spilling: bool,
    pub(super) status: SpillStatus,
}

impl Queue {
    /// What a process before this one left in a folder.
    pub(super) fn load(folder: &Path, limit: u64) -> Result<Self> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let entry = entry.map_err(Error::io(folder))?;
            let bytes = entry.metadata().map_err(Error::io(entry.path()))?.len();
            segments.extend(entry.file_name().to_str().and_then(|name| Segment::of(name, bytes)));
        }
        segments.sort_unstable_by_key(|segment| segment.sequence);
        let mut queue = Self { next_sequence: segments.last().map_or(0, |newest| newest.sequence + 1), ..Self::default() };
        queue.is_spilling = !segments.is_empty();
        queue.status.bytes = segments.iter().map(|segment| segment.bytes).sum();
        queue.status.limit = limit;
        queue.segments = segments.into();
        Ok(queue)
    }

    pub(super) const fn is_spilling(&self) -> bool {
        self.is_spilling
    }

    /// From now on appends go to the spill; whether that is news.
    pub(super) fn begin(&mut self, now: Micros) -> bool {
        self.status.since.get_or_insert(now);
        !std::mem::replace(&mut self.is_spilling, true)
    }

    /// An append goes to the spill.
    pub(super) const fn enter(&mut self) {
        self.waiting += 1;
    }

    /// It was answered.
    pub(super) const fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// When nothing is spilled and nobody is about to, appends go to the log again; whether that is news.
    pub(super) fn end(&mut self) -> bool {
        let is_over = self.is_spilling && self.segments.is_empty() && self.waiting == 0;
        if is_over {
            self.is_spilling = false;
            self.status.since = None;
        }
        is_over
    }

    /// Whether there is room for so many bytes beside those that are about to be written.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        u64::try_from(bytes).is_ok_and(|bytes| self.status.bytes.saturating_add(bytes) <= self.status.limit)
    }

    /// The segment that is written to next, if one with fewer bytes than `most` takes more; it is not drained until
    /// [`Self::written`] or [`Self::close`].
    pub(super) fn open(&mut self, most: u64) -> Option<Segment> {
        let newest = self.segments.back().filter(|newest| self.is_open && newest.bytes < most).cloned();
        self.written_to = newest.as_ref().map(|segment| segment.sequence);
        newest
    }

    /// What the next segment is to be.
    pub(super) const fn next(&mut self, marker: Marker) -> Segment {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Segment { sequence, marker, bytes: 0 }
    }

    /// The file of a segment is there; it is written to next.
    pub(super) fn add(&mut self, segment: Segment) {
        self.written_to = Some(segment.sequence);
        self.segments.push_back(segment);
        self.is_open = true;
    }

    /// A write failed: what is durable stays, and no more goes into that file.
    pub(super) const fn close(&mut self) {
        self.is_open = false;
        self.written_to = None;
    }

    /// So many records more are durable in the newest segment.
    pub(super) fn written(&mut self, bytes: usize, records: u64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Some(newest) = self.segments.back_mut() {
            newest.bytes += bytes;
        }
        self.written_to = None;
        self.status.bytes += bytes;
        self.status.spilled += records;
    }

    /// The oldest segment, which takes no more from now on; `None` also while it is written to.
    pub(super) fn oldest(&mut self) -> Option<Segment> {
        self.is_open = self.is_open && self.segments.len() > 1;
        self.segments.front().filter(|oldest| self.written_to != Some(oldest.sequence)).cloned()
    }

    /// The oldest segment is in the log.
    pub(super) fn remove_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.status.bytes = self.status.bytes.saturating_sub(oldest.bytes);
        }
    }
}
