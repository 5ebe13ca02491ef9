//! The one thread that writes. Appends that wait while it syncs are committed together in the next transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{NewRecord, Position};
use kiro_schemas::TopicPartition;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::segment::Row;
use super::topic::Topic;
use crate::codec;
use crate::error::{Error, Result};

/// Appends that wait; more of them wait in front of the channel. Each holds a request of a caller, so this bounds memory.
const WAITING: usize = 256;
/// A transaction takes no further append beyond these bytes.
const GROUP_BYTES: usize = 16 << 20;
/// How often age is looked at when nothing is appended.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// The answer to a request; several may share one failure.
pub(super) type Answer<T> = oneshot::Sender<Result<T, Arc<Error>>>;

#[derive(Debug)]
pub(super) enum Request {
    Append(Vec<NewRecord>, Answer<Vec<Position>>),
    Ensure(String, i32, Answer<()>),
    Sweep(Answer<usize>),
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(shared: Arc<Shared>) -> Result<(mpsc::Sender<Request>, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let path = shared.folder.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(Error::io(&path))?;
    let thread = std::thread::Builder::new()
        .name("kiro-log-writer".to_owned())
        .spawn(move || runtime.block_on(run(&shared, receiver)))
        .map_err(Error::io(path))?;
    Ok((sender, thread))
}

async fn run(shared: &Shared, mut receiver: mpsc::Receiver<Request>) {
    let mut group = Group::default();
    loop {
        match tokio::time::timeout(SWEEP_EVERY, receiver.recv()).await {
            Ok(None) => return,
            Ok(Some(first)) => {
                let mut request = Some(first);
                while let Some(now) = request.take() {
                    group.take(shared, now);
                    if group.bytes < GROUP_BYTES {
                        request = receiver.try_recv().ok();
                    }
                }
                group.commit(shared);
            }
            Err(_elapsed) => {}
        }
        if let Err(error) = sweep(shared) {
            tracing::warn!(%error, "retention could not delete a segment");
        }
    }
}

fn sweep(shared: &Shared) -> Result<usize> {
    let now = shared.clock.now();
    shared.topics().values().try_fold(0, |sum, topic| Ok(sum + topic.enforce_retention(now, &shared.options)?))
}

/// Nobody waits for the answer when the caller was cancelled.
fn answer<T>(to: Answer<T>, with: Result<T, Arc<Error>>) {
    drop(to.send(with));
}

#[derive(Debug, Default)]
struct Group {
    bytes: usize,
    topics: BTreeMap<Arc<str>, Part>,
    waiting: Vec<(Vec<Position>, Answer<Vec<Position>>)>,
}

/// What a group writes to one topic.
#[derive(Debug)]
struct Part {
    topic: Arc<Topic>,
    rows: Vec<Row>,
    ends: Vec<i64>,
}

impl Group {
    fn take(&mut self, shared: &Shared, request: Request) {
        match request {
            Request::Append(records, to) => match self.place(shared, records) {
                Ok(positions) => self.waiting.push((positions, to)),
                Err(error) => answer(to, Err(Arc::new(error))),
            },
            Request::Ensure(topic, partitions, to) => answer(to, shared.create(&topic, partitions).map_err(Arc::new)),
            Request::Sweep(to) => {
                self.commit(shared);
                answer(to, sweep(shared).map_err(Arc::new));
            }
        }
    }

    /// Gives each record its position. All topics are looked up first, so that a request is taken whole or not at all.
    fn place(&mut self, shared: &Shared, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        for record in &records {
            if !self.topics.contains_key(record.topic.as_str()) {
                let topic = shared.topic(&record.topic)?;
                let ends = topic.ends();
                self.topics.insert(Arc::clone(&topic.name), Part { topic, rows: Vec::new(), ends });
            }
        }
        let now = shared.clock.now();
        let mut positions = Vec::with_capacity(records.len());
        for record in records {
            let Some(part) = self.topics.get_mut(record.topic.as_str()) else { continue };
            let partition = part.topic.partition_of(record.key.as_deref());
            let Some(end) = usize::try_from(partition).ok().and_then(|index| part.ends.get_mut(index)) else { continue };
            let bytes = codec::encode(now, record.key.as_deref(), Some(&record.value), &record.headers);
            self.bytes += bytes.len();
            part.rows.push(Row { partition, offset: *end, bytes });
            positions.push(Position { at: TopicPartition::new(Arc::clone(&part.topic.name), partition), offset: *end });
            *end += 1;
        }
        Ok(positions)
    }

    /// Writes everything, then answers everybody.
    fn commit(&mut self, shared: &Shared) {
        self.bytes = 0;
        let now = shared.clock.now();
        let mut failures: BTreeMap<Arc<str>, Arc<Error>> = BTreeMap::new();
        let mut written = false;
        for (name, part) in std::mem::take(&mut self.topics) {
            if part.rows.is_empty() {
                continue;
            }
            match part.topic.append(&part.rows, &part.ends, now, &shared.options) {
                Ok(()) => written = true,
                Err(error) => {
                    failures.insert(name, Arc::new(error));
                }
            }
        }
        if written || !failures.is_empty() {
            shared.note(failures.values().next());
        }
        for (positions, to) in self.waiting.drain(..) {
            let failure = positions.iter().find_map(|position| failures.get(&position.at.topic)).cloned();
            answer(to, failure.map_or(Ok(positions), Err));
        }
        if written {
            shared.appended.notify_waiters();
        }
    }
}
