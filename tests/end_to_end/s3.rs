//! An object store of our own that speaks S3: each request is answered as one step, so that of two conditional puts of one
//! name exactly one is taken. It can be slow.

#![expect(clippy::expect_used, reason = "a text takes whatever is written to it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

/// A page of a listing.
const PAGE: usize = 1_000;
/// Larger bodies are none of ours.
const MOST_BYTES: usize = 1 << 30;

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    tag: u64,
    changed: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<u64, BTreeMap<u32, Bytes>>,
    last: u64,
}

#[derive(Debug, Default)]
struct Shared {
    bucket: Mutex<Bucket>,
    delay_ms: AtomicU64,
    puts: AtomicUsize,
    refused: AtomicUsize,
}

/// A running store with one bucket, `lake`; it ends with what holds it.
#[derive(Debug)]
pub(crate) struct S3 {
    at: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3 {
    pub(crate) fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (at, shared) = (listener.local_addr()?, Arc::<Shared>::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! { served = axum::serve(listener, router) => served, _ = stopped => Ok(()) }
            });
            if let Err(error) = served {
                eprintln!("the object store ended: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("s3".to_owned()).spawn(work)?;
        Ok(Self { at, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What a process needs to find it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.at)),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// From now on each put takes so much longer.
    pub(crate) fn delay_puts(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Puts so far, and conditional ones among them that were refused because somebody was first.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.shared.puts.load(Ordering::Relaxed), self.shared.refused.load(Ordering::Relaxed))
    }

    /// Writes what it holds under a prefix to a directory, for who reads files.
    pub(crate) fn copy_to(&self, prefix: &str, dir: &std::path::Path) -> Result<usize> {
        let bucket = self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (name, object) in bucket.objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix)) {
            let file = dir.join(name.trim_start_matches(prefix).trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().context("no folder")?)?;
            std::fs::write(file, &object.bytes)?;
            count += 1;
        }
        Ok(count)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the object store broke");
        }
    }
}

/// A request as far as the bucket looks at it.
struct Ask {
    method: Method,
    key: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn upload(&self) -> Option<u64> {
        self.query.get("uploadId")?.parse().ok()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BYTES).await else { return plain(StatusCode::BAD_REQUEST, "") };
    let path = decoded(head.uri.path());
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
    let pairs = head.uri.query().unwrap_or("").split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = pairs.map(|(name, value)| (decoded(name), decoded(&value.replace('+', " ")))).collect();
    let ask = Ask { method: head.method, key, query, headers: head.headers, body };
    if ask.method == Method::PUT {
        shared.puts.fetch_add(1, Ordering::Relaxed);
        let delay = shared.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
    }
    let reply = shared.bucket.lock().unwrap_or_else(PoisonError::into_inner).serve(&ask);
    if reply.status() == StatusCode::PRECONDITION_FAILED {
        shared.refused.fetch_add(1, Ordering::Relaxed);
    }
    reply
}

impl Bucket {
    fn serve(&mut self, ask: &Ask) -> Response<Body> {
        match (&ask.method, ask.key.is_empty()) {
            (&Method::GET, true) => self.list(ask),
            (&Method::POST, true) => self.delete_many(ask),
            (&Method::PUT, true) => plain(StatusCode::OK, ""),
            (&Method::GET | &Method::HEAD, false) => self.get(ask),
            (&Method::PUT, false) => self.put(ask),
            (&Method::POST, false) => self.multipart(ask),
            (&Method::DELETE, false) => {
                match ask.upload() {
                    Some(upload) => drop(self.uploads.remove(&upload)),
                    None => drop(self.objects.remove(&ask.key)),
                }
                plain(StatusCode::NO_CONTENT, "")
            }
            _ => plain(StatusCode::NOT_IMPLEMENTED, ""),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "when an object was changed, as a store tells it")]
    fn keep(&mut self, key: &str, bytes: Bytes) -> u64 {
        self.last += 1;
        self.objects.insert(key.to_owned(), Object { bytes, tag: self.last, changed: Utc::now() });
        self.last
    }

    fn put(&mut self, ask: &Ask) -> Response<Body> {
        if let (Some(upload), Some(part)) = (ask.upload(), ask.query.get("partNumber").and_then(|part| part.parse().ok())) {
            let Some(parts) = self.uploads.get_mut(&upload) else { return plain(StatusCode::NOT_FOUND, "") };
            parts.insert(part, ask.body.clone());
            return tagged(u64::from(part), Body::empty());
        }
        let found = self.objects.get(&ask.key);
        let is_met = match (ask.header(header::IF_NONE_MATCH), ask.header(header::IF_MATCH)) {
            (Some(_), _) => found.is_none(),
            (None, Some(tag)) => found.is_some_and(|object| tag == quoted(object.tag)),
            (None, None) => true,
        };
        if !is_met {
            return plain(StatusCode::PRECONDITION_FAILED, "<Error><Code>PreconditionFailed</Code></Error>");
        }
        let tag = self.keep(&ask.key, ask.body.clone());
        tagged(tag, Body::empty())
    }

    fn get(&self, ask: &Ask) -> Response<Body> {
        let Some(object) = self.objects.get(&ask.key) else {
            return plain(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
        };
        let size = object.bytes.len();
        let Some(range) = ask.header(header::RANGE).map_or(Some(0..size), |text| range_of(text, size)) else {
            return plain(StatusCode::RANGE_NOT_SATISFIABLE, "");
        };
        let part = object.bytes.slice(range.clone());
        let mut reply = Response::builder()
            .header(header::ETAG, quoted(object.tag))
            .header(header::LAST_MODIFIED, object.changed.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .header(header::CONTENT_LENGTH, part.len());
        if part.len() < size {
            let told = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            reply = reply.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, told);
        }
        let body = if ask.method == Method::HEAD { Body::empty() } else { Body::from(part) };
        reply.body(body).unwrap_or_default()
    }

    fn list(&self, ask: &Ask) -> Response<Body> {
        let given = |name: &str| ask.query.get(name).map_or("", String::as_str);
        let (prefix, delimiter) = (given("prefix"), given("delimiter"));
        let after = given("continuation-token").max(given("start-after"));
        let (mut text, mut folders, mut count, mut last) = (String::new(), Vec::<String>::new(), 0, None);
        for (key, object) in self.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if key.as_str() <= after {
                continue;
            }
            if count == PAGE {
                last = Some(key.clone());
                break;
            }
            let rest = key.get(prefix.len()..).unwrap_or("");
            if let Some(end) = rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
                let folder = format!("{prefix}{}{delimiter}", rest.get(..end).unwrap_or(""));
                if folders.last() != Some(&folder) {
                    folders.push(folder);
                }
                continue;
            }
            count += 1;
            let (changed, size) = (object.changed.format("%Y-%m-%dT%H:%M:%S.000Z"), object.bytes.len());
            write!(
                text,
                "<Contents><Key>{}</Key><LastModified>{changed}</LastModified><ETag>{}</ETag><Size>{size}</Size></Contents>",
                escaped(key),
                escaped(&quoted(object.tag))
            )
            .expect("text");
        }
        for folder in folders {
            write!(text, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escaped(&folder)).expect("text");
        }
        // The next page begins after the last key of this one.
        let before = last.as_ref().and_then(|last| self.objects.range::<String, _>(..last).next_back()).map(|(key, _)| escaped(key));
        let next = before.map(|key| format!("<NextContinuationToken>{key}</NextContinuationToken>")).unwrap_or_default();
        let is_more = last.is_some();
        plain(StatusCode::OK, format!("<ListBucketResult><IsTruncated>{is_more}</IsTruncated>{next}{text}</ListBucketResult>"))
    }

    fn delete_many(&mut self, ask: &Ask) -> Response<Body> {
        let body = String::from_utf8_lossy(&ask.body);
        let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| unescaped(key));
        let mut text = String::new();
        for key in keys {
            self.objects.remove(&key);
            write!(text, "<Deleted><Key>{}</Key></Deleted>", escaped(&key)).expect("text");
        }
        plain(StatusCode::OK, format!("<DeleteResult>{text}</DeleteResult>"))
    }

    fn multipart(&mut self, ask: &Ask) -> Response<Body> {
        let Some(upload) = ask.upload() else {
            self.last += 1;
            self.uploads.insert(self.last, BTreeMap::new());
            let last = self.last;
            return plain(
                StatusCode::OK,
                format!("<InitiateMultipartUploadResult><UploadId>{last}</UploadId></InitiateMultipartUploadResult>"),
            );
        };
        let Some(parts) = self.uploads.remove(&upload) else { return plain(StatusCode::NOT_FOUND, "") };
        let whole: Vec<u8> = parts.into_values().flatten().collect();
        let tag = self.keep(&ask.key, whole.into());
        let tag = escaped(&quoted(tag));
        plain(StatusCode::OK, format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"))
    }
}

fn quoted(tag: u64) -> String {
    format!("\"{tag}\"")
}

fn tagged(tag: u64, body: Body) -> Response<Body> {
    Response::builder().header(header::ETAG, quoted(tag)).body(body).unwrap_or_default()
}

fn plain(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap_or_default()
}

/// `bytes=1-2`, `bytes=1-`, `bytes=-2`.
fn range_of(text: &str, size: usize) -> Option<Range<usize>> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        return Some(size.saturating_sub(to.parse().ok()?)..size);
    }
    let from: usize = from.parse().ok()?;
    let end = if to.is_empty() { size } else { to.parse::<usize>().ok()?.saturating_add(1).min(size) };
    (from < end).then_some(from..end)
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (b'%', Some(byte)) = (first, hex) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&")
}
