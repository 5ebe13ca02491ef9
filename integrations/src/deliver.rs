//! Sends what waits in the outbox, once, and tells how it went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiro_ports::{Clock, Delivery};
use kiro_schemas::Secret;

use crate::communication::webhook::{self, SigningKey};
use crate::github::{Dispatch, dispatch};
use crate::outbound::{Answer, Client, Post};
use crate::{Error, Result};

/// Where a target is and how it is spoken to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A signed webhook.
    Webhook {
        /// Where to.
        url: String,
        /// Signs it.
        key: SigningKey,
    },
    /// A workflow of GitHub.
    Github {
        /// Which.
        dispatch: Dispatch,
        /// Permits it.
        token: Secret,
    },
}

/// How a delivery ended.
#[derive(Debug)]
pub enum Sent {
    /// It arrived.
    Arrived,
    /// It may arrive later; not before this time has passed, when the receiver said so.
    Transient {
        /// Why it did not.
        reason: String,
        /// What the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// It will never arrive as it is.
    Permanent {
        /// Why.
        reason: String,
    },
}

/// Sends deliveries to configured targets.
#[derive(Debug, Clone)]
pub struct Deliverer {
    client: Client,
    targets: Arc<BTreeMap<String, Target>>,
    clock: Arc<dyn Clock>,
}

impl Deliverer {
    /// Knows the targets by name.
    #[must_use]
    pub fn new(client: Client, targets: BTreeMap<String, Target>, clock: Arc<dyn Clock>) -> Self {
        Self { client, targets: Arc::new(targets), clock }
    }

    /// Sends once. The receiver gets the delivery's key each time, so that it can know a repetition.
    pub async fn send(&self, delivery: &Delivery) -> Sent {
        let delivery = &delivery.delivery;
        let Some(target) = self.targets.get(&delivery.target) else {
            return Sent::Permanent { reason: format!("there is no target `{}`", delivery.target) };
        };
        let answer = match target {
            Target::Webhook { url, key } => self.call(url, key, &delivery.key, &delivery.payload).await,
            Target::Github { dispatch: asked, token } => dispatch(&self.client, token, asked, &delivery.key).await,
        };
        classify(answer)
    }

    async fn call(&self, url: &str, key: &SigningKey, id: &str, payload: &str) -> Result<Answer> {
        let headers = webhook::headers(key, id, self.clock.now(), payload.as_bytes()).into();
        self.client.post(Post { url: url.to_owned(), headers, body: payload.as_bytes().to_vec() }).await
    }
}

/// 2xx arrived; 408, 409, 425, 429, 5xx and no answer may change; anything else, redirects included, will not. GitHub tells
/// its limits with 403 and `Retry-After`.
fn classify(answer: Result<Answer>) -> Sent {
    match answer {
        Ok(Answer { status: 200..=299, .. }) => Sent::Arrived,
        Ok(Answer { status, retry_after, .. }) => {
            let reason = format!("the receiver answered {status}");
            let is_limit = status == 403 && retry_after.is_some();
            if is_limit || matches!(status, 408 | 409 | 425 | 429 | 500..=599) {
                Sent::Transient { reason, retry_after }
            } else {
                Sent::Permanent { reason }
            }
        }
        Err(error @ (Error::Call { .. } | Error::Client { .. })) => Sent::Transient { reason: error.to_string(), retry_after: None },
        Err(error) => Sent::Permanent { reason: error.to_string() },
    }
}
