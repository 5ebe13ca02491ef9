//! The spill before the log: read when it is asked for; all zero where there is none.

use std::sync::Arc;

use anyhow::Result;
use kiro_log::{SpillLog, SpillStatus};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

/// What is spilled, and what became of it.
#[derive(Debug)]
pub(super) struct SpillMetrics {
    spill: Option<Arc<SpillLog>>,
    bytes: IntGauge,
    limit: IntGauge,
    records: IntCounter,
    drained: IntCounter,
    refused: IntCounter,
    aside: IntCounter,
}

impl SpillMetrics {
    pub(super) fn new(spill: Option<Arc<SpillLog>>) -> Result<Self> {
        Ok(Self {
            spill,
            bytes: IntGauge::new("kiro_spill_bytes", "Bytes of posts that are kept until the log takes them.")?,
            limit: IntGauge::new("kiro_spill_limit_bytes", "Bytes that may be kept; 0 where posts are not spilled.")?,
            records: IntCounter::new("kiro_spill_records_total", "Records that were spilled because the log did not take them.")?,
            drained: IntCounter::new("kiro_spill_drained_records_total", "Records that went from the spill into the log.")?,
            refused: IntCounter::new(
                "kiro_spill_refused_records_total",
                "Records that were refused because the spill was full or its disk failed.",
            )?,
            aside: IntCounter::new(
                "kiro_spill_aside_records_total",
                "Spilled records that were put aside, because they were damaged or the log refuses them for good.",
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [&self.bytes, &self.limit, &self.records, &self.drained, &self.refused, &self.aside]
    }

    fn read(&self) {
        let status = self.spill.as_ref().map_or_else(SpillStatus::default, |spill| spill.status());
        self.bytes.set(i64::try_from(status.bytes).unwrap_or(i64::MAX));
        self.limit.set(i64::try_from(status.limit).unwrap_or(i64::MAX));
        let counts = [
            (&self.records, status.spilled),
            (&self.drained, status.drained),
            (&self.refused, status.refused),
            (&self.aside, status.aside),
        ];
        for (counter, count) in counts {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}

impl Collector for SpillMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
