//! The catalog of one question: all public tables, whether they have rows or not.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::plan_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::object_store;
use kiro_ports::{AsOf, PortError, TableView, View};
use kiro_schemas::SubjectSpec;
use kiro_tables::{Table, TableShape};

use crate::as_of::{subject_of, subjects};
use crate::corrections::{Few, Found, Kept};
use crate::error::Behind;
use crate::information::{INFORMATION, Information};
use crate::provider::{Cut, CutTable};
use crate::query::Providers;
use crate::revisions::CurrentRows;

/// The catalog's name: also the database of the psql door.
pub(crate) const CATALOG: &str = "kirolinter";
/// The schema of the public tables.
pub(crate) const SCHEMA: &str = "public";

/// The public tables over one view, for one tenant.
pub(crate) struct Tables {
    pub(crate) view: Arc<View>,
    pub(crate) providers: Providers,
    pub(crate) cut: Cut,
    pub(crate) kept: Arc<Kept>,
    /// Reads what is to be kept.
    pub(crate) reader: Arc<SessionState>,
}

impl Tables {
    /// All rows of a table that were recorded by a time.
    async fn rows(&self, table: &'static Table, as_of: Option<AsOf>) -> Result<Arc<CutTable>> {
        let rows: TableView = self.view.tables.get(table.name).cloned().unwrap_or_default();
        if rows.is_ahead {
            return Err(DataFusionError::External(Box::new(Behind(table.name))));
        }
        let files = match &rows.snapshot {
            Some(snapshot) => Some((self.providers)(Arc::clone(snapshot)).await.map_err(|source| unreadable(table, source))?),
            None => None,
        };
        let cut = Cut { as_of, ..self.cut.clone() };
        Ok(Arc::new(CutTable { table, rows, files, cut }))
    }

    /// The last version of each row among those that were recorded by a time.
    async fn current(&self, table: &'static Table, as_of: Option<AsOf>) -> Result<CurrentRows> {
        let rows = self.rows(table, as_of).await?;
        CurrentRows::try_new(&rows, &self.corrections(&rows).await?)
    }

    async fn subjects(&self, spec: &'static SubjectSpec, table: &'static Table, as_of: AsOf) -> Result<CurrentRows> {
        let unknown = || plan_datafusion_err!("there is no table {}", spec.events_table);
        let events = Table::find(spec.events_table).ok_or_else(unknown)?;
        let (now, events) = (self.current(table, None).await?, self.rows(events, None).await?);
        subjects((spec, table), now, events, as_of, &self.reader).await
    }

    async fn corrections(&self, rows: &CutTable) -> Result<Found> {
        match (&rows.rows.snapshot, &rows.files) {
            (Some(snapshot), Some(files)) => self.kept.of(rows.table, snapshot, files, &self.reader).await,
            _ => Ok(Found::Few(Arc::new(Few::new(RecordBatch::new_empty(rows.table.schema()))))),
        }
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("cut", &self.cut).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        Table::all().iter().map(|t| t.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = Table::find(name) else { return Ok(None) };
        Ok(Some(match (table.shape, self.cut.as_of, subject_of(table)) {
            (TableShape::Events, as_of, _) => self.rows(table, as_of).await?,
            (TableShape::Versions, Some(as_of), Some(spec)) => Arc::new(self.subjects(spec, table, as_of).await?),
            (TableShape::Versions, as_of, _) => Arc::new(self.current(table, as_of).await?),
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::find(name).is_some()
    }
}

fn unreadable(table: &Table, source: PortError) -> DataFusionError {
    tracing::error!(error = %source, table = table.name, "a version cannot be read");
    DataFusionError::ObjectStore(Box::new(object_store::Error::Generic { store: "lake", source: Box::new(source) }))
}

/// The one catalog: the public tables, `information_schema` and, for psql, `pg_catalog`.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) tables: Arc<Tables>,
    pub(crate) system: Option<Arc<dyn SchemaProvider>>,
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let system = self.system.iter().map(|_| "pg_catalog".to_owned());
        [SCHEMA.to_owned(), INFORMATION.to_owned()].into_iter().chain(system).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::clone(&self.tables) as Arc<dyn SchemaProvider>),
            INFORMATION => Some(Arc::new(Information)),
            "pg_catalog" => self.system.clone(),
            _ => None,
        }
    }
}
