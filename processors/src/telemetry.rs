//! The metrics of the folds; no other file of this crate names one.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts, Registry};

use crate::Result;

const PIPELINE: [&str; 3] = ["tenant", "source", "pipeline"];

/// How a pipeline went in the window.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Recent {
    /// Tenant, source, pipeline: bounded.
    pub(crate) name: [String; 3],
    /// Runs that succeeded, that failed, and others.
    pub(crate) runs: [i64; 3],
    /// Median and 95th percentile of the duration.
    pub(crate) duration_seconds: [Option<f64>; 2],
    /// The same of the time in the queue.
    pub(crate) queue_seconds: [Option<f64>; 2],
}

/// How all pipelines went, and until when.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Window {
    pub(crate) pipelines: Vec<Recent>,
    /// The end of its newest day; `None` without a run.
    pub(crate) end_seconds: Option<f64>,
}

/// Who can tell it when the metrics are asked for.
pub(crate) trait Recency: Send + Sync {
    fn window(&self) -> Window;
}

/// Gauges that are set when they are asked for, so that folding pays nothing for them.
struct PipelineGauges {
    recency: Arc<dyn Recency>,
    runs: IntGaugeVec,
    failure_ratio: GaugeVec,
    duration: GaugeVec,
    queue: GaugeVec,
    end: Gauge,
    /// Two who ask at a time would empty each other's answer.
    alone: Mutex<()>,
}

impl PipelineGauges {
    fn new(recency: Arc<dyn Recency>) -> Result<Self> {
        let with = |more: &'static str| [&PIPELINE[..], &[more]].concat();
        let gauges = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        let runs = Opts::new("kiro_pipeline_runs", "Final runs of the last 7 days that have runs, by outcome.");
        Ok(Self {
            recency,
            runs: IntGaugeVec::new(runs, &with("outcome"))?,
            failure_ratio: gauges(
                "kiro_pipeline_failure_ratio",
                "Failures among the failed and successful runs of these days.",
                &PIPELINE,
            )?,
            duration: gauges(
                "kiro_pipeline_duration_seconds",
                "Duration of failed and successful runs of these days.",
                &with("percentile"),
            )?,
            queue: gauges("kiro_pipeline_queue_seconds", "Time that the runs of these days waited to start.", &with("percentile"))?,
            end: Gauge::new("kiro_pipeline_window_end_timestamp_seconds", "End of the newest day that has runs.")?,
            alone: Mutex::default(),
        })
    }

    fn set(&self, recent: &Recent) {
        let [tenant, source, pipeline] = recent.name.each_ref().map(String::as_str);
        for (outcome, runs) in ["success", "failure", "other"].into_iter().zip(recent.runs) {
            self.runs.with_label_values(&[tenant, source, pipeline, outcome]).set(runs);
        }
        let labelled = recent.runs[0] + recent.runs[1];
        if labelled > 0 {
            self.failure_ratio.with_label_values(&[tenant, source, pipeline]).set(recent.runs[1] as f64 / labelled as f64);
        }
        for (gauge, values) in [(&self.duration, recent.duration_seconds), (&self.queue, recent.queue_seconds)] {
            for (percentile, value) in ["50", "95"].into_iter().zip(values) {
                if let Some(value) = value {
                    gauge.with_label_values(&[tenant, source, pipeline, percentile]).set(value);
                }
            }
        }
    }
}

impl Collector for PipelineGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.runs.desc(), self.failure_ratio.desc(), self.duration.desc(), self.queue.desc(), self.end.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let window = self.recency.window();
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        self.runs.reset();
        [&self.failure_ratio, &self.duration, &self.queue].into_iter().for_each(GaugeVec::reset);
        for recent in &window.pipelines {
            self.set(recent);
        }
        let mut families = [self.runs.collect(), self.failure_ratio.collect(), self.duration.collect(), self.queue.collect()].concat();
        if let Some(end) = window.end_seconds {
            self.end.set(end);
            families.extend(self.end.collect());
        }
        families
    }
}

/// Makes the health of pipelines visible in a registry.
pub(crate) fn register(recency: Arc<dyn Recency>, registry: &Registry) -> Result<()> {
    registry.register(Box::new(PipelineGauges::new(recency)?))?;
    Ok(())
}

#[cfg(test)]
mod tests;
