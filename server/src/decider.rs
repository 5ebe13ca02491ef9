//! Gates: asks what a gate needs, lets the pure core decide, and answers once the decision is in the log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiro_orchestration::{Gate, GateFile, GateRequest as Asked, Measure, Measured, Measurement, Need, decide, plan};
use kiro_ports::{
    Assessor, AuditEntry, Decider, GateInfo, GateRequest, NewDelivery, Outbox, PortError, Principal, RiskRequest, SqlEngine, SqlRequest,
};
use kiro_schemas::gate::GateDecision;
use kiro_schemas::{Event, FaultKind, OffsetVector, Subject, Value};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::Error;
use crate::journal::Journal;
use crate::{held, rows};

/// A gate must answer while a pipeline waits: its queries get less time than others.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Decides gates of one file.
#[derive(Debug)]
pub(crate) struct Gates {
    pub(crate) file: GateFile,
    pub(crate) sql: Arc<dyn SqlEngine>,
    pub(crate) assessor: Arc<dyn Assessor>,
    pub(crate) journal: Journal,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) wake: Arc<Notify>,
}

impl Gates {
    fn find(&self, request: &GateRequest) -> Result<&Gate, PortError> {
        let Some(name) = request.gate.as_deref().or(request.gate_type.as_deref()) else {
            return Err(Error::NoGate.into());
        };
        self.file.find(name).map_err(PortError::of)
    }

    async fn measure(&self, who: &Principal, request: &GateRequest, need: Need) -> (Measurement, OffsetVector) {
        match need {
            Need::Sql { criterion, sql, parameters } => {
                let mut question = SqlRequest::new(who.tenant.clone(), sql);
                question.parameters = parameters;
                question.timeout = QUERY_TIMEOUT;
                question.max_rows = 10_000;
                match rows::ask(&self.sql, question).await {
                    Ok(answer) => {
                        let measured = Measured::Rows { columns: answer.columns, rows: answer.rows };
                        (Measurement { criterion, measured }, answer.offsets)
                    }
                    Err(error) => (Measurement { criterion, measured: not_measured(&error) }, OffsetVector::default()),
                }
            }
            Need::Risk { criterion } => match self.assessor.assess(who, risk_of(request)).await {
                Ok(risk) => {
                    let offsets = risk.offsets.clone();
                    (Measurement { criterion, measured: Measured::Risk(Box::new(risk)) }, offsets)
                }
                Err(error) => (Measurement { criterion, measured: not_measured(&error) }, OffsetVector::default()),
            },
        }
    }

    fn decision_event(&self, who: &Principal, decision: &GateDecision) -> Event<'static> {
        let mut event = self.journal.event(Subject::GateDecision, &decision.decision_id);
        event.set("gate", Value::text(decision.gate.clone()));
        event.set("gate_type", Value::text(decision.gate_type.clone()));
        event.set("verdict", Value::text(decision.verdict.as_str()));
        event.set("status", Value::text(decision.status.as_str()));
        event.set("score", Value::Float(decision.score));
        event.set("decision", Value::text(serde_json::to_string(decision).unwrap_or_default()));
        event.set("actor", Value::text(who.name.clone()));
        event
    }

    /// Puts in what the decision starts, before the decision is recorded: what a killed process leaves behind is found by
    /// [`crate::held`]. The key is the decision and the target, so that nothing is started twice.
    async fn hold(&self, who: &Principal, gate: &Gate, decision: &GateDecision) -> Result<Vec<String>, PortError> {
        let mut keys = Vec::new();
        for target in gate.targets(decision) {
            let key = held::key(&decision.decision_id, target);
            let delivery = NewDelivery {
                key: key.clone(),
                tenant: who.tenant.clone(),
                target: target.to_owned(),
                payload: serde_json::to_string(decision).unwrap_or_default(),
            };
            self.outbox.hold(delivery, self.journal.clock.now()).await?;
            keys.push(key);
        }
        Ok(keys)
    }

    async fn release(&self, keys: &[String]) -> Result<(), PortError> {
        for key in keys {
            self.outbox.release(key, self.journal.clock.now()).await?;
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// The risk that a gate asks for: what the request says, else its parameters.
fn risk_of(request: &GateRequest) -> RiskRequest {
    request.risk.clone().unwrap_or_else(|| RiskRequest {
        source: request.parameters.get("source").cloned().unwrap_or_default(),
        pipeline: request.parameters.get("pipeline").cloned(),
        ..RiskRequest::default()
    })
}

fn not_measured(error: &PortError) -> Measured {
    match error.kind {
        FaultKind::Unavailable | FaultKind::TimedOut => Measured::Unavailable { reason: error.to_string() },
        _ => Measured::Error { reason: error.to_string() },
    }
}

#[async_trait]
impl Decider for Gates {
    fn gates(&self) -> Vec<GateInfo> {
        let names = |gate: &Gate| gate.criteria.iter().map(|c| c.name.clone()).collect();
        let parameters = |gate: &Gate| {
            let of = gate
                .criteria
                .iter()
                .filter_map(|c| if let Measure::Sql { parameters, .. } = &c.measure { Some(parameters.clone()) } else { None });
            of.flatten().collect()
        };
        let info = |gate: &Gate| GateInfo {
            name: gate.name.clone(),
            gate_type: gate.gate_type.as_str().to_owned(),
            criteria: names(gate),
            parameters: parameters(gate),
        };
        self.file.gates.iter().map(info).collect()
    }

    async fn decide(&self, who: &Principal, request: GateRequest) -> Result<GateDecision, PortError> {
        let gate = self.find(&request)?;
        let key = request.idempotency_key.as_ref();
        let decision_id = key
            .map_or_else(Uuid::now_v7, |key| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{}/{}/{key}", who.tenant, gate.name).as_bytes()));
        let now = self.journal.clock.now();
        let asked = Asked {
            decision_id: decision_id.to_string(),
            tenant: who.tenant.clone(),
            parameters: request.parameters.clone(),
            at: now,
            dry_run: false,
        };
        let mut offsets = OffsetVector::default();
        let mut measurements = Vec::new();
        for need in plan(gate, &asked) {
            let (measurement, included) = self.measure(who, &request, need).await;
            for (at, next) in included.iter() {
                offsets.advance(at, next);
            }
            measurements.push(measurement);
        }
        let decision = decide(gate, &asked, &measurements, now, offsets);
        let entry = AuditEntry {
            tenant: who.tenant.clone(),
            actor: who.name.clone(),
            action: "gate.evaluate".to_owned(),
            object: gate.name.clone(),
            refused: None,
        };
        let held = self.hold(who, gate, &decision).await?;
        self.journal.append(&who.tenant, &[self.decision_event(who, &decision), self.journal.audit_event(&entry)]).await?;
        self.release(&held).await?;
        Ok(decision)
    }
}
