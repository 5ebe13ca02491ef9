//! What upkeep has done and what it has left, as a note beside the tables, for people who ask any process about it: vacuum and
//! the clean-up of logs leave no trace in the tables themselves. Nothing is decided by it.

use std::collections::BTreeMap;

use kiro_schemas::Micros;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::lake::Lake;
use crate::upkeep::Stored;
use crate::{Error, Result};

const PLACE: &str = "upkeep.json";

/// What whoever keeps the lake last wrote down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpkeepNote {
    /// The process.
    pub by: String,
    /// When.
    pub at: Micros,
    /// Whether small files are made large ones.
    pub compaction: bool,
    /// The tables that are there, by name.
    pub tables: BTreeMap<String, KeptTable>,
}

/// What was done to a table last, and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptTable {
    /// Its newest version.
    pub version: i64,
    /// When that was committed.
    pub committed_at: Option<Micros>,
    /// Files of that version.
    pub files: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Those that are to become large ones with others.
    pub small_files: usize,
    /// Files of the day that has most of them, among the days that are over.
    pub most_files_a_day: usize,
    /// When files were made one last.
    pub compacted_at: Option<Micros>,
    /// Version of the newest checkpoint.
    pub checkpoint: Option<i64>,
    /// When a checkpoint was made last.
    pub checkpointed_at: Option<Micros>,
    /// When files that nobody needs were looked for last.
    pub vacuumed_at: Option<Micros>,
    /// When commits below a checkpoint were looked for last.
    pub log_cleaned_at: Option<Micros>,
    /// Why it could not be kept, if the last try failed.
    pub error: Option<String>,
}

impl KeptTable {
    /// Takes in what the table has now.
    pub fn has(&mut self, stored: Stored) {
        self.version = stored.version;
        self.committed_at = stored.committed_at.or(self.committed_at);
        (self.files, self.bytes) = (stored.files, stored.bytes);
        (self.small_files, self.most_files_a_day) = (stored.small_files, stored.most_files_a_day);
        self.checkpoint = Some(stored.checkpoint).filter(|version| *version >= 0);
    }
}

impl Lake {
    /// What upkeep wrote down last; `None` when the lake was never kept.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Corrupt`] when it cannot be read: the next one replaces it.
    pub async fn upkeep_note(&self) -> Result<Option<UpkeepNote>> {
        let path = Path::from(PLACE);
        let bytes = match self.store().get(&path).await {
            Ok(object) => object.bytes().await.map_err(|source| Error::store("read", &path, source))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(Error::store("read", &path, source)),
        };
        let damaged = |e: serde_json::Error| Error::Corrupt { path: path.to_string(), reason: e.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes down what upkeep did.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn note_upkeep(&self, note: &UpkeepNote) -> Result<()> {
        let path = Path::from(PLACE);
        let bytes = serde_json::json!(note).to_string();
        self.store().put(&path, bytes.into()).await.map(drop).map_err(|source| Error::store("write", &path, source))
    }
}
