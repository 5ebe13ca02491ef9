//! Arrow columns by name, cast once a batch to the types of the contract.

use std::borrow::Cow;

use arrow::array::cast::AsArray;
use arrow::array::{Array, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use kiro_schemas::{Kind, Micros, Value};
use kiro_tables::Table;

use crate::{Error, Result};

/// One column of a batch.
#[derive(Debug)]
pub(crate) enum Column {
    Text(StringViewArray),
    Int(Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
    Time(TimestampMicrosecondArray),
    Map(MapColumn),
    /// A nullable column that the batch does not have: older files.
    Absent,
}

/// A column of text pairs.
#[derive(Debug)]
pub(crate) struct MapColumn {
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
    keys: StringViewArray,
    values: StringViewArray,
}

impl MapColumn {
    fn pairs(&self, row: usize) -> impl Iterator<Item = (&str, &str)> {
        let absent = self.nulls.as_ref().is_some_and(|n| n.is_null(row));
        let at = |row: usize| usize::try_from(self.offsets[row]).unwrap_or(0);
        let range = if absent { 0..0 } else { at(row)..at(row + 1) };
        range.filter(|i| self.values.is_valid(*i)).map(|i| (self.keys.value(i), self.values.value(i)))
    }
}

impl Column {
    /// The column of that name in a batch of that table.
    pub(crate) fn read(table: &'static Table, batch: &RecordBatch, name: &'static str) -> Result<Self> {
        let spec = table.columns.iter().find(|c| c.name == name);
        let (Some(spec), array) = (spec, batch.column_by_name(name)) else {
            return Err(Error::MissingColumn { table: table.name, column: name });
        };
        let Some(array) = array else {
            return if spec.nullable { Ok(Self::Absent) } else { Err(Error::MissingColumn { table: table.name, column: name }) };
        };
        let refused = |source| Error::ColumnType { table: table.name, column: name, found: array.data_type().to_string(), source };
        let to = |wanted: &DataType| cast(array, wanted).map_err(refused);
        Ok(match spec.kind {
            Kind::Text => Self::Text(to(&DataType::Utf8View)?.as_string_view().clone()),
            Kind::Int => Self::Int(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            Kind::Float => Self::Float(to(&DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            Kind::Bool => Self::Bool(to(&DataType::Boolean)?.as_boolean().clone()),
            Kind::Time => {
                let wanted = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
                Self::Time(to(&wanted)?.as_primitive::<TimestampMicrosecondType>().clone())
            }
            Kind::Map => match array.as_map_opt() {
                Some(map) => Self::Map(MapColumn {
                    offsets: map.offsets().clone(),
                    nulls: map.nulls().cloned(),
                    keys: cast(map.keys(), &DataType::Utf8View).map_err(refused)?.as_string_view().clone(),
                    values: cast(map.values(), &DataType::Utf8View).map_err(refused)?.as_string_view().clone(),
                }),
                None => Self::Absent,
            },
        })
    }

    /// The value of a row; an empty map is null.
    pub(crate) fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Text(a) if a.is_valid(row) => Value::Text(Cow::Borrowed(a.value(row))),
            Self::Int(a) if a.is_valid(row) => Value::Int(a.value(row)),
            Self::Float(a) if a.is_valid(row) => Value::Float(a.value(row)),
            Self::Bool(a) if a.is_valid(row) => Value::Bool(a.value(row)),
            Self::Time(a) if a.is_valid(row) => Value::Time(Micros(a.value(row))),
            Self::Map(map) => {
                let mut pairs: Vec<_> = map.pairs(row).map(|(k, v)| (Cow::Borrowed(k), Cow::Borrowed(v))).collect();
                pairs.sort_unstable();
                if pairs.is_empty() { Value::Null } else { Value::Map(pairs) }
            }
            _ => Value::Null,
        }
    }

    /// The text of a row.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Text(a) if a.is_valid(row) => Some(a.value(row)),
            _ => None,
        }
    }

    /// The integer or time of a row.
    pub(crate) fn int(&self, row: usize) -> Option<i64> {
        match self {
            Self::Int(a) if a.is_valid(row) => Some(a.value(row)),
            Self::Time(a) if a.is_valid(row) => Some(a.value(row)),
            _ => None,
        }
    }

    /// The pairs of a row.
    pub(crate) fn pairs(&self, row: usize) -> impl Iterator<Item = (&str, &str)> {
        let map = if let Self::Map(map) = self { Some(map) } else { None };
        map.into_iter().flat_map(move |m| m.pairs(row))
    }
}
