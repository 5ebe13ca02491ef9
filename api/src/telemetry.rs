//! The metrics of the front door; the only file of this crate that names metrics.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use kiro_schemas::Tenant;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::{Class, Result, Shared, open_tenant};

/// The label of series that belong to one tenant.
const TENANT: &str = "tenant";

/// The metrics of the front door.
#[derive(Debug, Clone)]
pub struct Telemetry {
    requests: IntCounterVec,
    seconds: HistogramVec,
    refused: IntCounter,
    limited: IntCounterVec,
}

impl Telemetry {
    /// Registers them.
    ///
    /// # Errors
    /// A metric is registered twice.
    pub fn new(registry: &Registry) -> Result<Self> {
        let counters = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let options = HistogramOpts::new("kiro_http_request_seconds", "Time until the head of the answer, by route.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let telemetry = Self {
            requests: counters("kiro_http_requests_total", "Requests by route and status class.", &["route", "status"])?,
            seconds: HistogramVec::new(options, &["route"])?,
            refused: IntCounter::new("kiro_http_refused_total", "Requests refused for want of a token or a role.")?,
            limited: counters(
                "kiro_http_limited_total",
                "Requests refused because the quota of the caller was used up, by class.",
                &["class"],
            )?,
        };
        for class in [Class::Ingest, Class::Query] {
            telemetry.limited.with_label_values(&[class.as_str()]);
        }
        let all: [Box<dyn Collector>; 4] = [
            Box::new(telemetry.requests.clone()),
            Box::new(telemetry.seconds.clone()),
            Box::new(telemetry.refused.clone()),
            Box::new(telemetry.limited.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))?;
        Ok(telemetry)
    }

    /// A request was refused for want of a token or a role.
    pub(crate) fn refused(&self, action: &str, reason: &str) {
        self.refused.inc();
        tracing::debug!(action, reason, "request refused");
    }

    /// A request was refused because the quota was used up.
    pub(crate) fn limited(&self, class: Class) {
        self.limited.with_label_values(&[class.as_str()]).inc();
        tracing::debug!(class = class.as_str(), "request over the quota");
    }
}

/// What a tenant may see of a registry: everything for the default tenant, which runs the installation, else its own series.
pub(crate) fn visible(registry: &Registry, tenant: &Tenant) -> Vec<MetricFamily> {
    let mut families = registry.gather();
    if *tenant != open_tenant() {
        for family in &mut families {
            let is_own = |name: &str, value: &str| name == TENANT && value == tenant.as_str();
            family.mut_metric().retain(|m| m.get_label().iter().any(|label| is_own(label.name(), label.value())));
        }
        families.retain(|family| !family.get_metric().is_empty());
    }
    families
}

/// Counts and times each request, by the route's pattern so that the number of series stays bounded.
pub(crate) async fn observe(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |p| p.as_str().to_owned());
    let start = state.ports.clock.now();
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    state.telemetry.requests.with_label_values(&[route.as_str(), class]).inc();
    state.telemetry.seconds.with_label_values(&[route.as_str()]).observe(state.ports.clock.now().seconds_since(start).max(0.0));
    response
}

#[cfg(test)]
mod tests {
    use kiro_schemas::Tenant;
    use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

    use super::visible;

    #[test]
    fn a_tenant_sees_its_own_series_alone() {
        let registry = Registry::new();
        let by_tenant = IntCounterVec::new(Opts::new("a_total", "A."), &["tenant"]).expect("a metric");
        registry.register(Box::new(by_tenant.clone())).expect("registered");
        registry.register(Box::new(IntCounter::new("b_total", "B.").expect("a metric"))).expect("registered");
        for tenant in ["default", "other", "third"] {
            by_tenant.with_label_values(&[tenant]).inc();
        }
        let seen = |tenant: &str| -> usize { visible(&registry, &Tenant::new(tenant)).iter().map(|f| f.get_metric().len()).sum() };
        assert_eq!((seen("default"), seen("other"), seen("nobody")), (4, 1, 0));
    }
}
