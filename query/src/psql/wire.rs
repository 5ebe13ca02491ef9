//! Rows as the protocol carries them. Maps travel as JSON text.

use std::fmt::{Display, LowerExp};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, field_into_pg_type, into_pg_type};
use futures::{StreamExt, TryStreamExt, stream};
use kiro_ports::SqlAnswer;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse};
use pgwire::error::{PgWireError, PgWireResult};

use super::fault;

/// The columns of an answer.
pub(super) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    arrow_schema_to_pg_fields(&carried(schema), format, None)
}

/// The type of a parameter.
pub(super) fn parameter(kind: &DataType) -> PgWireResult<Type> {
    into_pg_type(kind)
}

/// An answer as a response, row by row.
pub(super) fn response(answer: SqlAnswer, format: &Format) -> PgWireResult<QueryResponse> {
    let schema: SchemaRef = Arc::new(carried(&answer.schema));
    let fields = Arc::new(arrow_schema_to_pg_fields(&schema, format, None)?);
    let of_batch = Arc::clone(&fields);
    let rows = answer.rows.map(move |batch| {
        let batch = batch.map_err(|e| fault::of_fault(&e))?;
        let batch = carry(&batch, &schema).and_then(|batch| spell(&batch, &of_batch));
        let batch = batch.map_err(|e| fault::error("XX000", format!("cannot write a row: {e}")))?;
        let rows: Vec<_> = encode_recordbatch(Arc::clone(&of_batch), batch).collect();
        Ok::<_, PgWireError>(stream::iter(rows))
    });
    Ok(QueryResponse::new(fields, rows.try_flatten()))
}

/// One row of one text column.
pub(super) fn single(name: &str, value: &str) -> PgWireResult<QueryResponse> {
    let schema = Schema::new(vec![Field::new(name, DataType::Utf8, false)]);
    let fields = Arc::new(fields(&schema, &Format::UnifiedText)?);
    let values: ArrayRef = Arc::new(StringArray::from(vec![value]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![values]).map_err(|e| fault::error("XX000", e.to_string()))?;
    let rows: Vec<_> = encode_recordbatch(Arc::clone(&fields), batch).collect();
    Ok(QueryResponse::new(fields, stream::iter(rows)))
}

/// The schema with columns that the protocol has no type for as text.
fn carried(schema: &Schema) -> Schema {
    let fields = schema
        .fields()
        .iter()
        .map(|field| if is_carried(field) { Arc::clone(field) } else { Arc::new(Field::new(field.name(), DataType::Utf8, true)) });
    Schema::new(fields.collect::<Vec<_>>())
}

fn is_carried(field: &Arc<Field>) -> bool {
    !matches!(field.data_type(), DataType::Map(..)) && field_into_pg_type(field).is_ok()
}

fn carry(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(batch.schema_ref().fields()).map(|(column, field)| match field.data_type() {
        DataType::Map(..) => json(column),
        _ if is_carried(field) => Ok(Arc::clone(column)),
        _ => text(column),
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

/// Floats that go as text, as PostgreSQL spells them.
fn spell(batch: &RecordBatch, fields: &[FieldInfo]) -> Result<RecordBatch, ArrowError> {
    let spelled = batch.columns().iter().zip(fields).zip(batch.schema_ref().fields()).map(|((column, info), field)| {
        let texts: StringArray = match column.data_type() {
            DataType::Float64 if info.format() == FieldFormat::Text => {
                column.as_primitive::<Float64Type>().iter().map(|value| value.map(|v| float(v, v.is_nan(), v.is_infinite(), 15))).collect()
            }
            DataType::Float32 if info.format() == FieldFormat::Text => {
                column.as_primitive::<Float32Type>().iter().map(|value| value.map(|v| float(v, v.is_nan(), v.is_infinite(), 6))).collect()
            }
            _ => return (Arc::clone(field), Arc::clone(column)),
        };
        (Arc::new(Field::new(field.name(), DataType::Utf8, true)), Arc::new(texts) as ArrayRef)
    });
    let (fields, columns): (Vec<_>, Vec<_>) = spelled.unzip();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// The shortest text that is read as the same number; with an exponent below -4 and from `digits` on.
///
/// # Source
/// PostgreSQL 16, `float8out` and `float4out` with `extra_float_digits` = 1.
fn float(value: impl Display + LowerExp + PartialOrd + From<i8> + Copy, is_nan: bool, is_infinite: bool, digits: i32) -> String {
    if is_nan {
        return "NaN".to_owned();
    }
    if is_infinite {
        return if value > 0_i8.into() { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse::<i32>().ok()?))) {
        Some((mantissa, exponent)) if !(-4..digits).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => value.to_string(),
    }
}

/// Maps as JSON objects.
fn json(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let (maps, options) = (column.as_map(), FormatOptions::default());
    let (keys, values) = (ArrayFormatter::try_new(maps.keys(), &options)?, ArrayFormatter::try_new(maps.values(), &options)?);
    let mut built = StringBuilder::new();
    for row in 0..maps.len() {
        if maps.is_null(row) {
            built.append_null();
            continue;
        }
        let first = maps.value_offsets().get(row).and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
        let entries = (first..first + maps.value(row).len()).map(|at| {
            let text = || serde_json::Value::String(values.value(at).to_string());
            let value = if maps.values().is_null(at) { serde_json::Value::Null } else { text() };
            (keys.value(at).to_string(), value)
        });
        built.append_value(serde_json::Value::Object(entries.collect()).to_string());
    }
    Ok(Arc::new(built.finish()))
}

fn text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let values = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let rows = (0..column.len()).map(|row| (!column.is_null(row)).then(|| values.value(row).to_string()));
    Ok(Arc::new(rows.collect::<StringArray>()))
}
