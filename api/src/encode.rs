//! Answers of SQL as JSON, JSON lines, CSV or Arrow IPC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{Encoder as JsonEncoder, EncoderFactory, EncoderOptions, Writer, WriterBuilder};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::StreamExt;
use kiro_ports::{PortError, SqlAnswer};

use crate::Result;

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One document: columns, rows, offsets.
    Json,
    /// One object a line.
    Ndjson,
    /// Comma-separated, with a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Form {
    /// Chooses by the `Accept` header; JSON when it names none of ours.
    pub(crate) fn accepted(accept: &str) -> Self {
        let types = accept.split(',').filter_map(|part| part.split(';').next()).map(str::trim);
        for kind in types {
            match kind {
                "application/json" | "*/*" => return Self::Json,
                "application/x-ndjson" | "application/jsonl" => return Self::Ndjson,
                "text/csv" => return Self::Csv,
                "application/vnd.apache.arrow.stream" => return Self::Arrow,
                _ => {}
            }
        }
        Self::Json
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Encodes an answer. JSON is complete before it is sent, so that an error is an error; the others stream.
pub(crate) async fn respond(answer: SqlAnswer, form: Form) -> Result<Response> {
    let offsets = serde_json::to_string(&answer.offsets).unwrap_or_default();
    let body = match form {
        Form::Json => Body::from(document(answer, &offsets).await?),
        Form::Ndjson | Form::Csv | Form::Arrow => stream(answer, form).await?,
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    if let Ok(value) = HeaderValue::from_str(&offsets) {
        response.headers_mut().insert("kiro-offsets", value);
    }
    Ok(response)
}

async fn document(mut answer: SqlAnswer, offsets: &str) -> Result<Vec<u8>> {
    let columns: Vec<_> =
        answer.schema.fields().iter().map(|f| serde_json::json!({"name": f.name(), "type": type_name(f.data_type())})).collect();
    let mut out = Vec::from(format!("{{\"columns\":{},\"rows\":[", serde_json::Value::from(columns)).as_bytes());
    let mut is_first = true;
    while let Some(batch) = answer.rows.next().await {
        for line in json_lines(&batch?)?.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(format!("],\"offsets\":{offsets}}}").as_bytes());
    Ok(out)
}

/// The first batch is awaited, so that what fails at once is answered as a problem.
async fn stream(mut answer: SqlAnswer, form: Form) -> Result<Body> {
    let schema = Arc::clone(&answer.schema);
    let first = answer.rows.next().await.transpose()?;
    let mut encoder = Encoder::new(form, schema)?;
    let mut head = encoder.head()?;
    if let Some(batch) = first {
        head.extend(encoder.batch(&batch)?);
    }
    let rest = futures::stream::unfold(Some((answer.rows, encoder)), |state| async move {
        let (mut rows, mut encoder) = state?;
        let chunk = match rows.next().await {
            Some(batch) => batch.map_err(Failed::Port).and_then(|b| encoder.batch(&b).map_err(Failed::Arrow)),
            None => return Some((encoder.tail().map_err(Failed::Arrow), None)),
        };
        let next = chunk.is_ok().then_some((rows, encoder));
        Some((chunk, next))
    });
    let head = futures::stream::once(async move { Ok(head) });
    Ok(Body::from_stream(head.chain(rest)))
}

/// Ends a stream in the middle: the connection breaks, so that nobody takes a part for the whole.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Port(PortError),
    #[error(transparent)]
    Arrow(ArrowError),
}

enum Encoder {
    Ndjson,
    Csv { schema: SchemaRef },
    Arrow(Box<arrow::ipc::writer::StreamWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(form: Form, schema: SchemaRef) -> Result<Self, ArrowError> {
        Ok(match form {
            Form::Csv => Self::Csv { schema },
            Form::Arrow => Self::Arrow(Box::new(arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema)?)),
            Form::Ndjson | Form::Json => Self::Ndjson,
        })
    }

    fn head(&mut self) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Csv { schema } => csv(&RecordBatch::new_empty(Arc::clone(schema)), true),
            Self::Arrow(writer) => Ok(std::mem::take(writer.get_mut())),
            Self::Ndjson => Ok(Vec::new()),
        }
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Ndjson => json_lines(batch),
            Self::Csv { .. } => csv(batch, false),
            Self::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    fn tail(&mut self) -> Result<Vec<u8>, ArrowError> {
        if let Self::Arrow(writer) = self {
            writer.finish()?;
            return Ok(std::mem::take(writer.get_mut()));
        }
        Ok(Vec::new())
    }
}

fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Floats));
    let mut writer: Writer<Vec<u8>, LineDelimited> = builder.build(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Writes what JSON has no number for as PostgreSQL does: `"NaN"`, `"Infinity"`, `"-Infinity"`. It would be null otherwise.
#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        Ok(non_finite(array).map(|values| NullableEncoder::new(Box::new(Doubles(values)), values.nulls().cloned())))
    }
}

/// The floats of a column if some of them are no numbers.
fn non_finite(array: &dyn Array) -> Option<&Float64Array> {
    array.as_primitive_opt::<Float64Type>().filter(|values| values.values().iter().any(|value| !value.is_finite()))
}

struct Doubles<'a>(&'a Float64Array);

impl JsonEncoder for Doubles<'_> {
    fn encode(&mut self, at: usize, out: &mut Vec<u8>) {
        let value = self.0.value(at);
        let text = match value {
            f64::INFINITY => "\"Infinity\"".to_owned(),
            f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
            value if value.is_nan() => "\"NaN\"".to_owned(),
            value => serde_json::Value::from(value).to_string(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// CSV has no nested values: they are written as JSON. Floats that are no numbers have the same names as there.
fn csv(batch: &RecordBatch, has_header: bool) -> Result<Vec<u8>, ArrowError> {
    let is_flat = |column: &ArrayRef| !column.data_type().is_nested() && non_finite(column).is_none();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let kind = if is_flat(column) { column.data_type().clone() } else { DataType::Utf8 };
        fields.push(Field::new(field.name(), kind, true));
        columns.push(if is_flat(column) { Arc::clone(column) } else { json_texts(field, column)? });
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let flat = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    let mut out = Vec::new();
    arrow::csv::WriterBuilder::new().with_header(has_header).build(&mut out).write(&flat)?;
    Ok(out)
}

/// The values of a column as JSON; texts without their quotes.
fn json_texts(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Floats));
    let mut encoder = make_encoder(field, column, &options)?;
    let mut text = |row: usize| {
        let mut out = Vec::new();
        encoder.encode(row, &mut out);
        String::from_utf8_lossy(out.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(&out)).into_owned()
    };
    Ok(Arc::new((0..column.len()).map(|row| column.is_valid(row).then(|| text(row))).collect::<StringArray>()))
}

/// The SQL name of a type.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Boolean => "boolean",
        DataType::Timestamp(_, _) => "timestamptz",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => "bigint",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double precision",
        DataType::Decimal32(_, _) | DataType::Decimal64(_, _) | DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => "numeric",
        DataType::Map(_, _) | DataType::Struct(_) => "json",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => "array",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        _ => "other",
    }
}
