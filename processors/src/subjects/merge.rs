//! One subject: its events merged, whatever their order and however often they come.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use kiro_schemas::{Micros, Outcome, SubjectSpec, Value};

/// Which event a value came from. The later one wins: by time, then transition, then id.
#[derive(Debug)]
pub(super) struct Stamp {
    pub(super) time: i64,
    pub(super) rank: u8,
    pub(super) id: Box<str>,
    pub(super) known_at: i64,
}

impl Stamp {
    fn order(&self, other: &Self) -> Ordering {
        (self.time, self.rank, &*self.id).cmp(&(other.time, other.rank, &*other.id))
    }
}

#[derive(Debug)]
struct Cell {
    stamp: Arc<Stamp>,
    value: Value<'static>,
}

/// Puts a value into its place. Deliveries of one event that differ agree on the greatest value and the earliest `known_at`.
fn offer(cell: &mut Option<Cell>, stamp: &Arc<Stamp>, value: Value<'_>) {
    let Some(cell) = cell else {
        *cell = Some(Cell { stamp: Arc::clone(stamp), value: value.into_owned() });
        return;
    };
    match stamp.order(&cell.stamp) {
        Ordering::Less => {}
        Ordering::Equal => {
            if compare(&value, &cell.value) == Ordering::Greater {
                cell.value = value.into_owned();
            }
            keep_earliest(&mut cell.stamp, stamp);
        }
        Ordering::Greater => {
            cell.stamp = Arc::clone(stamp);
            if cell.value != value {
                cell.value = value.into_owned();
            }
        }
    }
}

fn keep_earliest(kept: &mut Arc<Stamp>, other: &Arc<Stamp>) {
    if other.known_at < kept.known_at {
        *kept = Arc::clone(other);
    }
}

fn compare(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Time(a), Value::Time(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Where the columns stand that are derived from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Derived {
    outcome: Option<usize>,
    status: Option<usize>,
    started_at: Option<usize>,
    finished_at: Option<usize>,
    duration_ms: Option<usize>,
}

impl Derived {
    pub(super) fn of(spec: &SubjectSpec) -> Self {
        let at = |name| spec.field(name);
        Self {
            outcome: at("outcome"),
            status: at("status"),
            started_at: at("started_at"),
            finished_at: at("finished_at"),
            duration_ms: at("duration_ms"),
        }
    }
}

/// What an event brings, beside its fields.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) stamp: Arc<Stamp>,
    pub(super) is_final: bool,
}

/// The merged events of one subject.
#[derive(Debug)]
pub(super) struct Merged {
    fields: Vec<Option<Cell>>,
    attributes: Vec<(Box<str>, Option<Cell>)>,
    latest: Arc<Stamp>,
    /// The latest event that made it final.
    ending: Option<Arc<Stamp>>,
}

impl Merged {
    pub(super) fn new(width: usize, fact: &Fact) -> Self {
        let fields = std::iter::repeat_with(|| None).take(width).collect();
        Self { fields, attributes: Vec::new(), latest: Arc::clone(&fact.stamp), ending: None }
    }

    /// Takes an event; its fields and attributes follow by [`Merged::set`] and [`Merged::set_attribute`].
    pub(super) fn touch(&mut self, fact: &Fact) {
        advance(&mut self.latest, &fact.stamp);
        if fact.is_final {
            match &mut self.ending {
                Some(ending) => advance(ending, &fact.stamp),
                None => self.ending = Some(Arc::clone(&fact.stamp)),
            }
        }
    }

    pub(super) fn set(&mut self, at: usize, fact: &Fact, value: Value<'_>) {
        if !value.is_null() {
            offer(&mut self.fields[at], &fact.stamp, value);
        }
    }

    pub(super) fn set_attribute(&mut self, fact: &Fact, key: &str, value: &str) {
        let at = match self.attributes.binary_search_by(|(k, _)| (**k).cmp(key)) {
            Ok(at) => at,
            Err(at) => {
                self.attributes.insert(at, (key.into(), None));
                at
            }
        };
        offer(&mut self.attributes[at].1, &fact.stamp, Value::text(value));
    }

    pub(super) const fn is_final(&self) -> bool {
        self.ending.is_some()
    }

    fn cell(&self, at: Option<usize>) -> Option<&Cell> {
        self.fields[at?].as_ref()
    }

    fn time(&self, at: Option<usize>) -> Option<Micros> {
        self.cell(at)?.value.as_time()
    }

    /// When the outcome could be told: `known_at` of the event that gave it, else of the one that ended the subject,
    /// else of the latest.
    fn known_at(&self, derived: &Derived) -> i64 {
        let given = self.cell(derived.outcome).or_else(|| self.outcome_of_status(derived).and(self.cell(derived.status)));
        let stamp = given.map(|c| &c.stamp).filter(|_| self.is_final());
        stamp.or(self.ending.as_ref()).unwrap_or(&self.latest).known_at
    }

    fn outcome_of_status(&self, derived: &Derived) -> Option<Outcome> {
        if !self.is_final() || self.cell(derived.outcome).is_some() {
            return None;
        }
        derived.outcome.and(self.cell(derived.status)).and_then(|c| c.value.as_text()).and_then(Outcome::of_provider)
    }

    fn duration_ms(&self, derived: &Derived) -> Option<i64> {
        let micros = self.time(derived.finished_at)?.0 - self.time(derived.started_at)?.0;
        (micros >= 0).then_some(micros / 1000)
    }

    /// Adds the own columns to a row, then attributes, time and `known_at`.
    pub(super) fn push_values<'a>(&'a self, derived: &Derived, ids: impl Fn(usize) -> Option<Value<'a>>, row: &mut Vec<Value<'a>>) {
        for (at, cell) in self.fields.iter().enumerate() {
            row.push(match (ids(at), cell) {
                (Some(id), _) => id,
                (None, Some(cell)) => borrow(&cell.value),
                (None, None) if Some(at) == derived.duration_ms => self.duration_ms(derived).map_or(Value::Null, Value::Int),
                (None, None) if Some(at) == derived.outcome => {
                    self.outcome_of_status(derived).map_or(Value::Null, |o| Value::text(o.as_str()))
                }
                (None, None) => Value::Null,
            });
        }
        let pairs = self.attributes.iter().filter_map(|(k, cell)| {
            let value = cell.as_ref()?.value.as_text()?;
            Some((Cow::Borrowed(&**k), Cow::Borrowed(value)))
        });
        let pairs: Vec<_> = pairs.collect();
        row.push(if pairs.is_empty() { Value::Null } else { Value::Map(pairs) });
        row.push(Value::Time(Micros(self.latest.time)));
        row.push(Value::Time(Micros(self.known_at(derived))));
    }
}

fn advance(kept: &mut Arc<Stamp>, stamp: &Arc<Stamp>) {
    match stamp.order(kept) {
        Ordering::Less => {}
        Ordering::Equal => keep_earliest(kept, stamp),
        Ordering::Greater => *kept = Arc::clone(stamp),
    }
}

fn borrow<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        other => other.clone(),
    }
}
