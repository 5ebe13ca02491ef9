//! Checks a document against the table of types.

use kiro_schemas::Micros;

use crate::decode::json::Json;
use crate::decode::uri::is_uri;
use crate::decode::{DecodeError, error::clip};

/// One type of event.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) subject: &'static str,
    pub(super) predicate: &'static str,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) context_source: Node,
    pub(super) subject_source: Node,
    pub(super) subject_type: bool,
    pub(super) content: Node,
}

/// The format of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Any,
    Time,
    Uri,
    UriReference,
}

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Text { filled: bool, form: Form, words: &'static [&'static str] },
    Object { open: bool, fields: &'static [Field] },
    Texts,
    Any,
    Links,
    CustomData,
}

/// One field of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) node: Node,
}

const TEXT: Node = Node::Text { filled: false, form: Form::Any, words: &[] };
const FILLED: Node = Node::Text { filled: true, form: Form::Any, words: &[] };

const fn field(name: &'static str, required: bool, node: Node) -> Field {
    Field { name, required, node }
}

const TIME: Node = Node::Text { filled: false, form: Form::Time, words: &[] };
const SCHEMA: Node = Node::Text { filled: true, form: Form::Uri, words: &[] };

/// The context without its source, which is not the same for all types.
pub(super) static CONTEXT: &[Field] = &[
    field("specversion", true, FILLED),
    field("id", true, FILLED),
    field("type", true, FILLED),
    field("timestamp", true, TIME),
    field("schemaUri", false, SCHEMA),
    field("chainId", false, FILLED),
    field("links", false, Node::Links),
];

/// What stands beside context and subject.
pub(super) static TOP: &[Field] = &[
    field("context", true, Node::Any),
    field("subject", true, Node::Any),
    field("customData", false, Node::CustomData),
    field("customDataContentType", false, TEXT),
];

/// Where a check stands in the document; a path costs nothing until it is told.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn text(self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(Self::Root, key) => clip(key),
            Self::Key(parent, key) => format!("{}.{}", parent.text(), clip(key)),
            Self::Index(parent, at) => format!("{}[{at}]", parent.text()),
        }
    }

    pub(super) fn fail<T>(self, problem: impl Into<String>) -> Result<T, DecodeError> {
        Err(DecodeError::shape(self.text(), problem))
    }
}

impl Node {
    pub(super) fn check(&self, value: &Json<'_>, path: Path<'_>) -> Result<(), DecodeError> {
        match self {
            Self::Text { filled, form, words } => check_text(value, *filled, *form, words, path),
            Self::Object { open, fields } => check_object(value, fields, &[], *open, path),
            Self::Texts => match value {
                Json::Array(values) => values.iter().enumerate().try_for_each(|(at, value)| TEXT.check(value, Path::Index(&path, at))),
                other => path.fail(format!("expected an array, found {}", other.kind())),
            },
            Self::Any => match value {
                Json::Object(_) => Ok(()),
                other => path.fail(format!("expected an object, found {}", other.kind())),
            },
            Self::Links => match value {
                Json::Array(values) => values.iter().enumerate().try_for_each(|(at, value)| check_link(value, Path::Index(&path, at))),
                other => path.fail(format!("expected an array, found {}", other.kind())),
            },
            Self::CustomData => match value {
                Json::Object(_) | Json::Text(_) => Ok(()),
                other => path.fail(format!("expected an object or base64, found {}", other.kind())),
            },
        }
    }
}

fn check_text(value: &Json<'_>, filled: bool, form: Form, words: &[&str], path: Path<'_>) -> Result<(), DecodeError> {
    let Json::Text(text) = value else { return path.fail(format!("expected a text, found {}", value.kind())) };
    if filled && text.is_empty() {
        return path.fail("must not be empty");
    }
    if !words.is_empty() && !words.contains(&text.as_ref()) {
        return path.fail(format!("{:?} is not one of {}", clip(text), words.join(", ")));
    }
    let (fine, name) = match form {
        Form::Any => (true, ""),
        Form::Time => (!text.contains(' ') && Micros::parse(text).is_some(), "RFC 3339 time"),
        Form::Uri => (is_uri(text, true), "URI"),
        Form::UriReference => (is_uri(text, false), "URI reference"),
    };
    if fine { Ok(()) } else { path.fail(format!("not a {name}: {:?}", clip(text))) }
}

/// Checks an object whose fields stand in two lists.
pub(super) fn check_object(value: &Json<'_>, fields: &[Field], more: &[Field], open: bool, path: Path<'_>) -> Result<(), DecodeError> {
    let Json::Object(pairs) = value else { return path.fail(format!("expected an object, found {}", value.kind())) };
    for (name, value) in pairs {
        match fields.iter().chain(more).find(|field| field.name == name) {
            Some(field) => field.node.check(value, Path::Key(&path, name))?,
            None if open => {}
            None => return Path::Key(&path, name).fail("is not known"),
        }
    }
    for field in fields.iter().chain(more).filter(|field| field.required) {
        if value.get(field.name).is_none() {
            return Path::Key(&path, field.name).fail("is missing");
        }
    }
    Ok(())
}

fn check_link(link: &Json<'_>, path: Path<'_>) -> Result<(), DecodeError> {
    let kind = link.get("linkType").and_then(Json::as_text).unwrap_or_default();
    let tags = field("tags", false, Node::Any);
    let (fields, end) = match kind {
        "END" => ([field("linkType", true, TEXT), field("from", false, Node::Any), tags, tags], "from"),
        "PATH" => ([field("linkType", true, TEXT), field("from", true, Node::Any), tags, tags], "from"),
        "RELATION" => ([field("linkType", true, TEXT), field("linkKind", true, FILLED), field("target", true, Node::Any), tags], "target"),
        _ => return Path::Key(&path, "linkType").fail("is not END, PATH or RELATION"),
    };
    check_object(link, &fields, &[], false, path)?;
    let Some(end_value) = link.get(end) else { return Ok(()) };
    let path = Path::Key(&path, end);
    let domain = Node::Text { filled: false, form: Form::UriReference, words: &[] };
    check_object(end_value, &[field("contextId", false, FILLED), field("domainId", false, domain)], &[], true, path)?;
    let domain = end_value.get("domainId").and_then(Json::as_text);
    if domain.is_none() && end_value.get("contextId").is_none() {
        return path.fail("has neither contextId nor domainId");
    }
    if kind == "RELATION" && domain.is_some_and(|domain| !is_domain_id(domain)) {
        return path.fail("domainId is not cdevents:v0:provider:provider-id:namespace:groups:type:id");
    }
    Ok(())
}

fn is_domain_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("cdevents:v0:") else { return false };
    let parts: Vec<&str> = rest.splitn(6, ':').collect();
    let [_, _, _, groups, kind, id] = parts.as_slice() else { return false };
    !groups.starts_with('/') && !groups.ends_with('/') && !kind.is_empty() && !id.is_empty() && !id.starts_with('\n')
}
