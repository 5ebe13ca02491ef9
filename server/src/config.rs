//! `kirolinter.yaml`: raw text, then validated with every problem and its place, then built elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kiro_schemas::Problem;
use serde::Deserialize;

/// The file as it may be written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Raw {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) http: Door,
    pub(crate) pg: Door,
    pub(crate) auth: Auth,
    pub(crate) log: Log,
    pub(crate) lake: Lake,
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) gates_file: Option<PathBuf>,
    pub(crate) features: Features,
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) network: Network,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Door {
    pub(crate) listen: Option<String>,
    pub(crate) tls: Option<TlsFiles>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    pub(crate) loopback_open: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `host:port,…` of Kafka; the embedded log when absent.
    pub(crate) kafka: Option<String>,
    /// Properties of librdkafka, such as `security.protocol`.
    pub(crate) kafka_properties: BTreeMap<String, String>,
    pub(crate) topic: Option<String>,
    pub(crate) partitions: Option<i32>,
    /// Topics of others: topic to mapping file.
    pub(crate) mapped_topics: BTreeMap<String, PathBuf>,
    pub(crate) retention_days: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lake {
    /// `s3://bucket/prefix`; a folder of the data directory when absent.
    pub(crate) url: Option<String>,
    pub(crate) commit_interval_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) secret_file: PathBuf,
    /// The secret before, while senders change over.
    #[serde(default)]
    pub(crate) previous_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Features {
    /// Numeric attributes that are features of the change.
    pub(crate) declared: Vec<String>,
}

/// What a decision can start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub(crate) enum Target {
    /// A post, signed as Standard Webhooks says.
    Webhook { url: String, secret_file: PathBuf },
    /// A `workflow_dispatch` of GitHub.
    Github {
        #[serde(default)]
        api: Option<String>,
        repository: String,
        workflow: String,
        reference: String,
        #[serde(default)]
        inputs: BTreeMap<String, String>,
        token_file: PathBuf,
    },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// `host:port` of private addresses that may be called.
    pub(crate) allow: Vec<String>,
}

/// What holds after validation.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Listener,
    pub(crate) pg: Listener,
    pub(crate) loopback_open: bool,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) raw: Raw,
}

/// Where a door listens.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) at: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
}

/// What flags and the environment say; each beats the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) http: Option<String>,
    pub(crate) pg: Option<String>,
    pub(crate) kafka: Option<String>,
}

/// Reads a file's text.
pub(crate) fn parse(text: &str) -> Result<Raw, Vec<Problem>> {
    if text.trim().is_empty() {
        return Ok(Raw::default());
    }
    serde_saphyr::from_str(text).map_err(|e| vec![Problem::at("", e.to_string())])
}

/// Checks everything and reports every problem.
pub(crate) fn validate(mut raw: Raw, overrides: Overrides) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    raw.data_dir = overrides.data_dir.or(raw.data_dir);
    raw.http.listen = overrides.http.or(raw.http.listen);
    raw.pg.listen = overrides.pg.or(raw.pg.listen);
    raw.log.kafka = overrides.kafka.or(raw.log.kafka);
    let http = listener("http", &raw.http, "127.0.0.1:8080", &mut problems);
    let pg = listener("pg", &raw.pg, "127.0.0.1:5433", &mut problems);
    let partitions = raw.log.partitions.unwrap_or(4);
    if !(1..=1024).contains(&partitions) {
        problems.push(Problem::at("log.partitions", format!("must be 1 to 1024, is {partitions}")));
    }
    for (name, source) in &raw.sources {
        if name != "github" {
            problems.push(Problem::at(format!("sources.{name}"), "is no platform that is known; known: github"));
        }
        readable(&format!("sources.{name}.secret_file"), &source.secret_file, &mut problems);
        if let Some(tenant) = source.tenant.as_ref().filter(|t| !kiro_schemas::id::is_tenant(t)) {
            problems.push(Problem::at(format!("sources.{name}.tenant"), format!("{tenant:?} is no tenant")));
        }
    }
    for (topic, mapping) in &raw.log.mapped_topics {
        readable(&format!("log.mapped_topics.{topic}"), mapping, &mut problems);
    }
    for (name, target) in &raw.targets {
        match target {
            Target::Webhook { url, secret_file } => {
                readable(&format!("targets.{name}.secret_file"), secret_file, &mut problems);
                if url::Url::parse(url).is_err() {
                    problems.push(Problem::at(format!("targets.{name}.url"), format!("{url:?} is no URL")));
                }
            }
            Target::Github { token_file, .. } => readable(&format!("targets.{name}.token_file"), token_file, &mut problems),
        }
    }
    if let Some(gates) = &raw.gates_file {
        readable("gates_file", gates, &mut problems);
    }
    let topic = raw.log.topic.clone().unwrap_or_else(|| "kiro.events".to_owned());
    match (http, pg, problems.is_empty()) {
        (Some(http), Some(pg), true) => Ok(Config {
            data_dir: raw.data_dir.clone().unwrap_or_else(|| PathBuf::from("kirolinter-data")),
            http,
            pg,
            loopback_open: raw.auth.loopback_open,
            topic,
            partitions,
            raw,
        }),
        _ => Err(problems),
    }
}

fn listener(name: &str, door: &Door, default: &str, problems: &mut Vec<Problem>) -> Option<Listener> {
    let text = door.listen.as_deref().unwrap_or(default);
    let Ok(at) = text.parse::<SocketAddr>() else {
        problems.push(Problem::at(format!("{name}.listen"), format!("{text:?} is no address; expected such as 127.0.0.1:8080")));
        return None;
    };
    if !at.ip().is_loopback() && door.tls.is_none() {
        problems.push(Problem::at(
            format!("{name}.tls"),
            format!("{at} is not loopback: a certificate is needed (certificate_file, key_file)"),
        ));
    }
    if let Some(tls) = &door.tls {
        readable(&format!("{name}.tls.certificate_file"), &tls.certificate_file, problems);
        readable(&format!("{name}.tls.key_file"), &tls.key_file, problems);
    }
    Some(Listener { at, tls: door.tls.clone() })
}

fn readable(path: &str, file: &Path, problems: &mut Vec<Problem>) {
    if let Err(error) = std::fs::File::open(file) {
        problems.push(Problem::at(path, format!("cannot read {}: {error}", file.display())));
    }
}

#[cfg(test)]
mod tests {
    use super::{Overrides, parse, validate};

    fn problems(text: &str) -> Vec<String> {
        let result = parse(text).and_then(|raw| validate(raw, Overrides::default()));
        result.err().into_iter().flatten().map(|p| p.to_string()).collect()
    }

    #[test]
    fn an_empty_file_is_enough() {
        assert_eq!(problems(""), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let found =
            problems("http: {listen: 0.0.0.0:80}\npg: {listen: here}\nlog: {partitions: 0}\nsources: {jenkin: {secret_file: /nowhere}}\n");
        let paths: Vec<&str> = found.iter().filter_map(|p| p.split(": ").next()).collect();
        assert_eq!(paths, ["http.tls", "pg.listen", "log.partitions", "sources.jenkin", "sources.jenkin.secret_file"]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let found = problems("htp: {}\n");
        assert!(found[0].contains("htp"), "{found:?}");
    }

    #[test]
    fn a_flag_beats_the_file() {
        let raw = parse("http: {listen: 127.0.0.1:1}").expect("a file");
        let config = validate(raw, Overrides { http: Some("127.0.0.1:2".into()), ..Overrides::default() }).expect("a configuration");
        assert_eq!(config.http.at.port(), 2);
    }
}
