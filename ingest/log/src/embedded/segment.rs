//! One segment of one topic: a redb file with the records of all its partitions.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use kiro_ports::Record;
use kiro_schemas::{Micros, TopicPartition};
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
};

use crate::codec;
use crate::error::{Error, Result};

/// (partition, offset) → record.
const RECORDS: TableDefinition<'_, (i32, i64), &[u8]> = TableDefinition::new("records");
/// Partition → offset of its first record in this segment, or of the record that would be.
const BASES: TableDefinition<'_, i32, i64> = TableDefinition::new("bases");
/// [`Facts`] by name.
const FACTS: TableDefinition<'_, &str, i64> = TableDefinition::new("facts");

const CACHE_BYTES: usize = 8 << 20;

/// What is known of a segment without reading its records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// Bytes of its records.
    pub(super) bytes: i64,
    /// When its first record was taken.
    pub(super) oldest: Micros,
    /// When its last record was taken.
    pub(super) newest: Micros,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// The first offset of each partition here.
    pub(super) bases: Vec<i64>,
    facts: Mutex<Facts>,
    handle: RwLock<Option<Handle>>,
}

enum Handle {
    Write(Database),
    Read(ReadOnlyDatabase),
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write(_) => "Write",
            Self::Read(_) => "Read",
        })
    }
}

impl Handle {
    /// Lets go of the file, even while somebody still reads.
    fn close(self) -> Result<(), DatabaseError> {
        match self {
            Self::Write(database) => database.close(),
            Self::Read(database) => database.close(),
        }
    }

    fn begin_read(&self) -> Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::Write(database) => database.begin_read(),
            Self::Read(database) => database.begin_read(),
        }
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn failed<E: Into<redb::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |error| Error::Segment { action, path: path.to_owned(), source: Box::new(error.into()) }
}

impl Segment {
    /// Creates the file under another name first, so that a name of a segment never stands for half a file.
    /// It is there for good when its folder was synced too.
    pub(super) fn create(path: PathBuf, sequence: u64, bases: Vec<i64>) -> Result<Self> {
        let fresh = path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { path: fresh, source }),
        }
        let database = builder().create(&fresh).map_err(failed("create", &path))?;
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(BASES)?;
                for (partition, base) in (0_i32..).zip(&bases) {
                    table.insert(partition, *base)?;
                }
                transaction.open_table(RECORDS)?;
                transaction.open_table(FACTS)?;
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(failed("create", &path))?;
        std::fs::rename(&fresh, &path).map_err(Error::io(&path))?;
        Ok(Self { path, sequence, bases, facts: Mutex::default(), handle: RwLock::new(Some(Handle::Write(database))) })
    }

    /// Opens a file; `None` when its creation was interrupted, so that it never held a record.
    pub(super) fn open(path: PathBuf, sequence: u64, writable: bool) -> Result<Option<Self>> {
        let handle = Self::handle(&path, writable)?;
        let read = || -> Result<Option<(Vec<i64>, Facts)>, redb::Error> {
            let transaction = handle.begin_read()?;
            let table = match transaction.open_table(BASES) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let mut bases = Vec::new();
            for entry in table.iter()? {
                bases.push(entry?.1.value());
            }
            let table = transaction.open_table(FACTS)?;
            let fact = |name: &'static str| table.get(name).map(|found| found.map_or(0, |value| value.value()));
            Ok(Some((bases, Facts { bytes: fact("bytes")?, oldest: Micros(fact("oldest")?), newest: Micros(fact("newest")?) })))
        };
        let Some((bases, facts)) = read().map_err(failed("open", &path))? else { return Ok(None) };
        Ok(Some(Self { path, sequence, bases, facts: Mutex::new(facts), handle: RwLock::new(Some(handle)) }))
    }

    /// A segment that is complete is opened for reading; one that was not closed is repaired first.
    fn handle(path: &Path, writable: bool) -> Result<Handle> {
        if !writable {
            match builder().open_read_only(path) {
                Ok(database) => return Ok(Handle::Read(database)),
                Err(DatabaseError::RepairAborted) => {}
                Err(error) => return Err(failed("open", path)(error)),
            }
        }
        builder().open(path).map(Handle::Write).map_err(failed("open", path))
    }

    pub(super) fn facts(&self) -> Facts {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes rows in one transaction; they are on the disk when this returns.
    pub(super) fn append(&self, rows: &[Row], now: Micros) -> Result<()> {
        let mut facts = self.facts();
        if facts.bytes == 0 {
            facts.oldest = now;
        }
        facts.newest = facts.newest.max(now);
        facts.bytes = rows.iter().fold(facts.bytes, |sum, row| sum.saturating_add(i64::try_from(row.bytes.len()).unwrap_or(i64::MAX)));
        self.write(rows, facts)?;
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
        Ok(())
    }

    fn write(&self, rows: &[Row], facts: Facts) -> Result<()> {
        let guard = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Handle::Write(database)) = guard.as_ref() else {
            return Err(failed("write", &self.path)(redb::Error::DatabaseClosed));
        };
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for row in rows {
                    table.insert((row.partition, row.offset), row.bytes.as_slice())?;
                }
                let mut table = transaction.open_table(FACTS)?;
                table.insert("bytes", facts.bytes)?;
                table.insert("oldest", facts.oldest.0)?;
                table.insert("newest", facts.newest.0)?;
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(failed("write", &self.path))
    }

    /// Opens the file anew, as redb asks for after a failed write.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut guard = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = guard.take().map(Handle::close) {
            tracing::debug!(path = %self.path.display(), %error, "segment closed with an error");
        }
        *guard = Some(Self::handle(&self.path, true)?);
        Ok(())
    }

    fn begin_read(&self, action: &'static str) -> Result<ReadTransaction> {
        let guard = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(handle) => handle.begin_read().map_err(failed(action, &self.path)),
            None => Err(failed(action, &self.path)(redb::Error::DatabaseClosed)),
        }
    }

    /// Reads the records of a partition in `from..until`, at most `max_bytes` of them or one record.
    pub(super) fn read(&self, at: &TopicPartition, from: i64, until: i64, max_bytes: usize) -> Result<Vec<Record>> {
        let table = self.begin_read("read")?.open_table(RECORDS).map_err(failed("read", &self.path))?;
        let range = table.range((at.partition, from)..(at.partition, until)).map_err(failed("read", &self.path))?;
        let (mut records, mut bytes) = (Vec::new(), 0_usize);
        for entry in range {
            let (key, value) = entry.map_err(failed("read", &self.path))?;
            let (offset, value) = (key.value().1, value.value());
            bytes = bytes.saturating_add(value.len());
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            let record = codec::decode(offset, value);
            records.push(record.map_err(|reason| Error::Corrupt { at: at.clone(), offset, reason })?);
        }
        Ok(records)
    }

    /// The next offset of each partition.
    pub(super) fn ends(&self) -> Result<Vec<i64>> {
        let table = self.begin_read("read")?.open_table(RECORDS).map_err(failed("read", &self.path))?;
        let mut ends = self.bases.clone();
        for (partition, end) in (0_i32..).zip(&mut ends) {
            let mut range = table.range((partition, 0)..=(partition, i64::MAX)).map_err(failed("read", &self.path))?;
            if let Some(last) = range.next_back() {
                *end = last.map_err(failed("read", &self.path))?.0.value().1 + 1;
            }
        }
        Ok(ends)
    }
}
