//! The model shelf: trains from the lake and the tail, keeps files, answers risk.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use kiro_models::{AssessRequest, EvaluationConfig, Example, RiskModel, examples_from};
use kiro_ports::{
    Assessor, AuditEntry, FeatureRequest, Features, PortError, Principal, RiskRequest, SqlEngine, SqlRequest, TableSource, Views,
};
use kiro_query::Query;
use kiro_schemas::risk::RiskAssessment;
use kiro_schemas::{Event, SourceUrl, Subject, Tenant, Value};
use kiro_store::Store;
use kiro_tables::Table;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::Error;
use crate::journal::Journal;
use crate::rows;
use crate::telemetry::Telemetry;
use crate::train::is_worth;
use crate::yielding::yielding;

/// What the settings of served models begin with; the tenant follows.
pub(crate) const SETTING: &str = "model/";

/// Trains, keeps and asks models, one a tenant.
pub(crate) struct Shelf {
    pub(crate) source: Arc<dyn TableSource>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) query: Arc<Query>,
    pub(crate) features: Arc<dyn Features>,
    pub(crate) files: Arc<dyn ObjectStore>,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) telemetry: Telemetry,
    pub(crate) served: RwLock<HashMap<Tenant, Arc<RiskModel>>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("journal", &self.journal).finish_non_exhaustive()
    }
}

fn internal(what: String) -> PortError {
    Error::Model(what).into()
}

impl Shelf {
    /// Serves the models that were trained last, here or by another process.
    pub(crate) async fn refresh(&self) -> Result<(), PortError> {
        for (key, version) in self.store.settings(SETTING).await.map_err(PortError::of)? {
            let Some(tenant) = key.strip_prefix(SETTING).map(Tenant::new) else { continue };
            let is_served = self.served.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).is_some_and(|m| m.version() == version);
            if !is_served {
                self.load(&tenant, &version).await?;
            }
        }
        Ok(())
    }

    async fn load(&self, tenant: &Tenant, version: &str) -> Result<(), PortError> {
        let bytes = match self.files.get(&path(version)).await {
            Ok(file) => file.bytes().await.map_err(|e| internal(format!("cannot read model {version}: {e}")))?,
            Err(error) => {
                warn!(version, %error, "the served model's file is gone; the next training makes another");
                return Ok(());
            }
        };
        match std::str::from_utf8(&bytes).map_err(|e| e.to_string()).and_then(|text| RiskModel::from_json(text).map_err(|e| e.to_string()))
        {
            Ok(model) => {
                self.put(tenant.clone(), Arc::new(model));
            }
            Err(error) => warn!(version, error, "the served model's file cannot be used; the next training makes another"),
        }
        Ok(())
    }

    fn put(&self, tenant: Tenant, model: Arc<RiskModel>) {
        self.telemetry.served(&tenant, &model);
        self.served.write().unwrap_or_else(PoisonError::into_inner).insert(tenant, model);
    }

    /// The model of a tenant; without one, a model of no example, which answers a base rate with low confidence.
    fn get(&self, tenant: &Tenant) -> Result<Arc<RiskModel>, PortError> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        match served {
            Some(model) => Ok(model),
            None => RiskModel::fit(&[], &EvaluationConfig::default()).map(Arc::new).map_err(PortError::of),
        }
    }

    async fn examples(&self) -> Result<Vec<Example>, PortError> {
        let view = self.views.view();
        let mut batches = Vec::new();
        for name in ["features", "pipeline_runs"] {
            let Some(table) = Table::find(name) else { return Err(internal(format!("no table {name}"))) };
            let mut rows = self.source.scan(table, &[]).await?;
            rows.extend(view.tables.get(name).into_iter().flat_map(|t| t.tail.iter().map(|batch| batch.rows.clone())));
            batches.push(rows);
        }
        let examples = yielding("kiro-examples", move || examples_from(&batches[0], &batches[1])).await;
        examples.map_err(|e| internal(format!("reading examples broke: {e}")))?.map_err(PortError::of)
    }

    /// Trains a model for each tenant that has enough new labels.
    pub(crate) async fn train_all(&self) -> Result<(), PortError> {
        let mut by_tenant: HashMap<Tenant, Vec<Example>> = HashMap::new();
        for example in self.examples().await? {
            by_tenant.entry(example.key.tenant.clone()).or_default().push(example);
        }
        for (tenant, examples) in by_tenant {
            let before = self.store.setting(&labels(&tenant)).await.map_err(PortError::of)?;
            let before = before.and_then(|count| count.parse().ok()).unwrap_or(0);
            if is_worth(examples.len() as u64, before) {
                self.fit(&tenant, examples).await?;
            }
        }
        Ok(())
    }

    /// Trains and judges on all that is known of a tenant. The report.
    pub(crate) async fn train(&self, tenant: &Tenant) -> Result<serde_json::Value, PortError> {
        let examples = self.examples().await?.into_iter().filter(|e| e.key.tenant == *tenant).collect();
        self.fit(tenant, examples).await
    }

    /// Trains, keeps the file, serves it from now on. The report.
    async fn fit(&self, tenant: &Tenant, examples: Vec<Example>) -> Result<serde_json::Value, PortError> {
        let count = examples.len();
        let fit = yielding("kiro-train", move || RiskModel::fit(&examples, &EvaluationConfig::default())).await;
        let model = fit.map_err(|e| internal(format!("training broke: {e}")))?.map_err(PortError::of)?;
        let json = model.to_json().map_err(PortError::of)?;
        self.files.put(&path(model.version()), json.into_bytes().into()).await.map_err(Error::ModelFile)?;
        let report = serde_json::to_value(model.judgement()).map_err(|e| internal(e.to_string()))?;
        self.journal.append(tenant, &[self.event(&model, count, &report)]).await?;
        let now = self.journal.clock.now();
        self.store.set_setting(&labels(tenant), &count.to_string(), now).await.map_err(PortError::of)?;
        self.store.set_setting(&format!("{SETTING}{tenant}"), model.version(), now).await.map_err(PortError::of)?;
        info!(%tenant, version = model.version(), examples = count, served = ?model.served(), "model trained and judged");
        let answer = serde_json::json!({"model_version": model.version(), "examples": count, "judgement": report});
        self.put(tenant.clone(), Arc::new(model));
        Ok(answer)
    }

    fn event(&self, model: &RiskModel, labels: usize, report: &serde_json::Value) -> Event<'static> {
        let judgement = model.judgement();
        let scores = judgement.evaluation.recent_of(judgement.served).or_else(|| judgement.evaluation.of(judgement.served));
        let mut event = self.journal.event(Subject::ModelVersion, model.version());
        event.set("model", Value::text("pipeline_run_failure"));
        event.set_text("estimator", serde_json::to_value(judgement.served).ok().and_then(|v| v.as_str().map(str::to_owned)));
        event.set("labels", Value::Int(i64::try_from(labels).unwrap_or(i64::MAX)));
        if let Some(scores) = scores {
            event.set("auc", scores.auc.map_or(Value::Null, Value::Float));
            event.set("brier", Value::Float(scores.brier));
            event.set("calibration_error", Value::Float(scores.calibration_error));
        }
        event.set("is_served", Value::Bool(true));
        event.set("reason", Value::text(judgement.reason.clone()));
        event.set("report", Value::text(report.to_string()));
        event
    }

    /// The pipeline of a source with most runs.
    async fn busiest(&self, tenant: &Tenant, source: &str) -> Result<String, PortError> {
        let mut request = SqlRequest::new(
            tenant.clone(),
            "SELECT pipeline FROM pipeline_health WHERE source = $1 GROUP BY pipeline ORDER BY SUM(runs) DESC, pipeline LIMIT 1",
        );
        request.parameters = vec![Some(source.to_owned())];
        let sql: Arc<dyn SqlEngine> = Arc::clone(&self.query) as _;
        let answer = rows::ask(&sql, request).await?;
        Ok(answer.rows.first().and_then(|row| row.first()?.as_str().map(str::to_owned)).unwrap_or_default())
    }
}

/// The setting of how many labels a tenant's model was trained on.
fn labels(tenant: &Tenant) -> String {
    format!("labels/{tenant}")
}

/// Where the file of a model lies in the lake's store.
pub(crate) fn path(version: &str) -> Path {
    Path::from(format!("models/{version}.json"))
}

#[async_trait]
impl Assessor for Shelf {
    async fn assess(&self, who: &Principal, request: RiskRequest) -> Result<RiskAssessment, PortError> {
        let now = self.journal.clock.now();
        let pipeline = match request.pipeline {
            Some(pipeline) => pipeline,
            None => self.busiest(&who.tenant, &request.source).await?,
        };
        let offsets = self.views.view().vector.clone();
        let row = self.features.at(&FeatureRequest {
            tenant: who.tenant.clone(),
            source: SourceUrl::new(request.source.as_str()),
            pipeline: pipeline.clone(),
            trigger: request.trigger.unwrap_or_default(),
            at: request.at.unwrap_or(now),
            declared: request.attributes,
        });
        let deployment_id = request.deployment_id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let assessment = self.get(&who.tenant)?.assess(AssessRequest { deployment_id, row, now, offsets });
        let mut event = self.journal.event(Subject::RiskAssessment, &assessment.deployment_id);
        event.set("pipeline", Value::text(pipeline));
        event.set("score", Value::Float(assessment.overall_risk_score));
        event.set_text("confidence", serde_json::to_value(assessment.confidence_level).ok().and_then(|v| v.as_str().map(str::to_owned)));
        event.set("model_version", Value::text(assessment.model_version.clone()));
        event.set("assessment", Value::text(serde_json::to_string(&assessment).unwrap_or_default()));
        event.set("actor", Value::text(who.name.clone()));
        let entry = AuditEntry {
            tenant: who.tenant.clone(),
            actor: who.name.clone(),
            action: "risk.assess".to_owned(),
            object: assessment.deployment_id.clone(),
            refused: None,
        };
        self.journal.append(&who.tenant, &[event, self.journal.audit_event(&entry)]).await?;
        Ok(assessment)
    }
}
