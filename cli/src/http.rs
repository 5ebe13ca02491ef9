//! Requests to the server, with errors that say what to do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::args::Cli;

/// The server as the commands see it.
pub(crate) struct Server {
    base: String,
    token: Option<String>,
    client: Client,
}

impl Server {
    pub(crate) fn new(cli: &Cli) -> Result<Self> {
        let mut client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(cli.timeout))
            .user_agent(concat!("kirolinter/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &cli.ca_file {
            client = client.tls_certs_only(authorities(file)?);
        }
        let client = client.build()?;
        Ok(Self { base: cli.server.trim_end_matches('/').to_owned(), token: cli.token.clone(), client })
    }

    /// The path of an address with what is asked there.
    pub(crate) fn path(&self, path: &str, query: &[(&str, String)]) -> Result<String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), query).context("the server's address is no URL")?;
        Ok(format!("{path}?{}", url.query().unwrap_or_default()))
    }

    /// The address of a path.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that is no success is an error with the server's own words.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("cannot reach the server at {} (is `kirolinterd up` running? set --server or KIROLINTER_SERVER)", self.base)
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<Value>(&text) {
            Ok(problem) => {
                let detail = problem["detail"].as_str().unwrap_or(&text);
                let code = problem["code"].as_str().unwrap_or("-");
                bail!("{detail} [{code}, HTTP {}]", status.as_u16())
            }
            Err(_) if text.trim().is_empty() => bail!("the server answered HTTP {status}"),
            Err(_) => bail!("the server answered HTTP {status}: {}", text.trim()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.send(self.request(Method::GET, path)).await?.json().await?)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(self.send(self.request(Method::POST, path).json(body)).await?.json().await?)
    }
}

/// A text as one part of a path: what is no name is refused by the server, not taken for another path.
pub(crate) fn part(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = Certificate::from_pem_bundle(&text).with_context(|| format!("{} holds what is no certificate", file.display()))?;
    ensure!(!found.is_empty(), "{} holds no certificate", file.display());
    Ok(found)
}
