//! Events of a report: their ids follow from what the report is about and from what it says.

use std::borrow::Cow;

use kiro_schemas::report::{ReportCounts, ReportScope};
use kiro_schemas::{Event, Micros, Subject, Transition, Value, subject};
use sha2::{Digest as _, Sha256};

use crate::text::clip;
use crate::{Emit, Format, Limits, Stopped};

/// Adds a text so that no two lists of texts look alike.
pub(crate) fn mix(hasher: &mut Sha256, text: &[u8]) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}

/// The first half of a digest, in hexadecimal.
pub(crate) fn short(digest: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(32);
    for byte in digest.iter().take(16) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// A measured value.
#[derive(Debug)]
pub(crate) struct Metric<'m> {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What tells it apart.
    pub(crate) labels: &'m [(&'static str, &'m str)],
}

/// Makes events and counts them.
pub(crate) struct Emitter<'r, 'e> {
    pub(crate) scope: &'r ReportScope,
    pub(crate) counts: ReportCounts,
    limits: Limits,
    hasher: Sha256,
    emit: &'r mut Emit<'e>,
    test: Columns,
    metric: Columns,
}

/// The columns that the scope fills, of one subject; and all of its columns.
#[derive(Debug)]
struct Columns {
    count: usize,
    scope: [usize; 6],
}

impl Columns {
    fn of(subject: Subject) -> Self {
        let spec = subject::spec(subject);
        let scope = ["run_id", "run_attempt", "service", "branch", "commit_sha", "environment"];
        Self { count: spec.columns.len(), scope: scope.map(|name| spec.column(name).unwrap_or(usize::MAX)) }
    }
}

impl<'r, 'e> Emitter<'r, 'e> {
    pub(crate) fn new(scope: &'r ReportScope, format: Format, limits: Limits, emit: &'r mut Emit<'e>) -> Self {
        let mut hasher = Sha256::new();
        for text in [format.as_str(), &scope.name, &scope.run_id, scope.service.as_deref().unwrap_or_default()] {
            mix(&mut hasher, text.as_bytes());
        }
        hasher.update(scope.attempt.to_le_bytes());
        let counts = ReportCounts { format: format.as_str().to_owned(), ..ReportCounts::default() };
        let (test, metric) = (Columns::of(Subject::TestResult), Columns::of(Subject::Metric));
        Self { scope, counts, limits, hasher, emit, test, metric }
    }

    /// What all ids of the report begin with.
    pub(crate) fn hasher(&self) -> Sha256 {
        self.hasher.clone()
    }

    /// When the report was made.
    pub(crate) fn time(&self) -> Micros {
        self.scope.time.unwrap_or_default()
    }

    fn fill<'f>(&self, columns: &Columns) -> Vec<Value<'f>>
    where
        'r: 'f,
    {
        let scope = self.scope;
        let text = |text: Option<&'r str>| text.map_or(Value::Null, Value::text);
        let values = [
            text(Some(&scope.run_id)),
            Value::Int(scope.attempt),
            text(scope.service.as_deref()),
            text(scope.branch.as_deref()),
            text(scope.commit_sha.as_deref()),
            text(scope.environment.as_deref()),
        ];
        let mut fields = vec![Value::Null; columns.count];
        for (at, value) in columns.scope.into_iter().zip(values) {
            if let Some(field) = fields.get_mut(at) {
                *field = value;
            }
        }
        fields
    }

    fn event<'f>(&self, (subject, transition): (Subject, Transition), id: Cow<'f, str>, attempt: i64, time: Micros) -> Event<'f>
    where
        'r: 'f,
    {
        let columns = if subject == Subject::Metric { &self.metric } else { &self.test };
        Event {
            subject,
            transition,
            id: Cow::Owned([subject.as_str(), "/", &id, "/", &attempt.to_string(), "/", transition.as_str()].concat()),
            source: Cow::Borrowed(&self.scope.source),
            subject_id: id,
            attempt,
            time,
            known_at: None,
            fields: self.fill(columns),
            attributes: Vec::new(),
        }
    }

    /// An event of a test, with what the scope says filled in.
    pub(crate) fn test<'f>(&self, id: &'f str, attempt: u32, time: Micros) -> Event<'f>
    where
        'r: 'f,
    {
        self.event((Subject::TestResult, Transition::Finished), Cow::Borrowed(id), i64::from(attempt), time)
    }

    pub(crate) fn tell(&mut self, event: Event<'_>) -> Result<(), Stopped> {
        (self.emit)(event)?;
        self.counts.events += 1;
        Ok(())
    }

    /// Tells a measured value; what is no number is not told.
    pub(crate) fn measure(&mut self, metric: &Metric<'_>) -> Result<(), Stopped> {
        if !metric.value.is_finite() {
            return Ok(());
        }
        let mut hasher = self.hasher();
        mix(&mut hasher, metric.name.as_bytes());
        for (label, value) in metric.labels {
            mix(&mut hasher, label.as_bytes());
            mix(&mut hasher, value.as_bytes());
        }
        let id = short(&hasher.finalize().into());
        let mut event = self.event((Subject::Metric, Transition::Recorded), Cow::Owned(id), 1, self.time());
        event.set("name", Value::text(metric.name));
        event.set("value", Value::Float(metric.value));
        event.set("unit", Value::text(metric.unit));
        let most = self.limits.name_bytes;
        event.attributes.push((Cow::Borrowed("format"), Cow::Owned(self.counts.format.clone())));
        if !self.scope.name.is_empty() {
            event.attributes.push((Cow::Borrowed("report"), Cow::Borrowed(clip(&self.scope.name, most))));
        }
        event
            .attributes
            .extend(metric.labels.iter().map(|(label, value)| (Cow::Borrowed(*label), Cow::Owned(clip(value, most).to_owned()))));
        self.tell(event)?;
        self.counts.metrics += 1;
        Ok(())
    }
}
