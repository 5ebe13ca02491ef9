//! The fold against plain code over the same history, whatever the order, the repeats and the restarts.

mod devlake;
mod lineage;
mod naive;
mod world;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use kiro_ports::Folding;
use kiro_schemas::delivery::Settings;
use kiro_schemas::{Event, Micros, Subject, Tenant, TopicPartition, Transition, Value};
use kiro_tables::{EventRows, Stamp, Table};
use proptest::prelude::*;
use serde_json::json;

use self::world::worlds;
use crate::columns::Column;
use crate::{FoldConfig, Processors, Shard};

/// When the rows of these tests are told: 2026-07-01.
const NOW: i64 = 1_782_864_000_000_000;
const DAY: i64 = 86_400_000_000;

fn settings(section: &serde_json::Value) -> Settings {
    Settings::read(section).expect("a section")
}

fn both() -> Settings {
    settings(&json!({
        "variants": ["kirolinter", "devlake"],
        "timezones": {"cart": "America/New_York"},
        "deployments": [{"pipeline": "ship", "set_environment": "production", "set_service": "cart"}],
    }))
}

fn folds(settings: &Settings, shard: Shard) -> Processors {
    Processors::new(FoldConfig { delivery: settings.clone(), shard, recent_subjects: 1_000_000, ..FoldConfig::default() }).expect("folds").0
}

fn batches(events: &[Event<'_>]) -> Vec<(&'static Table, RecordBatch)> {
    let (tenant, at) = (Tenant::default(), TopicPartition::new("events", 0));
    let mut rows = EventRows::default();
    for event in events {
        rows.push(event, Stamp { tenant: &tenant, recorded_at: Micros(NOW), at: &at, offset: 0 }).expect("a row");
    }
    rows.finish().expect("batches").into_iter().map(|(name, batch)| (Table::find(name).expect("a table"), batch)).collect()
}

/// Folds events, and answers what is missed from all that there are.
fn resume(folds: &mut Processors, events: &[Event<'_>]) {
    apply(folds, events);
    for missing in folds.missing() {
        for (table, batch) in batches(events).into_iter().filter(|(table, _)| table.name == missing.table) {
            folds.supply(table, &batch).expect("supplied");
        }
    }
}

fn apply(folds: &mut Processors, events: &[Event<'_>]) {
    for (table, batch) in batches(events) {
        folds.apply(table, &batch).expect("applied");
    }
}

/// A row of `dora`, column by column as text.
type Row = BTreeMap<&'static str, String>;
/// The current rows: by key, with their revisions.
type Current = BTreeMap<String, (i64, Row)>;

fn text(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => text.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Time(at) => at.to_string(),
        other => format!("{other:?}"),
    }
}

/// Takes rows of `dora` in.
fn take(current: &mut Current, derived: &[(&'static Table, RecordBatch)]) {
    for (table, batch) in derived.iter().filter(|(table, _)| table.name == "dora") {
        let columns: Vec<_> = table.columns.iter().map(|c| (c.name, Column::read(table, batch, c.name).expect("a column"))).collect();
        for at in 0..batch.num_rows() {
            let mut row: Row = columns.iter().map(|(name, column)| (*name, text(&column.value(at)))).collect();
            let rev: i64 = row.remove("_rev").expect("a revision").parse().expect("a number");
            row.remove("recorded_at");
            let key = table.key.iter().map(|name| row[name].as_str()).collect::<Vec<_>>().join("|");
            let old = current.insert(key, (rev, row));
            assert_eq!(old.map_or(-1, |(old, _)| old) + 1, rev, "revisions count up");
        }
    }
}

/// What users see that is not an empty period: without the revisions.
fn shown(current: &Current) -> BTreeMap<&String, &Row> {
    let is_shown = |row: &Row| row["deployments"] != "0" || row["failed_attempts"] != "0";
    current.iter().filter(|(_, (_, row))| is_shown(row)).map(|(key, (_, row))| (key, row)).collect()
}

/// Holds what is shown against plain code.
fn same(current: &Current, seen: &[Event<'_>], settings: &Settings) -> Result<(), TestCaseError> {
    let expected = naive::rows(seen, settings);
    let shown = shown(current);
    let keys = |rows: Vec<&String>| rows.into_iter().cloned().collect::<Vec<_>>();
    prop_assert_eq!(keys(shown.keys().copied().collect()), keys(expected.keys().collect()));
    for (key, expected) in &expected {
        for (name, value) in expected {
            prop_assert_eq!(&shown[key][name], value, "{} of {}", name, key);
        }
    }
    for (_, row) in current.values().filter(|(_, row)| row["deployments"] == "0") {
        for name in ["deployments_per_day", "change_fail_ratio", "lead_time_p50_ms", "recovery_p50_ms", "rework_ratio", "change_fail_band"]
        {
            prop_assert_eq!(&row[name], "null", "{} of nothing", name);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each time that rows are told they are those of what was seen by then, and of nothing that comes later: much at once
    /// first, each part with the one before it again, then event by event.
    #[test]
    fn rows_are_those_of_plain_code_at_any_time(
        (world, order) in worlds().prop_flat_map(|world| {
            let order: Vec<usize> = (0..world.events.len()).collect();
            (Just(world), Just(order).prop_shuffle())
        }),
        size in 10_usize..60,
    ) {
        let settings = both();
        let (mut fold, mut current, mut seen) = (folds(&settings, Shard::default()), Current::new(), Vec::new());
        let (much, rest) = order.split_at(order.len().saturating_sub(12));
        let mut before: &[usize] = &[];
        for part in much.chunks(size).chain(rest.chunks(1)) {
            let events: Vec<_> = part.iter().chain(before).map(|at| world.events[*at].clone()).collect();
            apply(&mut fold, &events);
            seen.extend(events);
            take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
            same(&current, &seen, &settings)?;
            before = part;
        }
    }

    /// A process that is killed at any time and begins with what the tables hold, and goes on, tells the same.
    #[test]
    fn a_restart_changes_nothing(
        (world, order) in worlds().prop_flat_map(|world| {
            let order: Vec<usize> = (0..world.events.len()).collect();
            (Just(world), Just(order).prop_shuffle())
        }),
        cut in 0_usize..200,
        lost in any::<bool>(),
    ) {
        let settings = both();
        let events: Vec<_> = order.iter().map(|at| world.events[*at].clone()).collect();
        let (before, _) = events.split_at(cut.min(events.len()));
        let (mut first, mut current) = (folds(&settings, Shard::default()), Current::new());
        apply(&mut first, before);
        let written = first.emit(Micros(NOW)).expect("rows");
        let mut second = folds(&settings, Shard::default());
        // Tables commit one by one: the last of them may be lacking.
        let kept: Vec<_> = written.iter().filter(|(table, _)| !(lost && table.name == "dora")).cloned().collect();
        take(&mut current, &kept);
        for (table, batch) in &kept {
            second.restore(table, batch).expect("restored");
        }
        resume(&mut second, before);
        let again = second.emit(Micros(NOW)).expect("rows");
        if !lost {
            prop_assert!(again.is_empty(), "{:?}", again.iter().map(|(table, batch)| (table.name, batch.num_rows())).collect::<Vec<_>>());
        }
        take(&mut current, &again);
        resume(&mut second, &events);
        take(&mut current, &second.emit(Micros(NOW)).expect("rows"));
        same(&current, &events, &settings)?;
    }

    /// However many shards there are, each row of `dora` is told by one, and they are the same rows.
    #[test]
    fn shards_tell_each_row_once(world in worlds(), count in 2_u32..5) {
        let settings = both();
        let (mut current, mut tables) = (Current::new(), BTreeMap::new());
        for index in 0..count {
            let mut fold = folds(&settings, Shard { index, count });
            apply(&mut fold, &world.events);
            let rows = fold.emit(Micros(NOW)).expect("rows");
            take(&mut current, &rows);
            for (table, batch) in &rows {
                *tables.entry(table.name).or_insert(0) += batch.num_rows();
            }
        }
        same(&current, &world.events, &settings)?;
        let mut whole = folds(&settings, Shard::default());
        apply(&mut whole, &world.events);
        let expected: BTreeMap<_, _> = whole.emit(Micros(NOW)).expect("rows").iter().map(|(table, batch)| (table.name, batch.num_rows())).collect();
        prop_assert_eq!(tables, expected);
    }

    /// Other rules, other rows: what is not told any more is told to be empty.
    #[test]
    fn other_settings_empty_what_they_do_not_tell(world in worlds()) {
        let (mut first, mut current) = (folds(&both(), Shard::default()), Current::new());
        apply(&mut first, &world.events);
        let written = first.emit(Micros(NOW)).expect("rows");
        take(&mut current, &written);
        let other = settings(&json!({"timezone": "Asia/Tokyo", "environments": {"production": "nowhere"}, "bands": "2021"}));
        let mut second = folds(&other, Shard::default());
        for (table, batch) in &written {
            second.restore(table, batch).expect("restored");
        }
        resume(&mut second, &world.events);
        take(&mut current, &second.emit(Micros(NOW)).expect("rows"));
        same(&current, &world.events, &other)?;
    }
}

/// A service that is deployed every day, once with an incident a month, for so many days before now.
fn steady(days: i64) -> Vec<Event<'static>> {
    let made = (0..days).flat_map(|day| {
        let at = NOW - (days - day) * DAY;
        let mut events = vec![world::deployed("https://ci/shop", &day.to_string(), at, "success")];
        if day % 30 == 3 {
            events.push(world::incident("https://pager", &day.to_string(), "shop", at + 1_000_000, Some(at + 3_600_000_000)));
        }
        events.push(world::merged("https://ci/shop", &day.to_string(), at - 7_200_000_000));
        events
    });
    made.collect()
}

#[test]
fn what_is_kept_does_not_grow_with_history() {
    let settings = settings(&json!({"keep_days": 60}));
    let (mut fold, mut current) = (folds(&settings, Shard::default()), Current::new());
    let mut most = 0;
    for (at, part) in steady(1_500).chunks(7).enumerate() {
        apply(&mut fold, part);
        let now = part.iter().map(|event| event.time.0).max().expect("events");
        take(&mut current, &fold.emit(Micros(now)).expect("rows"));
        if at > 150 {
            most = most.max(fold.dora().state.len().max(fold.dora().told.len()));
        }
    }
    // Three months of deployments and what is looked back, fifteen months of changes, a few incidents.
    assert!(most < 2 * (91 + 21) + 460, "{most} facts are kept");
    // What was told stays, and is what one fold over everything tells: nothing was late.
    let mut whole = folds(&self::settings(&json!({"keep_days": 3000})), Shard::default());
    apply(&mut whole, &steady(1_500));
    let mut expected = Current::new();
    take(&mut expected, &whole.emit(Micros(NOW)).expect("rows"));
    assert_eq!(shown(&current), shown(&expected));
    assert!(expected.len() > 1_500);
}

#[test]
fn what_is_kept_is_told_from_nothing_as_it_was_told_on_the_way() {
    let settings = settings(&json!({"keep_days": 60}));
    let events = steady(400);
    let (mut slow, mut told) = (folds(&settings, Shard::default()), Current::new());
    for part in events.chunks(11) {
        apply(&mut slow, part);
        take(&mut told, &slow.emit(Micros(NOW)).expect("rows"));
    }
    let (mut fast, mut current) = (folds(&settings, Shard::default()), Current::new());
    apply(&mut fast, &events);
    take(&mut current, &fast.emit(Micros(NOW)).expect("rows"));
    assert_eq!(shown(&told), shown(&current));
    let first = current.values().map(|(_, row)| row["period_start"].clone()).min();
    assert_eq!(first.as_deref(), Some("2026-05-01T00:00:00Z"), "whole months");
}

/// What is told again after a change goes further back than the deployments that a rollback could go back to.
#[test]
fn a_late_change_tells_what_named_its_commit_long_before() {
    let settings = settings(&json!({}));
    let start = NOW - 60 * DAY;
    let mut seen: Vec<_> = (0..40)
        .map(|day| {
            let mut event = world::deployed("https://ci/shop", &day.to_string(), start + day * DAY, "success");
            event.attributes.extend((day == 2).then(|| ("commits".into(), "c1".into())));
            event
        })
        .collect();
    let mut push = Event::new(Subject::Change, Transition::Created, "https://ci/shop", "c2", Micros(start + 3 * DAY + DAY / 2));
    push.set("commit_sha", Value::text("c2"));
    push.set("branch", Value::text("main"));
    seen.push(push);
    let (mut fold, mut current) = (folds(&settings, Shard::default()), Current::new());
    apply(&mut fold, &seen);
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    let column = |current: &Current, day: i64, name: &str| {
        let start = Micros(start + day * DAY).to_string();
        let row = current.values().map(|(_, row)| row).find(|row| row["period"] == "day" && row["period_start"] == start);
        row.expect("the day")[name].clone()
    };
    assert_eq!((column(&current, 2, "reworks"), column(&current, 4, "changes")), ("0".to_owned(), "1".to_owned()));
    for (id, commit) in [("1", "c1"), ("2", "c2")] {
        let mut late = world::merged("https://ci/shop", id, start + 38 * DAY + 1);
        late.set("title", Value::text("Revert \"Add a cart\""));
        late.set("merge_commit_sha", Value::text(commit));
        apply(&mut fold, std::slice::from_ref(&late));
        seen.push(late);
        take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
        same(&current, &seen, &settings).expect("as plain code has it");
    }
    // What was named is a fix; what was a push is the merge of a change that came later.
    assert_eq!((column(&current, 2, "reworks"), column(&current, 4, "changes")), ("1".to_owned(), "0".to_owned()));
}

#[test]
fn days_and_weeks_are_those_of_the_service() {
    let settings = settings(&json!({"timezones": {"shop": "Asia/Tokyo"}}));
    let mut fold = folds(&settings, Shard::default());
    // A Sunday evening in London is a Monday morning in Tokyo, and the last of May is the first of June.
    let at = Micros::parse("2026-05-31T22:30:00Z").expect("a time").0;
    apply(&mut fold, &[world::deployed("https://ci/shop", "1", at, "success")]);
    let mut current = Current::new();
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    let spans: Vec<_> = current.values().map(|(_, row)| format!("{} {} {}", row["period"], row["period_start"], row["timezone"])).collect();
    assert_eq!(
        spans,
        ["day 2026-05-31T15:00:00Z Asia/Tokyo", "month 2026-05-31T15:00:00Z Asia/Tokyo", "week 2026-05-31T15:00:00Z Asia/Tokyo",]
    );
}

#[test]
fn a_row_names_what_it_counted() {
    let mut fold = folds(&settings(&json!({})), Shard::default());
    let at = NOW - 3 * DAY;
    let hour = DAY / 24;
    apply(
        &mut fold,
        &[
            world::deployed("https://ci/shop", "1", at, "success"),
            world::merged("https://ci/shop", "17", at + hour),
            world::deployed("https://ci/shop", "2", at + 2 * hour, "success"),
            world::deployed("https://ci/shop", "3", at + 3 * hour, "failure"),
            world::incident("https://pager/o'hare", "P1", "shop", at + 4 * hour, Some(at + 5 * hour)),
        ],
    );
    let mut current = Current::new();
    take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    let (_, row) = current.iter().find(|(key, _)| key.contains("|day|")).expect("the day").1;
    let evidence: serde_json::Value = serde_json::from_str(&row["evidence"]).expect("JSON");
    assert_eq!(
        evidence,
        json!({
            "where": "source = 'https://ci/shop' AND finished_at >= '2026-06-28T00:00:00Z' AND finished_at < '2026-06-29T00:00:00Z'",
            "deployments": ["1", "2"],
            "changes": ["17"],
            "failures": [{"deployment": "2", "because": [{"incident": "P1", "source": "https://pager/o'hare"}]}],
        })
    );
    let figures = ["deployments", "failed_attempts", "change_fail_ratio", "recovery_p50_ms", "lead_time_p50_ms", "reworks", "rework_ratio"];
    assert_eq!(figures.map(|name| row[name].as_str()), ["2", "1", "0.5", "10800000", "7200000", "0", "0"]);
    let bands = ["frequency_band", "lead_time_band", "change_fail_band", "recovery_band", "bands"];
    assert_eq!(bands.map(|name| row[name].as_str()), ["null", "elite", "low", "high", "2023"]);
}

#[test]
fn a_rollback_tells_a_deployment_of_days_before_that_it_failed() {
    let (mut fold, mut current) = (folds(&settings(&json!({})), Shard::default()), Current::new());
    for (day, version) in ["v1", "v2", "v3", "v4", "v1"].into_iter().enumerate() {
        let at = NOW - 10 * DAY + i64::try_from(day).expect("small") * DAY;
        let mut event = world::deployed("https://ci/shop", &day.to_string(), at, "success");
        event.set("artifact_id", Value::text(version));
        apply(&mut fold, &[event]);
        take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
    }
    let days =
        current.iter().filter(|(key, _)| key.contains("|day|")).map(|(_, (_, row))| (&*row["change_failures"], &*row["recovery_p50_ms"]));
    // The first after the version that is back, three days before.
    assert_eq!(days.collect::<Vec<_>>(), [("0", "null"), ("1", "259200000"), ("0", "null"), ("0", "null"), ("0", "null")]);
}

/// A commit that was pushed to a branch, or, with the newest commit that came with it, to the trunk.
fn pushed(sha: &str, at: i64, branch: &str, with: Option<&str>) -> Event<'static> {
    let mut event = Event::new(Subject::Change, Transition::Created, "https://ci/shop", sha.to_owned(), Micros(at));
    event.set("commit_sha", Value::text(sha.to_owned()));
    event.set("branch", Value::text(branch.to_owned()));
    if let Some(with) = with {
        event.set("base_branch", Value::text("main"));
        event.attributes.push(("pushed_with".into(), with.to_owned().into()));
        event.id = format!("{}/trunk", event.id).into();
    }
    event
}

/// Requests from one branch: their lead times begin with the first commit of each, as far as pushes or the source tell of it.
#[test]
fn a_lead_time_begins_with_the_first_commit_that_was_pushed() {
    let (hour, start) = (DAY / 24, NOW - 3 * DAY);
    let request = |id: &str, from: &str, merge: &str, created: i64, merged: i64| {
        let mut event = world::merged("https://ci/shop", id, start + merged * hour);
        event.set("created_at", Value::Time(Micros(start + created * hour)));
        event.set("branch", Value::text(from.to_owned()));
        event.set("merge_commit_sha", Value::text(merge.to_owned()));
        event
    };
    let at = |hours: i64| start + hours * hour;
    let deployed = |id: &str, commit: &str, hours: i64| {
        let mut event = world::deployed("https://ci/shop", id, at(hours), "success");
        event.set("commit_sha", Value::text(commit.to_owned()));
        event
    };
    let mut fork = request("30", "cart", "m3", 12, 13);
    fork.attributes.push(("head_source".into(), "https://ci/fork".into()));
    let mut newest = request("31", "tax", "m4", 14, 15);
    newest.attributes.push(("newest_commit_at".into(), Micros(at(13)).to_string().into()));
    let mut events = vec![
        deployed("1", "m0", 0),
        // Merged with its commits, which the trunk has from then on.
        pushed("c1", at(1), "cart", None),
        pushed("c2", at(2), "cart", None),
        request("17", "cart", "m1", 3, 5),
        pushed("c1", at(1), "cart", Some("m1")),
        pushed("c2", at(2), "cart", Some("m1")),
        pushed("m1", at(5), "main", Some("m1")),
        deployed("2", "m1", 6),
        // Of the same branch later, as one commit that the trunk did not see before.
        pushed("c3", at(7), "cart", None),
        request("18", "cart", "m2", 8, 9),
        pushed("m2", at(9), "main", Some("m2")),
        deployed("3", "m2", 10),
        fork,
        deployed("4", "m3", 13),
        newest,
        deployed("5", "m4", 16),
        // Merged and deployed without a commit of its own.
        request("32", "fast", "c9", 17, 18),
        pushed("c8", at(12), "fast", Some("c9")),
        pushed("c9", at(13), "fast", Some("c9")),
        deployed("6", "c9", 19),
    ];
    for _ in 0..2 {
        let (mut fold, mut current) = (folds(&settings(&json!({})), Shard::default()), Current::new());
        for event in &events {
            apply(&mut fold, std::slice::from_ref(event));
            take(&mut current, &fold.emit(Micros(NOW)).expect("rows"));
        }
        same(&current, &events, &settings(&json!({}))).expect("as plain code has it");
        let row = current.iter().find(|(key, _)| key.contains("|month|")).expect("the month").1.1.clone();
        let evidence: serde_json::Value = serde_json::from_str(&row["evidence"]).expect("JSON");
        assert_eq!(evidence["changes"], json!(["17", "18", "30", "31", "32"]), "no commit counts beside its request");
        let first = [("17", "c1"), ("18", "c3"), ("32", "c8")].map(|(change, commit)| json!({"change": change, "commit": commit}));
        assert_eq!(evidence["first_commits"], json!(first));
        // 5, 3, 1, 3 and 7 hours.
        assert_eq!((&*row["changes"], &*row["lead_time_p50_ms"]), ("5", &*(3 * hour / 1_000).to_string()));
        events.reverse();
    }
}
