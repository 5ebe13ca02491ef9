//! Rows of `dora`.

use kiro_schemas::delivery::{Band, Frequency, Settings, Variant};
use kiro_schemas::{Span, Value, Window, Zone};

use super::figures::Figures;
use super::state::Unit;

/// The columns that name a row, and its period's end and time zone.
pub(super) const KEY_COLUMNS: usize = 9;
/// Where the start of the period stands among them.
pub(super) const PERIOD_START: usize = 6;

/// A period and what it comes to.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) unit: &'a Unit,
    pub(super) variant: Variant,
    pub(super) window: Window,
    pub(super) span: Span,
    pub(super) zone: Zone,
    pub(super) figures: Figures,
}

/// A row without `recorded_at` and `_rev`.
#[derive(Debug)]
pub(super) struct Line {
    /// The start of its period.
    pub(super) start: i64,
    /// Whether there is nothing to tell.
    pub(super) is_empty: bool,
    pub(super) values: Vec<Value<'static>>,
}

impl Told<'_> {
    /// Its row.
    pub(super) fn line(&self, settings: &Settings) -> Line {
        Line { start: self.span.start.0, is_empty: self.figures.is_none(), values: self.values(settings) }
    }

    fn values(&self, settings: &Settings) -> Vec<Value<'static>> {
        let name = &self.unit.name;
        let texts = [&*name.tenant, &*name.source, &*name.service, name.environment.as_str(), self.variant.as_str(), self.window.as_str()];
        let mut row: Vec<_> = texts.into_iter().map(|text| Value::text(text.to_owned())).collect();
        row.extend([Value::Time(self.span.start), Value::Time(self.span.end), Value::text(self.zone.name())]);
        let figures = &self.figures;
        let definitions = self.variant.definitions();
        let days = f64::from(self.span.days);
        let band = (figures.deployments > 0 && self.window != Window::Day).then(|| match definitions.frequency {
            Frequency::PerDay => settings.bands.frequency(Frequency::PerDay, figures.deployments as f64 / days),
            Frequency::DaysPerWeek => settings.bands.frequency(Frequency::DaysPerWeek, figures.deployment_days as f64 * 7.0 / days),
        });
        let reworks = definitions.infers_failures.then_some(figures.reworks);
        row.extend(metrics(figures, days, band, reworks, settings));
        row
    }
}

/// A row that was told and that nothing tells any more: the columns of its key go on as they are.
pub(super) fn emptied(mut columns: Vec<Value<'static>>, settings: &Settings) -> Vec<Value<'static>> {
    columns.extend(metrics(&Figures::none(), 1.0, None, None, settings));
    columns
}

fn metrics(figures: &Figures, days: f64, frequency: Option<Band>, reworks: Option<usize>, settings: &Settings) -> [Value<'static>; 20] {
    let bands = settings.bands;
    let ratio = |part: usize| (figures.deployments > 0).then(|| part as f64 / figures.deployments as f64);
    let fail_ratio = ratio(figures.failures);
    [
        count(figures.deployments),
        count(figures.deployment_days),
        count(figures.failed_attempts),
        float((figures.deployments > 0).then(|| figures.deployments as f64 / days)),
        word(frequency),
        count(figures.changes),
        float(figures.lead_p50_ms),
        float(figures.lead_p90_ms),
        float(figures.deploy_p50_ms),
        word(figures.lead_p50_ms.map(|ms| bands.lead_time(ms))),
        count(figures.failures),
        float(fail_ratio),
        word(fail_ratio.map(|ratio| bands.change_fail(ratio))),
        count(figures.recoveries),
        float(figures.recovery_p50_ms),
        word(figures.recovery_p50_ms.map(|ms| bands.recovery(ms))),
        reworks.map_or(Value::Null, count),
        float(reworks.and_then(ratio)),
        Value::text(bands.as_str()),
        Value::text(figures.evidence.clone()),
    ]
}

fn count(n: usize) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn float(value: Option<f64>) -> Value<'static> {
    value.map_or(Value::Null, Value::Float)
}

fn word(band: Option<Band>) -> Value<'static> {
    band.map_or(Value::Null, |band| Value::text(band.as_str()))
}
