//! `pg_catalog` as a session sees it: the tables of the library, and the one role that it may know of, its own. Who else has a
//! token is shown to administrators, by `kirolinter token list`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;

const ROLES: &str = "pg_roles";
/// The object id of the role; those below 16384 are the system's own in PostgreSQL, too.
const OWN: i32 = 10;

/// The tables of `pg_catalog` for one user.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) tables: Arc<dyn SchemaProvider>,
    pub(crate) user: String,
}

impl System {
    fn roles(&self) -> Result<MemTable> {
        let (no, yes): (ArrayRef, ArrayRef) = (Arc::new(BooleanArray::from(vec![false])), Arc::new(BooleanArray::from(vec![true])));
        let number = |value: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![value])) };
        let nothing = |kind: &DataType| new_null_array(kind, 1);
        let texts = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let columns: [(&str, ArrayRef); 13] = [
            ("rolname", Arc::new(StringArray::from(vec![self.user.as_str()]))),
            ("rolsuper", Arc::clone(&no)),
            ("rolinherit", Arc::clone(&yes)),
            ("rolcreaterole", Arc::clone(&no)),
            ("rolcreatedb", Arc::clone(&no)),
            ("rolcanlogin", yes),
            ("rolreplication", Arc::clone(&no)),
            ("rolconnlimit", number(-1)),
            ("rolpassword", nothing(&DataType::Utf8)),
            ("rolvaliduntil", nothing(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))),
            ("rolbypassrls", no),
            ("rolconfig", nothing(&texts)),
            ("oid", number(OWN)),
        ];
        let fields = columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, values)| values).collect())?;
        MemTable::try_new(schema, vec![vec![batch]])
    }
}

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        self.tables.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == ROLES { Ok(Some(Arc::new(self.roles()?))) } else { self.tables.table(name).await }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table_exist(name)
    }
}
