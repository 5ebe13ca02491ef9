//! What is known of a run that is about to begin.

use std::collections::BTreeMap;

use kiro_schemas::{Micros, SourceUrl, Tenant};

/// A run that is about to begin, or began then.
#[derive(Debug, Clone)]
pub struct FeatureRequest {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its repository.
    pub source: SourceUrl,
    /// Its pipeline.
    pub pipeline: String,
    /// What starts it: `push`, `pull_request`, ….
    pub trigger: String,
    /// The moment of prediction: nothing known later is used.
    pub at: Micros,
    /// Declared numeric attributes of the change.
    pub declared: BTreeMap<String, f64>,
}

/// The features of one run, as of one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureRow {
    /// One value for each of [`kiro_tables::feature_names`], in that order.
    pub history: Vec<f64>,
    /// Declared numeric attributes of the change.
    pub declared: BTreeMap<String, f64>,
    /// Labelled runs of the pipeline that were known; 0 for a pipeline that nobody knows.
    pub known_runs: u64,
}

/// Read access to the `features` fold, which runs beside it.
pub trait Features: Send + Sync + std::fmt::Debug {
    /// The features of a run, by the very code that writes the `features` table.
    fn at(&self, request: &FeatureRequest) -> FeatureRow;
}
