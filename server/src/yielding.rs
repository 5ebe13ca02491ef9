//! Long work for which nobody waits, on a thread that gives way to all others.

use std::io;

use tokio::sync::oneshot;
use tracing::debug;

/// Niceness, from 0 to 19: who is at 0 gets about ten times the time of a thread at 10 where both want a core.
const NICENESS: i32 = 10;

/// Does the work on a thread of that name, which ends with it: who once gave way may not take that back.
///
/// # Errors
/// The thread cannot be started, or the work panicked.
pub(crate) async fn yielding<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    let give_way = move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            debug!(%error, "the work is done without giving way");
        }
        drop(done.send(work()));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(give_way)?;
    outcome.await.map_err(|_ended| io::Error::other("the work panicked"))
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::{NICENESS, yielding};

    #[tokio::test]
    async fn the_work_gives_way_and_nothing_else_does() {
        let before = getpriority_process(None).expect("a niceness");
        let during = yielding("work", || getpriority_process(None).expect("a niceness")).await.expect("done");
        assert_eq!(during, before.max(NICENESS), "of the thread alone");
        assert_eq!(getpriority_process(None).expect("a niceness"), before);
        let broken = yielding("work", move || assert!(before > 19, "it breaks")).await;
        assert!(broken.is_err(), "a panic is told");
    }
}
