//! Pseudonyms in the place of the names of persons, before anybody sees an event.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kiro_ports::{Persons, PortError};
use kiro_schemas::{Event, FaultKind, Micros, Tenant};

/// Memory for names that are known, about 100,000 of them: who sends events chooses the names. Full, all are forgotten.
const MOST_BYTES: usize = 16 << 20;
/// What a name takes beside its text.
const ENTRY_BYTES: usize = 128;

/// The pseudonyms that were asked for, as long as they are remembered.
#[derive(Debug)]
pub struct Pseudonyms {
    persons: Arc<dyn Persons>,
    known: HashMap<Tenant, HashMap<String, String>>,
    bytes: usize,
    unknown: BTreeMap<Tenant, BTreeSet<String>>,
}

impl Pseudonyms {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(persons: Arc<dyn Persons>) -> Self {
        Self { persons, known: HashMap::new(), bytes: 0, unknown: BTreeMap::new() }
    }

    /// Puts pseudonyms in the place of names. Whether all are known: [`Self::ask`] asks for the others.
    pub fn rename(&mut self, tenant: &Tenant, events: &mut [Event<'_>]) -> bool {
        let known = self.known.get(tenant);
        let mut unknown = Vec::new();
        for event in events {
            event.rename_persons(|name| {
                let pseudonym = known.and_then(|known| known.get(name)).cloned();
                if pseudonym.is_none() {
                    unknown.push(name.to_owned());
                }
                pseudonym
            });
        }
        if unknown.is_empty() {
            return true;
        }
        self.unknown.entry(tenant.clone()).or_default().extend(unknown);
        false
    }

    /// Asks for all names that were not known, together. After an error the rest of them can be asked for again.
    ///
    /// # Errors
    /// Who knows the persons does not answer.
    pub async fn ask(&mut self, now: Micros) -> Result<(), PortError> {
        if self.bytes > MOST_BYTES {
            self.forget();
        }
        while let Some((tenant, names)) = self.unknown.first_key_value() {
            let names: Vec<String> = names.iter().cloned().collect();
            let pseudonyms = self.persons.pseudonyms(tenant, &names, now).await?;
            if pseudonyms.len() != names.len() {
                let what = format!("{} names were given {} pseudonyms", names.len(), pseudonyms.len());
                return Err(PortError { what, kind: FaultKind::Internal, code: "KIR-0229", source: None });
            }
            self.bytes += names.iter().chain(&pseudonyms).map(String::len).sum::<usize>() + names.len() * ENTRY_BYTES;
            self.known.entry(tenant.clone()).or_default().extend(names.into_iter().zip(pseudonyms));
            self.unknown.pop_first();
        }
        Ok(())
    }

    /// The same for events that nobody waits with: asks for what is not known.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn rename_all(&mut self, tenant: &Tenant, events: &mut [Event<'_>], now: Micros) -> Result<(), PortError> {
        while !self.rename(tenant, events) {
            self.ask(now).await?;
        }
        Ok(())
    }

    /// Forgets all of them.
    pub fn forget(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests;
