//! The chain of folds as the engine sees it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use kiro_ports::{Derived, Features, Folding, Missing, PortError};
use kiro_schemas::delivery::Settings;
use kiro_schemas::{Micros, Value};
use kiro_tables::Table;
use tracing::debug;

#[cfg(test)]
mod tests;

use crate::dora::Dora;
use crate::features::FeatureFold;
use crate::hashing::Hashing;
use crate::origin::Origins;
use crate::pipeline_health::PipelineHealth;
use crate::run::RunColumns;
use crate::subjects::Subjects;
use crate::versions::table_of;
use crate::{Result, Shard, telemetry};

const RUNS: &str = "pipeline_runs";

/// How the folds are set up.
#[derive(Debug, Clone)]
pub struct FoldConfig {
    /// Attributes of runs that are features when they are finite numbers.
    pub declared: Vec<String>,
    /// How many final subjects of each kind are kept ready for corrections.
    pub recent_subjects: usize,
    /// Which part of the sources is folded.
    pub shard: Shard,
    /// What counts as a deployment, a failure, an incident.
    pub delivery: Settings,
}

impl Default for FoldConfig {
    fn default() -> Self {
        Self { declared: Vec::new(), recent_subjects: 100_000, shard: Shard::default(), delivery: Settings::default() }
    }
}

/// All folds, chained.
#[derive(Debug)]
pub struct Processors {
    origins: Origins,
    subjects: Vec<Subjects>,
    columns: RunColumns,
    health: PipelineHealth,
    features: FeatureFold,
    dora: Dora,
}

impl Processors {
    /// Empty folds, and read access to the features beside them.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable) when the contract lacks a table that is derived here.
    pub fn new(config: FoldConfig) -> Result<(Self, Arc<dyn Features>)> {
        let hashing = Hashing::default();
        let features = FeatureFold::new(table_of("features")?, &hashing, config.declared);
        let reader = features.reader();
        let dora = Dora::new(table_of("dora")?, &hashing, config.delivery);
        let processors = Self {
            origins: Origins::new(hashing.clone(), config.shard),
            subjects: Subjects::all(&hashing, config.recent_subjects, |table| dora.reads(table))?,
            columns: RunColumns::of(table_of(RUNS)?),
            health: PipelineHealth::new(table_of("pipeline_health")?, &hashing),
            features,
            dora,
        };
        Ok((processors, reader))
    }

    /// Makes the health of pipelines visible in a registry.
    ///
    /// # Errors
    /// [`Error::Metrics`](crate::Error::Metrics) when it is in it already.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<()> {
        telemetry::register(self.health.days(), registry)
    }

    #[cfg(test)]
    pub(crate) const fn dora(&self) -> &Dora {
        &self.dora
    }

    fn fold(&mut self, table: &'static Table, events: &RecordBatch, is_supplied: bool) -> Result<()> {
        let Some(subjects) = self.subjects.iter_mut().find(|s| s.events_table().name == table.name) else { return Ok(()) };
        let applied = subjects.apply(&mut self.origins, events, is_supplied);
        let (columns, health, features, dora) = (&self.columns, &mut self.health, &mut self.features, &mut self.dora);
        let source = subjects.versions.table;
        subjects.settle(&self.origins, |key, values, is_final, origin| {
            if source.name == RUNS && origin.is_ours {
                let run = columns.read(values, is_final);
                health.fold(key, &run);
                features.fold(key, &run);
            }
            if origin.is_tenant_ours {
                dora.fold(source, key, values);
            }
        });
        applied
    }

    fn restore_rows(&mut self, table: &'static Table, rows: &RecordBatch) -> Result<()> {
        let shard = self.origins.shard();
        let is_ours = |tenant: &str, source: &str| shard.holds(tenant, source);
        if table.name == self.health.versions.table.name {
            return self.health.versions.restore(rows, is_ours, |_, _| {});
        }
        if table.name == self.features.versions.table.name {
            return self.features.versions.restore(rows, is_ours, |_, _| {});
        }
        if table.name == self.dora.table().name {
            return self.dora.restore(rows, shard);
        }
        let Some(subjects) = self.subjects.iter_mut().find(|s| s.versions.table.name == table.name) else { return Ok(()) };
        let (columns, health, features, dora) = (&self.columns, &mut self.health, &mut self.features, &mut self.dora);
        subjects.restore(rows, shard, |key, values| {
            let [tenant, source] = [0, 1].map(|at: usize| values.get(at).and_then(Value::as_text).unwrap_or_default());
            if table.name == RUNS && is_ours(tenant, source) {
                let run = columns.read(values, true);
                health.fold(key, &run);
                features.fold(key, &run);
            }
            if shard.holds_tenant(tenant) {
                dora.fold(table, key, values);
            }
        })
    }

    fn emit_rows(&mut self, recorded_at: Micros) -> Result<Vec<Derived>> {
        let mut batches = Vec::new();
        for subjects in &mut self.subjects {
            batches.extend(subjects.emit(&self.origins, recorded_at)?);
        }
        batches.extend(self.health.emit(recorded_at)?);
        batches.extend(self.features.emit(recorded_at)?);
        batches.extend(self.dora.emit(recorded_at)?);
        debug!(rows = batches.iter().map(|(_, b)| b.num_rows()).sum::<usize>(), tables = batches.len(), "rows derived");
        Ok(batches)
    }
}

impl Folding for Processors {
    fn outputs(&self) -> Vec<&'static Table> {
        let own = [self.health.versions.table, self.features.versions.table, self.dora.table()];
        self.subjects.iter().map(|s| s.versions.table).chain(own).collect()
    }

    fn restore(&mut self, table: &'static Table, rows: &RecordBatch) -> Result<(), PortError> {
        self.restore_rows(table, rows).map_err(PortError::of)
    }

    fn apply(&mut self, table: &'static Table, events: &RecordBatch) -> Result<(), PortError> {
        self.fold(table, events, false).map_err(PortError::of)
    }

    fn missing(&mut self) -> Vec<Missing> {
        self.subjects.iter_mut().filter_map(|s| s.missing(&self.origins)).collect()
    }

    fn supply(&mut self, table: &'static Table, events: &RecordBatch) -> Result<(), PortError> {
        self.fold(table, events, true).map_err(PortError::of)
    }

    fn emit(&mut self, recorded_at: Micros) -> Result<Vec<Derived>, PortError> {
        self.emit_rows(recorded_at).map_err(PortError::of)
    }

    fn open(&mut self) -> Result<Vec<Derived>, PortError> {
        let open = self.subjects.iter().filter_map(|s| s.open(&self.origins).transpose());
        open.collect::<Result<Vec<_>>>().map_err(PortError::of)
    }
}
