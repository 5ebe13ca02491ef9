//! The `features` fold: what was known of each pipeline run when it began.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use kiro_ports::{Derived as Output, FeatureRequest, FeatureRow, Features};
use kiro_schemas::{Micros, Value};
use kiro_tables::{Rows, Table};

mod history;
#[cfg(test)]
mod tests;

use crate::Result;
use crate::hashing::Hashing;
use crate::run::Run;
use crate::versions::{Versions, finish};
use history::{Began, Ended, History, Name};

#[derive(Debug)]
struct Pipeline {
    tenant: Box<str>,
    source: Box<str>,
    name: Box<str>,
    history: History,
    is_stale: bool,
}

#[derive(Debug)]
struct Held {
    pipeline: usize,
    began: Began,
    ended: Option<Ended>,
}

/// What the fold and its readers share.
#[derive(Debug)]
struct State {
    hashing: Hashing,
    declared: Vec<String>,
    pipelines: Vec<Pipeline>,
    by_name: HashMap<u128, usize>,
    held: HashMap<u128, Held>,
    stale: Vec<usize>,
}

impl State {
    fn pipeline_key(&self, tenant: &str, source: &str, pipeline: &str) -> u128 {
        self.hashing.key([Value::text(tenant), Value::text(source), Value::text(pipeline)].iter())
    }

    fn pipeline(&mut self, run: &Run<'_>, name: &str) -> usize {
        let key = self.pipeline_key(run.tenant, run.source, name);
        let pipelines = &mut self.pipelines;
        *self.by_name.entry(key).or_insert_with(|| {
            let (tenant, source) = (run.tenant.into(), run.source.into());
            pipelines.push(Pipeline { tenant, source, name: name.into(), history: History::default(), is_stale: false });
            pipelines.len() - 1
        })
    }

    fn held(&mut self, key: u128, run: &Run<'_>) -> Option<Held> {
        let name = run.pipeline?;
        let start = run.started_at.or(run.queued_at).or(run.finished_at)?;
        let is_pull_request = is_pull_request(run.trigger);
        let name_of_run = Arc::new(Name { id: run.run_id.into(), attempt: run.attempt });
        let began = Began { start, key, name: Arc::clone(&name_of_run), is_pull_request, declared: self.declared_of(run.attributes) };
        // Others learn from a run after it began, even where the clocks say otherwise.
        let known_at = run.known_at.max(start.saturating_add(1));
        let ended = run.is_final.then(|| Ended { known_at, start, key, name: name_of_run, is_failure: run.label(), is_pull_request });
        Some(Held { pipeline: self.pipeline(run, name), began, ended })
    }

    fn declared_of(&self, attributes: &[(Cow<'_, str>, Cow<'_, str>)]) -> Vec<(u16, f64)> {
        let of = |name: &String| attributes.iter().find(|(k, _)| k == name).and_then(|(_, v)| v.trim().parse::<f64>().ok());
        let numbers = self.declared.iter().zip(0_u16..).filter_map(|(name, at)| Some((at, of(name)?)));
        numbers.filter(|(_, v)| v.is_finite()).collect()
    }

    fn mark(&mut self, pipeline: usize) {
        if !std::mem::replace(&mut self.pipelines[pipeline].is_stale, true) {
            self.stale.push(pipeline);
        }
    }

    fn fold(&mut self, key: u128, run: &Run<'_>) {
        let new = self.held(key, run);
        let old = self.held.remove(&key);
        if let Some(old) = old.as_ref().filter(|old| new.as_ref().is_none_or(|new| new.pipeline != old.pipeline)) {
            self.pipelines[old.pipeline].history.replace(key, (Some(&old.began), old.ended.as_ref()), (None, None));
            self.mark(old.pipeline);
        }
        let Some(new) = new else { return };
        let old = old.as_ref().filter(|old| old.pipeline == new.pipeline);
        let before = (old.map(|o| &o.began), old.and_then(|o| o.ended.as_ref()));
        if before != (Some(&new.began), new.ended.as_ref()) {
            self.pipelines[new.pipeline].history.replace(key, before, (Some(new.began.clone()), new.ended.clone()));
            self.mark(new.pipeline);
        }
        self.held.insert(key, new);
    }
}

/// Whether a trigger's word means a pull or merge request.
fn is_pull_request(trigger: &str) -> bool {
    ["pull_request", "merge_request", "pull-request", "merge-request"].iter().any(|word| trigger.starts_with(word)) || trigger == "pr"
}

/// The fold.
#[derive(Debug)]
pub(crate) struct FeatureFold {
    state: Arc<RwLock<State>>,
    pub(crate) versions: Versions,
}

impl FeatureFold {
    pub(crate) fn new(table: &'static Table, hashing: &Hashing, mut declared: Vec<String>) -> Self {
        declared.sort_unstable();
        declared.dedup();
        declared.truncate(usize::from(u16::MAX));
        let state = State {
            hashing: hashing.clone(),
            declared,
            pipelines: Vec::new(),
            by_name: HashMap::new(),
            held: HashMap::new(),
            stale: Vec::new(),
        };
        Self { state: Arc::new(RwLock::new(state)), versions: Versions::new(table, hashing.clone()) }
    }

    /// The read side.
    pub(crate) fn reader(&self) -> Arc<dyn Features> {
        Arc::new(Reader { state: Arc::clone(&self.state) })
    }

    /// Takes a run as it stands.
    pub(crate) fn fold(&mut self, key: u128, run: &Run<'_>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).fold(key, run);
    }

    /// The rows that changed.
    pub(crate) fn emit(&mut self, recorded_at: Micros) -> Result<Option<Output>> {
        let mut rows = Rows::new(self.versions.table);
        let mut guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        for at in std::mem::take(&mut state.stale) {
            let pipeline = &mut state.pipelines[at];
            pipeline.is_stale = false;
            let (declared, versions) = (&state.declared, &mut self.versions);
            let names = [&pipeline.tenant, &pipeline.source, &pipeline.name].map(|text| Value::text(&**text));
            pipeline.history.refresh(|began, (history, known)| {
                let mut values = Vec::with_capacity(32);
                values.extend(names.iter().cloned());
                values.extend([Value::text(&*began.name.id), Value::Int(began.name.attempt), Value::Time(Micros(began.start))]);
                values.extend(history.into_iter().map(Value::Float));
                values.push(Value::Int(i64::try_from(known).unwrap_or(i64::MAX)));
                let texts = began.declared.iter().map(|(at, v)| (Cow::Borrowed(&*declared[usize::from(*at)]), Cow::Owned(v.to_string())));
                values.push(if began.declared.is_empty() { Value::Null } else { Value::Map(texts.collect()) });
                let key = versions.key(&values);
                versions.offer(&mut rows, key, &values, recorded_at)
            })?;
        }
        drop(guard);
        finish(&mut rows)
    }
}

/// Reads the state of the fold. Moving the cursor of a history is a write, so that a reader locks out the fold for the
/// few microseconds that it needs.
#[derive(Debug)]
struct Reader {
    state: Arc<RwLock<State>>,
}

impl Features for Reader {
    fn at(&self, request: &FeatureRequest) -> FeatureRow {
        let mut guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let key = guard.pipeline_key(request.tenant.as_str(), request.source.as_str(), &request.pipeline);
        let is_declared = |name: &str| guard.declared.binary_search_by(|d| d.as_str().cmp(name)).is_ok();
        let declared: BTreeMap<_, _> =
            request.declared.iter().filter(|(k, v)| v.is_finite() && is_declared(k)).map(|(k, v)| (k.clone(), *v)).collect();
        let kind = is_pull_request(&request.trigger);
        let (history, known) = match guard.by_name.get(&key).copied() {
            Some(at) => guard.pipelines[at].history.at(request.at.0, kind),
            None => History::default().at(request.at.0, kind),
        };
        drop(guard);
        FeatureRow { history, declared, known_runs: u64::try_from(known).unwrap_or(u64::MAX) }
    }
}
