//! A batch of an `_events` table, column by column.

use arrow::array::RecordBatch;
use kiro_schemas::{Role, SubjectSpec};
use kiro_tables::Table;

use crate::columns::Column;
use crate::{Error, Result};

/// What every event has.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventHead<'a> {
    pub(super) tenant: &'a str,
    pub(super) source: &'a str,
    pub(super) id: &'a str,
    pub(super) attempt: i64,
    pub(super) time: i64,
    pub(super) known_at: i64,
    pub(super) recorded_at: i64,
    pub(super) event_id: &'a str,
}

/// The columns of a batch of events.
#[derive(Debug)]
pub(super) struct Events {
    table: &'static Table,
    tenant: Column,
    source: Column,
    id: (&'static str, Column),
    attempt: Option<Column>,
    transition: Column,
    time: Column,
    known_at: Column,
    recorded_at: Column,
    event_id: Column,
    pub(super) attributes: Column,
    /// The fields, with their places in the specification.
    pub(super) fields: Vec<(usize, Column)>,
}

impl Events {
    pub(super) fn read(spec: &'static SubjectSpec, table: &'static Table, batch: &RecordBatch) -> Result<Self> {
        let read = |name| Column::read(table, batch, name);
        let mut attempt = None;
        let mut fields = Vec::new();
        for (at, column) in spec.columns.iter().enumerate() {
            match column.role {
                Role::Id => {}
                Role::Attempt => attempt = Some(read(column.name)?),
                Role::Field => fields.push((at, read(column.name)?)),
            }
        }
        Ok(Self {
            table,
            tenant: read("tenant")?,
            source: read("source")?,
            id: (spec.id_column(), read(spec.id_column())?),
            attempt,
            transition: read("transition")?,
            time: read("time")?,
            known_at: read("known_at")?,
            recorded_at: read("recorded_at")?,
            event_id: read("event_id")?,
            attributes: read("attributes")?,
            fields,
        })
    }

    pub(super) fn subject(&self, row: usize) -> Result<EventHead<'_>> {
        let absent = |column| Error::NullValue { table: self.table.name, column, row };
        Ok(EventHead {
            tenant: self.tenant.text(row).ok_or_else(|| absent("tenant"))?,
            source: self.source.text(row).ok_or_else(|| absent("source"))?,
            id: self.id.1.text(row).ok_or_else(|| absent(self.id.0))?,
            attempt: self.attempt.as_ref().and_then(|c| c.int(row)).unwrap_or(1),
            time: self.time.int(row).ok_or_else(|| absent("time"))?,
            known_at: self.known_at.int(row).ok_or_else(|| absent("known_at"))?,
            recorded_at: self.recorded_at.int(row).ok_or_else(|| absent("recorded_at"))?,
            event_id: self.event_id.text(row).ok_or_else(|| absent("event_id"))?,
        })
    }

    pub(super) fn transition(&self, row: usize) -> Option<&str> {
        self.transition.text(row)
    }
}
