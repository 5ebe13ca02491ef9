//! A running question: its rows as they come, within time, rows and memory. Dropping it stops it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use kiro_ports::{Clock, PortError, RowStream};
use kiro_schemas::{Fault, Micros};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::threads::Threads;
use crate::watch::Wanted;
use crate::{Error, telemetry};

/// Batches between the engine and a reader: one that is read, one that is ready.
const AHEAD: usize = 1;

/// What an answer may take.
pub(crate) struct Limits {
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) max_rows: usize,
    pub(crate) memory: usize,
}

/// What the rows need while they are read.
pub(crate) struct Running {
    pub(crate) limits: Limits,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) since: Micros,
}

struct Answer {
    running: Running,
    batches: mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    /// Whether the engine came to its end in time.
    task: AbortOnDropHandle<bool>,
    rows: usize,
    ended: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<RecordBatch, Error>> {
        if self.ended {
            return None;
        }
        let limits = &self.running.limits;
        let result = match timeout_at(limits.deadline, self.batches.recv()).await {
            Err(_) => Err(Error::TimedOut { ms: limits.timeout.as_millis() }),
            Ok(None) => return self.finish().await,
            Ok(Some(Err(error))) => Err(Error::of_run(error, limits.memory)),
            Ok(Some(Ok(batch))) if self.rows + batch.num_rows() > limits.max_rows => Err(Error::TooManyRows { limit: limits.max_rows }),
            Ok(Some(Ok(batch))) => Ok(batch),
        };
        if let Ok(batch) = &result {
            self.rows += batch.num_rows();
        } else {
            self.ended = true;
            self.running.wanted.give_up();
            self.task.abort();
        }
        Some(result)
    }

    /// The engine's task is over: well, unless it panicked or was out of time.
    async fn finish(&mut self) -> Option<Result<RecordBatch, Error>> {
        self.ended = true;
        match (&mut self.task).await {
            Ok(true) => None,
            Ok(false) => Some(Err(Error::TimedOut { ms: self.running.limits.timeout.as_millis() })),
            Err(_) => Some(Err(Error::Lost)),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.running.wanted.give_up();
        let took = self.running.clock.now().0.saturating_sub(self.running.since.0);
        telemetry::answered(self.rows, Duration::from_micros(u64::try_from(took).unwrap_or(0)));
    }
}

/// The rows of a started plan. Its place is free again when the engine is done with it, not before.
pub(crate) fn stream(rows: SendableRecordBatchStream, threads: &Threads, place: OwnedSemaphorePermit, running: Running) -> RowStream {
    let (sender, batches) = mpsc::channel(AHEAD);
    let deadline = running.limits.deadline;
    let task = threads.spawn(async move {
        // Here too, so that a reader who stops reading does not keep the place.
        let in_time = timeout_at(deadline, pump(rows, sender)).await.is_ok();
        drop(place);
        in_time
    });
    let answer = Answer { running, batches, task, rows: 0, ended: false };
    Box::pin(futures::stream::unfold(answer, |mut answer| async move {
        let next = answer.next().await?.map_err(|error| {
            telemetry::failed(error.code());
            PortError::of(error)
        });
        Some((next, answer))
    }))
}

async fn pump(mut rows: SendableRecordBatchStream, sender: mpsc::Sender<Result<RecordBatch, DataFusionError>>) {
    while let Some(batch) = rows.next().await {
        let failed = batch.is_err();
        if sender.send(batch).await.is_err() || failed {
            break;
        }
    }
}
