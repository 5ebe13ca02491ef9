//! Events to batches of their `<table>_events`.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use kiro_schemas::{Event, Micros, Role, Tenant, TopicPartition, Value};

use crate::{Rows, Table, TableName};

/// What the log adds to an event.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// Whose event it is.
    pub tenant: &'a Tenant,
    /// When the log took it.
    pub recorded_at: Micros,
    /// Where it stands.
    pub at: &'a TopicPartition,
    /// Its offset there.
    pub offset: i64,
}

/// Collects events, table by table.
#[derive(Debug, Default)]
pub struct EventRows {
    tables: Vec<Option<Rows>>,
}

impl EventRows {
    /// Adds an event.
    ///
    /// # Errors
    /// As [`Rows::push`].
    pub fn push(&mut self, event: &Event<'_>, stamp: Stamp<'_>) -> Result<(), ArrowError> {
        let at = event.subject as usize;
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, || None);
        }
        let spec = event.spec();
        let slot = &mut self.tables[at];
        if slot.is_none() {
            *slot = Table::find(spec.events_table).map(Rows::new);
        }
        let Some(rows) = slot else { return Ok(()) };
        let ids =
            [Value::text(stamp.tenant.as_str()), Value::text(&*event.source), Value::text(&*event.subject_id), Value::Int(event.attempt)];
        let attributes = if event.attributes.is_empty() { Value::Null } else { Value::Map(event.attributes.clone()) };
        let rest = [
            Value::text(event.transition.as_str()),
            Value::Time(event.time),
            Value::Time(event.known_at.unwrap_or(stamp.recorded_at)),
            Value::Time(stamp.recorded_at),
            Value::text(&*event.id),
            attributes,
            Value::text(&*stamp.at.topic),
            Value::Int(i64::from(stamp.at.partition)),
            Value::Int(stamp.offset),
        ];
        let own = spec.columns.iter().zip(&event.fields).map(|(column, value)| match column.role {
            Role::Id => &ids[2],
            Role::Attempt => &ids[3],
            Role::Field => value,
        });
        rows.push(ids[..2].iter().chain(own).chain(&rest))
    }

    /// The batches, one for each table that has rows; the collector is empty afterwards.
    ///
    /// # Errors
    /// As [`Rows::finish`].
    pub fn finish(&mut self) -> Result<Vec<(TableName, RecordBatch)>, ArrowError> {
        let mut batches = Vec::new();
        for rows in self.tables.iter_mut().flatten().filter(|r| !r.is_empty()) {
            batches.push((rows.table().name, rows.finish()?));
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, subject};

    use super::{EventRows, Stamp};
    use crate::Table;

    #[test]
    fn each_subject_fills_its_table() {
        let mut rows = EventRows::default();
        let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 3));
        for subject in Subject::ALL {
            let spec = subject::spec(*subject);
            let mut event = Event::new(*subject, spec.transitions[0].transition, "https://ci/a", "42", Micros(1));
            event.attributes.push(("k".into(), "v".into()));
            rows.push(&event, Stamp { tenant: &tenant, recorded_at: Micros(2), at: &at, offset: 7 }).expect("a row");
        }
        let batches = rows.finish().expect("batches");
        assert_eq!(batches.len(), Subject::ALL.len());
        for (name, batch) in batches {
            assert_eq!(batch.schema(), Table::find(name).expect("a table").schema());
            assert_eq!(batch.num_rows(), 1);
        }
    }
}
