//! Rows of subjects to facts, by the rules.

use std::sync::{Arc, LazyLock};

use kiro_schemas::delivery::{Environment, Facts, Settings};
use kiro_schemas::{Micros, Outcome, Subject, Value};
use kiro_tables::Table;

use crate::hashing::Hashing;

/// Most commits that are taken of a deployment's list.
///
/// # Source
/// Datadog DORA reads as many between two deployments.
const MOST_COMMITS: usize = 5_000;

/// What names a subject within its service, repository or tenant, and orders those of one moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) id: Arc<str>,
    pub(super) attempt: i64,
    /// The source, of incidents alone: theirs is another than that of what they disturb.
    pub(super) source: Arc<str>,
    pub(super) is_run: bool,
}

impl Name {
    /// The name before all others.
    pub(super) fn least() -> Self {
        static NOTHING: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        Self { id: Arc::clone(&NOTHING), attempt: i64::MIN, source: Arc::clone(&NOTHING), is_run: false }
    }
}

/// When, and what.
pub(super) type At = (i64, Name);

/// A deployment that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deployment {
    /// Whether it got there.
    pub(super) is_success: bool,
    pub(super) is_rollback: bool,
    pub(super) is_hotfix: bool,
    /// When it began: what was merged by then is in it, unless its commit tells better.
    pub(super) began: i64,
    pub(super) commit: Option<u128>,
    /// What runs after it: the artifact, else the commit.
    pub(super) version: Option<u128>,
    /// The commits that it brought, where the source lists them; sorted.
    pub(super) brought: Box<[u128]>,
}

/// A change that reached its branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) created: Option<i64>,
    /// When its first commit was made, where its source tells.
    pub(super) first_commit: Option<i64>,
    /// When its newest commit was made, where its source tells: the first one was not later.
    pub(super) newest_commit: Option<i64>,
    /// The commit that merged it, or that it is.
    pub(super) merge: Option<u128>,
    /// Its newest commit.
    pub(super) head: Option<u128>,
    /// The branch that it comes from, where that is a branch of its own source and not the one that it went to.
    pub(super) from: Option<u128>,
    /// Of a pushed commit the newest one that was pushed with it.
    pub(super) with: Option<u128>,
    /// Whether it mends or takes back something.
    pub(super) is_fix: bool,
    /// Whether it is a pushed commit.
    pub(super) is_push: bool,
}

/// A commit that is on no trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) branch: u128,
    /// The push that made the branch, if it came with that.
    pub(super) made_with: Option<u128>,
}

/// A request that ended and is no change: it was closed, or merged into what does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The branch that it came from.
    pub(super) from: u128,
    /// Its newest commit.
    pub(super) head: Option<u128>,
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incident {
    /// Where it is; production when nothing is said.
    pub(super) environment: Environment,
    pub(super) resolved: Option<i64>,
}

/// Of whose metrics something is: tenant, source, service, environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitName {
    pub(super) tenant: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) environment: Environment,
}

/// What a subject says of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// Of a service in an environment.
    Deployment(UnitName, At, Deployment),
    /// Of a tenant's repository.
    Change([Arc<str>; 2], At, Change),
    /// Of a tenant's repository: a commit of a branch from which changes come.
    Commit([Arc<str>; 2], At, Commit),
    /// Of a tenant's repository.
    End([Arc<str>; 2], At, End),
    /// Of a tenant's service, or of whatever a source deploys.
    Incident { tenant: Arc<str>, service: Option<Arc<str>>, source: Arc<str>, at: At, incident: Incident },
}

/// A row by the names of its columns.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    table: &'static Table,
    values: &'a [Value<'a>],
}

impl<'a> Row<'a> {
    fn value(self, name: &str) -> &'a Value<'a> {
        self.table.position(name).and_then(|at| self.values.get(at)).unwrap_or(&Value::Null)
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.value(name).as_text()
    }

    fn time(self, name: &str) -> Option<i64> {
        self.value(name).as_time().map(|at| at.0)
    }

    fn attribute(self, name: &str) -> Option<&'a str> {
        let Value::Map(pairs) = self.value("attributes") else { return None };
        pairs.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn attempt(self) -> i64 {
        if let Value::Int(attempt) = self.value("attempt") { *attempt } else { 1 }
    }

    fn is_rollback(self) -> bool {
        matches!(self.value("is_rollback"), Value::Bool(true))
    }

    fn facts(self, subject: Subject) -> Facts<'a> {
        let source = self.text("source").unwrap_or_default();
        Facts::new(subject, source, |name| self.text(name), |name| self.attribute(name)).with_rollback(self.is_rollback())
    }

    fn tenant(self) -> Arc<str> {
        self.text("tenant").unwrap_or_default().into()
    }

    fn source(self) -> Arc<str> {
        self.text("source").unwrap_or_default().into()
    }
}

/// Reads rows.
#[derive(Debug)]
pub(super) struct Reading {
    hashing: Hashing,
    nothing: Arc<str>,
}

impl Reading {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { hashing: hashing.clone(), nothing: "".into() }
    }

    /// The digest of a subject's key among those of all tables: a run may have the id of a deployment.
    pub(super) fn key(&self, table: &'static Table, key: u128) -> u128 {
        self.hashing.key([Value::text(table.name)].iter()) ^ key
    }

    /// What a row says; `None` when it says nothing, or nothing yet.
    pub(super) fn fact(&self, settings: &Settings, table: &'static Table, values: &[Value<'_>]) -> Option<Fact> {
        let row = Row { table, values };
        match table.name {
            "deployments" => self.deployment(settings, row, Subject::Deployment),
            "pipeline_runs" => self.deployment(settings, row, Subject::PipelineRun),
            "changes" => self.change(settings, row),
            "incidents" => Self::incident(settings, row),
            _ => None,
        }
    }

    fn deployment(&self, settings: &Settings, row: Row<'_>, subject: Subject) -> Option<Fact> {
        let facts = row.facts(subject);
        let is_success = match row.text("outcome").and_then(Outcome::parse) {
            Some(Outcome::Success) => true,
            Some(Outcome::Failure | Outcome::Error) => false,
            // An event that only says that an earlier version is back has no outcome.
            None if row.is_rollback() => true,
            Some(Outcome::Cancel | Outcome::Skip) | None => return None,
        };
        let finished = row.time("finished_at")?;
        if !settings.is_deployment(&facts).value {
            return None;
        }
        let (id, is_run) = match subject {
            Subject::PipelineRun => (row.text("run_id")?, true),
            _ => (row.text("deployment_id")?, false),
        };
        let unit = UnitName {
            tenant: row.tenant(),
            source: row.source(),
            service: settings.service(&facts).value.unwrap_or_default().into(),
            environment: settings.environment(&facts).value?,
        };
        let commit = self.hash(row.text("commit_sha"));
        let name = Name { id: id.into(), attempt: row.attempt(), source: Arc::clone(&self.nothing), is_run };
        let deployment = Deployment {
            is_success,
            is_rollback: settings.is_rollback(&facts).value,
            is_hotfix: settings.is_hotfix(&facts).value,
            began: row.time("started_at").or_else(|| row.time("queued_at")).unwrap_or(finished).min(finished),
            commit,
            version: self.hash(facts.get(kiro_schemas::delivery::Field::Version)).or(commit),
            brought: self.brought(row.attribute("commits")),
        };
        Some(Fact::Deployment(unit, (finished, name), deployment))
    }

    fn change(&self, settings: &Settings, row: Row<'_>) -> Option<Fact> {
        let facts = row.facts(Subject::Change);
        let (id, head) = (row.text("change_id")?, row.text("commit_sha"));
        let (branch, base) = (row.text("branch"), row.text("base_branch"));
        let created = row.time("created_at");
        let name = Name { id: id.into(), attempt: 1, source: Arc::clone(&self.nothing), is_run: false };
        // A commit that was pushed has no merge: it is in its branch when it is there.
        let is_push = row.time("merged_at").is_none() && head == Some(id);
        // What was pushed to a trunk stays there, whatever default branch it is merged back to.
        if is_push && ![base, branch].into_iter().flatten().any(|branch| settings.is_trunk(branch)) {
            let made = row.attribute("new_branch").and_then(|made| made.rsplit_once('@')).filter(|(of, _)| Some(*of) == branch);
            let commit = Commit { branch: self.branch(branch?), made_with: self.hash(made.map(|(_, push)| push)) };
            return Some(Fact::Commit([row.tenant(), row.source()], (created?, name), commit));
        }
        let is_own = row.attribute("head_source").is_none() && branch != base;
        let from = branch.filter(|_| is_own).map(|branch| self.branch(branch));
        let merged = if is_push { Some(created?) } else { row.time("merged_at").filter(|_| settings.is_base(base)) };
        let Some(merged) = merged else {
            let ended = row.time("merged_at").or_else(|| row.time("closed_at"))?;
            return Some(Fact::End([row.tenant(), row.source()], (ended, name), End { from: from?, head: self.hash(head) }));
        };
        let time = |name| row.attribute(name).and_then(Micros::parse).map(|at| at.0);
        let change = Change {
            created,
            first_commit: time("first_commit_at"),
            newest_commit: time("newest_commit_at"),
            from,
            with: self.hash(row.attribute("pushed_with").filter(|_| is_push)),
            merge: self.hash(row.text("merge_commit_sha").or(head.filter(|_| is_push))),
            head: self.hash(head),
            is_fix: settings.is_hotfix(&facts).value || settings.is_rollback(&facts).value,
            is_push,
        };
        Some(Fact::Change([row.tenant(), row.source()], (merged, name), change))
    }

    fn incident(settings: &Settings, row: Row<'_>) -> Option<Fact> {
        let facts = row.facts(Subject::Incident);
        if !settings.is_incident(&facts).value {
            return None;
        }
        let environment = match row.text("environment") {
            Some(_) => settings.environment(&facts).value?,
            None => Environment::Production,
        };
        let name = Name { id: row.text("incident_id")?.into(), attempt: 1, source: row.source(), is_run: false };
        Some(Fact::Incident {
            tenant: row.tenant(),
            service: settings.service(&facts).value.map(Into::into),
            source: row.source(),
            at: (row.time("detected_at")?, name),
            incident: Incident { environment, resolved: row.time("resolved_at") },
        })
    }

    /// The commits of a list with blanks or commas between them.
    fn brought(&self, list: Option<&str>) -> Box<[u128]> {
        let texts = list.into_iter().flat_map(|list| list.split([' ', ',', '\n'])).filter(|text| !text.is_empty());
        let mut commits: Vec<_> = texts.take(MOST_COMMITS).filter_map(|text| self.hash(Some(text))).collect();
        commits.sort_unstable();
        commits.dedup();
        commits.into()
    }

    /// A branch among commits.
    fn branch(&self, name: &str) -> u128 {
        self.hashing.key([Value::text("branch"), Value::text(name)].iter())
    }

    fn hash(&self, text: Option<&str>) -> Option<u128> {
        text.filter(|text| !text.is_empty()).map(|text| self.hashing.key([Value::text(text)].iter()))
    }
}
