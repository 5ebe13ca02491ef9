//! What is kept: facts in the order of their times, by service, repository and what incidents name.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use kiro_schemas::Value;

use super::facts::{At, Change, Deployment, Fact, Incident, Name, UnitName};
use super::{LOOKBACK, longest_wait};
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

    /// Whether a pushed commit is the merge of a change that is there itself.
    pub(super) fn is_merge(&self, commit: u128) -> bool {
        self.of_commit(commit).any(|(_, change)| !change.is_push && change.merge == Some(commit))
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
            let kept = repository.changes.split_off(&since(edge.saturating_sub(longest_wait())));
            for (at, (change, key)) in std::mem::replace(&mut repository.changes, kept) {
                held.remove(&key);
                for commit in [change.merge, change.head].into_iter().flatten() {
                    repository.by_commit.remove(&(commit, at.clone()));
                }
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
                let of = &mut self.repositories[*repository];
                of.by_commit.extend([change.merge, change.head].into_iter().flatten().map(|commit| (commit, at.clone())));
                self.mark_change(*repository, at.0, &change);
                self.repositories[*repository].changes.insert(at.clone(), (change, key));
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
                for commit in [change.merge, change.head].into_iter().flatten() {
                    of.by_commit.remove(&(commit, at.clone()));
                }
                self.mark_change(*repository, at.0, &change);
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
    fn mark_change(&mut self, repository: usize, at: i64, change: &Change) {
        // A push of the same commit counts or does not, according to whether there is such a change.
        let merge = change.merge.filter(|_| !change.is_push);
        let pushes = merge.and_then(|merge| self.repositories[repository].of_commit(merge).map(|(at, _)| at.0).min());
        let from = pushes.map_or(at, |pushed| pushed.min(at));
        for unit in self.repositories[repository].units.clone() {
            let commits = &self.units[unit].commits;
            let named = [change.merge, change.head]
                .into_iter()
                .flatten()
                .filter_map(|commit| commits.range((commit, i64::MIN)..).next().filter(|(found, _)| *found == commit).map(|(_, at)| *at));
            let from = named.min().map_or(from, |named| named.min(from));
            self.mark(unit, from);
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
    Incident(Incident),
}

fn commits(deployment: &Deployment) -> impl Iterator<Item = u128> {
    deployment.commit.into_iter().chain(deployment.brought.iter().copied())
}
