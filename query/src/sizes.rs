//! How long what a function makes can be, told from what it is given.

use std::ops::Range;

use arrow::array::{Array, AsArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;

/// One argument over a range of rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    /// Bytes of all its values.
    total: usize,
    /// Bytes of the widest of them.
    widest: usize,
    /// Elements of all its lists.
    elements: usize,
    /// The greatest number, where it is one.
    most: usize,
    /// Of a constant text: the references to groups that it holds, and the groups that it opens. Else no more than its bytes.
    references: usize,
}

impl Size {
    /// Measures an argument.
    pub(crate) fn of(value: &ColumnarValue, rows: &Range<usize>) -> Self {
        match value {
            ColumnarValue::Array(array) => {
                let array = array.slice(rows.start, rows.len());
                let widest = widest(array.as_ref());
                let most = greatest(array.as_ref());
                Self { total: total(array.as_ref()), widest, elements: elements(array.as_ref()), most, references: widest }
            }
            ColumnarValue::Scalar(value) => Self::constant(value, rows.len()),
        }
    }

    fn constant(value: &ScalarValue, rows: usize) -> Self {
        let text = value.try_as_str().flatten();
        let references = text.map_or(0, |text| text.bytes().filter(|b| matches!(b, b'\\' | b'$' | b'(')).count());
        let Ok(array) = value.to_array_of_size(1) else { return Self::default() };
        let (one, count) = (total(array.as_ref()), elements(array.as_ref()));
        let [total, elements] = [one, count].map(|each| each.saturating_mul(rows));
        Self { total, widest: one, elements, most: greatest(array.as_ref()), references }
    }
}

/// The bytes of the values of a column, of those alone that it shows.
fn total(column: &dyn Array) -> usize {
    match column.data_type() {
        DataType::Null => 0,
        DataType::Utf8 => span(column.as_string::<i32>().offsets()).len(),
        DataType::LargeUtf8 => span(column.as_string::<i64>().offsets()).len(),
        DataType::Binary => span(column.as_binary::<i32>().offsets()).len(),
        DataType::LargeBinary => span(column.as_binary::<i64>().offsets()).len(),
        DataType::Utf8View => column.as_string_view().lengths().map(|length| length as usize).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|length| length as usize).sum(),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            of_part(list.values().as_ref(), &span(list.offsets()))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            of_part(list.values().as_ref(), &span(list.offsets()))
        }
        DataType::Map(..) => {
            let map = column.as_map();
            of_part(map.entries(), &span(map.offsets()))
        }
        DataType::Struct(_) => column.as_struct().columns().iter().map(|column| total(column.as_ref())).sum(),
        other => other.primitive_width().map_or_else(|| column.get_array_memory_size(), |width| width * column.len()),
    }
}

fn of_part(values: &dyn Array, part: &Range<usize>) -> usize {
    const OFFSET: usize = 8;
    total(values.slice(part.start, part.len()).as_ref()).saturating_add(part.len() * OFFSET)
}

/// What the offsets span of the values below.
fn span<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> Range<usize> {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => first.as_usize()..last.as_usize(),
        _ => 0..0,
    }
}

fn widest(column: &dyn Array) -> usize {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().offsets().lengths().max().unwrap_or(0),
        DataType::LargeUtf8 => column.as_string::<i64>().offsets().lengths().max().unwrap_or(0),
        DataType::Utf8View => column.as_string_view().lengths().max().unwrap_or(0) as usize,
        DataType::Null => 0,
        other => other.primitive_width().unwrap_or_else(|| total(column)),
    }
}

fn elements(column: &dyn Array) -> usize {
    match column.data_type() {
        DataType::List(_) => span(column.as_list::<i32>().offsets()).len() + nested(column.as_list::<i32>().values().as_ref()),
        DataType::LargeList(_) => span(column.as_list::<i64>().offsets()).len() + nested(column.as_list::<i64>().values().as_ref()),
        _ => 0,
    }
}

/// Elements of lists in lists.
fn nested(values: &dyn Array) -> usize {
    if matches!(values.data_type(), DataType::List(_) | DataType::LargeList(_)) { elements(values) } else { 0 }
}

fn greatest(column: &dyn Array) -> usize {
    if !column.data_type().is_integer() {
        return 0;
    }
    let numbers = cast(&column.slice(0, column.len()), &DataType::Int64).ok();
    let greatest = numbers.as_ref().and_then(|numbers| max(numbers.as_primitive::<Int64Type>()));
    greatest.map_or(0, |number| usize::try_from(number).unwrap_or(0))
}

/// The bytes that a call can make at most.
pub(crate) type Bound = fn(&[Size], usize) -> usize;

fn sum(sizes: &[Size]) -> usize {
    sizes.iter().fold(0, |sum, size| sum.saturating_add(size.total))
}

fn at(sizes: &[Size], position: usize) -> Size {
    sizes.get(position).copied().unwrap_or_default()
}

/// As much of the third argument as the first has bytes: each of them may be replaced, and each gap.
fn replaced(sizes: &[Size], rows: usize) -> usize {
    let (text, with) = (at(sizes, 0), at(sizes, 2));
    text.total.saturating_add((text.total + rows).saturating_mul(with.widest))
}

/// Longest text of a number of characters.
fn padded(sizes: &[Size], rows: usize) -> usize {
    sum(sizes).saturating_add(rows.saturating_mul(at(sizes, 1).most).saturating_mul(4))
}

/// The matches do not overlap, so all that a group took of them is no more than the text.
fn matched(sizes: &[Size], rows: usize) -> usize {
    replaced(sizes, rows).saturating_add(at(sizes, 0).total.saturating_mul(at(sizes, 2).references))
}

/// A function of those that can make more than they are given, and its bound.
pub(crate) fn bound_of(name: &str) -> Option<Bound> {
    Some(match name {
        "||" | "concat" | "overlay" | "make_array" | "array_append" | "array_prepend" | "array_concat" | "array_union" | "arrays_zip"
        | "map" => |sizes, _| sum(sizes),
        "concat_ws" => |sizes, rows| sum(sizes).saturating_add(at(sizes, 0).widest.saturating_mul(rows).saturating_mul(sizes.len())),
        "repeat" => |sizes, _| at(sizes, 0).total.saturating_mul(at(sizes, 1).most),
        "lpad" | "rpad" => padded,
        "replace" => replaced,
        "regexp_replace" => matched,
        "regexp_match" => |sizes, _| at(sizes, 0).total.saturating_mul(at(sizes, 1).references + 1),
        "translate" => |sizes, _| at(sizes, 0).total.saturating_mul(4),
        "encode" | "quote_ident" => |sizes, rows| at(sizes, 0).total.saturating_mul(2).saturating_add(rows * 8),
        "to_char" => |sizes, rows| at(sizes, 1).widest.saturating_mul(32).saturating_mul(rows),
        "array_replace" | "array_replace_n" | "array_replace_all" => {
            |sizes, _| sum(sizes).saturating_add(at(sizes, 0).elements.saturating_mul(at(sizes, 2).widest))
        }
        "array_to_string" => |sizes, _| {
            let (list, [between, instead]) = (at(sizes, 0), [1, 2].map(|position| at(sizes, position).widest));
            list.total.saturating_add(list.elements.saturating_mul(between + instead + 24))
        },
        // Each character may become an element, with its offset or view.
        "string_to_array" => |sizes, rows| at(sizes, 0).total.saturating_mul(17).saturating_add(rows * 8),
        _ => return None,
    })
}
