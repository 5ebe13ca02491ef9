//! What became of each deployment: which changes it brought, whether it failed, when that was over.

use std::collections::BTreeMap;

use kiro_schemas::delivery::{Definitions, Lead, Lineage};

use super::facts::{At, Change, Deployment};
use super::repository::First;
use super::state::{Pool, State, Unit, since};
use super::{DAY, LOOKBACK};

const MINUTE: i64 = 60_000_000;

/// Why a deployment counts as failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blame<'a> {
    /// An incident followed; when it was over.
    Incident(&'a At, Option<i64>),
    /// A deployment went back to before it.
    Rollback(&'a At),
    /// The deployment after it mended it.
    Hotfix(&'a At),
}

/// A change that a deployment brought, and how long it took, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brought<'a> {
    pub(super) change: &'a At,
    pub(super) lead_ms: i64,
    pub(super) deploy_ms: Option<i64>,
    /// The commit that it began with, where pushes told it.
    pub(super) first: Option<First<'a>>,
}

/// What became of a deployment that succeeded.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) at: &'a At,
    pub(super) blames: Vec<Blame<'a>>,
    /// Times to recovery, in milliseconds.
    pub(super) recoveries: Vec<i64>,
    /// Whether it mends or takes back an earlier one.
    pub(super) is_rework: bool,
    pub(super) brought: Vec<Brought<'a>>,
}

type Success<'a> = (&'a At, &'a Deployment);

/// What became of the successful deployments of a service, from a moment on.
pub(super) fn outcomes(state: &State, unit: usize, from: i64, definitions: Definitions) -> Vec<Outcome<'_>> {
    let of = &state.units[unit];
    let mut successes: Vec<Success<'_>> = of.successes_before(from).take(LOOKBACK).collect();
    successes.reverse();
    let first = successes.len();
    successes.extend(of.successes_from(from));
    let line = Line { state, unit, definitions, cuts: successes.iter().map(|s| cut(state, of, *s)).collect(), successes };
    let mut outcomes = Vec::with_capacity(line.successes.len() - first);
    for at in first..line.successes.len() {
        let changes = line.changes(at);
        let success = line.successes[at];
        let is_fix = success.1.is_hotfix || changes.values().any(|change| change.is_fix);
        let outcome = Outcome {
            at: success.0,
            blames: line.incidents(at),
            recoveries: Vec::new(),
            is_rework: false,
            brought: changes.into_iter().filter_map(|(change, of)| line.sample(success.0, change, of)).collect(),
        };
        outcomes.push(outcome);
        if definitions.infers_failures {
            infer(&line, at, first, is_fix, &mut outcomes);
        }
    }
    for outcome in &mut outcomes {
        outcome.recoveries = recoveries(outcome, definitions);
    }
    outcomes
}

/// What a rollback or hotfix says of the deployments before it.
fn infer<'a>(line: &Line<'a>, at: usize, first: usize, is_fix: bool, outcomes: &mut [Outcome<'a>]) {
    let (name, deployment) = line.successes[at];
    let returned = line.returns_to(at);
    let is_rollback = deployment.is_rollback || returned.is_some();
    outcomes[at - first].is_rework = is_rollback || is_fix;
    let (failed, blame) = match (is_rollback, is_fix) {
        // The first deployment after the version that is back failed.
        (true, _) => (returned.map_or(at.checked_sub(1), |to| Some(to + 1)), Blame::Rollback(name)),
        (false, true) => (at.checked_sub(1), Blame::Hotfix(name)),
        (false, false) => return,
    };
    if let Some(failed) = failed.and_then(|failed| failed.checked_sub(first)) {
        outcomes[failed].blames.push(blame);
    }
}

/// Until when what was merged is in a deployment: up to its commit, else until it began.
fn cut(state: &State, unit: &Unit, (at, deployment): Success<'_>) -> i64 {
    let repository = &state.repositories[unit.repository];
    let merges = deployment.commit.into_iter().flat_map(|commit| {
        // A fast-forward deploys the newest commit itself; that of a request that is still open says nothing of what was merged.
        let is_in = move |merged: &At, change: &Change| change.merge == Some(commit) || change.head == Some(commit) && merged.0 <= at.0;
        repository.of_commit(commit).filter(move |(merged, change)| is_in(merged, change)).map(|(merged, _)| merged.0)
    });
    merges.max().unwrap_or(deployment.began).min(at.0)
}

/// The successful deployments of a service, one after the other.
struct Line<'a> {
    state: &'a State,
    unit: usize,
    definitions: Definitions,
    successes: Vec<Success<'a>>,
    cuts: Vec<i64>,
}

impl<'a> Line<'a> {
    fn unit(&self) -> &'a Unit {
        &self.state.units[self.unit]
    }

    /// The changes that a deployment brought, each once.
    fn changes(&self, at: usize) -> BTreeMap<&'a At, &'a Change> {
        let repository = &self.state.repositories[self.unit().repository];
        let (_, deployment) = self.successes[at];
        let mut changes = BTreeMap::new();
        if !deployment.brought.is_empty() {
            changes.extend(deployment.brought.iter().flat_map(|commit| repository.of_commit(*commit)));
        } else if self.definitions.lineage == Lineage::ListedOrMerged && at > 0 {
            let before = self.cuts[at.saturating_sub(LOOKBACK)..at].iter().max().copied().unwrap_or(i64::MAX);
            let (from, to) = (before.saturating_add(1), self.cuts[at].saturating_add(1));
            if from < to {
                changes.extend(repository.changes.range(since(from)..since(to)).map(|(at, (change, _))| (at, change)));
            }
        }
        changes.retain(|at, change| !repository.is_part(at, change));
        changes
    }

    /// How long a change took; `None` where it cannot be told or is not meant to count.
    fn sample(&self, deployed: &At, at: &'a At, change: &Change) -> Option<Brought<'a>> {
        let (finished, merged) = (deployed.0, at.0);
        let pushed = self.state.repositories[self.unit().repository].first_commit(at, change).filter(|_| change.first_commit.is_none());
        let seen = [pushed.map(|first| first.commit.0), change.newest_commit].into_iter().flatten().min();
        let first_commit = change.first_commit.or(seen);
        let begins = |start: i64| change.created.is_none_or(|created| start < created) && start < merged;
        let first = pushed.filter(|first| Some(first.commit.0) == first_commit && begins(first.commit.0));
        if self.definitions.longest_wait_days.is_some_and(|days| finished.saturating_sub(merged) > days.saturating_mul(DAY)) {
            return None;
        }
        match self.definitions.lead {
            Lead::Whole => {
                let deploy = finished.checked_sub(merged).filter(|micros| *micros >= 0)?;
                let start = [first_commit, change.created, Some(merged)].into_iter().flatten().min()?;
                Some(Brought { change: at, lead_ms: finished.saturating_sub(start) / 1_000, deploy_ms: Some(deploy / 1_000), first })
            }
            Lead::Stages => {
                let created = change.created?;
                let coding = first_commit.and_then(|first| stage(first, created));
                let deploy = stage(merged, finished);
                let stages = [coding, stage(created, merged), deploy];
                stages.iter().any(Option::is_some).then(|| Brought {
                    change: at,
                    lead_ms: stages.iter().flatten().sum(),
                    deploy_ms: deploy,
                    first,
                })
            }
        }
    }

    /// The newest deployment within reach that had the version of this one, when another version was between.
    fn returns_to(&self, at: usize) -> Option<usize> {
        let version = |at: usize| self.successes[at].1.version;
        let this = version(at)?;
        let before = at.checked_sub(1).filter(|before| version(*before).is_some_and(|v| v != this))?;
        (at.saturating_sub(LOOKBACK)..before).rev().find(|earlier| version(*earlier) == Some(this))
    }

    /// The incidents that came after this deployment and before the next one of all that they could be of.
    fn incidents(&self, at: usize) -> Vec<Blame<'a>> {
        let unit = self.unit();
        let start = self.successes[at].0.0;
        let next = self.successes.get(at + 1).map_or(i64::MAX, |(next, _)| next.0);
        let latest = self.definitions.longest_blame_days.map_or(i64::MAX, |days| start.saturating_add(days.saturating_mul(DAY) + 1));
        let end = next.min(latest);
        if start >= end {
            return Vec::new();
        }
        let pools = unit.pools.iter().map(|pool| &self.state.pools[*pool]);
        let found = pools.flat_map(|pool| pool.incidents.range(since(start)..since(end)).map(move |found| (pool, found)));
        let ours = found.filter(|(pool, (when, (incident, _)))| {
            incident.environment == unit.name.environment && !self.is_of_another(pool, self.successes[at].0, when.0)
        });
        let mut ours: Vec<_> = ours.map(|(_, (when, (incident, _)))| (when, incident.resolved)).collect();
        ours.sort_unstable();
        ours.into_iter().map(|(when, resolved)| Blame::Incident(when, resolved)).collect()
    }

    /// Whether another service or source that an incident could be of was deployed later.
    fn is_of_another(&self, pool: &Pool, ours: &At, when: i64) -> bool {
        let unit = self.unit();
        let others = pool.units.iter().filter(|other| **other != self.unit).map(|other| &self.state.units[*other]);
        let mut same = others.filter(|other| other.name.environment == unit.name.environment);
        same.any(|other| {
            let latest = other.successes_before(when.saturating_add(1)).next();
            latest.is_some_and(|(at, _)| (at, &other.name.source, &other.name.service) > (ours, &unit.name.source, &unit.name.service))
        })
    }
}

/// How long a failed deployment took to recover: until its incidents were over, else until it was taken back or mended.
fn recoveries(outcome: &Outcome<'_>, definitions: Definitions) -> Vec<i64> {
    let start = outcome.at.0;
    let incidents = outcome.blames.iter().filter_map(|blame| if let Blame::Incident(_, resolved) = blame { Some(*resolved) } else { None });
    if definitions.recovers_by_incident {
        return incidents.flatten().filter(|end| *end >= start).map(|end| (end - start) / MINUTE * MINUTE / 1_000).collect();
    }
    let incidents: Vec<_> = incidents.collect();
    let end = if incidents.is_empty() {
        let mended = outcome.blames.iter().filter_map(|blame| match blame {
            Blame::Rollback(at) | Blame::Hotfix(at) => Some(at.0),
            Blame::Incident(..) => None,
        });
        mended.min()
    } else {
        incidents.into_iter().collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max())
    };
    end.filter(|end| *end >= start).map(|end| (end - start) / 1_000).into_iter().collect()
}

/// Minutes, rounded up, in milliseconds; `None` when they are negative.
fn stage(from: i64, to: i64) -> Option<i64> {
    let micros = to.checked_sub(from).filter(|micros| *micros >= 0)?;
    Some((micros / MINUTE + i64::from(micros % MINUTE > 0)) * (MINUTE / 1_000))
}
