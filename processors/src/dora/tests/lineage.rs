//! Whose a pushed commit is: several requests of one push, branches that are used again, and what is let go.

use kiro_ports::Folding as _;
use kiro_schemas::{Event, Micros, Subject, Transition, Value};
use serde_json::{Value as Json, json};

use super::{Current, DAY, NOW, apply, folds, pushed, same, settings, shown, take, world};
use crate::Shard;
use crate::dora::repository::{MOST_COMMITS, Repository};

const HOUR: i64 = DAY / 24;
const START: i64 = NOW - 4 * DAY;
const SHOP: &str = "https://ci/shop";

fn at(hours: i64) -> i64 {
    START + hours * HOUR
}

/// A request from a branch that was merged, or closed if it has no merge.
fn request(id: &str, from: &str, [created, ended]: [i64; 2], merge: Option<&str>, head: &str) -> Event<'static> {
    let mut event = world::merged(SHOP, id, at(ended));
    if merge.is_none() {
        event = Event::new(Subject::Change, Transition::Abandoned, SHOP, id.to_owned(), Micros(at(ended)));
        event.set("base_branch", Value::text("main"));
    }
    event.set("created_at", Value::Time(Micros(at(created))));
    event.set("branch", Value::text(from.to_owned()));
    event.set("commit_sha", Value::text(head.to_owned()));
    event.set_text("merge_commit_sha", merge.map(str::to_owned));
    event
}

fn deployed(id: &str, commit: &str, hours: i64) -> Event<'static> {
    let mut event = world::deployed(SHOP, id, at(hours), "success");
    event.set("commit_sha", Value::text(commit.to_owned()));
    event
}

/// The changes of the month with the commits that they begin with, told event by event, forwards and backwards, as plain code has it.
fn first_commits(mut events: Vec<Event<'static>>) -> Vec<Json> {
    let settings = settings(&json!({}));
    let mut told = Vec::new();
    for _ in 0..2 {
        let (mut fold, mut current) = (folds(&settings, Shard::default()), Current::new());
        for event in &events {
            apply(&mut fold, std::slice::from_ref(event));
            take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
        }
        same(&current, &events, &settings).expect("as plain code has it");
        let row = current.iter().find(|(key, _)| key.contains("|month|")).expect("the month").1.1.clone();
        let evidence: Json = serde_json::from_str(&row["evidence"]).expect("JSON");
        told.push(evidence["first_commits"].as_array().cloned().unwrap_or_default());
        events.reverse();
    }
    assert_eq!(told[0], told[1], "the order of deliveries changes something");
    told.remove(0)
}

#[test]
fn each_request_of_a_push_begins_with_its_own_commit() {
    // Two branches whose merges come with one push, and a commit beside them.
    let train = vec![
        deployed("1", "m0", 0),
        pushed("a1", at(1), "left", None),
        pushed("b1", at(4), "right", None),
        request("17", "left", [5, 9], Some("m1"), "a1"),
        request("18", "right", [6, 10], Some("m2"), "b1"),
        pushed("a1", at(1), "left", Some("m2")),
        pushed("b1", at(4), "right", Some("m2")),
        pushed("m1", at(9), "main", Some("m2")),
        pushed("m2", at(10), "main", Some("m2")),
        deployed("2", "m2", 11),
    ];
    assert_eq!(first_commits(train), [json!({"change": "17", "commit": "a1"}), json!({"change": "18", "commit": "b1"})]);
    // Of forks the branches are other people's: nothing tells whose the first commit is, and it is told so.
    let fork = |mut event: Event<'static>| {
        event.attributes.push(("head_source".into(), "https://ci/fork".into()));
        event
    };
    let forks = vec![
        deployed("1", "m0", 0),
        fork(request("17", "left", [5, 9], Some("m1"), "a2")),
        fork(request("18", "right", [6, 10], Some("m2"), "b2")),
        pushed("a1", at(1), "main", Some("m3")),
        pushed("a2", at(2), "main", Some("m3")),
        pushed("b1", at(3), "main", Some("m3")),
        pushed("b2", at(4), "main", Some("m3")),
        pushed("m1", at(9), "main", Some("m3")),
        pushed("m2", at(10), "main", Some("m3")),
        // The newest commit is no request's.
        pushed("m3", at(10) + 1, "main", Some("m3")),
        deployed("2", "m3", 11),
    ];
    let both = ["17", "18"].map(|change| json!({"change": change, "commit": "a1", "among": 2}));
    assert_eq!(first_commits(forks), both);
}

#[test]
fn a_branch_that_is_used_again_begins_anew() {
    let closed = vec![
        deployed("1", "m0", 0),
        pushed("c1", at(1), "fix", None),
        request("17", "fix", [2, 5], None, "c1"),
        pushed("c2", at(20), "fix", None),
        request("18", "fix", [21, 22], Some("m2"), "c2"),
        pushed("m2", at(22), "main", Some("m2")),
        deployed("2", "m2", 23),
    ];
    assert_eq!(first_commits(closed), [json!({"change": "18", "commit": "c2"})], "of a request that was closed");
    // A squash leaves the commits behind, and the next merge from there brings them.
    let squashed = vec![
        deployed("1", "m0", 0),
        pushed("c1", at(1), "fix", None),
        request("17", "fix", [2, 5], Some("m1"), "c1"),
        pushed("m1", at(5), "main", Some("m1")),
        pushed("c1", at(1), "fix", Some("m2")),
        pushed("c2", at(20), "fix", Some("m2")),
        request("18", "fix", [21, 22], Some("m2"), "c2"),
        pushed("m2", at(22), "main", Some("m2")),
        deployed("2", "m2", 23),
    ];
    assert_eq!(first_commits(squashed), [json!({"change": "18", "commit": "c2"})], "of a request that was squashed");
    // What came with its own merge is there: the next one brought what was made before that.
    let whole = vec![
        deployed("1", "m0", 0),
        pushed("c1", at(1), "fix", Some("m1")),
        request("17", "fix", [2, 5], Some("m1"), "c1"),
        pushed("m1", at(5), "main", Some("m1")),
        pushed("c2", at(4), "fix", Some("m2")),
        request("18", "fix", [21, 22], Some("m2"), "c2"),
        pushed("m2", at(22), "main", Some("m2")),
        deployed("2", "m2", 23),
    ];
    let each = [json!({"change": "17", "commit": "c1"}), json!({"change": "18", "commit": "c2"})];
    assert_eq!(first_commits(whole), each, "of a request that was merged whole");
}

#[test]
fn a_branch_that_is_deleted_and_made_anew_begins_anew() {
    let made = |mut event: Event<'static>, push: &str| {
        event.attributes.push(("new_branch".into(), format!("fix@{push}").into()));
        event
    };
    let events = vec![
        deployed("1", "m0", 0),
        made(pushed("c1", at(1), "fix", None), "c1"),
        pushed("c2", at(2), "fix", None),
        made(pushed("c3", at(20), "fix", None), "c4"),
        made(pushed("c4", at(21), "fix", None), "c4"),
        pushed("c5", at(22), "fix", None),
        request("18", "fix", [23, 24], Some("m2"), "c5"),
        pushed("m2", at(24), "main", Some("m2")),
        deployed("2", "m2", 25),
    ];
    assert_eq!(first_commits(events), [json!({"change": "18", "commit": "c3"})]);
}

#[test]
fn the_same_work_keeps_its_first_commit() {
    // Closed, and asked for again with the same commits.
    let again = vec![
        deployed("1", "m0", 0),
        pushed("c1", at(1), "fix", None),
        pushed("c2", at(2), "fix", None),
        request("17", "fix", [3, 5], None, "c2"),
        request("18", "fix", [6, 8], Some("m2"), "c2"),
        pushed("m2", at(8), "main", Some("m2")),
        deployed("2", "m2", 9),
    ];
    assert_eq!(first_commits(again), [json!({"change": "18", "commit": "c1"})]);
    // Asked for in two places at the same time.
    let twice = vec![
        deployed("1", "m0", 0),
        pushed("c1", at(1), "fix", None),
        request("17", "fix", [3, 5], Some("m1"), "c1"),
        pushed("c2", at(6), "fix", None),
        request("18", "fix", [4, 8], Some("m2"), "c2"),
        pushed("m1", at(5), "main", Some("m1")),
        pushed("m2", at(8), "main", Some("m2")),
        deployed("2", "m2", 9),
    ];
    assert_eq!(first_commits(twice), ["17", "18"].map(|change| json!({"change": change, "commit": "c1"})));
}

/// Ten commits of a branch a day, which a request brings to the trunk on the next; so many days before now.
fn daily(days: i64) -> Vec<Vec<Event<'static>>> {
    let one = |day: i64| {
        let (start, name) = (NOW - (days - day) * DAY, format!("work-{day}"));
        let mut events: Vec<_> = (0..10).map(|n| pushed(&format!("c{day}.{n}"), start + n * HOUR, &name, None)).collect();
        let mut merged = world::merged(SHOP, &day.to_string(), start + 20 * HOUR);
        merged.set("branch", Value::text(name));
        merged.set("merge_commit_sha", Value::text(format!("m{day}")));
        events.extend([merged, world::deployed(SHOP, &day.to_string(), start + 22 * HOUR, "success")]);
        events
    };
    (0..days).map(one).collect()
}

/// Commits of branches go when nothing can begin with them any more, and what began with them stays so.
#[test]
fn commits_of_branches_are_let_go() {
    let settings = settings(&json!({}));
    let all = daily(600);
    let (mut fold, mut current, mut most) = (folds(&settings, Shard::default()), Current::new(), 0);
    for day in &all {
        apply(&mut fold, day);
        take(&mut current, &fold.emit(Micros(day[11].time.0)).expect("rows"));
        most = most.max(fold.dora().state.repositories.iter().map(Repository::commits).sum());
    }
    // Half a year, a month for what is told late, and the month that is not over.
    assert!((2_110..=10 * (180 + 31 + 31)).contains(&most), "{most} commits are kept");
    let mut late = world::merged(SHOP, "70", all[70][10].time.0 + HOUR);
    late.transition = Transition::Updated;
    late.derive_id();
    late.set("title", Value::text("Revert \"Add a cart\""));
    apply(&mut fold, std::slice::from_ref(&late));
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    // By a clock that stands at the beginning nothing is ever let go.
    let (mut whole, mut expected) = (folds(&settings, Shard::default()), Current::new());
    for day in &all {
        apply(&mut whole, day);
    }
    apply(&mut whole, std::slice::from_ref(&late));
    take(&mut expected, &whole.emit(Micros(all[0][0].time.0)).expect("rows"));
    assert_eq!(whole.dora().state.repositories.iter().map(Repository::commits).sum::<usize>(), 6_000);
    assert_eq!(shown(&current), shown(&expected));
    let evidence: Json =
        serde_json::from_str(&shown(&current).into_values().find(|row| row["period"] == "month").expect("a month")["evidence"])
            .expect("JSON");
    assert_eq!(evidence["first_commits"][0], json!({"change": "1", "commit": "c1.0"}));
}

/// A repository that is pushed to without end holds no more than the most.
#[test]
fn commits_of_a_repository_are_bounded() {
    let settings = settings(&json!({}));
    let mut fold = folds(&settings, Shard::default());
    let minute = HOUR / 60;
    let count = i64::try_from(MOST_COMMITS).expect("a number") * 2;
    let commits = (0..count).map(|n| pushed(&format!("c{n}"), NOW - (count - n) * minute, "work", None));
    let commits: Vec<_> = commits.collect();
    for part in commits.chunks(10_000) {
        apply(&mut fold, part);
        let kept: usize = fold.dora().state.repositories.iter().map(Repository::commits).sum();
        assert!(kept <= MOST_COMMITS + MOST_COMMITS / 4, "{kept} commits are kept");
        assert_eq!(fold.dora().state.len(), kept, "their keys go with them");
    }
    // The newest are kept.
    let request = |id: &str, minutes: i64| {
        let mut event = world::merged(SHOP, id, NOW - minutes * minute);
        event.set("created_at", Value::Time(Micros(NOW - minutes * minute)));
        event.set("branch", Value::text("work"));
        event
    };
    apply(
        &mut fold,
        &[world::deployed(SHOP, "1", NOW - 2 * minute, "success"), request("17", 1), world::deployed(SHOP, "2", NOW, "success")],
    );
    let mut current = Current::new();
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    let row = current.values().map(|(_, row)| row).rfind(|row| row["period"] == "day").expect("a day");
    let evidence: Json = serde_json::from_str(&row["evidence"]).expect("JSON");
    let first: usize = evidence["first_commits"][0]["commit"].as_str().and_then(|name| name.get(1..)?.parse().ok()).expect("a number");
    assert!((MOST_COMMITS - MOST_COMMITS / 4..=MOST_COMMITS).contains(&first), "{first}");
}
