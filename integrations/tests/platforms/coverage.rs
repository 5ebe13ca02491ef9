//! `docs/coverage.md`: which events of which platform are read, and which columns they fill, as the payloads show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use kiro_integrations::platforms;
use kiro_schemas::{Role, Subject};

use crate::payloads;

/// The events that fill a column, by platform.
type Filled = BTreeMap<&'static str, BTreeSet<String>>;

#[derive(Default)]
struct Coverage {
    /// Platform and event → what is said: `pipeline_run finished`.
    said: BTreeMap<(usize, String), BTreeSet<String>>,
    /// Subject → column → who fills it; attributes stand as `attributes.name`.
    columns: BTreeMap<Subject, BTreeMap<String, Filled>>,
}

fn collect() -> Coverage {
    let mut coverage = Coverage::default();
    for (at, platform) in platforms().iter().enumerate() {
        for payload in payloads(platform).iter().filter(|payload| platform.reads(&payload.event)) {
            for event in payload.events() {
                // A platform whose payloads say what they are has no names for them.
                let name = if payload.event.is_empty() || platform.event_header.is_none() { platform.name } else { &payload.event };
                let said = coverage.said.entry((at, name.to_owned())).or_default();
                said.insert(format!("{} {}", event.subject, event.transition));
                let columns = coverage.columns.entry(event.subject).or_default();
                let spec = event.spec().columns.iter().zip(&event.fields);
                let fields =
                    spec.filter(|(column, value)| column.role == Role::Field && !value.is_null()).map(|(column, _)| column.name.to_owned());
                for column in fields.chain(event.attributes.iter().map(|(name, _)| format!("attributes.{name}"))) {
                    columns.entry(column).or_default().entry(platform.name).or_default().insert(name.to_owned());
                }
            }
        }
    }
    coverage
}

fn row(text: &mut String, cells: &[String]) {
    writeln!(text, "| {} |", cells.join(" | ")).expect("text");
}

fn document(coverage: &Coverage) -> String {
    let mut text = "# Coverage\n\nWhat is read of the webhooks of each platform, and which columns it fills. Written from the payloads in \
                    `integrations/tests` by `make docs`. Other events are taken and give nothing.\n\n| platform | event | says |\n|---|---|---|\n"
        .to_owned();
    let known = platforms();
    for ((at, event), said) in &coverage.said {
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        row(&mut text, &[known[*at].name.to_owned(), format!("`{event}`"), said.join(", ")]);
    }
    for (subject, columns) in &coverage.columns {
        let names: Vec<String> = known.iter().map(|platform| platform.name.to_owned()).collect();
        writeln!(text, "\n## {subject}\n").expect("text");
        row(&mut text, &[vec!["column".to_owned()], names].concat());
        writeln!(text, "|{}", "---|".repeat(known.len() + 1)).expect("text");
        for (column, filled) in columns {
            let cell =
                |name: &str| filled.get(name).map(|events| events.iter().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
            let cells = known.iter().map(|platform| cell(platform.name));
            row(&mut text, &std::iter::once(format!("`{column}`")).chain(cells).collect::<Vec<_>>());
        }
    }
    text
}

#[test]
fn the_document_says_what_the_payloads_show() {
    let (path, expected) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coverage.md"), document(&collect()));
    if std::env::var_os("KIROLINTER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("a writable document");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/coverage.md is not what the payloads show: `make docs` writes it anew");
}

/// The words that both large platforms must have.
#[test]
fn github_and_gitlab_fill_the_same_columns() {
    let coverage = collect();
    let wanted = [
        (
            Subject::PipelineRun,
            "pipeline outcome status branch commit_sha actor change_id trigger queued_at started_at finished_at duration_ms url attributes.title",
        ),
        (
            Subject::TaskRun,
            "pipeline run_id task outcome status runner branch commit_sha queued_at started_at finished_at duration_ms url attributes.runner_labels attributes.environment",
        ),
        (
            Subject::Change,
            "title status branch base_branch commit_sha merge_commit_sha author created_at merged_at closed_at url files_changed attributes.labels attributes.draft attributes.merge_status attributes.head_source attributes.previous_commit_sha attributes.pushed_with attributes.pushed_onto attributes.new_branch attributes.review_state attributes.reviewer",
        ),
        (
            Subject::Deployment,
            "environment service commit_sha branch outcome status actor queued_at started_at finished_at url attributes.environment_tier",
        ),
        (Subject::Artifact, "actor created_at published_at attributes.version"),
        (Subject::Incident, "service status title detected_at resolved_at url attributes.labels"),
    ];
    for (subject, columns) in wanted {
        for column in columns.split(' ') {
            let filled = coverage.columns.get(&subject).and_then(|known| known.get(column));
            let has = |name: &str| filled.is_some_and(|filled| filled.contains_key(name));
            assert!(has("github") && has("gitlab"), "{subject} {column}: github {}, gitlab {}", has("github"), has("gitlab"));
        }
    }
}
