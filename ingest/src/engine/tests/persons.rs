//! Who knows the persons of a world: one for all processes, and now and then not to be had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use async_trait::async_trait;
use kiro_ports::{Persons, PortError};
use kiro_schemas::{Micros, Tenant, person};

use super::crash::{CrashPoint, Life};
use super::lake::failure;

#[derive(Debug, Default)]
struct Ties {
    calls: u64,
    made: u64,
    forgotten: i64,
    /// The pseudonym of each name, now.
    now: BTreeMap<String, String>,
    /// Whose pseudonym each is or was.
    ever: BTreeMap<String, String>,
}

/// The control store of a world.
#[derive(Debug, Default)]
pub(super) struct SimPersons(Mutex<Ties>);

impl SimPersons {
    fn lock(&self) -> MutexGuard<'_, Ties> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets somebody; the name, if anybody was known.
    pub(super) fn forget_one(&self, at: usize) -> Option<String> {
        let mut ties = self.lock();
        let name = ties.now.keys().nth(at % ties.now.len().max(1)).cloned()?;
        ties.now.remove(&name);
        ties.forgotten += 1;
        Some(name)
    }

    /// How often somebody was forgotten.
    pub(super) fn forgotten(&self) -> i64 {
        self.lock().forgotten
    }

    /// Each row names whom its event named, by a pseudonym that was theirs at some time; how many rows name somebody.
    pub(super) fn check<'b>(
        &self,
        batches: impl Iterator<Item = &'b RecordBatch>,
        name_of: impl Fn(&str) -> String,
    ) -> Result<usize, String> {
        let (ties, mut count) = (self.lock(), 0);
        let mut texts = BTreeSet::new();
        for batch in batches {
            let ids = batch.column_by_name("event_id").ok_or("no ids")?.as_string_view();
            let attributes = batch.column_by_name("attributes").ok_or("no attributes")?.as_map();
            for row in 0..batch.num_rows() {
                if let Some(actor) = batch.column_by_name("actor") {
                    texts.insert((ids.value(row).to_owned(), actor.as_string_view().value(row).to_owned()));
                } else if attributes.is_valid(row) {
                    let values = attributes.value(row);
                    texts.insert((ids.value(row).to_owned(), values.column(1).as_string::<i32>().value(0).to_owned()));
                }
            }
        }
        for (id, found) in texts.iter().filter(|(_, found)| !found.is_empty()) {
            count += 1;
            if !person::is_pseudonym(found) || ties.ever.get(found) != Some(&name_of(id)) {
                return Err(format!("event {id} is of {}, and its row says {found}", name_of(id)));
            }
        }
        Ok(count)
    }
}

/// The same as one process reaches it; one call in six fails.
#[derive(Debug)]
pub(super) struct MemberPersons {
    pub(super) persons: Arc<SimPersons>,
    pub(super) life: Arc<Life>,
}

#[async_trait]
impl Persons for MemberPersons {
    async fn pseudonyms(&self, _tenant: &Tenant, names: &[String], _now: Micros) -> Result<Vec<String>, PortError> {
        self.life.pass(CrashPoint::Persons).await;
        let mut ties = self.persons.lock();
        ties.calls += 1;
        if ties.calls.is_multiple_of(6) {
            return Err(failure("no control store now"));
        }
        let mut found = Vec::new();
        for name in names {
            if !ties.now.contains_key(name) {
                ties.made += 1;
                let made = ties.made;
                let pseudonym = person::pseudonym(std::array::from_fn(|at| u8::try_from(made >> (at % 8 * 5) & 31).unwrap_or(0)));
                ties.now.insert(name.clone(), pseudonym.clone());
                ties.ever.insert(pseudonym, name.clone());
            }
            found.extend(ties.now.get(name).cloned());
        }
        Ok(found)
    }

    async fn pseudonym(&self, _tenant: &Tenant, name: &str) -> Result<Option<String>, PortError> {
        Ok(self.persons.lock().now.get(name).cloned())
    }

    async fn forget(&self, _tenant: &Tenant, _name: &str, _now: Micros) -> Result<Option<String>, PortError> {
        Err(failure("nobody forgets here"))
    }

    async fn forgotten(&self) -> Result<i64, PortError> {
        Ok(self.persons.lock().forgotten)
    }
}
