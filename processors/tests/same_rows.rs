//! However a fact comes in, as a webhook of GitHub or GitLab, from their past, as a line of CSV or a native event, how often and in
//! which order: the rows of its subject are the same.

#![expect(clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use kiro_ingest::decode::Decoder;
use kiro_ingest::mapping::Mapping;
use kiro_integrations::backfill::is_beside;
use kiro_integrations::platform;
use kiro_ports::{Folding as _, Headers};
use kiro_processors::{FoldConfig, Processors};
use kiro_schemas::{Event, Micros, Role, Tenant, TopicPartition, Value};
use kiro_tables::{EventRows, Stamp, Table};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value as Json, json};

/// When the rows are told: 2026-07-01.
const NOW: i64 = 1_782_864_000_000_000;
const MINUTE: i64 = 60_000_000;
/// A fact lies in the sixty days before.
const BEGIN: i64 = NOW - 60 * 1_440 * MINUTE;

#[path = "../../integrations/tests/history/github_world.rs"]
mod github_world;
#[path = "../../integrations/tests/history/gitlab_world.rs"]
#[expect(dead_code, reason = "servers use the rest")]
mod gitlab_world;
#[path = "same_rows/past.rs"]
mod past;

/// What the worlds are made of that servers give elsewhere.
mod forge {
    pub(crate) use crate::past::{NOW, Thing, World};
}

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let known = ["github", "gitlab"].map(|name| *platform(name).expect("a platform"));
    Decoder::new(known.into_iter().map(|platform| Arc::new(platform) as _).collect(), Vec::new())
});

/// One of a platform's payloads with other values at some places.
fn payload(platform: &str, name: &str, changes: &[(&str, Json)]) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integrations/tests").join(platform).join(format!("{name}.json"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut payload: Json = serde_json::from_slice(&bytes).expect("JSON");
    for (place, value) in changes {
        *payload.pointer_mut(place).unwrap_or_else(|| panic!("{name} has no {place}")) = value.clone();
    }
    payload
}

/// An event of a delivery, and when it arrived.
#[derive(Debug, Clone)]
struct Sent {
    event: Event<'static>,
    recorded_at: i64,
}

fn decode(headers: &[(&str, &str)], bytes: &[u8]) -> Vec<Event<'static>> {
    let headers: Headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from((*value).to_owned()))).collect();
    DECODER.decode("events", &headers, bytes).expect("events").into_iter().map(Event::into_owned).collect()
}

fn with(name: &str, changes: &[(&str, Json)]) -> Json {
    payload("github", name, changes)
}

fn of_gitlab(name: &str, changes: &[(&str, Json)]) -> Json {
    payload("gitlab", name, changes)
}

fn webhook((kind, body): &Delivery) -> Vec<Event<'static>> {
    // GitLab's events are called hooks.
    let platform = if kind.ends_with(" Hook") { "gitlab" } else { "github" };
    let header = format!("x-{platform}-event");
    decode(&[("kiro-format", platform), (&header, kind)], body.to_string().as_bytes())
}

fn native(event: &Event<'_>) -> Event<'static> {
    decode(&[("kiro-format", "native")], &serde_json::to_vec(event).expect("JSON")).remove(0)
}

/// What stands in the cell of a column.
fn cell(event: &Event<'_>, name: &str) -> String {
    match name {
        "source" => event.source.to_string(),
        "subject_id" => event.subject_id.to_string(),
        "id" => event.id.to_string(),
        "time" => event.time.to_string(),
        "attempt" => event.attempt.to_string(),
        name => match event.get(name) {
            Value::Text(text) => text.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Time(time) => time.to_string(),
            Value::Null => String::new(),
            other => panic!("{name}: {other:?}"),
        },
    }
}

/// Events of one subject and step as a CSV file with its mapping, read again.
fn by_csv(events: &[&Event<'static>]) -> Vec<Event<'static>> {
    let first = events.first().expect("an event");
    let columns = first.spec().columns;
    let is_filled = |at: &usize| columns[*at].role == Role::Field && events.iter().any(|event| !event.fields[*at].is_null());
    let fields = (0..columns.len()).filter(is_filled).map(|at| columns[at].name);
    let attempt = columns.iter().any(|column| column.role == Role::Attempt).then_some("attempt");
    let names: Vec<&str> = ["source", "subject_id", "id", "time"].into_iter().chain(attempt).chain(fields).collect();
    let attributes: BTreeSet<&str> = events.iter().flat_map(|event| event.attributes.iter().map(|(name, _)| &**name)).collect();

    let mut yaml = "version: 1\nkeep: true\nevents:\n".to_owned();
    write!(yaml, "  - subject: {}\n    transition: {}\n    fields:\n", first.subject, first.transition).expect("text");
    for name in &names {
        writeln!(yaml, "      {name}: c_{name}").expect("text");
    }
    let mapping = Mapping::parse(&yaml).unwrap_or_else(|problems| panic!("{problems:?}\n{yaml}"));

    let mut file = csv::Writer::from_writer(Vec::new());
    let head = names.iter().map(|name| format!("c_{name}")).chain(attributes.iter().map(|name| (*name).to_owned()));
    file.write_record(head).expect("a head");
    for event in events {
        let attribute =
            |name: &&str| event.attributes.iter().find(|(known, _)| known == name).map_or_else(String::new, |(_, v)| v.to_string());
        file.write_record(names.iter().map(|name| cell(event, name)).chain(attributes.iter().map(attribute))).expect("a record");
    }
    let bytes = file.into_inner().expect("a file");
    let rows: Vec<_> = mapping.csv(&bytes[..]).map(|row| row.expect("a row")).collect();
    rows.into_iter().flat_map(|row| row.events).collect()
}

/// What happens: a run with its attempts, a request with its pushes, or a deployment.
#[derive(Debug, Clone)]
struct Fact {
    is_gitlab: bool,
    kind: u8,
    minute: i64,
    took: i64,
    attempts: i64,
    word: Index,
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let fact = (any::<bool>(), 0_u8..3, 0_i64..50_000, 0_i64..120, 1_i64..4, any::<Index>());
    let fact = fact.prop_map(|(is_gitlab, kind, minute, took, attempts, word)| Fact { is_gitlab, kind, minute, took, attempts, word });
    prop::collection::vec(fact, 1..12)
}

/// A commit of a fact.
fn sha(kind: &str, number: usize) -> Json {
    let mut digits = String::new();
    for byte in format!("{kind}{number}").bytes() {
        write!(digits, "{byte:02x}").expect("text");
    }
    json!(format!("{digits:0<40}"))
}

type Delivery = github_world::Hook;

impl Fact {
    fn time(&self, minutes: i64) -> Json {
        json!(Micros(BEGIN + (self.minute + minutes) * MINUTE).to_string())
    }

    fn deliveries(&self, number: usize) -> Vec<Delivery> {
        match self.kind {
            0 if self.is_gitlab => self.pipeline(number).into(),
            1 if self.is_gitlab => self.merge_request(number),
            _ if self.is_gitlab => self.deployment_of_gitlab(number).into(),
            0 => (1..=self.attempts).flat_map(|attempt| self.run(number, attempt)).collect(),
            1 => self.request(number),
            _ => self.deployment(number),
        }
    }

    fn run(&self, number: usize, attempt: i64) -> [Delivery; 2] {
        const WORDS: [&str; 7] = ["success", "failure", "cancelled", "skipped", "neutral", "timed_out", "action_required"];
        let at = self.word.index(WORDS.len()) + usize::try_from(attempt).expect("small");
        let begin = (attempt - 1) * 200;
        [("requested", Json::Null), ("completed", json!(WORDS[at % WORDS.len()]))].map(|(action, conclusion)| {
            let changes = [
                ("/workflow_run/id", json!(number)),
                ("/workflow_run/run_attempt", json!(attempt)),
                ("/workflow_run/conclusion", conclusion),
                ("/workflow_run/created_at", self.time(0)),
                ("/workflow_run/run_started_at", self.time(begin)),
                ("/workflow_run/updated_at", self.time(begin + self.took + 1)),
            ];
            ("workflow_run", with(&format!("workflow_run.{action}"), &changes))
        })
    }

    /// A request and its merge, its branch that is pushed, and the trunk with the same commits and the merge.
    fn request(&self, number: usize) -> Vec<Delivery> {
        let (begin, end, merge) = (self.time(0), self.time(self.took + 1), sha("merge", number));
        let own = [("/pull_request/number", json!(number)), ("/pull_request/created_at", begin.clone())];
        let opened = [&own[..], &[("/pull_request/updated_at", begin)]].concat();
        let told = [
            ("/pull_request/updated_at", end.clone()),
            ("/pull_request/merged_at", end.clone()),
            ("/pull_request/merge_commit_sha", merge.clone()),
        ];
        let merged = [&own[..], &told].concat();
        let commits = [
            ("/commits/0/id", sha("first", number)),
            ("/commits/0/timestamp", self.time(-90)),
            ("/commits/1/id", sha("second", number)),
            ("/commits/1/timestamp", self.time(-5)),
        ];
        let trunk = [&commits[..], &[("/after", merge.clone()), ("/commits/2/id", merge), ("/commits/2/timestamp", end)]].concat();
        vec![
            ("pull_request", with("pull_request.opened", &opened)),
            ("pull_request", with("pull_request.merged.own", &merged)),
            ("push", with("push.branch.own", &commits)),
            ("push", with("push.merge.own", &trunk)),
        ]
    }

    fn deployment(&self, number: usize) -> Vec<Delivery> {
        let own = [("/deployment/id", json!(number)), ("/deployment/created_at", self.time(0))];
        let status = |state: &str, minutes: i64| {
            let told = [("/deployment_status/state", json!(state)), ("/deployment_status/created_at", self.time(minutes))];
            ("deployment_status", with("deployment_status.payload", &[&own[..], &told].concat()))
        };
        let end = *self.word.get(&["success", "failure", "error", "inactive", "waiting"]);
        vec![("deployment", with("deployment.payload", &own)), status("in_progress", 1), status(end, self.took + 2)]
    }
}

/// GitLab's webhooks of the same.
impl Fact {
    fn pipeline(&self, number: usize) -> [Delivery; 3] {
        let end = *self.word.get(&["canceled", "skipped", "manual"]);
        ["pending", "running", end].map(|status| {
            let changes = [
                ("/object_attributes/id", json!(number)),
                ("/object_attributes/created_at", self.time(0)),
                ("/object_attributes/finished_at", if status == end { self.time(self.took + 1) } else { Json::Null }),
            ];
            ("Pipeline Hook", of_gitlab(&format!("Pipeline-Hook.{status}.own"), &changes))
        })
    }

    /// A request, approved and merged, its branch that is pushed, and the trunk with the same commits and the merge.
    fn merge_request(&self, number: usize) -> Vec<Delivery> {
        let (begin, end, merge) = (self.time(0), self.time(self.took + 1), sha("merge", number));
        let own = [
            ("/object_attributes/iid", json!(number)),
            ("/object_attributes/created_at", begin.clone()),
            ("/object_attributes/last_commit/id", sha("second", number)),
            ("/object_attributes/last_commit/timestamp", self.time(-5)),
        ];
        let step = |name: &str, time: &Json, more: &[(&'static str, Json)]| {
            let changes = [&own[..], &[("/object_attributes/updated_at", time.clone())], more].concat();
            ("Merge Request Hook", of_gitlab(&format!("Merge-Request-Hook.{name}.own"), &changes))
        };
        let commits = [
            ("/commits/0/id", sha("first", number)),
            ("/commits/0/timestamp", self.time(-90)),
            ("/commits/1/id", sha("second", number)),
            ("/commits/1/timestamp", self.time(-5)),
        ];
        let merged = [("/after", merge.clone()), ("/commits/2/id", merge.clone()), ("/commits/2/timestamp", end.clone())];
        let trunk = [&commits[..], &merged].concat();
        vec![
            step("approved", &self.time(self.took / 2), &[]),
            step("merged", &end, &[("/object_attributes/merge_commit_sha", merge)]),
            ("Push Hook", of_gitlab("Push-Hook.branch.own", &commits)),
            ("Push Hook", of_gitlab("Push-Hook.merge.own", &trunk)),
        ]
    }

    fn deployment_of_gitlab(&self, number: usize) -> [Delivery; 3] {
        let end = *self.word.get(&["failed", "blocked"]);
        [("created", 0), ("running", 1), (end, self.took + 2)].map(|(name, minutes)| {
            let changes = [("/deployment_id", json!(number)), ("/status_changed_at", self.time(minutes))];
            ("Deployment Hook", of_gitlab(&format!("Deployment-Hook.{name}.own"), &changes))
        })
    }
}

/// Each fact by each of the three ways, with times of arrival.
fn ways(facts: &[Fact]) -> [Vec<Sent>; 3] {
    let deliveries = facts.iter().enumerate().flat_map(|(number, fact)| fact.deliveries(number));
    by_ways(deliveries.flat_map(|delivery| webhook(&delivery)).collect())
}

fn by_ways(hooks: Vec<Event<'static>>) -> [Vec<Sent>; 3] {
    let natives: Vec<_> = hooks.iter().map(native).collect();
    let mut files: BTreeMap<_, Vec<&Event<'static>>> = BTreeMap::new();
    for event in &hooks {
        files.entry((event.subject, event.transition)).or_default().push(event);
    }
    let rows: Vec<_> = files.into_values().flat_map(|events| by_csv(&events)).collect();
    let arrived = |way: i64, events: Vec<Event<'static>>| {
        let sent = (0_i64..).zip(events).map(|(at, event)| Sent { event, recorded_at: NOW - (10 - way) * MINUTE + at });
        sent.collect()
    };
    [arrived(1, hooks), arrived(2, natives), arrived(0, rows)]
}

fn batches(events: &[&Sent]) -> Vec<(&'static Table, RecordBatch)> {
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    let mut rows = EventRows::default();
    for sent in events {
        let stamp = Stamp { tenant: &tenant, recorded_at: Micros(sent.recorded_at), at: &at, offset: 0 };
        rows.push(&sent.event, stamp).expect("a row");
    }
    rows.finish().expect("batches").into_iter().map(|(name, batch)| (Table::find(name).expect("a table"), batch)).collect()
}

/// Rows of subjects by table and key.
type Rows = BTreeMap<String, RecordBatch>;

/// Takes rows in, without what only tells when and how often a row was written.
fn take(rows: &mut Rows, derived: &[(&'static Table, RecordBatch)], left_out: &[&str]) {
    let options = FormatOptions::default();
    for (table, batch) in derived.iter().filter(|(table, _)| ["pipeline_runs", "changes", "deployments"].contains(&table.name)) {
        let schema = batch.schema();
        let is_kept = |at: &usize| !["_rev", "recorded_at"].iter().chain(left_out).any(|name| name == schema.field(*at).name());
        let kept = batch.project(&(0..batch.num_columns()).filter(is_kept).collect::<Vec<_>>()).expect("columns");
        let column = |name: &&str| ArrayFormatter::try_new(batch.column_by_name(name).expect("a column"), &options).expect("a formatter");
        let keys: Vec<_> = table.key.iter().map(column).collect();
        for at in 0..batch.num_rows() {
            let mut key = table.name.to_owned();
            for column in &keys {
                write!(key, "|{}", column.value(at)).expect("text");
            }
            rows.insert(key, kept.slice(at, 1));
        }
    }
}

/// The rows after all parts, told after each; what is still open stands beside what was written.
fn fold(parts: &[Vec<&Sent>], left_out: &[&str]) -> Rows {
    let (mut folds, _) = Processors::new(FoldConfig { recent_subjects: 1_000_000, ..FoldConfig::default() }).expect("folds");
    let mut rows = Rows::new();
    for part in parts {
        for (table, batch) in batches(part) {
            folds.apply(table, &batch).expect("applied");
        }
        assert!(folds.missing().is_empty());
        take(&mut rows, &folds.emit(Micros(NOW)).expect("rows"), left_out);
    }
    take(&mut rows, &folds.open().expect("rows"), left_out);
    rows
}

/// What an event says, its attributes in order.
fn said(sent: &Sent) -> String {
    let mut event = sent.event.clone();
    event.attributes.sort();
    format!("{event:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each way says the same, and so gives the same rows; only when a fact was known is a matter of its arrival.
    #[test]
    fn each_way_alone_gives_the_same_rows(facts in facts()) {
        let [hooks, natives, rows] = ways(&facts);
        let all = |way: &[Sent]| way.iter().map(said).collect::<BTreeSet<_>>();
        prop_assert_eq!(all(&hooks), all(&natives));
        prop_assert_eq!(all(&hooks), all(&rows));
        let [by_hook, by_native, by_row] = [&hooks, &natives, &rows].map(|way| fold(&[way.iter().collect()], &["known_at"]));
        prop_assert!(!by_hook.is_empty());
        prop_assert_eq!(&by_hook, &by_native);
        prop_assert_eq!(&by_hook, &by_row);
    }

    /// All three ways, shuffled and repeated and told in parts, give the rows of once and in order.
    #[test]
    fn all_ways_shuffled_and_repeated_give_the_same_rows(
        facts in facts(),
        picks in prop::collection::vec(any::<Index>(), 0..300),
        keys in prop::collection::vec(any::<u64>(), 400),
        size in 1_usize..40,
    ) {
        let sent: Vec<Sent> = ways(&facts).concat();
        let straight = fold(&[sent.iter().collect()], &[]);
        let mut shuffled: Vec<(u64, &Sent)> = keys.iter().copied().cycle().zip(&sent).collect();
        shuffled.extend(keys.iter().rev().copied().zip(&picks).map(|(key, pick)| (key, pick.get(&sent))));
        shuffled.sort_by_key(|(key, _)| *key);
        let order: Vec<&Sent> = shuffled.into_iter().map(|(_, sent)| sent).collect();
        let parts: Vec<Vec<&Sent>> = order.chunks(size).map(<[_]>::to_vec).collect();
        prop_assert_eq!(fold(&parts, &[]), straight);
    }

    /// The past of a repository, its webhooks, files and native events, shuffled and repeated, whichever of two of one id comes
    /// first and the other left out: the rows are those of the past alone, and, but for what only the past tells, of the webhooks.
    #[test]
    fn the_past_and_the_webhooks_give_the_same_rows(
        is_gitlab in any::<bool>(),
        count in 3_i64..25,
        keys in prop::collection::vec(any::<u64>(), 400),
        size in 1_usize..40,
    ) {
        let (past, hooks) = if is_gitlab { past::gitlab(count) } else { past::github(count) };
        let sent = |events: Vec<Event<'static>>| (0_i64..).zip(events).map(|(at, event)| Sent { event, recorded_at: NOW + at }).collect::<Vec<_>>();
        let (of_past, ways) = (sent(past), by_ways(hooks.iter().flat_map(webhook).collect()).concat());
        let alone = fold(&[of_past.iter().collect()], &["known_at"]);
        let mut shuffled: Vec<(u64, &Sent)> = keys.iter().copied().cycle().zip(of_past.iter().chain(&ways)).collect();
        shuffled.sort_by_key(|(key, _)| *key);
        let mut told = BTreeSet::new();
        shuffled.retain(|(_, sent)| told.insert((&sent.event.source, &sent.event.id)));
        let order: Vec<&Sent> = shuffled.into_iter().map(|(_, sent)| sent).collect();
        let parts: Vec<Vec<&Sent>> = order.chunks(size).map(<[_]>::to_vec).collect();
        prop_assert_eq!(&fold(&parts, &["known_at"]), &alone);
        let told_by_hooks: Vec<&Sent> = of_past.iter().filter(|sent| !is_beside(&sent.event)).collect();
        prop_assert!(told_by_hooks.len() < of_past.len(), "no first commit");
        prop_assert_eq!(fold(&[ways.iter().collect()], &["known_at"]), fold(&[told_by_hooks], &["known_at"]));
    }
}
