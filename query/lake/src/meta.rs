//! A table's columns as its log says them, and as this program needs them: columns are added, nothing else is changed.
//!
//! # Source
//! Delta transaction log protocol, "Change Metadata" and "Schema Serialization Format".

use kiro_schemas::Kind;
use kiro_tables::{Table, TableColumn};
use serde_json::{Value, json};

use crate::{Error, Result};

/// The newest `metaData` of a table that fits this program.
#[derive(Debug)]
pub(crate) struct Meta {
    action: Value,
    /// What this program writes and the table does not know yet.
    missing: Vec<&'static TableColumn>,
}

impl Meta {
    /// Reads an action.
    ///
    /// # Errors
    /// [`Error::Schema`] where the table cannot hold our rows, or we not its: a column of another type, one that may be null on
    /// one side alone, or one that is missing on one side and may not be null.
    pub(crate) fn of(table: &'static Table, action: Value) -> Result<Self> {
        let refused = |column: &str, reason: String| Error::Schema { table: table.name, column: column.to_owned(), reason };
        let schema = action["schemaString"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let fields = schema.as_ref().and_then(|schema| schema["fields"].as_array());
        let Some(fields) = fields else { return Err(refused("*", "the log tells no columns".to_owned())) };
        let mut missing = Vec::new();
        for column in &table.columns {
            match fields.iter().find(|field| field["name"] == column.name) {
                None if column.nullable => missing.push(column),
                None => return Err(refused(column.name, "it is not there, and rows without it cannot be read".to_owned())),
                Some(field) if !is_same_type(&field["type"], column.kind) => {
                    return Err(refused(column.name, format!("it is {} there, {} here", field["type"], delta_type(column.kind))));
                }
                Some(field) if field["nullable"].as_bool() != Some(column.nullable) => {
                    let said = |is: bool| if is { "may be null" } else { "may not be null" };
                    let reason = format!("it {} there and {} here", said(!column.nullable), said(column.nullable));
                    return Err(refused(column.name, reason));
                }
                Some(_) => {}
            }
        }
        let needed = fields.iter().filter(|field| field["nullable"] == false).filter_map(|field| field["name"].as_str());
        if let Some(name) = needed.into_iter().find(|name| table.position(name).is_none()) {
            return Err(refused(name, "it may not be null, and this program does not know it: use a newer program".to_owned()));
        }
        Ok(Self { action, missing })
    }

    /// What is missing.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.missing.iter().map(|column| column.name).collect()
    }

    /// The action that adds what is missing.
    pub(crate) fn widened(&self) -> Value {
        let mut action = self.action.clone();
        let schema = action["schemaString"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let mut schema = schema.unwrap_or_default();
        if let Some(fields) = schema["fields"].as_array_mut() {
            fields.extend(self.missing.iter().map(|column| field(column)));
        }
        action["schemaString"] = Value::String(schema.to_string());
        action
    }
}

/// The columns of a table in the form of the log.
pub(crate) fn delta_schema(table: &Table) -> Value {
    json!({"type": "struct", "fields": table.columns.iter().map(field).collect::<Vec<_>>()})
}

fn field(column: &TableColumn) -> Value {
    json!({"name": column.name, "type": delta_type(column.kind), "nullable": column.nullable, "metadata": {"comment": column.doc}})
}

fn delta_type(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!("string"),
        Kind::Int => json!("long"),
        Kind::Float => json!("double"),
        Kind::Bool => json!("boolean"),
        Kind::Time => json!("timestamp"),
        Kind::Map => json!({"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true}),
    }
}

fn is_same_type(found: &Value, kind: Kind) -> bool {
    let ours = delta_type(kind);
    // Of a map the types of keys and values count.
    ours.as_object().map_or_else(|| *found == ours, |map| ["type", "keyType", "valueType"].iter().all(|key| found[*key] == map[*key]))
}
