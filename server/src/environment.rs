//! The one registry of environment variables of the server.

use anyhow::{Context as _, Result};
use kiro_lake::S3Config;
use kiro_schemas::Secret;
use url::Url;

/// Each variable with what it does.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("KIROLINTER_LOG", "What is logged, such as `info` or `kiro_ingest=debug`."),
    ("KIROLINTER_POSTGRES", "The control store: `postgres://…`."),
    ("AWS_ACCESS_KEY_ID", "Access key of the lake's bucket."),
    ("AWS_SECRET_ACCESS_KEY", "Secret of that key."),
    ("AWS_REGION", "Region of the bucket."),
    ("AWS_ENDPOINT_URL", "An endpoint other than Amazon's."),
    ("_RJEM_MALLOC_CONF", "Settings of jemalloc, which reads them itself."),
];

#[expect(clippy::disallowed_methods, reason = "this is the registry")]
fn read(name: &str) -> Option<String> {
    debug_assert!(VARIABLES.iter().any(|(known, _)| *known == name), "{name} is not registered");
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The filter of the log.
pub(crate) fn log_filter() -> String {
    read("KIROLINTER_LOG")
        .unwrap_or_else(|| "warn,kirolinterd=info,kiro_log=info,kiro_lake=info,kiro_ingest=info,kiro_query=info".to_owned())
}

/// Where the control store is.
pub(crate) fn postgres() -> Option<Secret> {
    read("KIROLINTER_POSTGRES").map(Secret::new)
}

/// Where the lake's bucket is: `s3://bucket/prefix`, the rest from the environment.
pub(crate) fn s3(url: &Url) -> Result<S3Config> {
    anyhow::ensure!(url.scheme() == "s3", "lake.url: {url} is neither absent (a folder) nor s3://bucket/prefix");
    let endpoint = read("AWS_ENDPOINT_URL");
    Ok(S3Config {
        bucket: url.host_str().context("lake.url names no bucket")?.to_owned(),
        prefix: url.path().trim_matches('/').to_owned(),
        region: read("AWS_REGION"),
        allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
        endpoint,
        access_key_id: read("AWS_ACCESS_KEY_ID"),
        secret_access_key: read("AWS_SECRET_ACCESS_KEY").map(Secret::new),
    })
}
