//! The threads of questions: their own, so that what computes for long keeps nobody else from being served.

use std::future::Future;

use datafusion::error::DataFusionError;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, QueryConfig, Result};

/// Most threads, however many questions may run.
const MOST: usize = 64;

/// A runtime that ends without waiting when it is dropped.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>, Handle);

impl Threads {
    /// As many as all questions together can use: the system shares the cores fairly among them, while tasks that share a thread
    /// would wait for each other.
    pub(crate) fn start(config: &QueryConfig) -> Result<Self> {
        let count = config.concurrent.saturating_mul(config.partitions).clamp(2, MOST);
        let built = Builder::new_multi_thread().worker_threads(count).thread_name("query").enable_all().build();
        let runtime = built.map_err(|e| Error::Engine(Box::new(DataFusionError::IoError(e))))?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    /// Runs a task until it ends or its handle is dropped.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.1.spawn(task))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
