//! A platform of its own on a free port: it gives the pages of a small world, checks each question and each answer by the
//! description of the API, and fails as it is told to.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use jsonschema::Validator;
use kiro_schemas::Micros;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What opens it.
pub(crate) const TOKEN: &str = "token-of-the-api-0a1b2c3d";
/// The clock of this platform.
pub(crate) const NOW: &str = "2026-03-01T12:00:00Z";

/// How a request is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// With a status.
    Status(u16),
    /// By a limit that says for how many seconds.
    RetryAfter(u16, u64),
    /// By a limit that says nothing but that it is one.
    Secondary,
    /// By a window without requests that ends in a second.
    Window,
    /// In the middle of its answer.
    Cut,
    /// By bytes that are no JSON.
    Garbage,
}

/// Rows that are given in pages, or one object.
#[derive(Debug, Clone)]
pub(crate) enum Thing {
    /// An object.
    One(Value),
    /// Rows, and the field that they stand in; at the top if there is none.
    List(Vec<Value>, Option<&'static str>),
}

/// What there is, by its path.
pub(crate) type World = BTreeMap<String, Thing>;

/// A change of the world before a request is answered.
type Change = Box<dyn FnOnce(&mut World) + Send>;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) status: u16,
    pub(crate) at: std::time::Instant,
}

#[derive(Default)]
struct Inner {
    world: World,
    faults: HashMap<usize, Fault>,
    changes: HashMap<usize, Change>,
    seen: Vec<Seen>,
    problems: Vec<String>,
}

/// The platform.
#[derive(Clone)]
pub(crate) struct Forge {
    inner: Arc<Mutex<Inner>>,
    description: Arc<Value>,
    validators: Arc<HashMap<String, Validator>>,
    token_header: &'static str,
    prefix: &'static str,
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Whether a path is one of those that a template names; an encoded part stays one part.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t == p || (t.starts_with('{') && !p.is_empty()))
}

impl Forge {
    /// A platform that is described, with what is in it.
    pub(crate) fn new(description: &str, world: World) -> Self {
        let description: Value = serde_json::from_str(description).expect("a description");
        let validator = |(path, of): (&String, &Value)| (path.clone(), jsonschema::validator_for(&of["schema"]).expect("a schema"));
        let validators = description["paths"].as_object().expect("paths").iter().map(validator).collect();
        let is_github = description["paths"].get("/user").is_some() && description["paths"].get("/projects/{id}").is_none();
        let (token_header, prefix) = if is_github { ("authorization", "Bearer ") } else { ("private-token", "") };
        let inner = Inner { world, ..Inner::default() };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            description: Arc::new(description),
            validators: Arc::new(validators),
            token_header,
            prefix,
        }
    }

    /// Opens it; it is closed with the runtime.
    pub(crate) async fn open(&self) -> SocketAddr {
        let app = Router::new().fallback(answer).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
        at
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails requests, by their number.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = (usize, Fault)>) {
        self.lock().faults.extend(faults);
    }

    /// Changes the world before the request of a number is answered.
    pub(crate) fn change_at(&self, number: usize, change: impl FnOnce(&mut World) + Send + 'static) {
        self.lock().changes.insert(number, Box::new(change));
    }

    /// Changes the world now.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.lock().world);
    }

    /// The requests that came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// What was not as the description says.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// Answers a request: status, headers, body.
    fn reply(&self, uri: &Uri, headers: &HeaderMap) -> (u16, Vec<(&'static str, String)>, String) {
        let mut inner = self.lock();
        let number = inner.seen.len();
        if let Some(change) = inner.changes.remove(&number) {
            change(&mut inner.world);
        }
        let given = headers.get(self.token_header).and_then(|value| value.to_str().ok());
        let mut out =
            vec![("date", http_date(Micros::parse(NOW).expect("a time"))), ("x-ratelimit-remaining", (5_000 - number % 5_000).to_string())];
        if given != Some(format!("{}{TOKEN}", self.prefix).as_str()) {
            return (401, out, "{\"message\":\"Bad credentials\"}".to_owned());
        }
        if let Some(fault) = inner.faults.remove(&number) {
            return failed(fault, out);
        }
        let path = uri.path().to_owned();
        let asked = query(uri.query().unwrap_or_default());
        let Some((template, described)) =
            self.description["paths"].as_object().expect("paths").iter().find(|(template, _)| fits(template, &path))
        else {
            inner.problems.push(format!("{path} is not described"));
            return (404, out, "{}".to_owned());
        };
        for (name, value) in &asked {
            let schema = &described["query"][name];
            let value = if schema["type"] == "integer" || schema["type"] == "boolean" {
                value.parse::<Value>().unwrap_or_default()
            } else {
                json!(value)
            };
            let is_right = !schema.is_null() && jsonschema::is_valid(schema, &value);
            if !is_right {
                inner.problems.push(format!("{path}: {name}={value} is not described"));
            }
        }
        let Some(thing) = inner.world.get(&path) else { return (404, out, "{\"message\":\"Not Found\"}".to_owned()) };
        let (body, next) = page(thing, &asked);
        if let Some(page) = next {
            let query: Vec<String> =
                asked.iter().filter(|(name, _)| *name != "page").map(|(name, value)| format!("{name}={value}")).collect();
            out.push(("link", format!("<https://elsewhere.example{path}?{}&page={page}>; rel=\"next\"", query.join("&"))));
        }
        let wrong: Vec<String> = self.validators[template]
            .iter_errors(&body)
            .map(|error| format!("{path}: {error} at {}", error.instance_path()))
            .take(3)
            .collect();
        inner.problems.extend(wrong);
        let body = body.to_string();
        let tag = format!("W/\"{:x}\"", body.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())));
        let is_known = headers.get("if-none-match").is_some_and(|given| given.to_str().ok() == Some(tag.as_str()));
        out.push(("etag", tag));
        if is_known { (304, out, String::new()) } else { (200, out, body) }
    }
}

/// How a request is answered that is to fail; the status 0 is an answer that breaks off.
fn failed(fault: Fault, mut out: Vec<(&'static str, String)>) -> (u16, Vec<(&'static str, String)>, String) {
    match fault {
        Fault::Status(status) => (status, out, "{\"message\":\"no\"}".to_owned()),
        Fault::RetryAfter(status, seconds) => {
            out.push(("retry-after", seconds.to_string()));
            (status, out, "{\"message\":\"slow down\"}".to_owned())
        }
        Fault::Secondary => (403, out, "{\"message\":\"You have exceeded a secondary rate limit.\"}".to_owned()),
        Fault::Window => {
            let reset = Micros::parse(NOW).expect("a time").0 / 1_000_000;
            out.retain(|(name, _)| *name != "x-ratelimit-remaining");
            out.extend([("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", reset.to_string())]);
            (403, out, "{\"message\":\"API rate limit exceeded\"}".to_owned())
        }
        Fault::Garbage => (200, out, "<html>".to_owned()),
        Fault::Cut => (0, out, String::new()),
    }
}

/// The rows that a question asks for, in its order.
fn rows(all: &[Value], asked: &BTreeMap<String, String>) -> Vec<Value> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let get = |name: &str| asked.get(name).map(String::as_str);
    let mut found: Vec<Value> = all.to_vec();
    if let Some((from, to)) = get("created").and_then(|range| range.split_once("..")) {
        found.retain(|row| (from..=to).contains(&&*text(row, "created_at")));
    }
    if let Some(since) = get("since").or(get("updated_after")) {
        found.retain(|row| &*text(row, "updated_at") >= since);
    }
    let by = match (get("order_by"), get("sort")) {
        (Some(by), _) => by.to_owned(),
        (None, Some(by @ ("updated" | "created"))) => format!("{by}_at"),
        _ => "created_at".to_owned(),
    };
    found.sort_by_key(|row| (text(row, &by), row["id"].as_i64()));
    let is_ascending = get("direction").or(get("sort")) == Some("asc");
    if !is_ascending {
        found.reverse();
    }
    found
}

fn page(thing: &Thing, asked: &BTreeMap<String, String>) -> (Value, Option<usize>) {
    let (all, field) = match thing {
        Thing::One(one) => return (one.clone(), None),
        Thing::List(all, field) => (all, field),
    };
    let number = |name: &str, default| asked.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (page, size): (usize, usize) = (number("page", 1), number("per_page", 30));
    let found = rows(all, asked);
    let count = found.len();
    // As GitHub does with a filter.
    let most = if asked.contains_key("created") { 1_000 } else { usize::MAX };
    let shown: Vec<Value> = found.into_iter().take(most).skip((page - 1) * size).take(size).collect();
    let next = (page * size < count.min(most)).then_some(page + 1);
    (field.map_or_else(|| json!(shown), |field| json!({"total_count": count, field: shown})), next)
}

fn http_date(time: Micros) -> String {
    let text = time.to_string();
    let (date, clock) = text.trim_end_matches('Z').split_once('T').expect("a time");
    let parts: Vec<&str> = date.split('-').collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[parts[1].parse::<usize>().expect("a month") - 1];
    format!("Sun, {} {month} {} {clock} GMT", parts[2], parts[0])
}

async fn answer(State(forge): State<Forge>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let (status, told, body) = forge.reply(&uri, &headers);
    let seen = Seen { path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned(), status, at: now() };
    forge.lock().seen.push(seen);
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
    for (name, value) in told {
        response = response.header(name, value);
    }
    if status == 0 {
        // Half of what was announced.
        let pieces = [Ok(Bytes::from_static(b"{\"half\":")), Err(std::io::Error::other("cut"))];
        return response.body(Body::from_stream(futures::stream::iter(pieces))).expect("a response");
    }
    response.header("content-type", "application/json").body(Body::from(body)).expect("a response")
}

#[expect(clippy::disallowed_methods, reason = "how long a client waits is measured")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
