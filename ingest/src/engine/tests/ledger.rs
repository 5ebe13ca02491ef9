//! What was fed to the log, and what must therefore be found.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiro_ports::View;
use kiro_tables::{Table, TableName, TableShape};

use super::log::at;
use super::witness::{Row, Version, Witness, rows};

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fed {
    /// Events: their tables and ids.
    Events(Vec<(TableName, String)>),
    /// Nothing that can be decoded.
    Poison,
    /// No record has this offset.
    LeftOut,
}

/// Everything that was fed, by partition and offset.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    fed: BTreeMap<(i32, i64), Fed>,
    places: HashMap<String, Vec<(i32, i64)>>,
    /// What retention took before any table had heard of the partition.
    unseen: BTreeMap<i32, i64>,
    /// Several processes do not know each other's events: a repeat may stand at each of its places.
    is_shared: bool,
}

/// How often each row of a table stands.
type Counts<'r> = HashMap<(TableName, i32, i64, &'r str), u32>;

fn count<'r>(counts: &mut Counts<'r>, table: TableName, rows: &'r [Row]) {
    for (partition, offset, id) in rows {
        *counts.entry((table, *partition, *offset, id)).or_default() += 1;
    }
}

/// The tables whose rows have a place in the log.
pub(super) fn event_tables() -> impl Iterator<Item = &'static Table> {
    Table::all().iter().filter(|t| t.shape == TableShape::Events)
}

impl Ledger {
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    pub(super) fn feed(&mut self, partition: i32, offset: i64, fed: Fed) {
        if let Fed::Events(events) = &fed {
            for (_, id) in events {
                self.places.entry(id.clone()).or_default().push((partition, offset));
            }
        }
        assert!(self.fed.insert((partition, offset), fed).is_none(), "an offset is fed once");
    }

    /// Retention takes what is below, and nobody can know.
    pub(super) fn excuse(&mut self, partition: i32, low: i64) {
        self.unseen.insert(partition, low);
    }

    /// The offset after the last record.
    pub(super) fn end(&self, partition: i32) -> i64 {
        let records = self.fed.range((partition, 0)..(partition + 1, 0)).rev();
        records.into_iter().find(|(_, fed)| **fed != Fed::LeftOut).map_or(0, |((_, offset), _)| offset + 1)
    }

    /// Checks a view: below its vector everything is in it once, and its tail holds nothing beyond.
    pub(super) fn check_view(&self, view: &View) -> Result<(), String> {
        let (mut counts, mut tails) = (Counts::new(), Vec::new());
        for table in event_tables().filter(|t| t.name != "ingest_gaps") {
            let Some(shown) = view.tables.get(table.name) else { return Err(format!("{} is not in the view", table.name)) };
            if let Some(version) = shown.snapshot.as_ref().and_then(|s| s.as_any().downcast_ref::<Version>()) {
                count(&mut counts, table.name, &version.rows);
            }
            for batch in &shown.tail {
                let found = rows(&batch.rows);
                if let Some(row) = found.iter().find(|row| row.1 >= view.vector.next(&at(row.0))) {
                    return Err(format!("{}: row {row:?} of the tail is beyond the vector", table.name));
                }
                tails.push((table.name, found));
            }
        }
        for (table, rows) in &tails {
            count(&mut counts, table, rows);
        }
        self.check(&counts, |partition| view.vector.next(&at(partition)))
    }

    /// Checks the lake, given below which offsets a partition is in all tables, and in some.
    pub(super) fn check_lake(&self, witness: &Witness, stands: &BTreeMap<i32, (i64, i64)>) -> Result<(), String> {
        let tables = event_tables().filter(|t| t.name != "ingest_gaps");
        let versions: Vec<_> = tables.filter_map(|table| Some((table.name, witness.read(table)?))).collect();
        let mut counts = Counts::new();
        for (table, version) in &versions {
            count(&mut counts, table, &version.rows);
        }
        if let Some(row) = counts.keys().find(|row| row.2 >= stands.get(&row.1).map_or(0, |(_, high)| *high)) {
            return Err(format!("row {row:?} is beyond its transaction"));
        }
        self.check(&counts, |partition| stands.get(&partition).map_or(0, |(low, _)| *low))
    }

    fn check(&self, counts: &Counts<'_>, next: impl Fn(i32) -> i64) -> Result<(), String> {
        let mut all = HashMap::<&str, u32>::new();
        for (row @ (table, partition, offset, id), count) in counts {
            if *count > 1 {
                return Err(format!("row {row:?} stands {count} times"));
            }
            if !self.is_fed(table, (*partition, *offset), id) {
                return Err(format!("row {row:?} was never fed"));
            }
            *all.entry(id).or_default() += 1;
        }
        if let Some((id, count)) = all.iter().find(|(id, count)| !id.is_empty() && **count > 1 && !self.is_shared) {
            return Err(format!("event {id} stands {count} times, at {:?}", self.places[*id]));
        }
        for ((partition, offset), fed) in &self.fed {
            let is_due = *offset < next(*partition) && *offset >= self.unseen.get(partition).copied().unwrap_or(0);
            if is_due {
                self.check_record((*partition, *offset), fed, counts, &next)?;
            }
        }
        Ok(())
    }

    fn check_record(&self, place: (i32, i64), fed: &Fed, counts: &Counts<'_>, next: &impl Fn(i32) -> i64) -> Result<(), String> {
        let has = |table: TableName, place: (i32, i64), id: &str| counts.contains_key(&(table, place.0, place.1, id));
        let missing = |what: &str| Err(format!("{what} of {place:?} is nowhere"));
        match fed {
            Fed::LeftOut => Ok(()),
            Fed::Poison if has("dead_letters", place, "") => Ok(()),
            Fed::Poison => missing("the dead letter"),
            Fed::Events(events) => {
                for (table, id) in events {
                    // A repeat stands at another of its places, or will when that is read again.
                    let is_elsewhere = |other: &&(i32, i64)| other.1 >= next(other.0) || has(table, **other, id);
                    if !has(table, place, id) && self.places[id].iter().find(is_elsewhere).is_none() {
                        let found: Vec<_> = counts.keys().filter(|row| row.3 == id).collect();
                        return missing(&format!("event {id} in {table}, fed at {:?}, found at {found:?},", self.places[id]));
                    }
                }
                Ok(())
            }
        }
    }

    fn is_fed(&self, table: TableName, place: (i32, i64), id: &str) -> bool {
        match self.fed.get(&place) {
            Some(Fed::Events(events)) => events.iter().any(|(name, known)| *name == table && known == id),
            Some(Fed::Poison) => table == "dead_letters",
            _ => false,
        }
    }

    /// The ids of events that were fed more than once.
    pub(super) fn repeats(&self) -> BTreeSet<&str> {
        self.places.iter().filter(|(_, places)| places.len() > 1).map(|(id, _)| id.as_str()).collect()
    }
}
