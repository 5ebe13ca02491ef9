//! The certificates that the doors show.

use anyhow::Result;
use kiro_schemas::Micros;
use prometheus::{IntGaugeVec, Opts, Registry};

/// A series for each door that speaks TLS.
#[derive(Debug)]
pub(super) struct Gauges {
    expires_at: IntGaugeVec,
    refused: IntGaugeVec,
}

impl Gauges {
    pub(super) fn new() -> Result<Self> {
        let gauges = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["door"]);
        Ok(Self {
            expires_at: gauges(
                "kiro_tls_certificate_expiry_timestamp_seconds",
                "When the certificate that a door shows ends to be valid, in seconds since the epoch.",
            )?,
            refused: gauges(
                "kiro_tls_certificate_refused",
                "1 while the files of a door hold what it does not show, because it is no valid certificate with its key.",
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<()> {
        registry.register(Box::new(self.expires_at.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        Ok(())
    }

    pub(super) fn served(&self, door: &str, expires_at: Micros) {
        self.expires_at.with_label_values(&[door]).set(expires_at.0 / 1_000_000);
        self.refused.with_label_values(&[door]).set(0);
    }

    pub(super) fn refused(&self, door: &str) {
        self.refused.with_label_values(&[door]).set(1);
    }
}
