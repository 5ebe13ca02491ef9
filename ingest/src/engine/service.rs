//! The running engine: consumer, thread of the folds, committers, and the order in which they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiro_ports::{EventLog, LogConsumer, Poll, PortError, Subscription, TableSource};
use kiro_schemas::TopicPartition;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::assign::Start;
use super::commit::{Committer, Pauses, follow};
use super::lane::{Lane, Queues, lanes};
use super::pace::{Instant, sleep};
use super::persons::follow_forgotten;
use super::seal::Seal;
use super::shared::Shared;
use super::worker::{Command, Worker};
use super::{EngineConfig, EngineError, EnginePorts, EngineResult};

/// How often it is looked where the log ends; and until it was reached once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_millis(200);

/// An engine that is to be run.
#[derive(Debug)]
pub struct EngineService {
    config: EngineConfig,
    ports: EnginePorts,
    pub(super) shared: Arc<Shared>,
}

impl EngineService {
    pub(super) fn new(config: EngineConfig, ports: EnginePorts, shared: Arc<Shared>) -> Self {
        Self { config, ports, shared }
    }

    /// Runs until cancelled: then it stops to consume, commits what it has, and returns.
    ///
    /// # Errors
    /// A fold failed, or the lake did not answer while the folds were loaded.
    pub async fn run(self, cancel: CancellationToken) -> EngineResult<()> {
        self.run_with(cancel, on_a_thread).await
    }

    /// The same with the folds where the caller wants them.
    pub(super) async fn run_with<F>(
        self,
        cancel: CancellationToken,
        folds: impl FnOnce(Worker, Queues) -> EngineResult<F>,
    ) -> EngineResult<()>
    where
        F: Future<Output = EngineResult<()>>,
    {
        let (config, shared) = (self.config.clone(), Arc::clone(&self.shared));
        let (log, source) = (Arc::clone(&self.ports.log), Arc::clone(&self.ports.source));
        let stop_commits = CancellationToken::new();
        let mut committers = self.spawn_committers(&stop_commits);
        let (live, history, queues) = lanes();
        let folds = folds(Worker::new(Arc::clone(&shared), self.config, self.ports, cancel.clone()), queues)?;
        info!(topics = ?config.topics, history = ?config.history, "engine started");
        let lost = shared.lost.clone();
        let reading = |lane, commands| {
            let consumer =
                Consumer { lane, shared: Arc::clone(&shared), config: config.clone(), log: Arc::clone(&log), commands, looked_at: None };
            consumer.read(Arc::clone(&source), cancel.clone(), lost.clone())
        };
        let ((), (), outcome) = tokio::join!(reading(Lane::Live, live), reading(Lane::History, history), folds);
        stop_commits.cancel();
        let mut is_whole = true;
        while let Some(ended) = committers.join_next().await {
            is_whole &= ended.is_ok();
        }
        info!("engine stopped");
        outcome?;
        if lost.is_cancelled() {
            return Err(EngineError::Fenced { table: "the tables of the folds", epoch: 0 });
        }
        if is_whole { Ok(()) } else { Err(EngineError::Ended("a committer")) }
    }

    fn spawn_committers(&self, stop: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let tables: Vec<_> = self.shared.lock().tables.iter().enumerate().map(|(at, s)| (at, s.table, s.commits)).collect();
        for (index, table, _) in tables.into_iter().filter(|(_, _, commits)| *commits) {
            let committer = Committer {
                shared: Arc::clone(&self.shared),
                sink: Arc::clone(&self.ports.sink),
                source: Arc::clone(&self.ports.source),
                clock: Arc::clone(&self.ports.clock),
                index,
                table,
                seal: Seal::of(table, &self.ports.anchors, &self.ports.clock),
                stop: stop.clone(),
            };
            tasks.spawn(committer.run(self.config.commit_interval, self.config.idle_commit_interval));
        }
        let (shared, source) = (Arc::clone(&self.shared), Arc::clone(&self.ports.source));
        let pace = (self.config.commit_interval, self.config.idle_commit_interval);
        tasks.spawn(follow(shared, source, pace, stop.clone()));
        tasks.spawn(follow_forgotten(Arc::clone(&self.ports.persons), Arc::clone(&self.shared), stop.clone()));
        tasks
    }
}

/// Folds work for longer than an asynchronous thread may be held up.
fn on_a_thread(worker: Worker, queues: Queues) -> EngineResult<impl Future<Output = EngineResult<()>>> {
    let (ended, end) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || drop(ended.send(runtime.block_on(worker.run(queues))));
    std::thread::Builder::new().name("kiro-folds".to_owned()).spawn(work).map_err(EngineError::Thread)?;
    Ok(async { end.await.unwrap_or(Err(EngineError::Ended("the thread of the folds"))) })
}

struct Consumer {
    lane: Lane,
    shared: Arc<Shared>,
    config: EngineConfig,
    log: Arc<dyn EventLog>,
    commands: mpsc::Sender<Command>,
    looked_at: Option<Instant>,
}

impl Consumer {
    /// Reads its lane until it is told to end, or until the folds have hung up; that it is dropped then ends the folds.
    async fn read(mut self, source: Arc<dyn TableSource>, cancel: CancellationToken, lost: CancellationToken) {
        if self.lane.topics(&self.config).is_empty() {
            return;
        }
        tokio::select! { biased; () = lost.cancelled() => {} () = self.run(source, &cancel) => {} }
    }

    /// Consumes; anew whenever somebody else moved a partition of ours, from where the tables stand then.
    async fn run(&mut self, source: Arc<dyn TableSource>, cancel: &CancellationToken) {
        let mut fences = Pauses::default();
        while let Some(consumer) = self.begin(&source, cancel).await {
            let Some(owned) = self.consume(consumer, cancel).await else { return };
            warn!(partitions = ?owned, "partitions were moved by another process; the log is consumed anew");
            self.shared.revoke(&owned);
            if !self.tell(Command::Revoked(owned), cancel).await {
                return;
            }
            fences.pause(cancel).await;
        }
    }

    /// Consumes until the end, or until a partition is fenced: then it gives all that are owned.
    async fn consume(&mut self, mut consumer: Box<dyn LogConsumer>, cancel: &CancellationToken) -> Option<Vec<TopicPartition>> {
        let mut pauses = Pauses::default();
        let mut reported = None::<Instant>;
        while !cancel.is_cancelled() && !self.commands.is_closed() {
            let commands = self.commands.clone();
            let poll = tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                () = commands.closed() => return None,
                poll = self.next(consumer.as_mut()) => poll,
            };
            match poll {
                Ok(poll) => {
                    pauses = Pauses::default();
                    if !self.pass(poll, cancel).await {
                        return None;
                    }
                }
                Err(error) => {
                    warn!(%error, "poll of the log failed; trying again");
                    pauses.pause(cancel).await;
                }
            }
            if reported.is_none_or(|at| at.elapsed() >= self.config.commit_interval) {
                reported = Some(Instant::now());
                let contained = self.shared.lock().contained();
                if let Err(error) = consumer.report(&contained).await {
                    warn!(%error, "offsets were not reported to the log");
                }
            }
            if let Some(owned) = self.shared.fenced(&self.lane.topics(&self.config)) {
                return Some(owned);
            }
        }
        None
    }

    async fn begin(&self, source: &Arc<dyn TableSource>, cancel: &CancellationToken) -> Option<Box<dyn LogConsumer>> {
        let mut pauses = Pauses::default();
        let (topics, group) = (self.lane.topics(&self.config), self.lane.group(&self.config));
        let (shared, source) = (Arc::clone(&self.shared), Arc::clone(source));
        let start = Arc::new(Start { topics: topics.clone(), shared, source, runtime: Handle::current() });
        let subscription = Subscription { topics, group, max_batch_bytes: self.lane.batch_bytes(&self.config) };
        loop {
            match self.log.consume(subscription.clone(), start.clone()).await {
                Ok(consumer) => return Some(consumer),
                Err(error) => warn!(%error, "the log cannot be consumed; trying again"),
            }
            pauses.pause(cancel).await;
            if cancel.is_cancelled() {
                return None;
            }
        }
    }

    /// Polls when there is room; who waits for it longer tells meanwhile how far behind it is.
    async fn next(&self, consumer: &mut dyn LogConsumer) -> Result<Poll, PortError> {
        let room = self.shared.has_room(self.lane.tail_bytes(&self.config));
        tokio::select! {
            biased;
            () = room => consumer.poll().await,
            () = sleep(LOOK_EVERY) => Ok(Poll::Idle),
        }
    }

    /// Passes on what a poll brought; `false` when nobody takes it any more.
    async fn pass(&mut self, poll: Poll, cancel: &CancellationToken) -> bool {
        let is_idle = matches!(poll, Poll::Idle);
        let command = match poll {
            Poll::Batch(batch) => Some(Command::Batch(batch)),
            Poll::Gap(gap) => Some(Command::Gap(self.shared.lock().generation(&gap.at), gap)),
            Poll::Revoked(partitions) => Some(Command::Revoked(partitions)),
            Poll::Assigned(_) => Some(Command::Assigned),
            Poll::Idle => None,
        };
        if let Some(command) = command
            && !self.tell(command, cancel).await
        {
            return false;
        }
        let is_awaited = self.lane == Lane::Live && !self.shared.is_ready.load(Ordering::Acquire);
        let every = match (is_awaited, is_idle) {
            (false, _) => LOOK_EVERY,
            // Who waits for it to be ready waits no longer than it takes, however busy the log is.
            (true, false) => LOOK_SOON,
            (true, true) => Duration::ZERO,
        };
        if self.looked_at.is_none_or(|at| at.elapsed() >= every) {
            self.look().await;
            self.looked_at = Some(Instant::now());
        }
        true
    }

    /// `false` when the folds have hung up, or it is the end. Who waits for the folds longer tells meanwhile how far behind it is.
    async fn tell(&self, command: Command, cancel: &CancellationToken) -> bool {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                room = self.commands.reserve() => return room.map(|room| room.send(command)).is_ok(),
                () = sleep(LOOK_EVERY) => self.look().await,
            }
        }
    }

    /// Looks where the log ends.
    async fn look(&self) {
        let mut is_level = self.shared.is_loaded();
        for topic in &self.lane.topics(&self.config) {
            match self.log.watermarks(topic).await {
                Ok(marks) => {
                    let mut inner = self.shared.lock();
                    for (at, mark) in marks {
                        let next = inner.vector.next(&at);
                        let Some(partition) = inner.partitions.get_mut(&at).filter(|p| p.is_owned) else { continue };
                        partition.high = mark.high;
                        // What is appended while it catches up does not move the goal: a busy log must not keep it from being ready.
                        let goal = *partition.goal.get_or_insert(mark.high);
                        is_level &= partition.stopped.is_some() || next >= goal;
                        self.shared.telemetry.lag(&at.topic, at.partition, (mark.high - next).max(0));
                    }
                }
                Err(error) => {
                    is_level = false;
                    warn!(topic, %error, "watermarks were not read");
                }
            }
        }
        let inner = self.shared.lock();
        self.shared.telemetry.stopped(inner.partitions.values().filter(|p| p.stopped.is_some()).count());
        if self.lane == Lane::Live && is_level && !self.config.topics.iter().any(|topic| inner.is_awaited(topic)) {
            self.shared.is_ready.store(true, Ordering::Release);
        }
    }
}
