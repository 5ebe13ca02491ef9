//! Feature rows to the numbers that an estimator takes: log-scaled, standardised, clipped.

use std::collections::BTreeMap;

use kiro_ports::FeatureRow;
use kiro_tables::feature_names;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::Example;

/// Standardised values stay within this many standard deviations.
const CLIP: f64 = 4.0;
/// Declared attributes that are used, at most; the most frequent ones.
const MAX_DECLARED: usize = 64;

/// One input of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// A history feature, or the name of a declared attribute.
    pub(crate) name: String,
    pub(crate) declared: bool,
    pub(crate) log: bool,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
}

impl Column {
    /// Whether values can be standardised by it.
    pub(crate) fn is_usable(&self) -> bool {
        self.mean.is_finite() && self.deviation.is_finite() && self.deviation > 1e-12
    }

    /// The value in a row; a missing or odd one is `None`.
    pub(crate) fn raw(&self, at: usize, row: &FeatureRow) -> Option<f64> {
        let value = if self.declared { row.declared.get(&self.name) } else { row.history.get(at) };
        value.copied().filter(|v| v.is_finite())
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.log { value.max(0.0).ln_1p() } else { value }
    }

    /// The standardised value; a missing one is the usual one, 0.
    pub(crate) fn standard(&self, at: usize, row: &FeatureRow) -> f64 {
        self.unclipped(at, row).clamp(-CLIP, CLIP)
    }

    /// As [`Column::standard`], with the far values that training has to see.
    fn unclipped(&self, at: usize, row: &FeatureRow) -> f64 {
        self.raw(at, row).map_or(0.0, |v| (self.scaled(v) - self.mean) / self.deviation)
    }
}

/// Learns the columns from the training part alone. History comes first, in table order.
pub(crate) fn columns_of(examples: &[&Example]) -> Vec<Column> {
    let history = feature_names().into_iter().map(|name| (name.to_owned(), false));
    let declared = declared_names(examples).into_iter().map(|name| (name, true));
    history.chain(declared).enumerate().map(|(at, (name, declared))| learn(at, name, declared, examples)).collect()
}

fn learn(at: usize, name: String, declared: bool, examples: &[&Example]) -> Column {
    let mut column = Column { name, declared, log: false, mean: 0.0, deviation: 1.0 };
    let mut values: Vec<f64> = examples.iter().filter_map(|e| column.raw(at, &e.features)).collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    column.log = declared && low >= 0.0 && high > 20.0;
    for value in &mut values {
        *value = column.scaled(*value);
    }
    let count = values.len().max(1) as f64;
    column.mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - column.mean).powi(2)).sum::<f64>() / count;
    column.deviation = if variance > 1e-18 { variance.sqrt() } else { 1.0 };
    column
}

/// Attributes that at least one example in a hundred declares, by name.
fn declared_names(examples: &[&Example]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in examples.iter().flat_map(|e| e.features.declared.keys()) {
        *counts.entry(name).or_default() += 1;
    }
    let mut names: Vec<(usize, &str)> = counts.into_iter().filter(|(_, n)| n * 100 >= examples.len()).map(|(name, n)| (n, name)).collect();
    names.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut names: Vec<String> = names.into_iter().take(MAX_DECLARED).map(|(_, name)| name.to_owned()).collect();
    names.sort();
    names
}

pub(crate) fn matrix(columns: &[Column], examples: &[&Example]) -> Array2<f64> {
    Array2::from_shape_fn((examples.len(), columns.len()), |(i, j)| columns[j].standard(j, &examples[i].features))
}

/// The rows to train on: far values are kept, they hold coefficients down.
pub(crate) fn training_matrix(columns: &[Column], examples: &[&Example]) -> Array2<f64> {
    Array2::from_shape_fn((examples.len(), columns.len()), |(i, j)| columns[j].unclipped(j, &examples[i].features))
}
