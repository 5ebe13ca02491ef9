//! What a row counted, so that a number leads to its rows.

use serde_json::{Value, json};

use kiro_schemas::Span;

use super::assess::{Blame, Outcome};
use super::facts::At;
use super::repository::First;
use super::state::Unit;

/// Most ids of a kind in a row; how many more there are is told.
const MOST: usize = 50;

/// Where to look, and the ids of what was counted, as JSON.
pub(super) fn of(unit: &Unit, outcomes: &[Outcome<'_>], span: Span) -> String {
    let changes: Vec<_> = outcomes.iter().flat_map(|o| &o.brought).map(|b| Value::from(&*b.change.1.id)).collect();
    let first_commits = outcomes.iter().flat_map(|o| &o.brought).filter_map(|b| Some((b.change, b.first?)));
    let first_commits: Vec<_> = first_commits.map(|(change, first)| first_commit(change, first)).collect();
    let failures: Vec<_> = outcomes.iter().filter(|o| !o.blames.is_empty()).map(failure).collect();
    let reworks: Vec<_> = outcomes.iter().filter(|o| o.is_rework).map(|o| deployment(o.at)).collect();
    let source = unit.name.source.replace('\'', "''");
    let place = format!("source = '{source}' AND finished_at >= '{}' AND finished_at < '{}'", span.start, span.end);
    let mut evidence = json!({ "where": place });
    let deployments = outcomes.iter().map(|o| deployment(o.at)).collect();
    for (kind, mut all) in
        [("deployments", deployments), ("changes", changes), ("first_commits", first_commits), ("failures", failures), ("reworks", reworks)]
    {
        if let Some(more) = all.len().checked_sub(MOST).filter(|more| *more > 0) {
            evidence[format!("more_{kind}")] = more.into();
        }
        all.truncate(MOST);
        if !all.is_empty() {
            evidence[kind] = all.into();
        }
    }
    evidence.to_string()
}

/// The commit that a change begins with; where several changes of one push may begin with it, how many.
fn first_commit(change: &At, first: First<'_>) -> Value {
    let told = json!({ "change": &*change.1.id, "commit": &*first.commit.1.id });
    if first.among == 1 { told } else { json!({ "change": told["change"], "commit": told["commit"], "among": first.among }) }
}

/// `42`, `42/2` for its second attempt, `run 42` for a run that counts as a deployment.
fn deployment((_, name): &At) -> Value {
    let run = if name.is_run { "run " } else { "" };
    if name.attempt == 1 { format!("{run}{}", name.id).into() } else { format!("{run}{}/{}", name.id, name.attempt).into() }
}

fn failure(outcome: &Outcome<'_>) -> Value {
    let because = outcome.blames.iter().map(|blame| match blame {
        Blame::Incident((_, name), _) => json!({ "incident": &*name.id, "source": &*name.source }),
        Blame::Rollback(at) => json!({ "rollback": deployment(at) }),
        Blame::Hotfix(at) => json!({ "hotfix": deployment(at) }),
    });
    json!({ "deployment": deployment(outcome.at), "because": because.take(MOST).collect::<Vec<_>>() })
}
