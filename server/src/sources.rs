//! The sources whose webhooks are taken: those of `kirolinter.yaml`, and those of the control store, which come and go while
//! everything runs. Every door looks at both again every two seconds, files of secrets included.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use kiro_integrations::{Platform, Refusal};
use kiro_ports::{Headers, PortError, SourceCounts, SourceStore as _, StoredSource};
use kiro_schemas::{Micros, Secret, Tenant};
use kiro_store::Store;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::base::Base;
use crate::config::Config;
use crate::error::Error;

mod desk;
mod explain;
mod replay;
pub(crate) mod secrets;
mod seen;
#[cfg(test)]
mod tests;

pub(crate) use desk::SourceDesk;
pub(crate) use replay::Raw;
pub(crate) use seen::{Key, Seen};

/// How often sources are looked at, and what was counted is written down.
const EVERY: Duration = Duration::from_secs(2);

/// A source, its secrets and whose its events are.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) platform: &'static Platform,
    pub(crate) tenant: Tenant,
    /// Those that are live, the newest first.
    pub(crate) secrets: Vec<Secret>,
    /// Of the control store; `None` is `kirolinter.yaml`.
    pub(crate) stored: Option<StoredSource>,
    /// The file of a token for the platform's API, and where that is, if it is a server of one's own.
    pub(crate) token: Option<(PathBuf, Option<String>)>,
    /// What is wrong with its files, in sentences.
    pub(crate) problems: Vec<String>,
}

impl Hook {
    /// Reads the secrets of a source. A file that cannot be read leaves those that were live before.
    fn read(name: &str, platform: &'static Platform, tenant: Tenant, files: &[PathBuf], before: Option<&Self>) -> Self {
        let mut hook =
            Self { name: name.to_owned(), platform, tenant, secrets: Vec::new(), stored: None, token: None, problems: Vec::new() };
        for file in files {
            match secrets::read(file) {
                Ok(secret) => hook.secrets.push(secret),
                Err(reason) => hook.problems.push(reason),
            }
        }
        if let Some(before) = before.filter(|_| !hook.problems.is_empty()) {
            hook.secrets.clone_from(&before.secrets);
        }
        hook
    }

    /// Verifies the raw bytes of a delivery.
    ///
    /// # Errors
    /// Why it is not accepted; that no secret can be read is for now, and not the sender's fault.
    pub(crate) fn verify(&self, headers: &Headers, body: &[u8], now: Micros) -> Result<(), Error> {
        match self.platform.verify(&self.secrets, headers, body, now) {
            Ok(()) => Ok(()),
            Err(Refusal::NoSecret) => Err(Error::NoSecret { source_name: self.name.clone() }),
            Err(refusal) => Err(Error::Signature(refusal.to_string())),
        }
    }
}

type Hooks = BTreeMap<String, Arc<Hook>>;

/// The sources as this process knows them; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Book(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    store: Store,
    /// The looks that were begun.
    looks: AtomicU64,
    /// What the newest of those that ended saw, and which it was.
    seen: RwLock<(u64, Arc<Hooks>)>,
    /// What came and is not written down yet.
    tallies: Mutex<BTreeMap<String, SourceCounts>>,
}

impl Book {
    /// Reads all sources. A secret of `kirolinter.yaml` that cannot be read is an error of the start.
    pub(crate) async fn open(base: &Base) -> anyhow::Result<Self> {
        for (name, source) in &base.config.raw.sources {
            let files = source.secret_file.iter().chain(&source.previous_secret_file);
            for file in files {
                secrets::read(file).map_err(|reason| anyhow::anyhow!("sources.{name}: {reason}"))?;
            }
        }
        let book = Self::of(Arc::clone(&base.config), base.store.clone());
        book.refresh().await?;
        Ok(book)
    }

    /// One that has looked at nothing yet.
    fn of(config: Arc<Config>, store: Store) -> Self {
        Self(Arc::new(Inner { config, store, looks: AtomicU64::new(0), seen: RwLock::default(), tallies: Mutex::default() }))
    }

    /// All sources, by name.
    pub(crate) fn hooks(&self) -> Arc<Hooks> {
        Arc::clone(&self.0.seen.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// A source by its name.
    pub(crate) fn hook(&self, name: &str) -> Option<Arc<Hook>> {
        self.hooks().get(name).cloned()
    }

    /// Looks at all sources again.
    pub(crate) async fn refresh(&self) -> Result<(), PortError> {
        let look = self.begin();
        let stored = self.0.store.sources().await?;
        let book = self.clone();
        let read = tokio::task::spawn_blocking(move || book.read(stored));
        if let Ok(hooks) = read.await {
            self.take(look, hooks);
        }
        Ok(())
    }

    /// Begins a look; it sees all that was changed before.
    fn begin(&self) -> u64 {
        self.0.looks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Takes what a look saw, unless one that began later has ended before: a source that was removed would be there again.
    fn take(&self, look: u64, hooks: Hooks) {
        let mut seen = self.0.seen.write().unwrap_or_else(PoisonError::into_inner);
        if look > seen.0 {
            *seen = (look, Arc::new(hooks));
        }
    }

    fn read(&self, stored: Vec<StoredSource>) -> Hooks {
        let (config, before) = (&self.0.config, self.hooks());
        let mut hooks = Hooks::new();
        for (name, source) in &config.raw.sources {
            let Some(platform) = kiro_integrations::platform(name) else { continue };
            // One that is only asked sends nothing.
            if source.secret_file.is_none() {
                continue;
            }
            let files: Vec<PathBuf> = source.secret_file.iter().chain(&source.previous_secret_file).cloned().collect();
            let tenant = source.tenant.as_deref().map_or_else(Tenant::default, Tenant::new);
            let mut hook = Hook::read(name, platform, tenant, &files, before.get(name).map(AsRef::as_ref));
            hook.token = source.token_file.clone().map(|file| (file, source.api_url.clone()));
            hooks.insert(name.clone(), Arc::new(hook));
        }
        for source in stored {
            let Some(platform) = kiro_integrations::platform(&source.platform) else {
                warn!(source = source.name, platform = source.platform, "the control store has a source of an unknown platform");
                continue;
            };
            if let Some(hook) = hooks.get_mut(&source.name) {
                Arc::make_mut(hook).problems.push("the control store has a source of this name, which is not used".to_owned());
                continue;
            }
            let files = self.secret_files(&source);
            let is_same = |before: &&Arc<Hook>| before.stored.as_ref().is_some_and(|known| known.secret_file == source.secret_file);
            let before = before.get(&source.name).filter(is_same).map(AsRef::as_ref);
            let mut hook = Hook::read(&source.name, platform, source.tenant.clone(), &files, before);
            hook.token = source.token_file.as_ref().map(|file| (PathBuf::from(file), source.api.clone()));
            hooks.insert(source.name.clone(), Arc::new(Hook { stored: Some(source), ..hook }));
        }
        for hook in hooks.values_mut() {
            let unread = hook.token.as_ref().and_then(|(file, _api)| secrets::read(file).err());
            if let Some(reason) = unread {
                Arc::make_mut(hook).problems.push(format!("token: {reason}"));
            }
        }
        hooks
    }

    /// The files of the secrets of a source that are live.
    fn secret_files(&self, source: &StoredSource) -> Vec<PathBuf> {
        let dir = self.0.config.secrets_dir();
        std::iter::once(&source.secret_file).chain(&source.previous_secret_file).map(|file| dir.join(file)).collect()
    }

    /// Counts what came from a source.
    pub(crate) fn tally(&self, name: &str, count: impl FnOnce(&mut SourceCounts)) {
        let mut tallies = self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        count(tallies.entry(name.to_owned()).or_default());
    }

    /// What was counted, by all doors.
    pub(crate) async fn counts(&self) -> Result<BTreeMap<String, SourceCounts>, PortError> {
        self.flush().await?;
        Ok(self.0.store.counts().await?.into_iter().collect())
    }

    /// Writes down what was counted; what cannot be written is kept.
    async fn flush(&self) -> Result<(), PortError> {
        let tallies = std::mem::take(&mut *self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner));
        let (hooks, mut failed) = (self.hooks(), None);
        for (name, counts) in tallies.into_iter().filter(|(name, _)| hooks.contains_key(name)) {
            if let Err(error) = self.0.store.count(&name, &counts).await {
                self.tally(&name, |newer| newer.add_earlier(counts));
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Looks and writes down until cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            if let Err(error) = self.flush().await {
                warn!(%error, "it cannot be written down what came from sources");
            }
            if ended {
                return;
            }
            if let Err(error) = self.refresh().await {
                warn!(%error, "it cannot be seen whether there are other sources");
            }
        }
    }
}
