//! What is kept: facts in the order of their times, by service, repository and what incidents name.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use kiro_schemas::Value;

use super::facts::{At, Change, Deployment, Fact, Incident, Name, UnitName};
use super::{BRANCH_LIFE, LOOKBACK, longest_wait};
use crate::hashing::Hashing;

/// Facts in the order of their times, each with the digest of its subject's key.
pub(super) type Timeline<T> = BTreeMap<At, (T, u128)>;

/// A service in an environment, deployed from one source.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: UnitName,
    pub(super) repository: usize,
    /// Where its incidents are: those that name its service, those that name nothing but its source.
    pub(super) pools: [usize; 2],
    pub(super) deployments: Timeline<Deployment>,
    /// When its deployments were, by the commits that they name.
    commits: BTreeSet<(u128, i64)>,
    /// From when on it is to be told anew.
    low: Option<i64>,
    /// When deployments were that are no more.
    gone: BTreeSet<i64>,
}

/// The changes of one source.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) changes: Timeline<Change>,
    /// The changes by their commits.
    by_commit: BTreeSet<(u128, At)>,
    /// Commits of branches, each with its branch.
    commits: Timeline<u128>,
    /// Commits by what they are a part of: their branch, or the push that brought them to the trunk.
    parts: BTreeSet<(u128, At)>,
    /// Merged requests by the branch that they come from.
    requests: BTreeSet<(u128, At)>,
    units: Vec<usize>,
}

/// The incidents that name one service, or one source.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) incidents: Timeline<Incident>,
    pub(super) units: Vec<usize>,
}

/// Where a fact lies.
#[derive(Debug)]
enum Place {
    Deployment(usize, At),
    Change(usize, At),
    Commit(usize, At),
    Incident(usize, At),
}

/// All facts.
#[derive(Debug)]
pub(super) struct State {
    hashing: Hashing,
    pub(super) units: Vec<Unit>,
    pub(super) repositories: Vec<Repository>,
    pub(super) pools: Vec<Pool>,
    /// Digests of names to places in the lists above.
    names: HashMap<u128, usize>,
    held: HashMap<u128, Place>,
    stale: BTreeSet<usize>,
}

/// The place in a timeline before everything of a moment.
pub(super) fn since(time: i64) -> At {
    (time, Name::least())
}

impl Unit {
    /// Deployments that succeeded, from a moment on.
    pub(super) fn successes_from(&self, from: i64) -> impl Iterator<Item = (&At, &Deployment)> {
        self.deployments.range(since(from)..).map(|(at, (d, _))| (at, d)).filter(|(_, d)| d.is_success)
    }

    /// Deployments that succeeded before a moment, the latest first.
    pub(super) fn successes_before(&self, before: i64) -> impl Iterator<Item = (&At, &Deployment)> {
        self.deployments.range(..since(before)).rev().map(|(at, (d, _))| (at, d)).filter(|(_, d)| d.is_success)
    }

    /// When deployments are or were that may be told otherwise than before; `None` when nothing changed.
    pub(super) fn times(&self) -> BTreeSet<i64> {
        let Some(low) = self.low else { return BTreeSet::new() };
        // One more than is looked back: who was blamed for what is no longer there is touched, too.
        let from = self.successes_before(low).take(LOOKBACK + 1).last().map_or(low, |(at, _)| at.0);
        self.deployments.range(since(from)..).map(|(at, _)| at.0).chain(self.gone.iter().copied()).collect()
    }
}

impl Repository {
    /// The changes that have a commit.
    pub(super) fn of_commit(&self, commit: u128) -> impl Iterator<Item = (&At, &Change)> {
        let of = self.by_commit.range((commit, since(i64::MIN))..).take_while(move |(c, _)| *c == commit);
        of.filter_map(|(_, at)| self.changes.get_key_value(at)).map(|(at, (change, _))| (at, change))
    }

    /// The earliest commit of a merged request that pushes show: of those that its merge brought to the trunk, and of those of its
    /// branch that came after the request before it from there.
    pub(super) fn first_commit(&self, at: &At, request: &Change) -> Option<&At> {
        if request.is_push {
            return None;
        }
        let earliest = at.0.saturating_sub(BRANCH_LIFE);
        let before = |branch| self.requests.range((branch, since(i64::MIN))..(branch, at.clone())).next_back().map(|(_, at)| at.0);
        let merged = request.merge.map(|merge| (merge, earliest));
        let pushed = request.from.map(|branch| (branch, before(branch).map_or(earliest, |before| earliest.max(before.saturating_add(1)))));
        let parts = [merged, pushed].into_iter().flatten().filter_map(|(whole, from)| self.parts(whole, from).next());
        parts.filter(|part| part.0 <= at.0).min()
    }

    /// The commits of a branch or a push, from a moment on.
    fn parts(&self, whole: u128, from: i64) -> impl Iterator<Item = &At> {
        self.parts.range((whole, since(from))..).take_while(move |(of, _)| *of == whole).map(|(_, at)| at)
    }

    /// The merged requests from a branch, from a moment on.
    fn requests(&self, branch: u128, from: At) -> impl Iterator<Item = (&At, &Change)> {
        let requests = self.requests.range((branch, from)..).take_while(move |(of, _)| *of == branch);
        requests.filter_map(|(_, at)| self.changes.get_key_value(at)).map(|(at, (change, _))| (at, change))
    }

    /// Whether a change is only a part of another one, or its merge: that one counts.
    pub(super) fn is_part(&self, change: &Change) -> bool {
        change.is_push && [change.merge, change.with].into_iter().flatten().any(|commit| self.is_merge(commit))
    }

    /// Whether a pushed commit is the merge of a change that is there itself.
    fn is_merge(&self, commit: u128) -> bool {
        self.merged_by(commit).next().is_some()
    }

    /// The requests that a commit merged.
    fn merged_by(&self, commit: u128) -> impl Iterator<Item = (&At, &Change)> {
        self.of_commit(commit).filter(move |(_, change)| !change.is_push && change.merge == Some(commit))
    }

    fn insert(&mut self, at: &At, change: Change, key: u128) {
        self.by_commit.extend(commits_of(&change).map(|commit| (commit, at.clone())));
        self.parts.extend(change.with.map(|with| (with, at.clone())));
        self.requests.extend(change.from.map(|from| (from, at.clone())));
        self.changes.insert(at.clone(), (change, key));
    }

    /// Removes what leads to a change that is no longer there.
    fn unlink(&mut self, at: &At, change: &Change) {
        for commit in commits_of(change) {
            self.by_commit.remove(&(commit, at.clone()));
        }
        if let Some(with) = change.with {
            self.parts.remove(&(with, at.clone()));
        }
        if let Some(from) = change.from {
            self.requests.remove(&(from, at.clone()));
        }
    }

    /// From when on deployments may be told otherwise by a change that came or went, and the commits by which others name what it
    /// touches.
    fn touched(&self, at: &At, change: &Change) -> (i64, Vec<u128>) {
        // A push of the same commit, or with it, counts or does not, according to whether there is such a request.
        let merge = change.merge.filter(|_| !change.is_push);
        let pushes =
            merge.into_iter().flat_map(|merge| self.of_commit(merge).map(|(at, _)| at.0).chain(self.parts(merge, i64::MIN).map(|at| at.0)));
        let from = pushes.min().map_or(at.0, |pushed| pushed.min(at.0));
        // What it is a part of, and the next request from its branch, may begin with another commit.
        let whole = change.with.into_iter().flat_map(|with| self.merged_by(with));
        let next = change.from.and_then(|branch| self.requests(branch, at.clone()).find(|(other, _)| *other != at));
        let others = whole.chain(next).flat_map(|(_, other)| commits_of(other));
        (from, commits_of(change).chain(others).collect())
    }
}

impl State {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self {
            hashing: hashing.clone(),
            units: Vec::new(),
            repositories: Vec::new(),
            pools: Vec::new(),
            names: HashMap::new(),
            held: HashMap::new(),
            stale: BTreeSet::new(),
        }
    }

    /// Takes what a subject says, and takes back what it said before.
    pub(super) fn replace(&mut self, key: u128, fact: Option<Fact>) {
        let new = fact.map(|fact| self.place(fact));
        if let (Some(old), Some((place, fact))) = (self.held.get(&key), &new)
            && self.holds(old, place, fact)
        {
            return;
        }
        if let Some(old) = self.held.remove(&key) {
            self.remove(&old);
        }
        if let Some((place, fact)) = new {
            self.insert(&place, fact, key);
            self.held.insert(key, place);
        }
    }

    /// The services that are to be told anew, in the order in which they were met.
    pub(super) fn take_stale(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.stale)
    }

    /// A service was told as it stands.
    pub(super) fn settle(&mut self, unit: usize) {
        self.units[unit].low = None;
        self.units[unit].gone.clear();
    }

    /// Forgets what no period needs that begins at `edge` or later.
    pub(super) fn forget(&mut self, edge: i64) {
        let held = &mut self.held;
        for unit in &mut self.units {
            let first = unit.successes_before(edge).take(LOOKBACK + 1).last().map(|(at, _)| at.clone());
            let kept = unit.deployments.split_off(&first.unwrap_or_else(|| since(edge)));
            let gone = std::mem::replace(&mut unit.deployments, kept);
            for (at, (deployment, key)) in gone {
                held.remove(&key);
                for commit in commits(&deployment) {
                    unit.commits.remove(&(commit, at.0));
                }
            }
        }
        for repository in &mut self.repositories {
            // A change that waits as long as it may still has the commits of its branch.
            let first = since(edge.saturating_sub(longest_wait()).saturating_sub(BRANCH_LIFE));
            let kept = repository.changes.split_off(&first);
            for (at, (change, key)) in std::mem::replace(&mut repository.changes, kept) {
                held.remove(&key);
                repository.unlink(&at, &change);
            }
            let kept = repository.commits.split_off(&first);
            for (at, (branch, key)) in std::mem::replace(&mut repository.commits, kept) {
                held.remove(&key);
                repository.parts.remove(&(branch, at));
            }
        }
        for pool in &mut self.pools {
            let kept = pool.incidents.split_off(&since(edge));
            for (_, (_, key)) in std::mem::replace(&mut pool.incidents, kept) {
                held.remove(&key);
            }
        }
    }

    /// How many facts are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn place(&mut self, fact: Fact) -> (Place, Kept) {
        match fact {
            Fact::Deployment(name, at, deployment) => (Place::Deployment(self.unit(name), at), Kept::Deployment(deployment)),
            Fact::Change([tenant, source], at, change) => (Place::Change(self.repository(&tenant, &source), at), Kept::Change(change)),
            Fact::Commit([tenant, source], at, branch) => (Place::Commit(self.repository(&tenant, &source), at), Kept::Commit(branch)),
            Fact::Incident { tenant, service, source, at, incident } => {
                let pool = match service {
                    Some(service) => self.pool("service", &tenant, &service),
                    None => self.pool("source", &tenant, &source),
                };
                (Place::Incident(pool, at), Kept::Incident(incident))
            }
        }
    }

    fn holds(&self, old: &Place, new: &Place, fact: &Kept) -> bool {
        match (old, new, fact) {
            (Place::Deployment(a, at), Place::Deployment(b, other), Kept::Deployment(new)) => {
                a == b && at == other && self.units[*a].deployments.get(at).is_some_and(|(d, _)| d == new)
            }
            (Place::Change(a, at), Place::Change(b, other), Kept::Change(new)) => {
                a == b && at == other && self.repositories[*a].changes.get(at).is_some_and(|(c, _)| c == new)
            }
            (Place::Commit(a, at), Place::Commit(b, other), Kept::Commit(new)) => {
                a == b && at == other && self.repositories[*a].commits.get(at).is_some_and(|(branch, _)| branch == new)
            }
            (Place::Incident(a, at), Place::Incident(b, other), Kept::Incident(new)) => {
                a == b && at == other && self.pools[*a].incidents.get(at).is_some_and(|(i, _)| i == new)
            }
            _ => false,
        }
    }

    fn insert(&mut self, place: &Place, fact: Kept, key: u128) {
        match (place, fact) {
            (Place::Deployment(unit, at), Kept::Deployment(deployment)) => {
                let of = &mut self.units[*unit];
                of.commits.extend(commits(&deployment).map(|commit| (commit, at.0)));
                of.deployments.insert(at.clone(), (deployment, key));
                self.mark_deployment(*unit, at.0);
            }
            (Place::Change(repository, at), Kept::Change(change)) => {
                self.mark_change(*repository, at, &change);
                self.repositories[*repository].insert(at, change, key);
            }
            (Place::Commit(repository, at), Kept::Commit(branch)) => {
                let of = &mut self.repositories[*repository];
                of.commits.insert(at.clone(), (branch, key));
                of.parts.insert((branch, at.clone()));
                self.mark_commit(*repository, at, branch);
            }
            (Place::Incident(pool, at), Kept::Incident(incident)) => {
                self.pools[*pool].incidents.insert(at.clone(), (incident, key));
                self.mark_pool(*pool, at.0);
            }
            _ => {}
        }
    }

    fn remove(&mut self, place: &Place) {
        match place {
            Place::Deployment(unit, at) => {
                let of = &mut self.units[*unit];
                let Some((deployment, _)) = of.deployments.remove(at) else { return };
                for commit in commits(&deployment) {
                    of.commits.remove(&(commit, at.0));
                }
                of.gone.insert(at.0);
                self.mark_deployment(*unit, at.0);
            }
            Place::Change(repository, at) => {
                let of = &mut self.repositories[*repository];
                let Some((change, _)) = of.changes.remove(at) else { return };
                of.unlink(at, &change);
                self.mark_change(*repository, at, &change);
            }
            Place::Commit(repository, at) => {
                let of = &mut self.repositories[*repository];
                let Some((branch, _)) = of.commits.remove(at) else { return };
                of.parts.remove(&(branch, at.clone()));
                self.mark_commit(*repository, at, branch);
            }
            Place::Incident(pool, at) => {
                self.pools[*pool].incidents.remove(at);
                self.mark_pool(*pool, at.0);
            }
        }
    }

    fn mark(&mut self, unit: usize, from: i64) {
        let low = &mut self.units[unit].low;
        *low = Some(low.map_or(from, |low| low.min(from)));
        self.stale.insert(unit);
    }

    /// Others that were blamed for later incidents may not be any more, or be again.
    fn mark_deployment(&mut self, unit: usize, at: i64) {
        self.mark(unit, at);
        for pool in self.units[unit].pools {
            if self.pools[pool].incidents.range(since(at)..).next().is_some() {
                self.mark_pool(pool, at);
            }
        }
    }

    fn mark_pool(&mut self, pool: usize, at: i64) {
        for unit in self.pools[pool].units.clone() {
            self.mark(unit, at);
        }
    }

    /// Later deployments brought it, and those that name one of its commits.
    fn mark_change(&mut self, repository: usize, at: &At, change: &Change) {
        let (from, touched) = self.repositories[repository].touched(at, change);
        for unit in self.repositories[repository].units.clone() {
            let commits = &self.units[unit].commits;
            let named = touched
                .iter()
                .filter_map(|commit| commits.range((*commit, i64::MIN)..).next().filter(|(found, _)| found == commit).map(|(_, at)| *at));
            let from = named.min().map_or(from, |named| named.min(from));
            self.mark(unit, from);
        }
    }

    /// The request that a commit is a part of may begin with it.
    fn mark_commit(&mut self, repository: usize, at: &At, branch: u128) {
        let request = self.repositories[repository].requests(branch, since(at.0)).next();
        if let Some((at, change)) = request.map(|(at, change)| (at.clone(), change.clone())) {
            self.mark_change(repository, &at, &change);
        }
    }

    fn unit(&mut self, name: UnitName) -> usize {
        let texts = ["unit", &name.tenant, &name.source, &name.service, name.environment.as_str()];
        let hash = self.hash(&texts);
        if let Some(found) = self.names.get(&hash) {
            return *found;
        }
        let repository = self.repository(&name.tenant, &name.source);
        let pools = [self.pool("service", &name.tenant, &name.service), self.pool("source", &name.tenant, &name.source)];
        let unit = self.units.len();
        self.names.insert(hash, unit);
        self.repositories[repository].units.push(unit);
        for pool in pools {
            self.pools[pool].units.push(unit);
        }
        let (commits, gone) = (BTreeSet::new(), BTreeSet::new());
        self.units.push(Unit { name, repository, pools, deployments: Timeline::new(), commits, low: None, gone });
        unit
    }

    fn repository(&mut self, tenant: &str, source: &str) -> usize {
        let hash = self.hash(&["repository", tenant, source]);
        let list = &mut self.repositories;
        *self.names.entry(hash).or_insert_with(|| {
            list.push(Repository::default());
            list.len() - 1
        })
    }

    fn pool(&mut self, kind: &str, tenant: &str, name: &str) -> usize {
        let hash = self.hash(&[kind, tenant, name]);
        let list = &mut self.pools;
        *self.names.entry(hash).or_insert_with(|| {
            list.push(Pool::default());
            list.len() - 1
        })
    }

    fn hash(&self, texts: &[&str]) -> u128 {
        let values: Vec<_> = texts.iter().map(|text| Value::text(*text)).collect();
        self.hashing.key(values.iter())
    }
}

/// A fact without its place.
#[derive(Debug)]
enum Kept {
    Deployment(Deployment),
    Change(Change),
    Commit(u128),
    Incident(Incident),
}

fn commits_of(change: &Change) -> impl Iterator<Item = u128> + use<> {
    [change.merge, change.head].into_iter().flatten()
}

fn commits(deployment: &Deployment) -> impl Iterator<Item = u128> {
    deployment.commit.into_iter().chain(deployment.brought.iter().copied())
}
