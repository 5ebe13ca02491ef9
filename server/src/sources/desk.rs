//! Sources as people manage them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use kiro_ingest::engine::EngineHandle;
use kiro_integrations::backfill::Patience;
use kiro_integrations::outbound::Client;
use kiro_integrations::{Api, Reach, reach};
use kiro_ports::{
    AddedSource, ExplainRequest, NewSource, PortError, Principal, ReplayRequest, SourceCounts, SourceInfo, SourceStore as _, Sources,
    SqlEngine, StoredSource,
};
use kiro_schemas::{FaultKind, Micros, Secret, Tenant};
use serde_json::{Value, json};

use super::{Book, Hook, Raw, explain, secrets};
use crate::error::Error;

/// Names that stand for something else in addresses.
const RESERVED: [&str; 2] = ["explain", "replay"];
/// What a sample says: no event type of this name is read.
const SAMPLE: (&str, &str) = ("kirolinter-test", "kirolinter-test");

/// Manages sources.
#[derive(Debug)]
pub(crate) struct SourceDesk {
    pub(crate) book: Book,
    pub(crate) engine: EngineHandle,
    pub(crate) sql: Arc<dyn SqlEngine>,
    /// Asks platforms.
    pub(crate) client: Client,
    pub(crate) raw: Raw,
}

/// Who runs the installation sees and manages the sources of all tenants.
fn runs_all(who: &Principal) -> bool {
    who.tenant == Tenant::default()
}

pub(super) fn refused(kind: FaultKind, what: impl Into<String>) -> PortError {
    Error::Source { kind, what: what.into() }.into()
}

/// A time that has been.
const fn once(at: Micros) -> Option<Micros> {
    if at.0 > 0 { Some(at) } else { None }
}

impl SourceDesk {
    fn find(&self, who: &Principal, name: &str) -> Result<Arc<Hook>, PortError> {
        let hook = self.book.hook(name).filter(|hook| runs_all(who) || hook.tenant == who.tenant);
        hook.ok_or_else(|| refused(FaultKind::NotFound, format!("no source {name:?}")))
    }

    /// A source that is in the control store, since others are not changed here.
    fn find_stored(&self, who: &Principal, name: &str) -> Result<StoredSource, PortError> {
        let stored = self.find(who, name)?.stored.clone();
        stored.ok_or_else(|| refused(FaultKind::Conflict, format!("the source {name:?} is in kirolinter.yaml: change it there")))
    }

    /// Who the token of a source stands for, and whether it permits what is asked of it.
    async fn try_token(&self, hook: &Hook) -> Option<Value> {
        let (file, url) = hook.token.as_ref()?;
        let token = match secrets::read(file) {
            Ok(token) => token,
            Err(reason) => return Some(tried("token", Err(reason))),
        };
        if hook.platform.backfill.is_none() {
            return Some(tried("token", Ok("it can be read; the platform is asked nothing".to_owned())));
        }
        let api = Api::new(self.client.clone(), hook.platform, url.as_deref(), token, Arc::clone(&self.raw.clock));
        let reach = match api {
            Ok(api) => reach(hook.platform, &api.patient(Patience { tries: 1, waits: 0, ..Patience::default() })).await,
            Err(error) => Err(error),
        };
        Some(tried("token", reach.map_err(|error| error.to_string()).and_then(|reach| told(&reach))))
    }

    /// Raw deliveries that cannot be queried yet.
    fn lag(&self) -> u64 {
        let status = self.engine.status();
        let lags = status.partitions.iter().filter(|partition| *partition.at.topic == *self.raw.topic).map(|partition| partition.lag);
        u64::try_from(lags.sum::<i64>()).unwrap_or(0)
    }

    /// What a new source will be, all but its secret.
    fn checked(&self, who: &Principal, new: NewSource) -> Result<(StoredSource, Option<String>), PortError> {
        let invalid = |what: String| refused(FaultKind::Invalid, what);
        let Some(platform) = kiro_integrations::platform(&new.platform) else {
            let known: Vec<&str> = kiro_integrations::platforms().iter().map(|platform| platform.name).collect();
            return Err(invalid(format!("{:?} is no platform that is known; known: {}", new.platform, known.join(", "))));
        };
        let name = new.name.unwrap_or_else(|| platform.name.to_owned());
        kiro_store::check_source_name(&name).map_err(PortError::of)?;
        let is_anothers = kiro_integrations::platform(&name).is_some_and(|other| other.name != platform.name);
        if is_anothers || RESERVED.contains(&name.as_str()) {
            return Err(invalid(format!("a source of {} cannot be named {name:?}", platform.name)));
        }
        if self.book.hook(&name).is_some() {
            return Err(refused(FaultKind::Conflict, format!("a source named {name:?} is there already")));
        }
        let tenant = new.tenant.map_or_else(|| who.tenant.clone(), Tenant::new);
        if tenant != who.tenant && !runs_all(who) {
            return Err(refused(FaultKind::Forbidden, "sources of another tenant are added with a token of the tenant `default`"));
        }
        if !kiro_schemas::id::is_tenant(tenant.as_str()) {
            return Err(invalid(format!("{:?} is no tenant: 1 to 64 of a-z, 0-9, - and _", tenant.as_str())));
        }
        let is_web = |text: &String| url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if let Some(api) = new.api.as_ref().filter(|text| !is_web(text)) {
            return Err(invalid(format!("{api:?} is no address of an API: http or https is expected")));
        }
        if new.token_file.is_some() && new.api.as_ref().is_some_and(|api| !self.client.is_named(api)) {
            let what = "the token is sent to that address: its host must stand in network.allow of kirolinter.yaml";
            return Err(refused(FaultKind::Forbidden, what));
        }
        let given = file(who, "the secret's file", new.secret_file)?;
        let stored = StoredSource {
            name,
            platform: platform.name.to_owned(),
            tenant,
            secret_file: given.clone().unwrap_or_default(),
            previous_secret_file: None,
            token_file: file(who, "the token's file", new.token_file)?,
            api: new.api,
            added_at: self.raw.clock.now(),
        };
        Ok((stored, given))
    }

    /// Makes a secret on the disk.
    async fn make(&self, name: &str) -> Result<(String, Secret), PortError> {
        let (dir, name) = (self.book.0.config.secrets_dir(), name.to_owned());
        let made = tokio::task::spawn_blocking(move || secrets::make(&dir, &name)).await;
        Ok(made.map_err(std::io::Error::other).and_then(|made| made).map_err(Error::SecretFile)?)
    }

    fn forget<'f>(&self, files: impl IntoIterator<Item = &'f String>) {
        let dir = self.book.0.config.secrets_dir();
        files.into_iter().for_each(|file| secrets::forget(&dir, file));
    }

    /// A source as it is after a change.
    async fn shown(&self, who: &Principal, name: &str, secret: Option<Secret>) -> Result<AddedSource, PortError> {
        // It is done, and the secret is told once: what cannot be looked up now is no reason to lose it.
        let refreshed = self.book.refresh().await;
        let hook = match (self.find(who, name), refreshed) {
            (Ok(hook), _) => hook,
            (Err(_), Err(error)) | (Err(error), Ok(())) => {
                let Some(secret) = secret else { return Err(error) };
                tracing::warn!(%error, name, "a source was kept, and cannot be shown yet");
                let source = SourceInfo { name: name.to_owned(), path: format!("/webhooks/{name}"), ..SourceInfo::default() };
                return Ok(AddedSource { source, secret: Some(secret) });
            }
        };
        let counts = self.book.counts().await.unwrap_or_default().remove(name).unwrap_or_default();
        Ok(AddedSource { source: info(&hook, &counts, self.lag()), secret })
    }
}

fn info(hook: &Hook, counts: &SourceCounts, lag: u64) -> SourceInfo {
    SourceInfo {
        name: hook.name.clone(),
        platform: hook.platform.name.to_owned(),
        tenant: hook.tenant.clone(),
        configured_in: if hook.stored.is_some() { "control store" } else { "kirolinter.yaml" },
        path: format!("/webhooks/{}", hook.name),
        added_at: hook.stored.as_ref().map(|stored| stored.added_at),
        last_delivery_at: once(counts.taken_at),
        last_event: once(counts.taken_at).map(|_| counts.last_event.clone()).filter(|event| !event.is_empty()),
        lag_records: lag,
        deliveries: counts.taken,
        unread: counts.unread,
        known: counts.known,
        refused: counts.refused,
        last_refused_at: once(counts.refused_at),
        problems: problems(hook, counts),
    }
}

/// What a caller may name of the server's files: only who runs the installation may.
fn file(who: &Principal, what: &str, file: Option<String>) -> Result<Option<String>, PortError> {
    let Some(file) = file else { return Ok(None) };
    if !runs_all(who) {
        return Err(refused(FaultKind::Forbidden, format!("{what} names a file of the server: it needs a token of the tenant `default`")));
    }
    if !Path::new(&file).is_absolute() {
        return Err(refused(FaultKind::Invalid, format!("{what} must be an absolute path of the server, such as /etc/kirolinter/token")));
    }
    secrets::read(Path::new(&file)).map_err(|reason| refused(FaultKind::Invalid, format!("{what}: {reason}")))?;
    Ok(Some(file))
}

/// What has to be looked after.
fn problems(hook: &Hook, counts: &SourceCounts) -> Vec<String> {
    let mut problems = hook.problems.clone();
    if hook.platform.backfill.is_some() && hook.token.is_none() {
        problems.push("no token: the platform cannot be asked for what webhooks miss".to_owned());
    }
    if hook.secrets.is_empty() {
        problems.push("no secret can be read: deliveries are answered with 503".to_owned());
    }
    if counts.taken == 0 && counts.known == 0 {
        problems.push("no delivery has come yet".to_owned());
    }
    if counts.refused_at > counts.taken_at {
        problems.push(format!("the last delivery was refused ({}): {}", counts.refused_at, counts.last_refusal));
    }
    problems
}

/// One thing that was tried.
fn tried(what: &str, outcome: Result<String, String>) -> Value {
    let is_ok = outcome.is_ok();
    json!({"check": what, "is_ok": is_ok, "detail": outcome.unwrap_or_else(|reason| reason)})
}

/// What a platform says of a token.
fn told(reach: &Reach) -> Result<String, String> {
    let left = reach.remaining.map(|left| format!(", {left} requests left")).unwrap_or_default();
    let scopes = if reach.scopes.is_empty() { "the platform does not tell its scopes".to_owned() } else { reach.scopes.join(" ") };
    let text = format!("it stands for {}: {scopes}{left}", reach.account);
    if reach.missing.is_empty() { Ok(text) } else { Err(format!("{text}; it lacks {}", reach.missing.join(" "))) }
}

/// A sample goes the way of a delivery as far as its proof; one that is forged must not.
fn try_secrets(hook: &Hook, now: Micros) -> Vec<Value> {
    const BODY: &[u8] = br#"{"zen":"a sample"}"#;
    let verify = |secret: &Secret| hook.verify(&hook.platform.sign(secret, SAMPLE, BODY, now), BODY, now);
    let each = hook.secrets.iter().enumerate().map(|(at, secret)| {
        let which = if at == 0 { "secret" } else { "previous secret" };
        tried(which, verify(secret).map(|()| "a signed sample is accepted".to_owned()).map_err(|error| error.to_string()))
    });
    let forged = match verify(&Secret::new("a secret that nobody has")) {
        Err(Error::Signature(reason)) => Ok(format!("a forged sample is refused: {reason}")),
        Err(error) => Err(error.to_string()),
        Ok(()) => Err("a forged sample is accepted".to_owned()),
    };
    each.chain([tried("forgery", forged)]).collect()
}

#[async_trait]
impl Sources for SourceDesk {
    async fn list(&self, who: &Principal) -> Result<Vec<SourceInfo>, PortError> {
        self.book.refresh().await?;
        let (counts, lag, hooks, none) = (self.book.counts().await?, self.lag(), self.book.hooks(), SourceCounts::default());
        let visible = hooks.values().filter(|hook| runs_all(who) || hook.tenant == who.tenant);
        Ok(visible.map(|hook| info(hook, counts.get(&hook.name).unwrap_or(&none), lag)).collect())
    }

    async fn add(&self, who: &Principal, source: NewSource) -> Result<AddedSource, PortError> {
        self.book.refresh().await?;
        let (mut source, given) = self.checked(who, source)?;
        let mut secret = None;
        if given.is_none() {
            let (file, made) = self.make(&source.name).await?;
            (source.secret_file, secret) = (file, Some(made));
        }
        let (name, file) = (source.name.clone(), source.secret_file.clone());
        if let Err(error) = self.book.0.store.add(source).await {
            self.forget([&file]);
            return Err(error);
        }
        self.shown(who, &name, secret).await
    }

    async fn remove(&self, who: &Principal, name: &str) -> Result<(), PortError> {
        self.book.refresh().await?;
        let source = self.find_stored(who, name)?;
        let removed = self.book.0.store.remove(&source.tenant, name).await?;
        self.book.refresh().await?;
        if let Some(removed) = removed {
            self.forget(std::iter::once(&removed.secret_file).chain(&removed.previous_secret_file));
        }
        Ok(())
    }

    async fn rotate(&self, who: &Principal, name: &str) -> Result<AddedSource, PortError> {
        self.book.refresh().await?;
        let before = self.find_stored(who, name)?;
        let (file, secret) = self.make(name).await?;
        match self.book.0.store.rotate(&before, &file).await {
            Ok(true) => self.forget(&before.previous_secret_file),
            other => {
                self.forget([&file]);
                other?;
                return Err(refused(FaultKind::Conflict, format!("the secret of {name:?} was just changed by somebody else")));
            }
        }
        self.shown(who, name, Some(secret)).await
    }

    async fn test(&self, who: &Principal, name: &str) -> Result<Value, PortError> {
        self.book.refresh().await?;
        let hook = self.find(who, name)?;
        let mut checks: Vec<Value> = hook.problems.iter().map(|problem| tried("files", Err(problem.clone()))).collect();
        checks.extend(try_secrets(&hook, self.raw.clock.now()));
        checks.extend(self.try_token(&hook).await);
        let is_ok = checks.iter().all(|check| check["is_ok"] == true);
        Ok(json!({"name": name, "platform": hook.platform.name, "is_ok": is_ok, "checks": checks}))
    }

    async fn replay(&self, who: &Principal, request: ReplayRequest) -> Result<Value, PortError> {
        self.raw.replay(&who.tenant, &request).await
    }

    async fn explain(&self, who: &Principal, request: ExplainRequest) -> Result<Value, PortError> {
        explain::explain(self, who, request).await
    }
}

impl SourceDesk {
    /// What counts, as `kirolinter.yaml` says.
    pub(super) fn settings(&self) -> &kiro_schemas::delivery::Settings {
        &self.book.0.config.delivery
    }
}
