//! The metrics of the front door; the only file of this crate that names metrics.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::{Result, Shared};

/// The metrics of the front door.
#[derive(Debug, Clone)]
pub struct Telemetry {
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub(crate) refused: IntCounter,
}

impl Telemetry {
    /// Registers them.
    ///
    /// # Errors
    /// A metric is registered twice.
    pub fn new(registry: &Registry) -> Result<Self> {
        let requests =
            IntCounterVec::new(Opts::new("kiro_http_requests_total", "Requests by route and status class."), &["route", "status"])?;
        let options = HistogramOpts::new("kiro_http_request_seconds", "Time until the head of the answer, by route.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let seconds = HistogramVec::new(options, &["route"])?;
        let refused = IntCounter::new("kiro_http_refused_total", "Requests refused for want of a token or a role.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { requests, seconds, refused })
    }
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
