//! The tables as data.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use kiro_schemas::subject::{SPECS, Shape};
use kiro_schemas::{Kind, Role, Subject, SubjectSpec};

use crate::chain::CHAIN;
use crate::derived;

/// A table's name: always one of [`Table::all`].
pub type TableName = &'static str;

/// How the rows of a table relate to what they describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableShape {
    /// One row an event, with its place in the log.
    Events,
    /// Versions of rows: `_rev` 0 is the first, corrections follow; the current row is the one with the highest `_rev` per key.
    Versions,
}

/// One column.
#[derive(Debug, Clone)]
pub struct TableColumn {
    /// Its SQL name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// One sentence for users.
    pub doc: &'static str,
}

/// One table of the lake.
#[derive(Debug)]
pub struct Table {
    /// Its name, which is its folder in the lake.
    pub name: TableName,
    /// What it holds, in one sentence.
    pub doc: String,
    /// How its rows relate to what they describe.
    pub shape: TableShape,
    /// The columns of the key, for [`TableShape::Versions`].
    pub key: Vec<&'static str>,
    /// Its columns, in order.
    pub columns: Vec<TableColumn>,
    schema: SchemaRef,
}

pub(crate) const fn column(name: &'static str, kind: Kind, nullable: bool, doc: &'static str) -> TableColumn {
    TableColumn { name, kind, nullable, doc }
}

pub(crate) const TENANT: TableColumn = column("tenant", Kind::Text, false, "Whose row it is.");
pub(crate) const SOURCE: TableColumn = column("source", Kind::Text, false, "Canonical URL of the repository, project or service.");
const ATTRIBUTES: TableColumn = column("attributes", Kind::Map, true, "What is not modelled, text to text; persons by pseudonyms.");
const CHAINED: TableColumn = column(
    CHAIN,
    Kind::Text,
    true,
    "Hash over this row and the chain of the row before it in its partition; null until the row is in a file.",
);
const TIME: TableColumn = column("time", Kind::Time, false, "When it happened.");
pub(crate) const KNOWN_AT: TableColumn = column("known_at", Kind::Time, false, "When the source could tell.");
pub(crate) const RECORDED_AT: TableColumn = column("recorded_at", Kind::Time, false, "When the log took it.");
pub(crate) const REV: TableColumn = column("_rev", Kind::Int, false, "0 for the first version of a row; corrections count up.");

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables: Vec<Table> = SPECS.iter().flat_map(of_subject).collect();
    tables.extend(derived::tables());
    tables
});

impl Table {
    pub(crate) fn new(
        name: TableName,
        doc: impl Into<String>,
        shape: TableShape,
        key: Vec<&'static str>,
        columns: Vec<TableColumn>,
    ) -> Self {
        let fields: Fields = columns.iter().map(|c| Field::new(c.name, data_type(c.kind), c.nullable)).collect();
        Self { name, doc: doc.into(), shape, key, columns, schema: Arc::new(Schema::new(fields)) }
    }

    /// All tables of the lake.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &TABLES
    }

    /// The table of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|t| t.name == name)
    }

    /// Its Arrow schema: `Utf8View`, `Int64`, `Float64`, `Boolean`, `Timestamp(µs, UTC)`, `Map<Utf8, Utf8>`.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The position of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// The Arrow type of a kind.
pub(crate) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::Utf8View,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Map => {
            let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
        }
    }
}

fn of_subject(spec: &'static SubjectSpec) -> Vec<Table> {
    let own = || {
        spec.columns.iter().map(|c| {
            let nullable = matches!(c.role, Role::Field);
            column(c.name, c.kind, nullable, c.doc)
        })
    };
    let mut events = vec![TENANT, SOURCE];
    events.extend(own());
    events.extend([
        column("transition", Kind::Text, false, "What happened to it."),
        TIME,
        KNOWN_AT,
        RECORDED_AT,
        column("event_id", Kind::Text, false, "Id of the event, unique within its source."),
        ATTRIBUTES,
        column("_topic", Kind::Text, false, "Topic of the log that it came from."),
        column("_partition", Kind::Int, false, "Partition of that topic."),
        column("_offset", Kind::Int, false, "Offset in that partition."),
    ]);
    events.extend((spec.subject == Subject::AuditEntry).then_some(CHAINED));
    if spec.shape == Shape::Fact {
        return vec![Table::new(spec.table, spec.doc, TableShape::Events, vec![], events)];
    }
    let mut rows = vec![TENANT, SOURCE];
    rows.extend(own());
    rows.extend([ATTRIBUTES, column("time", Kind::Time, false, "When it happened last."), KNOWN_AT, RECORDED_AT, REV]);
    let mut key = vec!["tenant", "source", spec.id_column()];
    if spec.columns.iter().any(|c| c.role == Role::Attempt) {
        key.push("attempt");
    }
    let doc = format!("{} One row each, as it stands.", spec.doc);
    let events_doc = format!("Every event behind `{}`.", spec.table);
    vec![
        Table::new(spec.events_table, events_doc, TableShape::Events, vec![], events),
        Table::new(spec.table, doc, TableShape::Versions, key, rows),
    ]
}
