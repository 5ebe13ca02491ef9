//! Who decides, watched: each answer is timed and counted on its way out.

use std::sync::Arc;

use async_trait::async_trait;
use kiro_ports::{Assessor, Clock, Decider, GateInfo, GateRequest, PortError, Principal, RiskRequest};
use kiro_schemas::gate::GateDecision;
use kiro_schemas::risk::RiskAssessment;

use super::Telemetry;

/// An assessor or decider whose answers are counted.
#[derive(Debug)]
pub(crate) struct Watched<T: ?Sized> {
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    inner: Arc<T>,
}

impl<T: ?Sized> Watched<T> {
    pub(crate) fn new(inner: Arc<T>, telemetry: &Telemetry, clock: &Arc<dyn Clock>) -> Self {
        Self { telemetry: telemetry.clone(), clock: Arc::clone(clock), inner }
    }

    async fn timed<R>(&self, work: impl Future<Output = R>) -> (R, f64) {
        let began = self.clock.now();
        let answer = work.await;
        (answer, self.clock.now().seconds_since(began).max(0.0))
    }
}

#[async_trait]
impl<T: Assessor + ?Sized> Assessor for Watched<T> {
    async fn assess(&self, who: &Principal, request: RiskRequest) -> Result<RiskAssessment, PortError> {
        let (answer, seconds) = self.timed(self.inner.assess(who, request)).await;
        self.telemetry.assessed(&answer, seconds);
        answer
    }
}

#[async_trait]
impl<T: Decider + ?Sized> Decider for Watched<T> {
    fn gates(&self) -> Vec<GateInfo> {
        self.inner.gates()
    }

    async fn decide(&self, who: &Principal, request: GateRequest) -> Result<GateDecision, PortError> {
        let (answer, seconds) = self.timed(self.inner.decide(who, request)).await;
        self.telemetry.decided(&answer, seconds);
        answer
    }
}
