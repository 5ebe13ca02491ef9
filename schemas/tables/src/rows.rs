//! Values to batches, for any table.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use kiro_schemas::{Kind, Value};

use crate::Table;

enum Builder {
    Text(StringViewBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Map(Box<MapBuilder<StringBuilder, StringBuilder>>),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(StringViewBuilder::new()),
            Kind::Int => Self::Int(Int64Builder::new()),
            Kind::Float => Self::Float(Float64Builder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Time => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Map => {
                let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
                Self::Map(Box::new(MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())))
            }
        }
    }

    /// Appends a value; a value of another type counts as null, which a non-null column refuses at the end.
    fn append(&mut self, value: &Value<'_>) -> Result<(), ArrowError> {
        match (self, value) {
            (Self::Text(b), Value::Text(text)) => b.append_value(text),
            (Self::Text(b), _) => b.append_null(),
            (Self::Int(b), Value::Int(v)) => b.append_value(*v),
            (Self::Int(b), _) => b.append_null(),
            (Self::Float(b), Value::Float(v)) => b.append_value(*v),
            (Self::Float(b), _) => b.append_null(),
            (Self::Bool(b), Value::Bool(v)) => b.append_value(*v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Time(b), Value::Time(v)) => b.append_value(v.0),
            (Self::Time(b), _) => b.append_null(),
            (Self::Map(b), Value::Map(pairs)) => {
                for (key, value) in pairs {
                    b.keys().append_value(key);
                    b.values().append_value(value);
                }
                b.append(true)?;
            }
            (Self::Map(b), _) => b.append(false)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(b) => Arc::new(b.finish()),
            Self::Int(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Map(b) => Arc::new(b.finish()),
        }
    }
}

/// Collects rows of one table.
pub struct Rows {
    table: &'static Table,
    builders: Vec<Builder>,
    count: usize,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("table", &self.table.name).field("count", &self.count).finish_non_exhaustive()
    }
}

impl Rows {
    /// No rows yet.
    #[must_use]
    pub fn new(table: &'static Table) -> Self {
        Self { table, builders: table.columns.iter().map(|c| Builder::new(c.kind)).collect(), count: 0 }
    }

    /// The table that they are for.
    #[must_use]
    pub const fn table(&self) -> &'static Table {
        self.table
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a row: one value a column, in the table's order; missing values at the end are null.
    ///
    /// # Errors
    /// None in practice; Arrow's map builder declares one.
    pub fn push<'v, 'a: 'v>(&mut self, values: impl IntoIterator<Item = &'v Value<'a>>) -> Result<(), ArrowError> {
        let mut values = values.into_iter();
        for builder in &mut self.builders {
            builder.append(values.next().unwrap_or(&Value::Null))?;
        }
        self.count += 1;
        Ok(())
    }

    /// The rows as one batch; the collector is empty afterwards.
    ///
    /// # Errors
    /// A column that may not be null was not filled.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.count = 0;
        RecordBatch::try_new(self.table.schema(), self.builders.iter_mut().map(Builder::finish).collect())
    }
}
