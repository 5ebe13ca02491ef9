//! Leases: what one process at a time does, and for how long it may still believe that it is the one.

use std::sync::Arc;
use std::time::Duration;

use kiro_ports::Clock;
use kiro_schemas::Micros;
use kiro_store::{Lease, Store};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// Takes and keeps leases for one process.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    /// Names this process among all.
    pub(crate) holder: String,
    /// How long a lease holds when it is not renewed.
    pub(crate) span: Duration,
    /// Nobody else uses the store: a lease that is taken was left behind by a process that ended.
    pub(crate) is_alone: bool,
}

/// A lease that is ours.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// Cancelled when the lease is lost, or when its holder is told to stop.
    pub(crate) over: CancellationToken,
    leases: Leases,
    _keeper: AbortOnDropHandle<()>,
}

impl Leases {
    /// Waits until one of these leases is ours; its place among them. `None` when it was told to stop before.
    pub(crate) async fn hold(&self, names: &[String], stop: &CancellationToken) -> Option<(usize, Held)> {
        let mut is_told = false;
        loop {
            for (at, name) in names.iter().enumerate() {
                let began = Instant::now();
                let (now, until) = self.times();
                let may_take = if self.is_alone { Micros(i64::MAX) } else { now };
                match self.store.take_lease(name, &self.holder, may_take, until).await {
                    Ok(Some(lease)) => return Some((at, self.keep(lease, began, stop))),
                    Ok(None) => {}
                    Err(error) => warn!(name, %error, "a lease cannot be asked for; trying again"),
                }
            }
            if !std::mem::replace(&mut is_told, true) {
                info!(?names, "other processes have the leases; waiting for one");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep(self.span / 4) => {}
            }
        }
    }

    /// Does the work whenever the lease is ours, until it is told to stop.
    pub(crate) async fn whenever_held<F>(&self, name: &str, stop: &CancellationToken, mut work: impl FnMut(CancellationToken) -> F)
    where
        F: Future<Output = ()>,
    {
        let names = [name.to_owned()];
        while let Some((_, held)) = self.hold(&names, stop).await {
            work(held.over.clone()).await;
            held.release().await;
            if stop.is_cancelled() {
                return;
            }
        }
    }

    fn times(&self) -> (Micros, Micros) {
        let now = self.clock.now();
        (now, now.plus(i64::try_from(self.span.as_micros()).unwrap_or(i64::MAX)))
    }

    fn keep(&self, lease: Lease, since: Instant, stop: &CancellationToken) -> Held {
        info!(name = lease.name, epoch = lease.epoch, "lease taken");
        let over = stop.child_token();
        let keeper = tokio::spawn(keep(self.clone(), lease.clone(), since, over.clone()));
        Held { lease, over, leases: self.clone(), _keeper: AbortOnDropHandle::new(keeper) }
    }
}

impl Held {
    /// Gives it back, so that the next one need not wait.
    pub(crate) async fn release(self) {
        match self.leases.store.release_lease(&self.lease).await {
            Ok(_) => info!(name = self.lease.name, epoch = self.lease.epoch, "lease given back"),
            Err(error) => warn!(name = self.lease.name, %error, "the lease was not given back; it runs out"),
        }
    }
}

/// Renews a lease; says that it is over before another process can believe that it has it.
async fn keep(leases: Leases, lease: Lease, mut since: Instant, over: CancellationToken) {
    let third = leases.span / 3;
    let mut pause = third;
    loop {
        sleep(pause).await;
        let began = Instant::now();
        let (_, until) = leases.times();
        match timeout(third, leases.store.renew_lease(&lease, until)).await {
            Ok(Ok(true)) => (since, pause) = (began, third),
            Ok(Ok(false)) => {
                warn!(name = lease.name, epoch = lease.epoch, "another process has taken the lease");
                return over.cancel();
            }
            Ok(Err(error)) => {
                warn!(name = lease.name, %error, "the lease was not renewed; trying again");
                pause = third / 4;
            }
            Err(_elapsed) => warn!(name = lease.name, "the control store does not answer in time"),
        }
        // Where nobody else uses the store nobody else can have it: a disk that is full ends no lease.
        if !leases.is_alone && since.elapsed() + third >= leases.span && since != began {
            warn!(name = lease.name, epoch = lease.epoch, "the lease could not be renewed and runs out");
            return over.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use kiro_ports::SystemClock;
    use kiro_store::{Store, StoreConfig};
    use tokio_util::sync::CancellationToken;

    use super::Leases;

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(StoreConfig::Sqlite(folder.path().join("control.sqlite"))).await.expect("a store")
    }

    fn leases(store: &Store, holder: &str, is_alone: bool) -> Leases {
        Leases { store: store.clone(), clock: Arc::new(SystemClock), holder: holder.to_owned(), span: Duration::from_millis(600), is_alone }
    }

    #[tokio::test]
    async fn who_is_kept_from_renewing_is_told_and_the_next_one_follows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, stop) = (store(&folder).await, CancellationToken::new());
        let names = ["fold".to_owned(), "other".to_owned()];
        let (first, second) = (leases(&store, "a", false), leases(&store, "b", false));
        let (at, held) = first.hold(&names[..1], &stop).await.expect("a lease");
        assert_eq!((at, held.lease.epoch), (0, 1));
        let (at, beside) = second.hold(&names, &stop).await.expect("the one that is free");
        assert_eq!((at, beside.lease.epoch), (1, 1));
        // It is renewed for longer than it holds.
        let waits = tokio::time::timeout(Duration::from_millis(1_500), second.hold(&names[..1], &stop)).await;
        assert!(waits.is_err() && !held.over.is_cancelled(), "it is renewed");
        assert!(store.release_lease(&held.lease).await.expect("asked"), "as if its time were over");
        let (_, next) = second.hold(&names[..1], &stop).await.expect("free");
        assert_eq!(next.lease.epoch, 2);
        tokio::time::timeout(Duration::from_secs(10), held.over.cancelled()).await.expect("the first is told");
        assert!(!next.over.is_cancelled());
    }

    #[tokio::test]
    async fn who_cannot_renew_stops_before_it_runs_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, stop) = (store(&folder).await, CancellationToken::new());
        let (_, held) = leases(&store, "a", false).hold(&["fold".to_owned()], &stop).await.expect("a lease");
        store.close().await;
        tokio::time::timeout(Duration::from_secs(10), held.over.cancelled()).await.expect("it gives up");
    }

    #[tokio::test]
    async fn alone_it_holds_while_the_store_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, stop) = (store(&folder).await, CancellationToken::new());
        let (_, held) = leases(&store, "a", true).hold(&["fold".to_owned()], &stop).await.expect("a lease");
        store.close().await;
        let over = tokio::time::timeout(Duration::from_secs(2), held.over.cancelled()).await;
        assert!(over.is_err(), "given up, though nobody can have taken it");
    }

    #[tokio::test]
    async fn alone_it_takes_what_a_killed_process_left_and_a_stop_ends_the_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, stop) = (store(&folder).await, CancellationToken::new());
        let names = ["fold".to_owned()];
        let (_, held) = leases(&store, "a", false).hold(&names, &stop).await.expect("a lease");
        let (_, taken) = leases(&store, "b", true).hold(&names, &stop).await.expect("at once");
        assert_eq!(taken.lease.epoch, held.lease.epoch + 1);
        stop.cancel();
        assert!(leases(&store, "c", false).hold(&names, &stop).await.is_none());
        assert!(taken.over.is_cancelled(), "who is told to stop ends its work");
        taken.release().await;
    }
}
