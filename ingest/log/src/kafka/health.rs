//! Whether the brokers answer.

use std::sync::{Arc, Mutex, PoisonError};

use kiro_ports::LogState;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What is known of the brokers; shared by all clients of one log.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Seen>);

#[derive(Debug, Default)]
enum Seen {
    /// Nobody answered yet, nor failed to.
    #[default]
    Nothing,
    Up,
    Down(String),
}

impl Health {
    pub(super) fn up(&self) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*seen, Seen::Down(_)) {
            tracing::info!("the brokers answer again");
        }
        *seen = Seen::Up;
    }

    pub(super) fn down(&self, reason: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*seen, Seen::Down(_)) {
            tracing::warn!(reason, "no broker answers; it is tried again");
        }
        *seen = Seen::Down(reason.to_owned());
    }

    /// Why an append has no chance now.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Seen::Down(reason) => Some(reason.clone()),
            Seen::Nothing | Seen::Up => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), Seen::Up)
    }

    pub(super) fn state(&self) -> LogState {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Seen::Up => LogState::Up,
            Seen::Nothing => LogState::Down { reason: "no broker answered yet".to_owned() },
            Seen::Down(reason) => LogState::Down { reason: reason.clone() },
        }
    }

    /// Takes what a client reports by itself.
    pub(super) fn hear(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.down(reason),
            Some(code @ (RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::Resolve)) => {
                self.down(&format!("{code}: {reason}"));
            }
            _ => tracing::debug!(%error, reason, "the Kafka client reports"),
        }
    }
}

/// The context of the producer.
#[derive(Debug, Clone)]
pub(super) struct ClientHealth(pub(super) Arc<Health>);

impl ClientContext for ClientHealth {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.hear(&error, reason);
    }
}
