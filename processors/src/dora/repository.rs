//! The changes of one source, and which commits are whose.

use std::collections::{BTreeMap, BTreeSet};

use super::BRANCH_LIFE;
use super::facts::{At, Change, Commit, End};
use super::state::{Timeline, since};

/// Most commits of branches that are kept of a repository; the oldest go first.
pub(super) const MOST_COMMITS: usize = 50_000;

/// The changes of one source.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) changes: Timeline<Change>,
    /// The changes by their commits.
    by_commit: BTreeSet<(u128, At)>,
    /// Commits by what they are a part of: the branch that they are on, or the push that brought them to the trunk.
    parts: BTreeMap<(u128, At), Option<OnBranch>>,
    /// How many of them are on branches.
    on_branches: usize,
    /// Requests that ended, by the branch that they came from.
    ended: BTreeSet<(u128, At)>,
    /// Those among them that are no changes.
    pub(super) ends: Timeline<End>,
    /// The commits that requests begin with, of those that were let go.
    begun: BTreeMap<At, At>,
    pub(super) units: Vec<usize>,
}

/// What is known of a commit of a branch.
#[derive(Debug)]
struct OnBranch {
    /// The digest of its subject's key.
    key: u128,
    made_with: Option<u128>,
}

/// The earliest commit that pushes show of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First<'a> {
    pub(super) commit: &'a At,
    /// Of how many requests it may be the first, since they came with one push and nothing tells whose it is.
    pub(super) among: usize,
}

/// The end of an earlier request from a branch that is used again.
struct Before<'a> {
    at: i64,
    /// The change that it is, if it is one.
    merged: Option<&'a Change>,
}

pub(super) fn commits_of(change: &Change) -> impl Iterator<Item = u128> + use<> {
    [change.merge, change.head].into_iter().flatten()
}

impl Repository {
    /// The changes that have a commit.
    pub(super) fn of_commit(&self, commit: u128) -> impl Iterator<Item = (&At, &Change)> {
        let of = self.by_commit.range((commit, since(i64::MIN))..).take_while(move |(c, _)| *c == commit);
        of.filter_map(|(_, at)| self.change(at))
    }

    fn change(&self, at: &At) -> Option<(&At, &Change)> {
        self.changes.get_key_value(at).map(|(at, (change, _))| (at, change))
    }

    /// The earliest commit of a merged request that pushes show: of those that came to the trunk with it, and of those of its
    /// branch that were made since the request before it from there.
    pub(super) fn first_commit<'a>(&'a self, at: &At, request: &Change) -> Option<First<'a>> {
        if request.is_push {
            return None;
        }
        let earliest = at.0.saturating_sub(BRANCH_LIFE);
        let before = request.from.and_then(|branch| self.before(branch, at, request));
        let from = before.as_ref().map_or(earliest, |before| earliest.max(before.at.saturating_add(1)));
        let on_branch = request.from.and_then(|branch| self.first_on_branch(branch, from, at.0));
        let own = on_branch.into_iter().chain(self.begun.get(at)).map(|commit| First { commit, among: 1 });
        let came = request.merge.and_then(|merge| {
            let push = self.push_of(merge);
            let is_left = before.as_ref().and_then(|before| before.merged).is_some_and(|merged| !self.is_whole(merged, push));
            self.first_of_push(push, if is_left { from } else { earliest }, at, request)
        });
        own.chain(came).min()
    }

    /// The earliest commit of a branch between two moments, since it was made if that was between them, too.
    fn first_on_branch(&self, branch: u128, from: i64, to: i64) -> Option<&At> {
        let all = || self.parts.range((branch, since(from))..(branch, since(to.saturating_add(1))));
        let made_with = |part: &Option<OnBranch>| part.as_ref().and_then(|part| part.made_with);
        let last = all().rev().find_map(|(_, part)| made_with(part));
        all().find(|(_, part)| last.is_none() || made_with(part) == last).map(|((_, at), _)| at)
    }

    /// The last request from a branch that had ended when this one was made. One with the same newest commit is the same work.
    fn before(&self, branch: u128, at: &At, request: &Change) -> Option<Before<'_>> {
        let made = request.created.unwrap_or(at.0);
        let ended = self.ended.range((branch, since(i64::MIN))..(branch, at.clone())).rev().filter(|(_, end)| end.0 <= made);
        let mut ended = ended.map(|(_, end)| {
            let merged = self.change(end).map(|(_, change)| change);
            let head = merged.map_or_else(|| self.ends.get(end).and_then(|(end, _)| end.head), |change| change.head);
            (Before { at: end.0, merged }, head)
        });
        ended.find(|(_, head)| head.is_none() || *head != request.head).map(|(before, _)| before)
    }

    /// Whether all commits of a merged request came to the trunk with another push than this one. What a squash leaves behind comes
    /// with the next request from the branch.
    fn is_whole(&self, merged: &Change, push: u128) -> bool {
        let own = merged.merge.map(|merge| self.push_of(merge));
        let is_there = |head| self.of_commit(head).any(|(_, change)| change.is_push && change.with == own);
        own.is_some() && own != Some(push) && merged.head.is_some_and(is_there)
    }

    /// The push to the trunk that brought a commit, by its newest commit.
    fn push_of(&self, commit: u128) -> u128 {
        let pushed = self.of_commit(commit).find(|(_, change)| change.is_push);
        pushed.and_then(|(_, change)| change.with).unwrap_or(commit)
    }

    /// The requests that came with a push.
    fn train(&self, push: u128) -> BTreeMap<&At, &Change> {
        let commits = self.parts(push, i64::MIN).filter_map(|at| self.change(at)?.1.merge);
        commits.chain([push]).flat_map(|commit| self.merged_by(commit)).collect()
    }

    /// The earliest commit of a push that is, or where nothing tells whose it is may be, of one of its requests.
    fn first_of_push<'a>(&'a self, push: u128, from: i64, at: &At, request: &Change) -> Option<First<'a>> {
        let mut others = self.train(push);
        others.remove(at);
        let parts = || self.parts(push, from).take_while(|part| part.0 <= at.0).filter_map(|part| self.change(part));
        let is_own = |part: &Change| request.from.is_some() && part.from == request.from;
        let is_of = |other: &Change, part: &Change| {
            let is_on_branch = part.from.is_some() && part.from == other.from;
            let is_it = commits_of(other).any(|commit| part.merge == Some(commit)) && !commits_of(request).any(|c| part.merge == Some(c));
            is_on_branch || is_it
        };
        let own = parts().find(|(_, part)| is_own(part)).filter(|_| !others.is_empty());
        own.map(|(commit, _)| First { commit, among: 1 }).or_else(|| {
            let first = parts().find(|(_, part)| is_own(part) || !others.values().any(|other| is_of(other, part)));
            first.map(|(commit, _)| First { commit, among: others.len() + 1 })
        })
    }

    /// The commits of a branch or a push, from a moment on.
    fn parts(&self, whole: u128, from: i64) -> impl Iterator<Item = &At> {
        self.parts.range((whole, since(from))..).take_while(move |((of, _), _)| *of == whole).map(|((_, at), _)| at)
    }

    /// The merged requests from a branch that a commit of a moment may belong to.
    pub(super) fn requests(&self, branch: u128, at: &At) -> impl Iterator<Item = (&At, &Change)> {
        let last = since(at.0.saturating_add(BRANCH_LIFE).saturating_add(1));
        self.ended.range((branch, since(at.0))..(branch, last)).filter_map(|(_, at)| self.change(at))
    }

    /// Whether a change is only a part of another one, or its merge: that one counts.
    pub(super) fn is_part(&self, at: &At, change: &Change) -> bool {
        let is_merge = |commit| self.merged_by(commit).next().is_some();
        let came_with = |branch| {
            let pushes = self.requests(branch, at).filter_map(|(_, request)| request.merge).map(|merge| self.push_of(merge));
            change.with.is_some_and(|push| pushes.into_iter().any(|of| of == push))
        };
        change.is_push && ([change.merge, change.with].into_iter().flatten().any(is_merge) || change.from.is_some_and(came_with))
    }

    /// The requests that a commit merged.
    fn merged_by(&self, commit: u128) -> impl Iterator<Item = (&At, &Change)> {
        self.of_commit(commit).filter(move |(_, change)| !change.is_push && change.merge == Some(commit))
    }

    pub(super) fn insert(&mut self, at: &At, change: Change, key: u128) {
        self.by_commit.extend(commits_of(&change).map(|commit| (commit, at.clone())));
        self.parts.extend(change.with.map(|with| ((with, at.clone()), None)));
        self.ended.extend(change.from.filter(|_| !change.is_push).map(|from| (from, at.clone())));
        self.changes.insert(at.clone(), (change, key));
    }

    /// Removes what leads to a change that is no longer there.
    pub(super) fn unlink(&mut self, at: &At, change: &Change) {
        for commit in commits_of(change) {
            self.by_commit.remove(&(commit, at.clone()));
        }
        if let Some(with) = change.with {
            self.parts.remove(&(with, at.clone()));
        }
        if let Some(from) = change.from {
            self.ended.remove(&(from, at.clone()));
        }
    }

    /// A commit of a branch.
    pub(super) fn commit(&self, branch: u128, at: &At) -> Option<Commit> {
        let part = self.parts.get(&(branch, at.clone()))?.as_ref()?;
        Some(Commit { branch, made_with: part.made_with })
    }

    pub(super) fn insert_commit(&mut self, Commit { branch, made_with }: Commit, at: &At, key: u128) {
        self.parts.insert((branch, at.clone()), Some(OnBranch { key, made_with }));
        self.on_branches += 1;
    }

    pub(super) fn remove_commit(&mut self, branch: u128, at: &At) {
        self.on_branches -= usize::from(self.parts.remove(&(branch, at.clone())).is_some());
    }

    /// How many commits of branches are kept.
    #[cfg(test)]
    pub(super) fn commits(&self) -> usize {
        self.on_branches
    }

    pub(super) fn insert_end(&mut self, at: &At, end: End, key: u128) {
        self.ended.insert((end.from, at.clone()));
        self.ends.insert(at.clone(), (end, key));
    }

    /// The branch that it came from.
    pub(super) fn remove_end(&mut self, at: &At) -> Option<u128> {
        let (end, _) = self.ends.remove(at)?;
        self.ended.remove(&(end.from, at.clone()));
        Some(end.from)
    }

    /// Takes out the changes before a place; they are still to be unlinked.
    pub(super) fn forget(&mut self, first: &At) -> Timeline<Change> {
        self.begun = self.begun.split_off(first);
        let kept = self.changes.split_off(first);
        std::mem::replace(&mut self.changes, kept)
    }

    /// Lets the oldest commits of branches go when there are a quarter more than the most; the keys of their subjects.
    pub(super) fn shed_beyond(&mut self, most: usize) -> Vec<u128> {
        if self.on_branches <= most + most / 4 {
            return Vec::new();
        }
        let mut times: Vec<i64> = self.parts.iter().filter(|(_, part)| part.is_some()).map(|((_, at), _)| at.0).collect();
        let (_, oldest, _) = times.select_nth_unstable(self.on_branches - most);
        let oldest = *oldest;
        self.shed(oldest)
    }

    /// Lets commits of branches go that were made before a moment, and ends of requests from then; the keys of their subjects. Each
    /// request keeps the commit that it begins with.
    pub(super) fn shed(&mut self, before: i64) -> Vec<u128> {
        let requests = self.changes.range(..since(before.saturating_add(BRANCH_LIFE))).filter(|(_, (c, _))| c.first_commit.is_none());
        let first = requests.filter_map(|(at, (request, _))| Some((at, self.first_commit(at, request)?.commit)));
        let begun: Vec<_> = first.filter(|(_, first)| first.0 < before && !self.changes.contains_key(first)).collect();
        let begun: Vec<_> = begun.into_iter().map(|(at, first)| (at.clone(), first.clone())).collect();
        self.begun.extend(begun);
        let old = self.parts.extract_if(.., |(_, at), part| at.0 < before && part.is_some());
        let mut keys: Vec<u128> = old.filter_map(|(_, part)| part).map(|part| part.key).collect();
        self.on_branches -= keys.len();
        let kept = self.ends.split_off(&since(before));
        for (at, (end, key)) in std::mem::replace(&mut self.ends, kept) {
            self.ended.remove(&(end.from, at));
            keys.push(key);
        }
        keys
    }

    /// From when on deployments may be told otherwise by a change that came or went, and the commits by which others name what it
    /// touches.
    pub(super) fn touched(&self, at: &At, change: &Change) -> (i64, Vec<u128>) {
        // What a pushed commit merged, or is the newest one of; and a push of the same commit as the merge of a request.
        let same: Vec<_> = change.merge.into_iter().flat_map(|commit| self.of_commit(commit)).collect();
        let from = same.iter().map(|(other, _)| other.0).min().map_or(at.0, |other| other.min(at.0));
        let requests = same.iter().copied().filter(|(_, other)| !other.is_push).chain((!change.is_push).then_some((at, change)));
        // Those from the same branch after it may begin with another commit.
        let all = requests.flat_map(|(at, request)| {
            let next = request.from.into_iter().flat_map(move |branch| self.requests(branch, at));
            commits_of(request).chain(next.flat_map(|(_, other)| commits_of(other)))
        });
        (from, commits_of(change).chain(all).collect())
    }

    /// The pushes whose commits and requests may belong together otherwise by a change that came or went.
    pub(super) fn pushes(&self, change: &Change) -> BTreeSet<u128> {
        let merge = change.merge.filter(|_| !change.is_push);
        [change.with, merge, merge.map(|merge| self.push_of(merge))].into_iter().flatten().collect()
    }

    /// As [`Repository::touched`], by another belonging of the commits of a push.
    pub(super) fn touched_by_push(&self, push: u128) -> Option<(i64, Vec<u128>)> {
        let train = self.train(push);
        if train.is_empty() {
            return None;
        }
        let parts = || self.parts(push, i64::MIN);
        let from = parts().next().into_iter().chain(train.keys().copied()).map(|at| at.0).min()?;
        let commits = parts().filter_map(|at| self.change(at)).chain(train.iter().map(|(at, change)| (*at, *change)));
        Some((from, commits.flat_map(|(_, change)| commits_of(change)).collect()))
    }

    /// The commits of the requests that the end of another one from their branch may touch.
    pub(super) fn touched_by_end(&self, at: &At, branch: u128) -> Vec<u128> {
        self.requests(branch, at).flat_map(|(_, request)| commits_of(request)).collect()
    }
}
