//! The one thread that writes to the spill. Appends that wait while it syncs are written together next.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use kiro_ports::NewRecord;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::queue::Segment;
use super::{Shared, Ticket, frame};
use crate::error::{Error, Result};
use crate::folder::sync_folder;

/// A segment takes no further group beyond these bytes: it is what a crash while draining repeats at most, but for one group.
const SEGMENT_BYTES: u64 = 1 << 20;
/// A group takes no further append beyond these bytes.
const GROUP_BYTES: usize = 1 << 20;
/// Appends that wait for the disk; more are refused, so that callers hear in time. Each holds what its request holds anyway.
const WAITING: usize = 4096;

/// An append that goes to the spill.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) records: Vec<NewRecord>,
    pub(super) answer: oneshot::Sender<Result<()>>,
    /// Held until it is answered.
    pub(super) ticket: Ticket,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(shared: Arc<Shared>) -> Result<(SyncSender<Request>, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(WAITING);
    let failed = Error::io(shared.folder.clone());
    let thread = std::thread::Builder::new().name("kiro-log-spill".to_owned());
    let thread = thread.spawn(move || Writer { shared, file: None }.run(&receiver)).map_err(failed)?;
    Ok((sender, thread))
}

struct Writer {
    shared: Arc<Shared>,
    /// The file of the segment that is written to.
    file: Option<(u64, File)>,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut group = vec![first];
            let mut size: usize = group.iter().flat_map(|request| &request.records).map(|record| record.value.len()).sum();
            while size < GROUP_BYTES
                && let Ok(next) = requests.try_recv()
            {
                size += next.records.iter().map(|record| record.value.len()).sum::<usize>();
                group.push(next);
            }
            self.write(group);
        }
    }

    /// Writes a group, then answers each of it.
    fn write(&mut self, group: Vec<Request>) {
        let segment = match self.segment() {
            Ok(segment) => segment,
            Err(error) => return self.fail(group, &error),
        };
        let (mut bytes, mut count, mut taken) = (Vec::new(), 0, Vec::new());
        for request in group {
            let before = bytes.len();
            let now = self.shared.clock.now();
            request.records.iter().for_each(|record| frame::encode(&segment.marker, now, record, &mut bytes));
            if self.shared.queue().has_room(bytes.len()) {
                count += request.records.len() as u64;
                taken.push(request);
            } else {
                bytes.truncate(before);
                self.shared.queue().status.refused += request.records.len() as u64;
                answer(request, Err(Error::SpillFull { path: self.shared.folder.clone(), limit: self.shared.limit }));
            }
        }
        if let Err(error) = self.put(&bytes) {
            return self.fail(taken, &error);
        }
        self.shared.queue().written(bytes.len(), count);
        self.shared.changed.notify_one();
        for request in taken {
            answer(request, Ok(()));
        }
    }

    /// The segment to write to; a new one when the newest is full, is being drained, or could not be written.
    fn segment(&mut self) -> Result<Segment> {
        let newest = self.shared.queue().open(SEGMENT_BYTES);
        if let Some(newest) = newest.filter(|newest| self.file.as_ref().is_some_and(|(sequence, _)| *sequence == newest.sequence)) {
            return Ok(newest);
        }
        self.file = None;
        let segment = self.shared.queue().next(Uuid::new_v4().into_bytes());
        let path = segment.path(&self.shared.folder);
        let file = File::options().append(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        sync_folder(&self.shared.folder)?;
        self.file = Some((segment.sequence, file));
        self.shared.queue().add(segment.clone());
        Ok(segment)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((_, file)) = &mut self.file else { return Err(Error::Closed { part: "spill" }) };
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(Error::io(&self.shared.folder))
    }

    /// What was tried is in no file, or it is and nobody was told: it does no harm.
    fn fail(&mut self, group: Vec<Request>, error: &Error) {
        tracing::error!(%error, appends = group.len(), "the spill cannot be written");
        self.file = None;
        let mut queue = self.shared.queue();
        queue.close();
        queue.status.refused += group.iter().map(|request| request.records.len() as u64).sum::<u64>();
        drop(queue);
        self.shared.changed.notify_one();
        for request in group {
            answer(request, Err(Error::NotSpilled { path: self.shared.folder.clone(), reason: error.to_string() }));
        }
    }
}

/// Nobody waits for the answer when the caller was cancelled.
fn answer(request: Request, with: Result<()>) {
    let Request { answer, ticket, .. } = request;
    drop(answer.send(with));
    drop(ticket);
}
