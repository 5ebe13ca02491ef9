//! Sends what the outbox holds, with back-off, until it arrives or is given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kiro_integrations::communication::webhook::SigningKey;
use kiro_integrations::github::Dispatch;
use kiro_integrations::outbound::{Allowed, Client};
use kiro_integrations::{Deliverer, Sent, Target};
use kiro_ports::{Clock, Outbox, PortError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::base::secret;
use crate::config::{self, Config};
use crate::telemetry::Telemetry;

/// Time for one call.
const CALL: Duration = Duration::from_secs(15);
/// A delivery that was taken and neither arrived nor failed (the process died) is taken again after this.
const LEASE_MICROS: i64 = 60_000_000;

/// The loop around the outbox.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) deliverer: Deliverer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    /// Woken when something was put in.
    pub(crate) wake: Arc<tokio::sync::Notify>,
}

impl Dispatcher {
    /// Runs until cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            if let Err(error) = self.round().await {
                warn!(%error, "cannot read the outbox");
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn round(&self) -> Result<(), PortError> {
        let now = self.clock.now();
        for delivery in self.outbox.due(now, now.plus(LEASE_MICROS), 32).await? {
            let key = delivery.delivery.key.clone();
            let target = delivery.delivery.target.clone();
            match self.deliverer.send(&delivery).await {
                Sent::Arrived => {
                    self.outbox.done(&key, self.clock.now()).await?;
                    self.telemetry.delivered(&target, &key);
                }
                Sent::Transient { reason, retry_after } if delivery.attempts < kiro_store::MAX_ATTEMPTS => {
                    self.telemetry.retried(&target, &key, &reason);
                    let asked = retry_after.and_then(|wait| i64::try_from(wait.as_micros()).ok()).unwrap_or(0);
                    let next = self.clock.now().plus(back_off(delivery.attempts).max(asked));
                    self.outbox.failed(&key, &reason, Some(next)).await?;
                }
                Sent::Transient { reason, .. } | Sent::Permanent { reason } => {
                    self.telemetry.given_up(&target, &key, &reason);
                    self.outbox.failed(&key, &reason, None).await?;
                }
            }
        }
        self.telemetry.pending(self.outbox.waiting().await?);
        Ok(())
    }
}

/// 1 s, 2 s, 4 s, … at most 2 hours, in microseconds.
fn back_off(attempts: u32) -> i64 {
    (1_i64 << attempts.min(13)).min(7_200) * 1_000_000
}

/// The client that calls other people's systems.
pub(crate) fn client(config: &Config, timeout: Duration) -> Result<Client> {
    let allow =
        |text: &String| Allowed::parse(text).with_context(|| format!("network.allow: {text:?} is neither host:port nor address/bits"));
    let allowed = config.raw.network.allow.iter().map(allow).collect::<Result<_>>()?;
    Ok(Client::new(allowed, timeout)?)
}

/// The deliverer of the configured targets.
pub(crate) fn deliverer(config: &Config, clock: &Arc<dyn Clock>) -> Result<Deliverer> {
    let mut targets = BTreeMap::new();
    for (name, target) in &config.raw.targets {
        targets.insert(name.clone(), built(target).with_context(|| format!("targets.{name}"))?);
    }
    Ok(Deliverer::new(client(config, CALL)?, targets, Arc::clone(clock)))
}

fn built(target: &config::Target) -> Result<Target> {
    Ok(match target {
        config::Target::Webhook { url, secret_file } => Target::Webhook { url: url.clone(), key: SigningKey::of(&secret(secret_file)?)? },
        config::Target::Github { api, repository, workflow, reference, inputs, token_file } => Target::Github {
            dispatch: Dispatch {
                api: api.clone().unwrap_or_else(|| "https://api.github.com".to_owned()),
                repository: repository.clone(),
                workflow: workflow.clone(),
                reference: reference.clone(),
                inputs: inputs.clone(),
            },
            token: secret(token_file)?,
        },
    })
}
