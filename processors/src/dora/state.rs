//! What is kept: facts in the order of their times, by service, repository and what incidents name.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use kiro_schemas::Value;

use super::facts::{At, Change, Commit, Deployment, End, Fact, Incident, Name, UnitName};
use super::repository::{MOST_COMMITS, Repository, commits_of};
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
    Commit(usize, u128, At),
    End(usize, At),
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
    /// Pushes to trunks, by repository, whose commits and requests may belong together otherwise.
    pushes: BTreeSet<(usize, u128)>,
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
            pushes: BTreeSet::new(),
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
        for (repository, push) in std::mem::take(&mut self.pushes) {
            if let Some((from, commits)) = self.repositories[repository].touched_by_push(push) {
                self.mark_all(repository, from, &commits);
            }
        }
        std::mem::take(&mut self.stale)
    }

    /// A service was told as it stands.
    pub(super) fn settle(&mut self, unit: usize) {
        self.units[unit].low = None;
        self.units[unit].gone.clear();
    }

    /// Lets commits of branches go that were made before a moment.
    pub(super) fn shed(&mut self, before: i64) {
        for key in self.repositories.iter_mut().flat_map(|repository| repository.shed(before)) {
            self.held.remove(&key);
        }
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
            // What came to the trunk with a change that waits as long as it may is as old as a branch lives.
            let first = since(edge.saturating_sub(longest_wait()).saturating_sub(BRANCH_LIFE));
            for (at, (change, key)) in repository.forget(&first) {
                held.remove(&key);
                repository.unlink(&at, &change);
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
            Fact::Commit([tenant, source], at, commit) => {
                (Place::Commit(self.repository(&tenant, &source), commit.branch, at), Kept::Commit(commit))
            }
            Fact::End([tenant, source], at, end) => (Place::End(self.repository(&tenant, &source), at), Kept::End(end)),
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
            (Place::Commit(a, branch, at), Place::Commit(b, _, other), Kept::Commit(new)) => {
                a == b && at == other && self.repositories[*a].commit(*branch, at) == Some(*new)
            }
            (Place::End(a, at), Place::End(b, other), Kept::End(new)) => {
                a == b && at == other && self.repositories[*a].ends.get(at).is_some_and(|(end, _)| end == new)
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
            (Place::Commit(repository, branch, at), Kept::Commit(commit)) => {
                self.repositories[*repository].insert_commit(commit, at, key);
                self.mark_commit(*repository, at, *branch);
                self.bound(*repository);
            }
            (Place::End(repository, at), Kept::End(end)) => {
                let of = &mut self.repositories[*repository];
                let touched = of.touched_by_end(at, end.from);
                of.insert_end(at, end, key);
                self.mark_all(*repository, at.0, &touched);
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
            Place::Commit(repository, branch, at) => {
                self.repositories[*repository].remove_commit(*branch, at);
                self.mark_commit(*repository, at, *branch);
            }
            Place::End(repository, at) => {
                let of = &mut self.repositories[*repository];
                let Some(branch) = of.remove_end(at) else { return };
                let touched = of.touched_by_end(at, branch);
                self.mark_all(*repository, at.0, &touched);
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
        let of = &self.repositories[repository];
        let (from, touched) = of.touched(at, change);
        self.pushes.extend(of.pushes(change).into_iter().map(|push| (repository, push)));
        self.mark_all(repository, from, &touched);
    }

    /// The requests that a commit may belong to may begin with it.
    fn mark_commit(&mut self, repository: usize, at: &At, branch: u128) {
        let of = &self.repositories[repository];
        let touched: Vec<_> = of.requests(branch, at).map(|(at, request)| (at.0, commits_of(request).collect::<Vec<_>>())).collect();
        for (from, commits) in touched {
            self.mark_all(repository, from, &commits);
        }
    }

    /// Deployments of a repository may be told otherwise that are not before a moment, or name some of these commits.
    fn mark_all(&mut self, repository: usize, from: i64, touched: &[u128]) {
        for unit in self.repositories[repository].units.clone() {
            let commits = &self.units[unit].commits;
            let named = touched
                .iter()
                .filter_map(|commit| commits.range((*commit, i64::MIN)..).next().filter(|(found, _)| found == commit).map(|(_, at)| *at));
            let from = named.min().map_or(from, |named| named.min(from));
            self.mark(unit, from);
        }
    }

    /// Lets the oldest commits of branches go where there are too many.
    fn bound(&mut self, repository: usize) {
        for key in self.repositories[repository].shed_beyond(MOST_COMMITS) {
            self.held.remove(&key);
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
    Commit(Commit),
    End(End),
    Incident(Incident),
}

fn commits(deployment: &Deployment) -> impl Iterator<Item = u128> {
    deployment.commit.into_iter().chain(deployment.brought.iter().copied())
}
