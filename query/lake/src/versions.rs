//! Tables of other versions of the folds, which lie beside those of this one: which there are, and how one is removed.

use std::cmp::Reverse;

use kiro_ports::Offsets;
use kiro_schemas::Micros;
use kiro_tables::Table;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};

use crate::lake::Lake;
use crate::log::{TableLog, version_of};
use crate::replay::State;
use crate::upkeep::Deleted;
use crate::{Error, Result};

/// A table as one version of the folds has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableVersion {
    /// The version of the folds.
    pub version: u32,
    /// When the table was made.
    pub created_at: Option<Micros>,
    /// When it was committed to last; `None` when there are only files without a log: its removal was begun.
    pub committed_at: Option<Micros>,
    /// Where it stands.
    pub offsets: Offsets,
}

impl Lake {
    /// The table as the versions of the folds have it that lie here, this program's own the last; none when it has no versions.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Corrupt`], [`Error::Schema`].
    pub async fn table_versions(&self, table: &'static Table) -> Result<Vec<TableVersion>> {
        let mut found = Vec::new();
        if !self.has_versions(table) || self.version() == 1 {
            return Ok(found);
        }
        for version in 1..self.version() {
            let log = self.table_log(table, version);
            let files = self.list(&log.root).await?;
            match log.state(None).await? {
                Some(state) => found.push(told(&log, version, state).await?),
                None if files.is_empty() => {}
                None => found.push(TableVersion { version, ..TableVersion::default() }),
            }
        }
        let own = self.table(table)?;
        if let Some(state) = own.survey().await? {
            found.push(told(&own.log, self.version(), state).await?);
        }
        Ok(found)
    }

    /// Removes what an older version of the folds has of a table: the newest commit first, so that at each moment an older
    /// state of it is there, and the rows last. What is left when it is killed is removed by the next try.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the version is not an older one; [`Error::Store`].
    pub async fn remove_old_version(&self, table: &'static Table, version: u32) -> Result<Deleted> {
        if !self.has_versions(table) || version == 0 || version >= self.version() {
            return Err(Error::Invalid { table: table.name, reason: format!("version {version} of the folds is not an older one") });
        }
        let log = self.table_log(table, version);
        let files = self.list(&log.root).await?;
        let mut commits = log.files_from(0).await?;
        commits.sort_by_key(|file| Reverse(version_of(&file.location).map(|(version, rest)| (version, rest == "json"))));
        let mut deleted = Deleted { files: commits.len(), bytes: commits.iter().map(|file| file.size).sum() };
        let hint = log.dir.clone().join("_last_checkpoint");
        for path in std::iter::once(&hint).chain(commits.iter().map(|file| &file.location)) {
            match self.store().delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(Error::store("delete", path, source)),
            }
        }
        let rows = self.delete(files).await?;
        (deleted.files, deleted.bytes) = (deleted.files + rows.files, deleted.bytes + rows.bytes);
        Ok(deleted)
    }

    /// The files that lie in a folder itself.
    async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        match self.store().list_with_delimiter(Some(folder)).await {
            Ok(found) => Ok(found.objects),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(source) => Err(Error::store("list", folder, source)),
        }
    }
}

/// A commit that does not tell when it was made may have been made now.
async fn told(log: &TableLog, version: u32, state: State) -> Result<TableVersion> {
    let newest = log.read(state.head.version).await?;
    let created_at = state.files.metadata["createdTime"].as_i64().and_then(|millis| millis.checked_mul(1_000)).map(Micros);
    let committed_at = newest.and_then(|entry| entry.committed_at).or(Some(log.clock.now()));
    Ok(TableVersion { version, created_at, committed_at, offsets: state.head.offsets })
}
