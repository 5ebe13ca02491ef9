//! CDEvents 0.5 and 0.6-draft: checked against the official schemas, then mapped to our subjects.
//!
//! The outcome of a task run is any text in 0.5 and one of four words in the draft, under one version: any text is taken. What
//! [`Outcome::of_provider`] knows fills `outcome`; a word that is not one of the four stays in `status` as it came.
//!
//! Laxer than the schemas, so that newer senders keep working: a type is known by subject, predicate and major version; with a
//! newer minor version than the table's, unknown fields of `subject.content` are taken. Stricter: times lie
//! between 1970 and 9999.
//!
//! # Source
//! CDEvents 0.6.0-draft JSON schemas; `dev.cdeventsx.…` types follow the custom schema.

use std::borrow::Cow;

use kiro_schemas::{Event, Micros, Outcome, Subject, Transition, Value};

use super::json::Json;
use super::{DecodeError, error::clip};

mod check;
mod spec;

use check::{CONTEXT, Field, Form, Node, Path, Spec, TOP, check_object};

const DEPTH: usize = 64;
const REFERENCE: Node = Node::Text { filled: true, form: Form::UriReference, words: &[] };

/// Reads one `CDEvent`.
///
/// # Errors
/// [`DecodeError::Json`] or [`DecodeError::Shape`] with the path of the field.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    event_of(Json::parse(bytes, DEPTH)?)
}

/// Reads one `CDEvent` from its document.
pub(super) fn event_of(mut document: Json<'_>) -> Result<Event<'_>, DecodeError> {
    check_object(&document, TOP, &[], false, Path::Root)?;
    let kind = document.get("context").and_then(|context| context.get("type")).and_then(Json::as_text).unwrap_or_default();
    let Some(kind) = Kind::parse(kind) else {
        return Err(DecodeError::shape("context.type", format!("is not a known CDEvents type: {:?}", clip(kind))));
    };
    let (subject, predicate) = kind.words();
    check(&document, &kind)?;
    let mut context = document.take("context").unwrap_or(Json::Null);
    let mut about = document.take("subject").unwrap_or(Json::Null);
    let body = about.take("content").unwrap_or(Json::Null);
    let (our, transition) = target(&subject, &predicate, &body);
    let time = context.get("timestamp").and_then(Json::as_text).and_then(Micros::parse).filter(|time| time.is_storable());
    let Some(time) = time else { return Err(DecodeError::shape("context.timestamp", "must lie between 1970 and 9999")) };
    let source = about.take_text("source").filter(|source| !source.is_empty()).or_else(|| context.take_text("source")).unwrap_or_default();
    let mut event = Event::new(our, transition, source, about.take_text("id").unwrap_or_default(), time);
    event.id = context.take_text("id").unwrap_or_default();
    if our == Subject::Other {
        event.set_text("type", context.take_text("type"));
        body.flatten("", &mut event.attributes)?;
    } else {
        fill(&mut event, body, &subject, &predicate)?;
    }
    if let Some(custom) = document.take("customData") {
        fill_custom(&mut event, custom)?;
    }
    Ok(event)
}

enum Kind {
    Official { spec: &'static Spec, newer: bool },
    Custom { subject: String, predicate: String },
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("dev.cdeventsx.") {
            let mut parts = rest.splitn(3, '.');
            let (subject, predicate, version) = (parts.next()?, parts.next()?, parts.next()?);
            let (tool, name) = subject.split_once('-')?;
            let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic());
            let is_tool = !tool.is_empty() && tool.bytes().all(|b| b.is_ascii_alphanumeric());
            let is_version = version.len() == 5 && versions(version).is_some();
            let known = is_tool && is_word(name) && is_word(predicate) && is_version;
            return known.then(|| Self::Custom { subject: subject.to_owned(), predicate: predicate.to_owned() });
        }
        let mut parts = text.strip_prefix("dev.cdevents.")?.splitn(3, '.');
        let (subject, predicate, version) = (parts.next()?, parts.next()?, parts.next()?);
        let (major, minor) = versions(version)?;
        let spec = spec::SPECS.iter().find(|spec| spec.subject == subject && spec.predicate == predicate && spec.major == major)?;
        Some(Self::Official { spec, newer: minor > spec.minor })
    }

    fn words(&self) -> (Cow<'static, str>, Cow<'static, str>) {
        match self {
            Self::Official { spec, .. } => (Cow::Borrowed(spec.subject), Cow::Borrowed(spec.predicate)),
            Self::Custom { subject, predicate } => (Cow::Owned(subject.clone()), Cow::Owned(predicate.clone())),
        }
    }
}

/// Major and minor of `major.minor.patch`, whose patch may carry a suffix such as `-draft`.
fn versions(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.splitn(3, '.');
    let number = |text: &str| if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok() } else { None };
    let (major, minor) = (number(parts.next()?)?, number(parts.next()?)?);
    number(parts.next()?.split('-').next()?)?;
    Some((major, minor))
}

fn check(document: &Json<'_>, kind: &Kind) -> Result<(), DecodeError> {
    let field = |name, required, node| Field { name, required, node };
    let (context_source, subject_source, content, typed, newer) = match kind {
        Kind::Official { spec, newer } => (spec.context_source, spec.subject_source, spec.content, spec.subject_type, *newer),
        Kind::Custom { .. } => (REFERENCE, REFERENCE, Node::Any, false, false),
    };
    let content = match content {
        Node::Object { fields, .. } if newer => Node::Object { open: true, fields },
        content => content,
    };
    let source = field("source", true, context_source);
    let envelope = document.get("context").unwrap_or(&Json::Null);
    check_object(envelope, CONTEXT, &[source], false, Path::Key(&Path::Root, "context"))?;
    let ticket = Node::Text { filled: true, form: Form::Any, words: &["ticket"] };
    let id = Node::Text { filled: true, form: Form::Any, words: &[] };
    let fields =
        [field("id", true, id), field("source", false, subject_source), field("content", true, content), field("type", false, ticket)];
    let fields = if typed { &fields[..] } else { &fields[..3] };
    let subject = document.get("subject").unwrap_or(&Json::Null);
    check_object(subject, &[], fields, false, Path::Key(&Path::Root, "subject"))
}

/// Which subject and transition of ours a type means.
fn target(subject: &str, predicate: &str, content: &Json<'_>) -> (Subject, Transition) {
    let is_incident = content.get("ticketType").and_then(Json::as_text) == Some("incident");
    let ours = match (subject, predicate) {
        ("pipelinerun", _) => Subject::PipelineRun,
        ("taskrun" | "build", _) => Subject::TaskRun,
        ("change", _) => Subject::Change,
        ("artifact", _) => Subject::Artifact,
        ("environment", _) => Subject::Environment,
        ("repository", _) => Subject::Repository,
        ("service", "deployed" | "upgraded" | "rolledback") => Subject::Deployment,
        ("testcaserun" | "testsuiterun", _) => Subject::TestResult,
        ("incident", _) => Subject::Incident,
        ("ticket", _) if is_incident => Subject::Incident,
        _ => Subject::Other,
    };
    let transition = match (ours, predicate) {
        (Subject::Deployment, "rolledback") => Transition::RolledBack,
        (Subject::Deployment, _) => Transition::Finished,
        (Subject::Incident, "created") => Transition::Reported,
        (Subject::Incident, "closed") => Transition::Resolved,
        (_, "modified") => Transition::Updated,
        (_, word) => Transition::parse(word).unwrap_or(Transition::Recorded),
    };
    if kiro_schemas::subject::spec(ours).transition(transition).is_some() {
        (ours, transition)
    } else {
        (Subject::Other, Transition::Recorded)
    }
}

/// Puts a text into the first of our columns that the subject has; into the attributes when it has none.
fn put<'a>(event: &mut Event<'a>, key: &str, columns: &[&str], text: Cow<'a, str>) {
    match columns.iter().find_map(|column| event.spec().field(column)) {
        Some(at) => event.fields[at] = Value::Text(text),
        None => event.attributes.push((Cow::Owned(key.to_owned()), text)),
    }
}

fn columns_of(key: &str, subject: &str) -> &'static [&'static str] {
    match (key, subject) {
        ("pipelineName", _) => &["pipeline"],
        ("taskName", _) => &["task"],
        ("uri" | "viewUrl" | "ticketURI", _) => &["url"],
        ("outcome", _) => &["outcome"],
        ("artifactId", _) => &["artifact_id"],
        ("pipelineRun", _) => &["run_id"],
        ("environment", _) => &["environment"],
        ("service", _) => &["service"],
        ("change", _) => &["change_id"],
        ("name", _) => &["name"],
        ("owner", _) => &["owner"],
        ("user", _) => &["actor"],
        ("signature", _) => &["signature"],
        ("description" | "summary", _) => &["title"],
        ("severity" | "priority", _) => &["severity"],
        ("reason", _) => &["reason"],
        ("resolution", "ticket") => &["status"],
        ("sbom", _) => &["sbom_url"],
        ("testCase", _) => &["test"],
        ("testSuite" | "testSuiteRun", _) => &["suite"],
        _ => &[],
    }
}

fn fill<'a>(event: &mut Event<'a>, content: Json<'a>, subject: &str, predicate: &str) -> Result<(), DecodeError> {
    let Json::Object(pairs) = content else { return Ok(()) };
    for (key, mut value) in pairs {
        let columns = columns_of(&key, subject);
        let has_column = columns.iter().any(|column| event.spec().field(column).is_some());
        let text = match (&value, key.as_ref()) {
            (Json::Object(_), "sbom") => value.take_text("uri"),
            (Json::Object(_), "testCase" | "testSuite") if value.get("name").is_some() => value.take_text("name"),
            (Json::Object(_), _) if has_column => value.take_text("id"),
            (Json::Text(_), _) => std::mem::replace(&mut value, Json::Null).scalar(),
            _ => None,
        };
        if let Some(text) = text {
            let is_free = key == "outcome" && Outcome::parse(&text).is_none();
            if let Some(outcome) = Outcome::of_provider(&text).filter(|_| is_free && event.spec().field("outcome").is_some()) {
                event.set("outcome", Value::text(outcome.as_str()));
            }
            put(event, &key, if is_free { &["status"] } else { columns }, text);
        }
        value.flatten(&key, &mut event.attributes)?;
    }
    if event.subject == Subject::Deployment {
        event.set("outcome", Value::text("success"));
        event.set("is_rollback", Value::Bool(predicate == "rolledback"));
        // The subject of a service event is the service; each deployment of it is a fact of its own.
        let service = std::mem::replace(&mut event.subject_id, event.id.clone());
        event.set("service", Value::Text(service));
    }
    if predicate == "skipped" && event.subject == Subject::TestResult {
        event.set("outcome", Value::text("skip"));
    }
    Ok(())
}

/// The documented keys of `customData` fill columns; its other scalars are attributes.
fn fill_custom<'a>(event: &mut Event<'a>, custom: Json<'a>) -> Result<(), DecodeError> {
    let Json::Object(pairs) = custom else { return Ok(()) };
    for (key, value) in pairs {
        let fail = |problem: &str| Err(DecodeError::shape(format!("customData.{}", clip(&key)), problem));
        match (key.as_ref(), value) {
            ("runAttempt", Json::Int(attempt)) if attempt >= 1 => event.attempt = attempt,
            ("runAttempt", Json::Null) => {}
            ("runAttempt", _) => return fail("must be an integer of at least 1"),
            ("knownAt" | "queuedAt" | "startedAt", Json::Text(text)) => {
                let Some(time) = Micros::parse(&text).filter(|time| time.is_storable()) else {
                    return fail("must be an RFC 3339 time between 1970 and 9999");
                };
                let column = match key.as_ref() {
                    "queuedAt" => "queued_at",
                    _ => "started_at",
                };
                if key == "knownAt" {
                    event.known_at = Some(time);
                } else if let Some(at) = event.spec().field(column) {
                    event.fields[at] = Value::Time(time);
                } else {
                    event.attributes.push((key, text));
                }
            }
            (_, Json::Text(text)) => {
                let columns: &[&str] = match key.as_ref() {
                    "commitSha" => &["commit_sha"],
                    "refName" => &["branch"],
                    "trigger" => &["trigger"],
                    "rawStatus" => &["status"],
                    "environment" => &["environment"],
                    "actor" => &["actor", "author"],
                    "runId" => &["run_id"],
                    "changeId" => &["change_id"],
                    "pipelineName" => &["pipeline"],
                    _ => &[],
                };
                put(event, &key, columns, text);
            }
            (_, value) => {
                if let Some(text) = value.scalar() {
                    event.attributes.push((key, text));
                }
            }
        }
    }
    Ok(())
}
