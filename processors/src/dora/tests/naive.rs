//! The same figures from all events at once: no order, no state, no index.

use std::collections::{BTreeMap, BTreeSet};

use kiro_schemas::delivery::{Bands, Environment, Facts, Frequency, Settings, Variant};
use kiro_schemas::{Event, Micros, Subject, Value, Window};
use serde_json::json;

use super::{DAY, Row};

const MINUTE: i64 = 60_000_000;

/// A subject with all that was said of it; the later event wins.
struct Thing {
    subject: Subject,
    source: String,
    id: String,
    attempt: i64,
    fields: BTreeMap<String, Value<'static>>,
    attributes: BTreeMap<String, String>,
}

impl Thing {
    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_text)
    }

    fn time(&self, name: &str) -> Option<i64> {
        self.fields.get(name).and_then(Value::as_time).map(|at| at.0)
    }

    fn is_rollback(&self) -> bool {
        self.fields.get("is_rollback") == Some(&Value::Bool(true))
    }

    fn facts(&self) -> Facts<'_> {
        let attribute = |name: &str| self.attributes.get(name).map(String::as_str);
        Facts::new(self.subject, &self.source, |name| self.text(name), attribute).with_rollback(self.is_rollback())
    }

    /// `42`, `42/2`, `run 42`.
    fn label(&self) -> String {
        let attempt = if self.attempt == 1 { String::new() } else { format!("/{}", self.attempt) };
        format!("{}{}{attempt}", if self.subject == Subject::PipelineRun { "run " } else { "" }, self.id)
    }
}

fn things(seen: &[Event<'_>]) -> Vec<Thing> {
    let mut events: Vec<_> = seen.iter().collect();
    events.sort_by_key(|event| {
        let rank = event.spec().transitions.iter().position(|step| step.transition == event.transition);
        (event.time, rank, event.id.to_string())
    });
    let mut things: BTreeMap<_, Thing> = BTreeMap::new();
    for event in events {
        let key = (event.subject as usize, event.source.to_string(), event.subject_id.to_string(), event.attempt);
        let thing = things.entry(key).or_insert_with(|| Thing {
            subject: event.subject,
            source: event.source.to_string(),
            id: event.subject_id.to_string(),
            attempt: event.attempt,
            fields: BTreeMap::new(),
            attributes: BTreeMap::new(),
        });
        if let Some(name) = event.spec().transition(event.transition).and_then(|step| step.sets) {
            thing.fields.insert(name.to_owned(), Value::Time(event.time));
        }
        for (column, value) in event.spec().columns.iter().zip(&event.fields).filter(|(_, value)| !value.is_null()) {
            thing.fields.insert(column.name.to_owned(), value.clone().into_owned());
        }
        thing.attributes.extend(event.attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    }
    things.into_values().collect()
}

/// A deployment that ended: which of `things` it is, and of what.
#[derive(Clone)]
struct Deployed {
    source: String,
    service: String,
    environment: Environment,
    at: i64,
    thing: usize,
    is_success: bool,
    began: i64,
    version: Option<String>,
    commits: Vec<String>,
    is_rollback: bool,
    is_hotfix: bool,
}

struct Change {
    at: i64,
    thing: usize,
    merge: Option<String>,
    is_push: bool,
    is_fix: bool,
    /// On which it was pushed and nowhere else.
    branch: Option<String>,
    /// The push that made that branch, if it came with it.
    made_with: Option<String>,
    /// The branch that it comes from.
    from: Option<String>,
    /// The newest commit that was pushed with it.
    with: Option<String>,
}

struct History<'a> {
    things: &'a [Thing],
    deployments: Vec<Deployed>,
    changes: Vec<Change>,
    /// Commits of branches that are no trunk.
    commits: Vec<Change>,
    /// Requests that were closed.
    ends: Vec<Change>,
    incidents: Vec<(i64, usize, Environment)>,
}

fn history<'a>(things: &'a [Thing], settings: &Settings) -> History<'a> {
    let mut history =
        History { things, deployments: Vec::new(), changes: Vec::new(), commits: Vec::new(), ends: Vec::new(), incidents: Vec::new() };
    for (at, thing) in things.iter().enumerate() {
        match thing.subject {
            Subject::Deployment | Subject::PipelineRun => history.deployments.extend(deployed(at, thing, settings)),
            Subject::Change => {
                if let Some(change) = change(at, thing, settings) {
                    let is_trunk = [thing.text("base_branch"), thing.text("branch")].contains(&Some("main"));
                    let is_end = !change.is_push && thing.time("merged_at").is_none();
                    let list = if is_end { &mut history.ends } else { &mut history.changes };
                    if change.is_push && !is_trunk { history.commits.push(change) } else { list.push(change) }
                }
            }
            Subject::Incident => {
                let environment = match thing.text("environment") {
                    Some(_) => settings.environment(&thing.facts()).value,
                    None => Some(Environment::Production),
                };
                let when = thing.time("detected_at");
                let is_incident = settings.is_incident(&thing.facts()).value;
                history.incidents.extend(when.zip(environment).filter(|_| is_incident).map(|(when, e)| (when, at, e)));
            }
            _ => {}
        }
    }
    history.deployments.sort_by_key(|d| {
        let thing = &things[d.thing];
        (d.at, thing.id.clone(), thing.attempt, thing.subject == Subject::PipelineRun)
    });
    history.changes.sort_by_key(|c| (c.at, things[c.thing].id.clone()));
    history.incidents.sort_by_key(|(when, at, _)| (*when, things[*at].id.clone(), things[*at].source.clone()));
    history
}

fn deployed(at: usize, thing: &Thing, settings: &Settings) -> Option<Deployed> {
    let is_success = match thing.text("outcome") {
        Some("success") => true,
        Some("failure" | "error") => false,
        None => thing.is_rollback().then_some(true)?,
        Some(_) => return None,
    };
    let facts = thing.facts();
    let finished = thing.time("finished_at").filter(|_| settings.is_deployment(&facts).value)?;
    let commits = thing.attributes.get("commits").map(|list| list.split_whitespace().map(str::to_owned).collect());
    let commit = thing.text("commit_sha");
    Some(Deployed {
        source: thing.source.clone(),
        service: settings.service(&facts).value?.to_owned(),
        environment: settings.environment(&facts).value?,
        at: finished,
        thing: at,
        is_success,
        began: thing.time("started_at").unwrap_or(finished).min(finished),
        version: thing.text("artifact_id").or(commit).map(str::to_owned),
        commits: commits.unwrap_or_default(),
        is_rollback: settings.is_rollback(&facts).value,
        is_hotfix: settings.is_hotfix(&facts).value,
    })
}

fn change(at: usize, thing: &Thing, settings: &Settings) -> Option<Change> {
    let facts = thing.facts();
    let is_push = thing.text("commit_sha") == Some(thing.id.as_str());
    let merged = thing.time(if is_push { "created_at" } else { "merged_at" }).or_else(|| thing.time("closed_at"));
    let merge = if is_push { Some(thing.id.clone()) } else { thing.text("merge_commit_sha").map(str::to_owned) };
    let is_fix = settings.is_hotfix(&facts).value || settings.is_rollback(&facts).value;
    let branch = thing.text("branch").map(str::to_owned);
    let is_own = thing.text("branch") != thing.text("base_branch") && !thing.attributes.contains_key("head_source");
    let from = branch.clone().filter(|_| is_own);
    let made = thing.attributes.get("new_branch").and_then(|made| made.split_once('@'));
    let made_with = made.filter(|(of, _)| Some(*of) == branch.as_deref()).map(|(_, push)| push.to_owned());
    let with = thing.attributes.get("pushed_with").filter(|_| is_push).cloned();
    Some(Change { at: merged?, thing: at, merge, is_push, is_fix, branch, made_with, from, with })
}

/// The successful deployments of a service in order, and what became of each.
struct Line<'a> {
    history: &'a History<'a>,
    variant: Variant,
    successes: Vec<&'a Deployed>,
}

impl Line<'_> {
    /// What was merged by then is in it.
    fn cut(&self, at: usize) -> i64 {
        let of = self.successes[at];
        let commit = self.history.things[of.thing].text("commit_sha");
        let is_head = |c: &Change| self.history.things[c.thing].text("commit_sha") == commit && c.at <= of.at;
        let is_it = |c: &&Change| commit.is_some() && (c.merge.as_deref() == commit || is_head(c));
        let merged = self.history.changes.iter().filter(|c| self.is_near(of, c)).filter(is_it);
        merged.map(|c| c.at).max().unwrap_or(of.began).min(of.at)
    }

    fn is_near(&self, of: &Deployed, change: &Change) -> bool {
        self.history.things[change.thing].source == of.source
    }

    fn brought(&self, at: usize) -> Vec<&Change> {
        let of = self.successes[at];
        let near = || self.history.changes.iter().filter(|c| self.is_near(of, c));
        let merges: BTreeSet<_> = near().filter(|c| !c.is_push).filter_map(|c| c.merge.clone()).collect();
        let is_known = |commit: &Option<String>| commit.as_ref().is_some_and(|commit| merges.contains(commit));
        let is_with = |c: &Change, r: &Change| {
            let is_of = c.from.is_some() && c.from == r.from && c.at <= r.at && r.at <= c.at + 180 * DAY;
            is_of && r.merge.is_some() && c.with == r.merge.as_ref().map(|merge| self.push_of(of, merge))
        };
        let is_brought = |c: &Change| near().any(|r| !r.is_push && is_with(c, r));
        let is_own = |c: &&Change| !(c.is_push && (is_known(&c.merge) || is_known(&c.with) || is_brought(c)));
        if !of.commits.is_empty() {
            let head = |c: &Change| self.history.things[c.thing].text("commit_sha").map(str::to_owned);
            let is_listed = |commit: Option<String>| commit.is_some_and(|commit| of.commits.contains(&commit));
            return near().filter(is_own).filter(|c| is_listed(head(c)) || is_listed(c.merge.clone())).collect();
        }
        if self.variant == Variant::Devlake || at == 0 {
            return Vec::new();
        }
        let before = (at.saturating_sub(20)..at).map(|earlier| self.cut(earlier)).max().expect("one before");
        let now = self.cut(at);
        near().filter(is_own).filter(|c| before < c.at && c.at <= now).collect()
    }

    /// The newest commit of the push to the trunk that brought a commit.
    fn push_of(&self, of: &Deployed, commit: &str) -> String {
        let is_it = |c: &&Change| self.is_near(of, c) && c.is_push && c.merge.as_deref() == Some(commit);
        let pushed = self.history.changes.iter().find(is_it);
        pushed.and_then(|c| c.with.clone()).unwrap_or_else(|| commit.to_owned())
    }

    /// When the earliest commit was made that belongs to a merged request, which that is, and to how many it may belong.
    fn first_pushed(&self, of: &Deployed, request: &Change) -> Option<(i64, &str, usize)> {
        let things = self.history.things;
        let head = |c: &Change| things[c.thing].text("commit_sha").map(str::to_owned);
        let place = |c: &Change| (c.at, things[c.thing].id.clone());
        let changes: Vec<_> = self.history.changes.iter().filter(|c| self.is_near(of, c)).collect();
        let ends = self.history.ends.iter().filter(|c| self.is_near(of, c));
        let made = things[request.thing].time("created_at").unwrap_or(request.at);
        let is_before = |c: &&Change| {
            let is_earlier = c.from.is_some() && c.from == request.from && place(c) < place(request) && c.at <= made;
            !c.is_push && is_earlier && (head(c).is_none() || head(c) != head(request))
        };
        let before = changes.iter().copied().chain(ends).filter(is_before).max_by_key(|c| place(c));
        let since = before.map_or(i64::MIN, |c| c.at);
        let is_here = |c: &&Change| request.at - 180 * DAY <= c.at && c.at <= request.at;
        let on_branch = self.history.commits.iter().filter(|c| self.is_near(of, c) && request.from.is_some() && c.branch == request.from);
        let on_branch: Vec<_> = on_branch.filter(|c| c.at > since).filter(is_here).collect();
        let made = on_branch.iter().filter(|c| c.made_with.is_some()).max_by_key(|c| place(c)).map(|c| &c.made_with);
        let of_it = on_branch.iter().filter(|c| made.is_none_or(|made| c.made_with == *made));
        let own = of_it.map(|c| (c.at, things[c.thing].id.as_str(), 1)).min();
        let came = request.merge.as_ref().and_then(|merge| {
            let push = self.push_of(of, merge);
            let parts: Vec<_> = changes.iter().copied().filter(|c| c.is_push && c.with.as_ref() == Some(&push)).collect();
            let is_in = |merge: &String| *merge == push || parts.iter().any(|c| c.merge.as_ref() == Some(merge));
            let others: Vec<_> =
                changes.iter().filter(|c| !c.is_push && c.thing != request.thing && c.merge.as_ref().is_some_and(is_in)).collect();
            // What a squash left behind is there with the next merge.
            let is_whole = |c: &Change| {
                let own = c.merge.as_ref().map(|merge| self.push_of(of, merge));
                let has_head = changes.iter().any(|p| p.is_push && p.with == own && head(c).is_some() && p.merge == head(c));
                own.is_some() && own.as_ref() != Some(&push) && has_head
            };
            let is_merged = |c: &Change| things[c.thing].time("merged_at").is_some();
            let since = before.filter(|c| is_merged(c) && !is_whole(c)).map_or(i64::MIN, |c| c.at);
            let is_own = |c: &Change| request.from.is_some() && c.from == request.from;
            let names = |r: &Change, c: &Change| c.merge == r.merge || c.merge == head(r);
            let is_of = |r: &Change, c: &Change| c.from.is_some() && c.from == r.from || names(r, c) && !names(request, c);
            let all: Vec<_> = parts.iter().copied().filter(|c| c.at > since).filter(is_here).collect();
            let all_own: Vec<_> = all.iter().copied().filter(|c| is_own(c)).collect();
            let (meant, among) = if others.is_empty() {
                (all, 1)
            } else if all_own.is_empty() {
                (all.into_iter().filter(|c| !others.iter().any(|r| is_of(r, c))).collect(), others.len() + 1)
            } else {
                (all_own, 1)
            };
            meant.iter().map(|c| (c.at, things[c.thing].id.as_str(), among)).min()
        });
        own.into_iter().chain(came).filter(|_| !request.is_push).min()
    }

    /// Lead and deploy time in milliseconds.
    fn times(&self, of: &Deployed, change: &Change) -> Option<(i64, Option<i64>)> {
        let thing = &self.history.things[change.thing];
        let told = |name: &str| thing.attributes.get(name).map(|text| Micros::parse(text).expect("a time").0);
        let pushed = self.first_pushed(of, change).map(|(at, ..)| at);
        let first = told("first_commit_at").or([pushed, told("newest_commit_at")].into_iter().flatten().min());
        let created = thing.time("created_at");
        if self.variant == Variant::Devlake {
            let minutes = |from: i64, to: i64| (to >= from).then(|| (to - from + MINUTE - 1) / MINUTE * 60_000);
            let stages = [minutes(first.unwrap_or(i64::MAX), created?), minutes(created?, change.at), minutes(change.at, of.at)];
            return stages.iter().any(Option::is_some).then(|| (stages.iter().flatten().sum(), stages[2]));
        }
        let is_fresh = change.at <= of.at && of.at - change.at <= 180 * DAY;
        let start = change.at.min(created.unwrap_or(i64::MAX)).min(first.unwrap_or(i64::MAX));
        is_fresh.then_some(((of.at - start) / 1_000, Some((of.at - change.at) / 1_000)))
    }

    /// Incidents of a deployment: each belongs to the latest one that it can be of.
    fn incidents(&self, of: &Deployed) -> Vec<&(i64, usize, Environment)> {
        let order = |d: &Deployed| {
            let thing = &self.history.things[d.thing];
            (d.at, thing.id.clone(), thing.attempt, thing.subject == Subject::PipelineRun, d.source.clone(), d.service.clone())
        };
        let is_of = |(when, thing, environment): &&(i64, usize, Environment)| {
            let thing = &self.history.things[*thing];
            let fits = |d: &&Deployed| {
                let is_near = thing.text("service").map_or(d.source == thing.source, |service| d.service == service);
                d.is_success && d.environment == *environment && is_near && d.at <= *when
            };
            let latest = self.history.deployments.iter().filter(fits).max_by_key(|d| order(d));
            let is_soon = self.variant == Variant::Devlake || *when <= of.at + 7 * DAY;
            is_soon && latest.is_some_and(|d| d.thing == of.thing)
        };
        self.history.incidents.iter().filter(is_of).collect()
    }

    /// The deployment before that had the same version, with another between.
    fn returned(&self, at: usize) -> Option<usize> {
        let version = |at: usize| self.successes[at].version.as_ref();
        let before = at.checked_sub(1)?;
        let is_other = version(at).is_some() && version(before).is_some() && version(before) != version(at);
        (at.saturating_sub(20)..before).rev().find(|earlier| is_other && version(*earlier) == version(at))
    }

    fn is_rollback(&self, at: usize) -> bool {
        self.successes[at].is_rollback || self.returned(at).is_some()
    }

    fn is_fix(&self, at: usize) -> bool {
        self.successes[at].is_hotfix || self.brought(at).iter().any(|c| c.is_fix)
    }

    /// Later deployments that say that this one failed, with the word for why.
    fn accusers(&self, at: usize) -> Vec<(usize, &'static str)> {
        let blamed = |later: usize| match (self.is_rollback(later), self.is_fix(later)) {
            (true, _) => Some((self.returned(later).map_or(later - 1, |to| to + 1), "rollback")),
            (false, true) => Some((later - 1, "hotfix")),
            (false, false) => None,
        };
        let later = (at + 1..self.successes.len()).filter(|_| self.variant == Variant::Kirolinter);
        later.filter_map(|later| blamed(later).filter(|(failed, _)| *failed == at).map(|(_, word)| (later, word))).collect()
    }

    fn recoveries(&self, at: usize) -> Vec<i64> {
        let start = self.successes[at].at;
        let incidents = self.incidents(self.successes[at]);
        let over: Vec<_> = incidents.iter().map(|(_, thing, _)| self.history.things[*thing].time("resolved_at")).collect();
        if self.variant == Variant::Devlake {
            return over.into_iter().flatten().filter(|end| *end >= start).map(|end| (end - start) / MINUTE * 60_000).collect();
        }
        let end = if over.is_empty() {
            self.accusers(at).iter().map(|(later, _)| self.successes[*later].at).min()
        } else if over.contains(&None) {
            None
        } else {
            over.into_iter().max().flatten()
        };
        end.filter(|end| *end >= start).map(|end| (end - start) / 1_000).into_iter().collect()
    }

    fn because(&self, at: usize) -> Vec<serde_json::Value> {
        let things = self.history.things;
        let incidents = self.incidents(self.successes[at]);
        let incidents = incidents.iter().map(|(_, thing, _)| json!({"incident": things[*thing].id, "source": things[*thing].source}));
        let accusers = self.accusers(at).into_iter().map(|(later, word)| json!({ word: things[self.successes[later].thing].label() }));
        incidents.chain(accusers).collect()
    }
}

/// The rows of every period in which something was deployed or tried: by key, column by column as text.
pub(super) fn rows(seen: &[Event<'_>], settings: &Settings) -> BTreeMap<String, Row> {
    let things = things(seen);
    let history = history(&things, settings);
    let units: BTreeSet<_> = history.deployments.iter().map(|d| (d.source.clone(), d.service.clone(), d.environment)).collect();
    let mut rows = BTreeMap::new();
    for unit in units {
        let own: Vec<_> =
            history.deployments.iter().filter(|d| (&d.source, &d.service, d.environment) == (&unit.0, &unit.1, unit.2)).collect();
        let zone = settings.zone(&unit.1);
        for variant in &settings.variants {
            let line = Line { history: &history, variant: *variant, successes: own.iter().copied().filter(|d| d.is_success).collect() };
            for window in Window::ALL {
                let spans: BTreeSet<_> = own.iter().map(|d| zone.window(window, Micros(d.at))).collect();
                for span in spans {
                    let is_in = |d: &Deployed| span.start.0 <= d.at && d.at < span.end.0;
                    let mut row = figures(&line, is_in, settings, (window, span.days), |d| zone.day(Micros(d.at)));
                    row.insert("failed_attempts", own.iter().filter(|d| !d.is_success && is_in(d)).count().to_string());
                    let place = format!("source = '{}' AND finished_at >= '{}' AND finished_at < '{}'", unit.0, span.start, span.end);
                    let evidence = evidence(&line, is_in, &place);
                    let key = ["default", &unit.0, &unit.1, unit.2.as_str(), variant.as_str(), window.as_str(), &span.start.to_string()];
                    row.extend([("period_end", span.end.to_string()), ("timezone", zone.to_string()), ("evidence", evidence)]);
                    rows.insert(key.join("|"), row);
                }
            }
        }
    }
    rows
}

fn evidence(line: &Line<'_>, is_in: impl Fn(&Deployed) -> bool, place: &str) -> String {
    let things = line.history.things;
    let inside: Vec<_> = (0..line.successes.len()).filter(|at| is_in(line.successes[*at])).collect();
    let label = |at: &usize| things[line.successes[*at].thing].label();
    let mut evidence = json!({"where": place});
    let changes: Vec<_> = inside
        .iter()
        .flat_map(|at| {
            line.brought(*at).into_iter().filter(|c| line.times(line.successes[*at], c).is_some()).map(|c| things[c.thing].id.clone())
        })
        .collect();
    let began: Vec<_> = inside
        .iter()
        .flat_map(|at| {
            let of = line.successes[*at];
            line.brought(*at).into_iter().filter(move |c| line.times(of, c).is_some()).filter_map(move |c| {
                let thing = &things[c.thing];
                let (when, commit, among) = line.first_pushed(of, c).filter(|_| !thing.attributes.contains_key("first_commit_at"))?;
                let newest = thing.attributes.get("newest_commit_at").map(|text| Micros::parse(text).expect("a time").0);
                let is_first = when < c.at && thing.time("created_at").is_none_or(|at| when < at) && newest.is_none_or(|at| when <= at);
                let told = json!({"change": thing.id, "commit": commit});
                let shared = json!({"change": thing.id, "commit": commit, "among": among});
                is_first.then_some(if among == 1 { told } else { shared })
            })
        })
        .collect();
    let failed = inside.iter().filter(|at| !line.because(**at).is_empty());
    let failures: Vec<_> = failed.map(|at| json!({"deployment": label(at), "because": line.because(*at)})).collect();
    let is_rework = |at: &&usize| line.variant == Variant::Kirolinter && (line.is_rollback(**at) || line.is_fix(**at));
    let reworks: Vec<_> = inside.iter().filter(is_rework).map(label).collect();
    let deployments: Vec<_> = inside.iter().map(label).collect();
    for (name, list) in [
        ("deployments", json!(deployments)),
        ("changes", json!(changes)),
        ("first_commits", json!(began)),
        ("failures", json!(failures)),
        ("reworks", json!(reworks)),
    ] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            evidence[name] = list;
        }
    }
    evidence.to_string()
}

fn figures(
    line: &Line<'_>,
    is_in: impl Fn(&Deployed) -> bool,
    settings: &Settings,
    (window, days): (Window, u32),
    day: impl Fn(&Deployed) -> i32,
) -> Row {
    let inside: Vec<_> = (0..line.successes.len()).filter(|at| is_in(line.successes[*at])).collect();
    let count = inside.len() as f64;
    let is_ours = line.variant == Variant::Kirolinter;
    let times: Vec<_> =
        inside.iter().flat_map(|at| line.brought(*at).into_iter().filter_map(|c| line.times(line.successes[*at], c))).collect();
    let middle = |values: Vec<i64>| if is_ours { at_share(values, 0.5) } else { lower(&values) };
    let lead = middle(times.iter().map(|(lead, _)| *lead).collect());
    let failed = inside.iter().filter(|at| !line.because(**at).is_empty()).count();
    let ratio = |part: usize| (count > 0.0).then(|| part as f64 / count);
    let recoveries: Vec<_> = inside.iter().flat_map(|at| line.recoveries(*at)).collect();
    let recovered = recoveries.len();
    let recovery = middle(recoveries);
    let reworks = inside.iter().filter(|at| line.is_rollback(**at) || line.is_fix(**at)).count();
    let with_days = inside.iter().map(|at| day(line.successes[*at])).collect::<BTreeSet<_>>().len();
    let (per, frequency) = if is_ours { (Frequency::PerDay, count) } else { (Frequency::DaysPerWeek, with_days as f64 * 7.0) };
    let bands: Bands = settings.bands;
    let is_banded = count > 0.0 && window != Window::Day;
    let show = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |v| v.to_string());
    let word = |band: Option<kiro_schemas::delivery::Band>| band.map_or("null", |b| b.as_str()).to_owned();
    BTreeMap::from([
        ("deployments", inside.len().to_string()),
        ("deployment_days", with_days.to_string()),
        ("deployments_per_day", show((count > 0.0).then(|| count / f64::from(days)))),
        ("frequency_band", word(is_banded.then(|| bands.frequency(per, frequency / f64::from(days))))),
        ("changes", times.len().to_string()),
        ("lead_time_p50_ms", show(lead)),
        ("lead_time_p90_ms", show(at_share(times.iter().map(|(lead, _)| *lead).collect(), 0.9))),
        ("deploy_time_p50_ms", show(middle(times.iter().filter_map(|(_, deploy)| *deploy).collect()))),
        ("lead_time_band", word(lead.map(|ms| bands.lead_time(ms)))),
        ("change_failures", failed.to_string()),
        ("change_fail_ratio", show(ratio(failed))),
        ("change_fail_band", word(ratio(failed).map(|r| bands.change_fail(r)))),
        ("recoveries", recovered.to_string()),
        ("recovery_p50_ms", show(recovery)),
        ("recovery_band", word(recovery.map(|ms| bands.recovery(ms)))),
        ("reworks", if is_ours { reworks.to_string() } else { "null".to_owned() }),
        ("rework_ratio", show(ratio(reworks).filter(|_| is_ours))),
        ("bands", bands.as_str().to_owned()),
    ])
}

/// The value below which a share lies, between neighbours in proportion.
fn at_share(mut values: Vec<i64>, share: f64) -> Option<f64> {
    values.sort_unstable();
    crate::quantile::quantile(&values, share)
}

/// DevLake's median, as its SQL has it: the greatest value of which at most half of the others are smaller.
fn lower(values: &[i64]) -> Option<f64> {
    let others = values.len() as f64 - 1.0;
    let rank = |value: i64| values.iter().filter(|v| **v < value).count() as f64;
    values.iter().copied().filter(|v| values.len() == 1 || rank(*v) / others <= 0.5).max().map(|v| v as f64)
}
