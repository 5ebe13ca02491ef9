//! A pipeline run as the folds behind `subjects` see it: a row of `pipeline_runs`.

use std::borrow::Cow;

use kiro_schemas::{Outcome, Value};
use kiro_tables::Table;

/// Where the columns stand in a row of `pipeline_runs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunColumns {
    pipeline: usize,
    run_id: usize,
    attempt: usize,
    outcome: usize,
    branch: usize,
    trigger: usize,
    queued_at: usize,
    started_at: usize,
    finished_at: usize,
    duration_ms: usize,
    attributes: usize,
    known_at: usize,
}

impl RunColumns {
    pub(crate) fn of(table: &Table) -> Self {
        let at = |name| table.position(name).unwrap_or(usize::MAX);
        Self {
            pipeline: at("pipeline"),
            run_id: at("run_id"),
            attempt: at("attempt"),
            outcome: at("outcome"),
            branch: at("branch"),
            trigger: at("trigger"),
            queued_at: at("queued_at"),
            started_at: at("started_at"),
            finished_at: at("finished_at"),
            duration_ms: at("duration_ms"),
            attributes: at("attributes"),
            known_at: at("known_at"),
        }
    }

    /// Reads the values of a row.
    pub(crate) fn read<'a>(&self, values: &'a [Value<'_>], is_final: bool) -> Run<'a> {
        let text = |at: usize| values.get(at).and_then(Value::as_text);
        let time = |at: usize| values.get(at).and_then(Value::as_time).map(|t| t.0);
        let int = |at: usize| if let Some(Value::Int(v)) = values.get(at) { Some(*v) } else { None };
        Run {
            tenant: text(0).unwrap_or_default(),
            source: text(1).unwrap_or_default(),
            pipeline: text(self.pipeline),
            run_id: text(self.run_id).unwrap_or_default(),
            attempt: int(self.attempt).unwrap_or(1),
            outcome: text(self.outcome).and_then(Outcome::parse),
            branch: text(self.branch).unwrap_or_default(),
            trigger: text(self.trigger).unwrap_or_default(),
            queued_at: time(self.queued_at),
            started_at: time(self.started_at),
            finished_at: time(self.finished_at),
            duration_ms: int(self.duration_ms),
            known_at: time(self.known_at).unwrap_or(i64::MAX),
            attributes: if let Some(Value::Map(pairs)) = values.get(self.attributes) { pairs } else { &[] },
            is_final,
        }
    }
}

/// One run as it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) source: &'a str,
    pub(crate) pipeline: Option<&'a str>,
    #[expect(clippy::struct_field_names, reason = "the column's name")]
    pub(crate) run_id: &'a str,
    pub(crate) attempt: i64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) branch: &'a str,
    pub(crate) trigger: &'a str,
    pub(crate) queued_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    /// When its outcome could be told.
    pub(crate) known_at: i64,
    pub(crate) attributes: &'a [(Cow<'a, str>, Cow<'a, str>)],
    pub(crate) is_final: bool,
}

impl Run<'_> {
    /// 1 (true) for a failure, 0 for a success; other outcomes and open runs tell nothing.
    pub(crate) fn label(&self) -> Option<bool> {
        match self.outcome.filter(|_| self.is_final)? {
            Outcome::Failure => Some(true),
            Outcome::Success => Some(false),
            Outcome::Cancel | Outcome::Error | Outcome::Skip => None,
        }
    }
}
