//! The `subjects` fold: events of a subject to the one row that shows it as it stands.
//!
//! Open subjects and the recently final ones are kept with all that merging needs; of the others a digest is kept. An
//! event for one of those makes the subject incomplete until all its events were supplied.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use hashbrown::HashTable;
use kiro_ports::{Derived as Output, Missing};
use kiro_schemas::subject::SPECS;
use kiro_schemas::{Micros, SubjectSpec, Transition, Value};
use kiro_tables::{Rows, Table, TableShape};

mod events;
mod merge;

use crate::hashing::Hashing;
use crate::origin::{Origin, Origins};
use crate::versions::{Versions, finish, push, table_of};
use crate::{Result, Shard};
use events::Events;
use merge::{Derived, Fact, Merged, Stamp};

/// What names a subject.
#[derive(Debug, Clone, Copy)]
struct Name<'a> {
    origin: usize,
    id: &'a str,
    attempt: i64,
}

/// How an event came: its row, the time field that its transition sets, and whether it was asked for.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    row: usize,
    implied: Option<usize>,
    is_supplied: bool,
    recorded_at: i64,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each tells which of the lists below holds it")]
struct Entry {
    origin: usize,
    id: Box<str>,
    attempt: i64,
    hash: u64,
    /// The digest of its key in the table.
    key: u128,
    merged: Merged,
    /// Whether all its events are in.
    is_complete: bool,
    /// Whether it is in `dirty`, in `changed`, in `incomplete`, counted as kept.
    is_dirty: bool,
    is_changed: bool,
    is_waiting: bool,
    is_kept: bool,
    touched: u64,
    /// When the newest of its events was recorded.
    recorded_at: i64,
}

/// The fold of one kind of subject.
#[derive(Debug)]
pub(crate) struct Subjects {
    spec: &'static SubjectSpec,
    events: &'static Table,
    derived: Derived,
    attempt: bool,
    hashing: Hashing,
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    index: HashTable<usize>,
    dirty: Vec<usize>,
    changed: Vec<usize>,
    incomplete: Vec<usize>,
    recent: VecDeque<(usize, u64)>,
    kept: usize,
    limit: usize,
    clock: u64,
    /// Whether it is also folded where the tenant's shard is, for what crosses sources; its own shard writes it.
    is_wide: bool,
    pub(crate) versions: Versions,
}

impl Subjects {
    /// One fold for each kind of subject that has a table of its own; `is_wide` says of which tables other folds need all
    /// sources of a tenant.
    pub(crate) fn all(hashing: &Hashing, limit: usize, is_wide: impl Fn(&str) -> bool) -> Result<Vec<Self>> {
        let mut folds = Vec::new();
        for spec in SPECS {
            let table = table_of(spec.table)?;
            if table.shape == TableShape::Versions {
                let fold = Self::new(spec, table, hashing, limit)?;
                folds.push(Self { is_wide: is_wide(spec.table), ..fold });
            }
        }
        Ok(folds)
    }

    fn new(spec: &'static SubjectSpec, table: &'static Table, hashing: &Hashing, limit: usize) -> Result<Self> {
        Ok(Self {
            spec,
            events: table_of(spec.events_table)?,
            derived: Derived::of(spec),
            attempt: spec.column("attempt").is_some(),
            hashing: hashing.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            dirty: Vec::new(),
            changed: Vec::new(),
            incomplete: Vec::new(),
            recent: VecDeque::new(),
            kept: 0,
            limit,
            clock: 0,
            is_wide: false,
            versions: Versions::new(table, hashing.clone()),
        })
    }

    /// The table of its events.
    pub(crate) const fn events_table(&self) -> &'static Table {
        self.events
    }

    /// Makes known what its table holds already.
    pub(crate) fn restore(&mut self, rows: &RecordBatch, shard: Shard, each: impl FnMut(u128, &[Value<'_>])) -> Result<()> {
        let is_wide = self.is_wide;
        let is_wanted = |tenant: &str, source: &str| shard.holds(tenant, source) || is_wide && shard.holds_tenant(tenant);
        self.versions.restore(rows, is_wanted, each)
    }

    /// Folds events. With `is_supplied` they are all events of the subjects that were missing, among others.
    pub(crate) fn apply(&mut self, origins: &mut Origins, batch: &RecordBatch, is_supplied: bool) -> Result<()> {
        let events = Events::read(self.spec, self.events, batch)?;
        let mut recent = usize::MAX;
        for row in 0..batch.num_rows() {
            let subject = events.subject(row)?;
            recent = origins.number(subject.tenant, subject.source, recent);
            let origin = origins.get(recent);
            if !(origin.is_ours || self.is_wide && origin.is_tenant_ours) {
                continue;
            }
            let name = Name { origin: recent, id: subject.id, attempt: subject.attempt };
            let found = self.find(name);
            if is_supplied && !found.is_some_and(|at| self.entry(at).is_some_and(|e| e.is_waiting)) {
                continue;
            }
            let transition = events.transition(row).and_then(Transition::parse);
            let place = transition.and_then(|t| self.spec.transitions.iter().position(|s| s.transition == t));
            let step = place.map(|at| &self.spec.transitions[at]);
            let stamp = Stamp {
                time: subject.time,
                rank: place.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0),
                id: subject.event_id.into(),
                known_at: subject.known_at,
            };
            let fact = Fact { stamp: Arc::new(stamp), is_final: step.is_some_and(|s| s.is_final) };
            let at = found.unwrap_or_else(|| self.insert(origins, name, &fact));
            let implied = step.and_then(|s| s.sets).and_then(|name| self.spec.field(name));
            self.merge(at, &fact, &events, Delivery { row, implied, is_supplied, recorded_at: subject.recorded_at });
        }
        Ok(())
    }

    fn merge(&mut self, at: usize, fact: &Fact, events: &Events, delivery: Delivery) {
        let Delivery { row, implied, is_supplied, .. } = delivery;
        self.clock += 1;
        let Some(entry) = self.slots[at].as_mut() else { return };
        entry.merged.touch(fact);
        for (field, column) in &events.fields {
            let value = column.value(row);
            if value.is_null() && implied == Some(*field) {
                entry.merged.set(*field, fact, Value::Time(Micros(fact.stamp.time)));
            } else {
                entry.merged.set(*field, fact, value);
            }
        }
        for (key, value) in events.attributes.pairs(row) {
            entry.merged.set_attribute(fact, key, value);
        }
        entry.is_complete |= is_supplied;
        entry.touched = self.clock;
        entry.recorded_at = entry.recorded_at.max(delivery.recorded_at);
        if !entry.is_dirty {
            entry.is_dirty = true;
            self.dirty.push(at);
        }
        if !entry.is_complete && !entry.is_waiting {
            entry.is_waiting = true;
            self.incomplete.push(at);
        }
        if !entry.is_kept && (entry.merged.is_final() || !entry.is_complete) {
            entry.is_kept = true;
            self.kept += 1;
        }
    }

    fn find(&self, Name { origin, id, attempt }: Name<'_>) -> Option<usize> {
        let hash = self.hashing.of((origin, attempt, id));
        let is_it = |at: &usize| self.entry(*at).is_some_and(|e| e.origin == origin && e.attempt == attempt && &*e.id == id);
        self.index.find(hash, is_it).copied()
    }

    fn insert(&mut self, origins: &Origins, Name { origin, id, attempt }: Name<'_>, fact: &Fact) -> usize {
        let hash = self.hashing.of((origin, attempt, id));
        let from = origins.get(origin);
        let mut key = vec![Value::text(&*from.tenant), Value::text(&*from.source), Value::text(id)];
        if self.attempt {
            key.push(Value::Int(attempt));
        }
        let key = self.hashing.key(key.iter());
        let entry = Entry {
            origin,
            id: id.into(),
            attempt,
            hash,
            key,
            merged: Merged::new(self.spec.columns.len(), fact),
            is_complete: !self.versions.contains(key),
            is_dirty: false,
            is_changed: false,
            is_waiting: false,
            is_kept: false,
            touched: 0,
            recorded_at: 0,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(entry);
        let slots = &self.slots;
        self.index.insert_unique(hash, at, |i| slots[*i].as_ref().map_or(0, |e| e.hash));
        at
    }

    fn entry(&self, at: usize) -> Option<&Entry> {
        self.slots[at].as_ref()
    }

    /// The values of a subject's row, in the order of its table, without `recorded_at` and `_rev`.
    fn values<'a>(&self, entry: &'a Entry, origin: &'a Origin) -> Vec<Value<'a>> {
        let mut row = Vec::with_capacity(self.spec.columns.len() + 7);
        row.extend([Value::text(&*origin.tenant), Value::text(&*origin.source)]);
        let ids = |at: usize| match self.spec.columns[at].role {
            kiro_schemas::Role::Id => Some(Value::text(&*entry.id)),
            kiro_schemas::Role::Attempt => Some(Value::Int(entry.attempt)),
            kiro_schemas::Role::Field => None,
        };
        entry.merged.push_values(&self.derived, ids, &mut row);
        row
    }

    /// Tells which subjects changed since the last call, as far as they are complete: key, values, whether final,
    /// where from.
    pub(crate) fn settle(&mut self, origins: &Origins, mut each: impl FnMut(u128, &[Value<'_>], bool, &Origin)) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.slots[at].as_mut() else { continue };
            entry.is_dirty = false;
            let is_final = entry.merged.is_final();
            if is_final || !entry.is_complete {
                self.recent.push_back((at, entry.touched));
            }
            if !entry.is_complete {
                continue;
            }
            if is_final && !entry.is_changed {
                entry.is_changed = true;
                self.changed.push(at);
            }
            let Some(entry) = self.entry(at) else { continue };
            let origin = origins.get(entry.origin);
            each(entry.key, &self.values(entry, origin), is_final, origin);
        }
    }

    /// The subjects whose events are needed: those that would change.
    pub(crate) fn missing(&mut self, origins: &Origins) -> Option<Missing> {
        let mut found = [const { BTreeSet::new() }; 3];
        for at in std::mem::take(&mut self.incomplete) {
            let Some(entry) = self.entry(at) else { continue };
            if entry.is_complete || self.versions.is_current(entry.key, &self.values(entry, origins.get(entry.origin))) {
                if let Some(entry) = self.slots[at].as_mut() {
                    entry.is_waiting = false;
                }
                continue;
            }
            let origin = origins.get(entry.origin);
            for (all, name) in found.iter_mut().zip([&*origin.tenant, &*origin.source, &*entry.id]) {
                if !all.contains(name) {
                    all.insert(name.to_owned());
                }
            }
            self.incomplete.push(at);
        }
        let [tenants, sources, ids] = found.map(|all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>());
        (!ids.is_empty()).then(|| Missing { table: self.events.name, column: self.spec.id_column(), tenants, sources, ids })
    }

    /// Ends a supply: subjects that got all their events are no longer missing.
    pub(crate) fn end_wait(&mut self) {
        let slots = &mut self.slots;
        self.incomplete.retain(|at| {
            let Some(entry) = slots[*at].as_mut() else { return false };
            entry.is_waiting = !entry.is_complete;
            entry.is_waiting
        });
    }

    /// The rows of final subjects that changed.
    pub(crate) fn emit(&mut self, origins: &Origins, recorded_at: Micros) -> Result<Option<Output>> {
        self.end_wait();
        let mut rows = Rows::new(self.versions.table);
        for at in std::mem::take(&mut self.changed) {
            let Some(entry) = self.slots[at].as_mut() else { continue };
            entry.is_changed = false;
            let Some(entry) = self.slots[at].as_ref() else { continue };
            let origin = origins.get(entry.origin);
            let values = self.values(entry, origin);
            if origin.is_ours {
                self.versions.offer(&mut rows, entry.key, &values, recorded_at)?;
            } else {
                self.versions.note(entry.key, &values);
            }
        }
        self.evict();
        finish(&mut rows)
    }

    /// The rows of subjects that are not final.
    pub(crate) fn open(&self, origins: &Origins) -> Result<Option<Output>> {
        let mut rows = Rows::new(self.versions.table);
        for entry in self.slots.iter().flatten().filter(|e| e.is_complete && !e.merged.is_final() && !self.versions.contains(e.key)) {
            let origin = origins.get(entry.origin);
            if origin.is_ours {
                push(&mut rows, &self.values(entry, origin), Micros(entry.recorded_at), 0)?;
            }
        }
        finish(&mut rows)
    }

    /// Forgets the merge keys of the subjects that were touched longest ago, beyond the limit.
    fn evict(&mut self) {
        for _ in 0..self.recent.len() {
            if self.kept <= self.limit && self.recent.len() <= 2 * self.kept + 1024 {
                break;
            }
            let Some((at, touched)) = self.recent.pop_front() else { break };
            let Some(entry) = self.slots[at].as_ref().filter(|e| e.touched == touched) else { continue };
            if self.kept <= self.limit || entry.is_waiting || entry.is_dirty || entry.is_changed {
                self.recent.push_back((at, touched));
                continue;
            }
            if let Ok(found) = self.index.find_entry(entry.hash, |i| *i == at) {
                found.remove();
            }
            self.slots[at] = None;
            self.free.push(at);
            self.kept -= 1;
        }
    }
}
