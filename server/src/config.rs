//! `kirolinter.yaml`: raw text, then validated with every problem and its place, then built elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiro_lake::Retention;
use kiro_schemas::delivery::Settings;
use kiro_schemas::{Problem, Secret};
use serde::Deserialize;

use crate::maintain::Plan;
use crate::role::Role;

mod source;
mod webhooks;

pub(crate) use source::Source;

/// Larger files are refused unread.
const MAX_BYTES: usize = 1 << 20;
/// A week: logs tell of files that are gone for as long as these are kept.
const MOST_HOURS: u32 = 168;
const MOST_DAYS: u32 = 365;
/// A spill that is smaller would not hold a single large record.
const LEAST_SPILL: u64 = 2_000_000;

/// The file as it may be written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Raw {
    pub(crate) data_dir: Option<PathBuf>,
    /// Where secrets lie that are made for sources; a folder of the data directory when absent. Processes of `serve` share it.
    pub(crate) secrets_dir: Option<PathBuf>,
    pub(crate) http: Door,
    pub(crate) pg: Door,
    pub(crate) auth: Auth,
    pub(crate) log: Log,
    pub(crate) lake: Lake,
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) gates_file: Option<PathBuf>,
    pub(crate) features: Features,
    /// What counts as a deployment, a failure, an incident: read by [`Settings::read`], which tells all its problems at once.
    pub(crate) delivery: Option<serde_json::Value>,
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    pub(crate) control: Control,
    pub(crate) folds: Folds,
}

impl Raw {
    /// The same without the files that it names, but for those that tell where things are.
    pub(crate) fn without_files(self) -> Self {
        let log = Log { mapped_topics: BTreeMap::new(), ..self.log };
        let (sources, targets) = (BTreeMap::new(), BTreeMap::new());
        Self { http: Door::default(), pg: Door::default(), log, sources, targets, gates_file: None, ..self }
    }
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
    /// Where imports go: it is read apart, so that a backfill does not hold up what happens now.
    pub(crate) history_topic: Option<String>,
    /// Where webhooks go as they came, so that they can be read again.
    pub(crate) webhook_topic: Option<String>,
    /// How long they are kept there.
    pub(crate) webhook_days: Option<u32>,
    pub(crate) partitions: Option<i32>,
    /// Replicas of the topic when it is made; what the brokers prefer when absent.
    pub(crate) replication: Option<i32>,
    /// Where posts are kept while Kafka does not take them; they are refused when absent.
    pub(crate) spill_dir: Option<PathBuf>,
    /// Most bytes there.
    pub(crate) spill_bytes: Option<u64>,
    /// Topics of others that hold `CloudEvents` or native events.
    pub(crate) topics: Vec<String>,
    /// Topics of others in other forms: topic to mapping file.
    pub(crate) mapped_topics: BTreeMap<String, PathBuf>,
    pub(crate) retention_days: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lake {
    /// `s3://bucket/prefix`; a folder of the data directory when absent.
    pub(crate) url: Option<String>,
    pub(crate) commit_interval_ms: Option<u64>,
    /// Whether small files are made large ones; they are when it is absent.
    pub(crate) compaction: Option<bool>,
    /// How long files are kept that no version of a table needs any more.
    pub(crate) retention_hours: Option<u32>,
    /// How long commits are kept below a checkpoint.
    pub(crate) log_retention_hours: Option<u32>,
    /// How long what an older version of the folds derived is kept after a newer one took its place.
    pub(crate) old_version_days: Option<u32>,
}

impl Lake {
    /// How the lake is to be kept.
    fn plan(&self, problems: &mut Vec<Problem>) -> Plan {
        let mut hours = |name: &str, given: Option<u32>, default: u32| {
            let hours = given.unwrap_or(default);
            if !(1..=MOST_HOURS).contains(&hours) {
                problems.push(Problem::at(format!("lake.{name}"), format!("must be 1 to {MOST_HOURS}, is {hours}")));
            }
            Retention::new(Duration::from_hours(hours.into()))
        };
        let (files, logs) = (hours("retention_hours", self.retention_hours, 24), hours("log_retention_hours", self.log_retention_hours, 2));
        let days = self.old_version_days.unwrap_or(7);
        if !(1..=MOST_DAYS).contains(&days) {
            problems.push(Problem::at("lake.old_version_days", format!("must be 1 to {MOST_DAYS}, is {days}")));
        }
        Plan { compaction: self.compaction.unwrap_or(true), files, logs, old_versions: Duration::from_hours(24 * u64::from(days)) }
    }
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

/// How often each token or address may ask, by class of routes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) ingest: Option<Quota>,
    pub(crate) query: Option<Quota>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quota {
    /// 0 is no limit.
    pub(crate) requests: u32,
    pub(crate) window_seconds: u32,
}

impl Limits {
    /// The quotas of the front door: what the file says, else the defaults.
    pub(crate) fn quotas(&self) -> kiro_api::Limits {
        let default = kiro_api::Limits::default();
        let quota = |given: Option<Quota>, default| {
            given.map_or(default, |q| kiro_api::Quota { requests: q.requests, window: Duration::from_secs(q.window_seconds.into()) })
        };
        kiro_api::Limits { ingest: quota(self.ingest, default.ingest), query: quota(self.query, default.query) }
    }
}

/// The control store: `SQLite` in the data directory unless there is a PostgreSQL.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Control {
    /// A file that holds `postgres://…`.
    pub(crate) postgres_file: Option<PathBuf>,
    /// After so many seconds without a sign of life another process takes over.
    pub(crate) lease_seconds: Option<u32>,
}

/// How the folds are shared among the processes of `process`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Folds {
    /// How many parts there are.
    pub(crate) shards: Option<u32>,
    /// How many of them one process takes at most.
    pub(crate) most_owned: Option<u32>,
}

/// Where PostgreSQL is told.
#[derive(Debug, Clone)]
pub(crate) enum Postgres {
    File(PathBuf),
    Url(Secret),
}

/// What holds after validation.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Listener,
    pub(crate) pg: Listener,
    pub(crate) loopback_open: bool,
    pub(crate) topic: String,
    pub(crate) history_topic: String,
    pub(crate) webhook_topic: String,
    pub(crate) partitions: i32,
    pub(crate) role: Role,
    /// Where a role without doors for people answers probes, if it does.
    pub(crate) probe: Option<Listener>,
    pub(crate) postgres: Option<Postgres>,
    pub(crate) lease: Duration,
    pub(crate) shards: u32,
    pub(crate) most_owned: u32,
    pub(crate) upkeep: Plan,
    pub(crate) delivery: Settings,
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
    pub(crate) postgres: Option<Secret>,
}

/// Reads a file's text, within a budget of bytes, nodes and depth.
pub(crate) fn parse(text: &str) -> Result<Raw, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Problem::at("", format!("has {} bytes, more than {MAX_BYTES}", text.len()))]);
    }
    if text.trim().is_empty() {
        return Ok(Raw::default());
    }
    let options =
        serde_saphyr::options! { budget: serde_saphyr::budget! { max_nodes: 20_000, max_anchors: 32, max_aliases: 64, max_depth: 16 } };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| vec![Problem::at("", e.to_string())])
}

/// Checks everything and reports every problem.
pub(crate) fn validate(mut raw: Raw, role: Role, overrides: Overrides) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let postgres = overrides.postgres.map(Postgres::Url).or_else(|| raw.control.postgres_file.clone().map(Postgres::File));
    raw.data_dir = overrides.data_dir.or(raw.data_dir);
    raw.http.listen = overrides.http.or(raw.http.listen);
    raw.pg.listen = overrides.pg.or(raw.pg.listen);
    raw.log.kafka = overrides.kafka.or(raw.log.kafka);
    let http = listener("http", &raw.http, "127.0.0.1:8080", &mut problems);
    let pg = listener("pg", &raw.pg, "127.0.0.1:5433", &mut problems);
    shared(role, &raw, postgres.as_ref(), &mut problems);
    let partitions = raw.log.partitions.unwrap_or(4);
    let upkeep = raw.lake.plan(&mut problems);
    let delivery = delivery(&raw, &mut problems);
    log(&raw.log, partitions, &mut problems);
    outside(&raw, &mut problems);
    let topic = raw.log.topic.clone().unwrap_or_else(|| "kiro.events".to_owned());
    let history_topic = raw.log.history_topic.clone().unwrap_or_else(|| format!("{topic}.history"));
    if std::iter::once(&topic).chain(&raw.log.topics).chain(raw.log.mapped_topics.keys()).any(|live| *live == history_topic) {
        problems.push(Problem::at("log.history_topic", format!("{history_topic:?} is a topic of what happens now, too")));
    }
    let webhook_topic = raw.log.webhook_topic.clone().unwrap_or_else(|| format!("{topic}.webhooks"));
    if webhook_topic == history_topic {
        problems.push(Problem::at("log.webhook_topic", format!("{webhook_topic:?} is the topic of history, too")));
    }
    let probe = http.clone().filter(|_| !role.serves() && raw.http.listen.is_some());
    match (http, pg, problems.is_empty()) {
        (Some(http), Some(pg), true) => Ok(Config {
            data_dir: raw.data_dir.clone().unwrap_or_else(|| PathBuf::from("kirolinter-data")),
            http,
            pg,
            loopback_open: raw.auth.loopback_open,
            topic,
            history_topic,
            webhook_topic,
            partitions,
            role,
            probe,
            postgres,
            lease: Duration::from_secs(raw.control.lease_seconds.unwrap_or(10).into()),
            shards: raw.folds.shards.unwrap_or(1),
            most_owned: raw.folds.most_owned.or(raw.folds.shards).unwrap_or(1),
            upkeep,
            delivery,
            raw,
        }),
        _ => Err(problems),
    }
}

/// What counts in `dora`: what the file says, else the defaults.
fn delivery(raw: &Raw, problems: &mut Vec<Problem>) -> Settings {
    let read = raw.delivery.as_ref().map(Settings::read).transpose();
    read.unwrap_or_else(|found| {
        problems.extend(found);
        None
    })
    .unwrap_or_default()
}

/// The log and what is before it.
fn log(raw: &Log, partitions: i32, problems: &mut Vec<Problem>) {
    let mut tell = |path: &str, text: String| problems.push(Problem::at(path, text));
    if !(1..=1024).contains(&partitions) {
        tell("log.partitions", format!("must be 1 to 1024, is {partitions}"));
    }
    if let Some(days) = raw.webhook_days.filter(|days| !(1..=3_650).contains(days)) {
        tell("log.webhook_days", format!("must be 1 to 3650, is {days}"));
    }
    if let Some(replicas) = raw.replication.filter(|replicas| !(1..=100).contains(replicas)) {
        tell("log.replication", format!("must be 1 to 100, is {replicas}"));
    }
    for (path, is_given) in [
        ("log.replication", raw.replication.is_some()),
        ("log.spill_dir", raw.spill_dir.is_some()),
        ("log.spill_bytes", raw.spill_bytes.is_some()),
    ] {
        if is_given && raw.kafka.is_none() {
            tell(path, "is for Kafka (log.kafka or --kafka): the embedded log is on this disk".to_owned());
        }
    }
    if let Some(bytes) = raw.spill_bytes.filter(|bytes| *bytes < LEAST_SPILL) {
        tell("log.spill_bytes", format!("must be at least {LEAST_SPILL}, is {bytes}"));
    }
    if raw.spill_bytes.is_some() && raw.spill_dir.is_none() {
        tell("log.spill_bytes", "needs log.spill_dir".to_owned());
    }
}

/// What others send and take, and the files that tell of them.
fn outside(raw: &Raw, problems: &mut Vec<Problem>) {
    for (name, source) in &raw.sources {
        if kiro_integrations::platform(name).is_none() {
            let known: Vec<&str> = kiro_integrations::platforms().iter().map(|platform| platform.name).collect();
            let text = format!("is no platform that is known; known: {}", known.join(", "));
            problems.push(Problem::at(format!("sources.{name}"), text));
        }
        source.check(&format!("sources.{name}"), problems);
        if let Some(tenant) = source.tenant.as_ref().filter(|t| !kiro_schemas::id::is_tenant(t)) {
            problems.push(Problem::at(format!("sources.{name}.tenant"), format!("{tenant:?} is no tenant")));
        }
    }
    for (topic, mapping) in &raw.log.mapped_topics {
        readable(&format!("log.mapped_topics.{topic}"), mapping, problems);
    }
    for (name, target) in &raw.targets {
        match target {
            Target::Webhook { url, secret_file } => {
                readable(&format!("targets.{name}.secret_file"), secret_file, problems);
                if url::Url::parse(url).is_err() {
                    problems.push(Problem::at(format!("targets.{name}.url"), format!("{url:?} is no URL")));
                }
            }
            Target::Github { token_file, .. } => readable(&format!("targets.{name}.token_file"), token_file, problems),
        }
    }
    for (class, quota) in [("ingest", raw.limits.ingest), ("query", raw.limits.query)] {
        if let Some(quota) = quota.filter(|q| !(1..=3_600).contains(&q.window_seconds)) {
            problems.push(Problem::at(format!("limits.{class}.window_seconds"), format!("must be 1 to 3600, is {}", quota.window_seconds)));
        }
    }
    if let Some(gates) = &raw.gates_file {
        readable("gates_file", gates, problems);
    }
}

/// What several processes share, and how.
fn shared(role: Role, raw: &Raw, postgres: Option<&Postgres>, problems: &mut Vec<Problem>) {
    let mut tell = |path: &str, text: String| problems.push(Problem::at(path, text));
    if !role.is_whole() && raw.log.kafka.is_none() {
        tell("log.kafka", format!("kirolinterd {role} needs Kafka (or --kafka): the embedded log belongs to one process, kirolinterd up"));
    }
    if !role.is_whole() && postgres.is_none() {
        let text = "needs PostgreSQL (or KIROLINTER_POSTGRES): the SQLite file belongs to one process, kirolinterd up";
        tell("control.postgres_file", format!("kirolinterd {role} {text}"));
    }
    let shards = raw.folds.shards.unwrap_or(1);
    if !(1..=1024).contains(&shards) || (role.is_whole() && shards > 1) {
        tell("folds.shards", format!("must be 1 to 1024, and 1 for kirolinterd up; is {shards}"));
    }
    if let Some(most) = raw.folds.most_owned.filter(|most| !(1..=shards).contains(most)) {
        tell("folds.most_owned", format!("must be 1 to folds.shards, is {most}"));
    }
    if let Some(seconds) = raw.control.lease_seconds.filter(|seconds| !(1..=600).contains(seconds)) {
        tell("control.lease_seconds", format!("must be 1 to 600, is {seconds}"));
    }
    if let Some(Postgres::File(file)) = postgres {
        readable("control.postgres_file", file, problems);
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
#[expect(unreachable_pub, reason = "the file belongs to the fuzz targets")]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use kiro_schemas::Secret;

    use super::{Overrides, Role, Settings, mutate, parse, validate};

    /// What is wrong with a file, each problem as it is told.
    pub(super) fn problems(text: &str) -> Vec<String> {
        let result = parse(text).and_then(|raw| validate(raw, Role::Up, Overrides::default()));
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
    fn a_spill_is_for_kafka_and_has_a_size() {
        assert_eq!(problems("log: {kafka: \"a:1\", spill_dir: /spill, spill_bytes: 2000000, replication: 3}"), Vec::<String>::new());
        let found = problems("log: {spill_dir: /spill, spill_bytes: 10, replication: 0}");
        let paths: Vec<&str> = found.iter().filter_map(|p| p.split(": ").next()).collect();
        let expected = ["log.replication", "log.replication", "log.spill_dir", "log.spill_bytes", "log.spill_bytes"];
        assert_eq!(paths, expected, "{found:?}");
        assert_eq!(problems("log: {kafka: \"a:1\", spill_bytes: 3000000}").len(), 1);
    }

    #[test]
    fn what_counts_is_read_with_all_its_problems() {
        let raw = parse("delivery: {bands: 2021, environments: {production: [\"live-*\"]}}").expect("a file");
        let config = validate(raw, Role::Up, Overrides::default()).expect("a configuration");
        assert_eq!(config.delivery.bands.as_str(), "2021");
        let found = problems("delivery: {timezone: Mars, keep_days: 0, colour: red}\nlog: {partitions: 0}");
        let mut paths: Vec<&str> = found.iter().filter_map(|p| p.split(": ").next()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["delivery.colour", "delivery.keep_days", "delivery.timezone", "log.partitions"]);
    }

    #[test]
    fn what_the_documents_show_can_be_written() {
        for name in ["../README.md", "../docs/dora.md"] {
            let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a document");
            let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
            let sections: Vec<&str> = blocks.filter(|block| block.starts_with("delivery:")).collect();
            assert_eq!(sections.len(), 1, "{name}");
            assert_eq!(problems(sections[0]), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let found = problems("htp: {}\n");
        assert!(found[0].contains("htp"), "{found:?}");
    }

    #[test]
    fn seeds_and_files_without_measure_are_answered() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/server_config");
        let seeds: Vec<Vec<u8>> =
            std::fs::read_dir(seeds).expect("seeds").flatten().map(|e| std::fs::read(e.path()).expect("a seed")).collect();
        let mut dice = mutate::Dice(2026);
        let near: Vec<Vec<u8>> =
            seeds.iter().flat_map(|seed| (0..300).map(|_| mutate::mutate(seed, &mut dice)).collect::<Vec<_>>()).collect();
        let without_measure = ["- ", "a: ", "[", "? ", "&a [*a, "].map(|piece| piece.repeat(100_000).into_bytes());
        for text in seeds.into_iter().chain(near).chain(without_measure) {
            let Ok(text) = String::from_utf8(text) else { continue };
            let read = parse(&text).and_then(|raw| raw.delivery.as_ref().map(Settings::read).transpose());
            assert!(read.err().is_none_or(|problems| !problems.is_empty()));
        }
        assert!(problems(&"#".repeat(2 << 20))[0].contains("more than"));
    }

    #[test]
    fn quotas_of_the_file_beat_the_defaults() {
        let raw = parse("limits: {query: {requests: 5, window_seconds: 60}}").expect("a file");
        let config = validate(raw, Role::Up, Overrides::default()).expect("a configuration");
        let quotas = config.raw.limits.quotas();
        assert_eq!((quotas.query.requests, quotas.ingest), (5, kiro_api::Limits::default().ingest));
        assert_eq!(problems("limits: {ingest: {requests: 5, window_seconds: 0}}").len(), 1);
    }

    #[test]
    fn a_role_needs_what_several_processes_can_share() {
        for role in [Role::Serve, Role::Ingest, Role::Process, Role::Orchestrate, Role::Maintain] {
            let found = validate(parse("").expect("a file"), role, Overrides::default()).expect_err("refused");
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(found.len() == 2 && found[0].contains("Kafka") && found[1].contains("PostgreSQL"), "{found:?}");
            assert!(found.iter().all(|text| text.contains(&format!("kirolinterd {role}"))), "{found:?}");
            let shared = Overrides { kafka: Some("a:1".into()), postgres: Some(Secret::new("postgres://a")), ..Overrides::default() };
            let config = validate(parse("folds: {shards: 4, most_owned: 2}").expect("a file"), role, shared).expect("a configuration");
            assert_eq!((config.shards, config.most_owned, config.probe.is_none()), (4, 2, true));
        }
        assert_eq!(problems("log: {topic: a, history_topic: a}").len(), 1);
        assert_eq!(problems("folds: {shards: 2}\ncontrol: {lease_seconds: 0}").len(), 2, "up folds everything in one part");
    }

    #[test]
    fn what_is_kept_of_the_lake_has_bounds() {
        let config =
            validate(parse("lake: {compaction: false}").expect("a file"), Role::Up, Overrides::default()).expect("a configuration");
        assert!(!config.upkeep.compaction);
        let found = problems("lake: {retention_hours: 0, log_retention_hours: 169, old_version_days: 0}");
        let told = [
            "lake.retention_hours: must be 1 to 168, is 0",
            "lake.log_retention_hours: must be 1 to 168, is 169",
            "lake.old_version_days: must be 1 to 365, is 0",
        ];
        assert_eq!(found, told);
        assert!(problems("lake: {retention_hours: 168, log_retention_hours: 1}").is_empty());
    }

    #[test]
    fn a_flag_beats_the_file() {
        let raw = parse("http: {listen: 127.0.0.1:1}").expect("a file");
        let config =
            validate(raw, Role::Up, Overrides { http: Some("127.0.0.1:2".into()), ..Overrides::default() }).expect("a configuration");
        assert_eq!(config.http.at.port(), 2);
    }
}
