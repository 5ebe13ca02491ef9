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
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

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

/// What has to live as long as the rows.
pub(crate) struct Running {
    pub(crate) limits: Limits,
    #[expect(dead_code, reason = "held until the rows are dropped")]
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) since: Micros,
}

struct Answer {
    running: Running,
    batches: mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    task: AbortOnDropHandle<()>,
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
        match &result {
            Ok(batch) => self.rows += batch.num_rows(),
            Err(_) => {
                self.ended = true;
                self.task.abort();
            }
        }
        Some(result)
    }

    /// The engine's task is over: well, unless it panicked.
    async fn finish(&mut self) -> Option<Result<RecordBatch, Error>> {
        self.ended = true;
        (&mut self.task).await.is_err().then_some(Err(Error::Lost))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let took = self.running.clock.now().0.saturating_sub(self.running.since.0);
        telemetry::answered(self.rows, Duration::from_micros(u64::try_from(took).unwrap_or(0)));
    }
}

/// The rows of a started plan.
pub(crate) fn stream(rows: SendableRecordBatchStream, running: Running) -> RowStream {
    let (sender, batches) = mpsc::channel(AHEAD);
    let task: JoinHandle<()> = tokio::spawn(pump(rows, sender));
    let answer = Answer { running, batches, task: AbortOnDropHandle::new(task), rows: 0, ended: false };
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
