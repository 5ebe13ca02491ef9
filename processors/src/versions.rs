//! What a derived table holds: for each key the newest revision and a digest of its values.

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use kiro_schemas::{Micros, Value};
use kiro_tables::{Rows, Table};

use crate::columns::Column;
use crate::hashing::Hashing;
use crate::{Error, Result};

/// The table of that name.
pub(crate) fn table_of(name: &'static str) -> Result<&'static Table> {
    Table::find(name).ok_or(Error::UnknownTable { table: name })
}

#[derive(Debug, Clone, Copy)]
struct Version {
    rev: i64,
    hash: u64,
}

/// The versions of one derived table. Its columns begin with tenant and source and end with `recorded_at` and `_rev`;
/// "values" are all but the last two.
#[derive(Debug)]
pub(crate) struct Versions {
    pub(crate) table: &'static Table,
    key: Vec<usize>,
    hashing: Hashing,
    by_key: HashMap<u128, Version>,
}

impl Versions {
    pub(crate) fn new(table: &'static Table, hashing: Hashing) -> Self {
        let key = table.key.iter().filter_map(|name| table.position(name)).collect();
        Self { table, key, hashing, by_key: HashMap::new() }
    }

    /// The digest of the key of a row.
    pub(crate) fn key(&self, values: &[Value<'_>]) -> u128 {
        self.hashing.key(self.key.iter().map(|at| &values[*at]))
    }

    /// Whether a version of that key is there.
    pub(crate) fn contains(&self, key: u128) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Whether the newest version of that key has these values.
    pub(crate) fn is_current(&self, key: u128, values: &[Value<'_>]) -> bool {
        self.by_key.get(&key).is_some_and(|v| v.hash == self.hashing.row(values))
    }

    /// The revision to write these values as; `None` when they are there already.
    fn advance(&mut self, key: u128, values: &[Value<'_>]) -> Option<i64> {
        let hash = self.hashing.row(values);
        let rev = match self.by_key.get(&key) {
            Some(version) if version.hash == hash => return None,
            Some(version) => version.rev + 1,
            None => 0,
        };
        self.by_key.insert(key, Version { rev, hash });
        Some(rev)
    }

    /// Takes values for written: another shard writes them.
    pub(crate) fn note(&mut self, key: u128, values: &[Value<'_>]) {
        self.advance(key, values);
    }

    /// Forgets keys of which no version will follow.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(u128) -> bool) {
        self.by_key.retain(|key, _| is_kept(*key));
    }

    /// Adds the row to `rows` when it differs from what is there.
    pub(crate) fn offer(&mut self, rows: &mut Rows, key: u128, values: &[Value<'_>], recorded_at: Micros) -> Result<()> {
        match self.advance(key, values) {
            Some(rev) => push(rows, values, recorded_at, rev),
            None => Ok(()),
        }
    }

    /// Makes known those rows of the table whose tenant and source are wanted, in any order and with all their versions;
    /// `each` sees the newest so far.
    pub(crate) fn restore(
        &mut self,
        batch: &RecordBatch,
        is_wanted: impl Fn(&str, &str) -> bool,
        mut each: impl FnMut(u128, &[Value<'_>]),
    ) -> Result<()> {
        let columns = self.table.columns.iter().map(|c| Column::read(self.table, batch, c.name)).collect::<Result<Vec<_>>>()?;
        let Some((rev, columns)) = columns.split_last() else { return Ok(()) };
        let columns = &columns[..columns.len() - 1];
        for row in 0..batch.num_rows() {
            let values: Vec<_> = columns.iter().map(|c| c.value(row)).collect();
            let (tenant, source) = (values[0].as_text().unwrap_or_default(), values[1].as_text().unwrap_or_default());
            if !is_wanted(tenant, source) {
                continue;
            }
            let key = self.key(&values);
            let rev = rev.int(row).unwrap_or(0);
            if self.by_key.get(&key).is_none_or(|v| v.rev <= rev) {
                self.by_key.insert(key, Version { rev, hash: self.hashing.row(&values) });
                each(key, &values);
            }
        }
        Ok(())
    }
}

/// Adds a row: its values, then `recorded_at` and `_rev`.
pub(crate) fn push(rows: &mut Rows, values: &[Value<'_>], recorded_at: Micros, rev: i64) -> Result<()> {
    let last = [Value::Time(recorded_at), Value::Int(rev)];
    let table = rows.table().name;
    rows.push(values.iter().chain(&last)).map_err(|source| Error::Build { table, source })
}

/// The batch of the rows, if there are any.
pub(crate) fn finish(rows: &mut Rows) -> Result<Option<(&'static Table, RecordBatch)>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let table = rows.table();
    let batch = rows.finish().map_err(|source| Error::Build { table: table.name, source })?;
    Ok(Some((table, batch)))
}
