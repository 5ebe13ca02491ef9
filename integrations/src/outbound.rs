//! The one client that calls other people's systems.
//!
//! It resolves names itself and connects only to the addresses that it checked, so that a name cannot change its mind between
//! check and use. Redirects and proxies are off.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use url::{Host, Url};

use crate::{Error, Result};

mod address;

pub use address::Allowed;

/// Longer answers to posts are cut off.
const MAX_ANSWER: usize = 256 * 1024;
/// Longer pages are refused: half of one cannot be read.
const MAX_PAGE: usize = 16 << 20;

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The seconds of `Retry-After`, where it is a number.
    pub retry_after: Option<Duration>,
    /// The body, cut at 256 KiB.
    pub body: Vec<u8>,
}

/// A page that was asked for, whole.
#[derive(Debug, Clone)]
pub struct Got {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// A POST of JSON.
#[derive(Debug, Clone, Default)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// Names and values; values of secrets do not get into errors.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON.
    pub body: Vec<u8>,
}

/// Calls out, to the public internet and what an operator permits.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    allowed: Arc<[Allowed]>,
}

impl Client {
    /// Builds a client; the process must have installed a rustls provider.
    ///
    /// # Errors
    /// [`Error::Client`]: TLS cannot be set up.
    pub fn new(allowed: Vec<Allowed>, timeout: Duration) -> Result<Self> {
        let allowed: Arc<[Allowed]> = allowed.into();
        let http = reqwest::Client::builder()
            .dns_resolver(Checked { allowed: Arc::clone(&allowed) })
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5).min(timeout))
            .timeout(timeout)
            .user_agent("KiroLinter")
            .build()
            .map_err(|source| Error::Client { source: source.without_url() })?;
        Ok(Self { http, allowed })
    }

    /// Sends, once.
    ///
    /// # Errors
    /// [`Error::Address`] before anything is sent; [`Error::Call`] when no answer came.
    pub async fn post(&self, post: Post) -> Result<Answer> {
        let url = self.check(&post.url)?;
        let failed = failure(&url);
        let mut request = self.http.post(url).header("content-type", "application/json").body(post.body);
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(&failed)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        while body.len() < MAX_ANSWER {
            let Some(chunk) = response.chunk().await.map_err(&failed)? else { break };
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
        }
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), body })
    }

    /// Asks for a page, once.
    ///
    /// # Errors
    /// As [`Client::post`], and [`Error::LongPage`].
    pub async fn get(&self, url: &str, headers: Vec<(&'static str, String)>) -> Result<Got> {
        let url = self.check(url)?;
        let (failed, host) = (failure(&url), url.host_str().unwrap_or_default().to_owned());
        let mut request = self.http.get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(&failed)?;
        let (status, headers, mut body) = (response.status().as_u16(), response.headers().clone(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(&failed)? {
            if body.len() + chunk.len() > MAX_PAGE {
                return Err(Error::LongPage { host, most: MAX_PAGE });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Got { status, headers, body })
    }

    /// Whether an operator has named the host of a URL.
    #[must_use]
    pub fn is_named(&self, text: &str) -> bool {
        let Ok(url) = Url::parse(text) else { return false };
        let (host, port) = (url.host_str().unwrap_or_default().trim_matches(['[', ']']), url.port_or_known_default().unwrap_or(0));
        let has_address = |allowed: &Allowed| host.parse().is_ok_and(|address| allowed.has_address(address));
        self.allowed.iter().any(|allowed| allowed.has_host(host, port) || has_address(allowed))
    }

    /// An address in the URL itself is not resolved, so it is checked here.
    fn check(&self, text: &str) -> Result<Url> {
        let refused = |reason: &'static str| Error::Address { reason };
        let url = Url::parse(text).map_err(|_source| refused("it is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("only http and https are called"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("a URL must not hold a user or password"));
        }
        let port = url.port_or_known_default().unwrap_or(0);
        let address = match url.host() {
            None => return Err(refused("it has no host")),
            Some(Host::Domain(name)) => {
                let is_permitted =
                    self.allowed.iter().any(|allowed| matches!(allowed, Allowed::Host(host, _) if host.eq_ignore_ascii_case(name)));
                let at_port = self.allowed.iter().any(|allowed| allowed.has_host(name, port));
                return if is_permitted && !at_port { Err(refused("the host is permitted at another port only")) } else { Ok(url) };
            }
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
        };
        let is_permitted = self.allowed.iter().any(|allowed| allowed.has_address(address) || allowed.has_host(&address.to_string(), port));
        if is_permitted || address::is_public(address) { Ok(url) } else { Err(refused("the address is not on the public internet")) }
    }
}

/// Names the host alone: an address may hold what is secret.
fn failure(url: &Url) -> impl Fn(reqwest::Error) -> Error + use<> {
    let host = url.host_str().unwrap_or_default().to_owned();
    move |source| Error::Call { host: host.clone(), source: source.without_url() }
}

/// Resolves, and refuses a name of which one address is closed.
#[derive(Debug)]
struct Checked {
    allowed: Arc<[Allowed]>,
}

#[derive(Debug, thiserror::Error)]
#[error("the name leads to an address that is not on the public internet")]
struct Closed;

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // The port was checked with the URL.
            let is_named = allowed.iter().any(|entry| matches!(entry, Allowed::Host(host, _) if host.eq_ignore_ascii_case(name.as_str())));
            let is_open = |at: &SocketAddr| address::is_public(at.ip()) || allowed.iter().any(|entry| entry.has_address(at.ip()));
            if !is_named && !found.iter().all(is_open) {
                return Err(Box::new(Closed) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
