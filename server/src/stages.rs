//! What runs in a process, and the order in which it is stopped.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::select_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Longer no stage may take to end.
const LONGEST_STOP: Duration = Duration::from_mins(1);

struct Stage {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

/// Stages that run at the same time and stop one after the other, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Stages(Vec<Stage>);

impl Stages {
    /// Begins a stage; it ends when its token is cancelled.
    pub(crate) fn add<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        self.0.push(Stage { name, task: tokio::spawn(run(stop.clone())), stop });
    }

    /// Runs until a signal, or until a stage ends by itself; then stops them all. A second signal ends the process at once.
    pub(crate) async fn run(mut self) -> Result<()> {
        let ended = tokio::select! {
            signal = signal() => { info!(signal = signal?, "stopping; a second signal ends at once"); None }
            (result, at, _) = select_all(self.0.iter_mut().map(|stage| &mut stage.task)) => Some((at, result)),
        };
        tokio::spawn(async {
            if signal().await.is_ok() {
                std::process::abort();
            }
        });
        let mut outcome = Ok(());
        if let Some((at, result)) = ended {
            let name = self.0.remove(at).name;
            outcome = result.with_context(|| format!("{name} broke")).and_then(|r| r.with_context(|| format!("{name} stopped")));
        }
        for stage in self.0 {
            stage.stop.cancel();
            let result = match tokio::time::timeout(LONGEST_STOP, stage.task).await {
                Ok(result) => result.with_context(|| format!("{} broke", stage.name)).and_then(|r| r),
                Err(_elapsed) => Err(anyhow::anyhow!("{} does not end", stage.name)),
            };
            match (result, &outcome) {
                (Err(error), Ok(())) => outcome = Err(error),
                (Err(error), Err(_)) => error!(error = %format!("{error:#}"), stage = stage.name, "a stage did not stop well"),
                (Ok(()), _) => {}
            }
        }
        if outcome.is_ok() {
            info!("stopped");
        }
        outcome
    }
}

async fn signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => { result?; Ok("interrupt") }
        _ = terminate.recv() => Ok("terminate"),
    }
}
