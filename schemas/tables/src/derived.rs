//! The tables that folds derive, and those that ingest writes about itself.

use kiro_schemas::Kind::{Float, Int, Map, Text, Time};

use crate::table::{KNOWN_AT, RECORDED_AT, REV, SOURCE, TENANT, column};
use crate::{Table, TableColumn, TableShape};

/// The history features of a run, in their table order, with what they mean.
const HISTORY: &[(&str, &str)] = &[
    ("last", "Outcome of the last known run, 1 = failed."),
    ("last2", "Outcome of the last known run but one."),
    ("fr3", "Failure rate of the last 3 known runs."),
    ("fr5", "Failure rate of the last 5 known runs."),
    ("fr10", "Failure rate of the last 10 known runs."),
    ("fr20", "Failure rate of the last 20 known runs."),
    ("fr50", "Failure rate of the last 50 known runs."),
    ("fr100", "Failure rate of the last 100 known runs."),
    ("fr300", "Failure rate of the last 300 known runs."),
    ("ew2", "Failure rate with exponential decay, half-life 2 known runs."),
    ("ew8", "Failure rate with exponential decay, half-life 8 known runs."),
    ("ew40", "Failure rate with exponential decay, half-life 40 known runs."),
    ("last_kind", "Outcome of the last known run of the same kind (pull request or not)."),
    ("ew_kind", "Failure rate of the same kind with exponential decay."),
    ("gap", "log(1 + seconds since the previous run began)."),
    ("since_known", "log(1 + seconds since the last known run began)."),
    ("pending", "log(1 + runs that began and are not known yet)."),
    ("streak", "Signed log(1 + length of the current streak): positive of failures, negative of successes."),
    ("since_failure", "log(1 + seconds since the last known failure began)."),
    ("hour", "Hour of the day, 0 to 23, UTC."),
    ("weekday", "Day of the week, 0 = Monday, UTC."),
];

/// The names of the history features, in table order.
#[must_use]
pub fn feature_names() -> Vec<&'static str> {
    HISTORY.iter().map(|(name, _)| *name).collect()
}

pub(crate) fn tables() -> Vec<Table> {
    vec![pipeline_health(), features(), dora(), dead_letters(), ingest_gaps()]
}

fn pipeline_health() -> Table {
    let columns = vec![
        TENANT,
        SOURCE,
        column("pipeline", Text, false, "Name of the pipeline."),
        column("branch", Text, false, "Branch; empty when the source does not tell."),
        column("day", Time, false, "Start of the day (UTC) in which the runs ended."),
        column("runs", Int, false, "Final runs."),
        column("successes", Int, false, "Runs that succeeded."),
        column("failures", Int, false, "Runs that failed."),
        column("failure_ratio", Float, true, "Failures among runs that failed or succeeded; null when there is none."),
        column("duration_p50_ms", Float, true, "Median duration of runs that failed or succeeded, in milliseconds."),
        column("duration_p95_ms", Float, true, "95th percentile of that duration, in milliseconds."),
        column("queue_p50_ms", Float, true, "Median time in the queue, in milliseconds."),
        RECORDED_AT,
        REV,
    ];
    let key = vec!["tenant", "source", "pipeline", "branch", "day"];
    Table::new(
        "pipeline_health",
        "Failure rate, duration and queue of each pipeline and branch, by day.",
        TableShape::Versions,
        key,
        columns,
    )
}

fn features() -> Table {
    let mut columns: Vec<TableColumn> = vec![
        TENANT,
        SOURCE,
        column("pipeline", Text, false, "Name of the pipeline."),
        column("run_id", Text, false, "Run that the features are of."),
        column("attempt", Int, false, "Attempt of the run."),
        column("as_of", Time, false, "The moment of prediction: when the run began. Nothing known later is in the row."),
    ];
    columns.extend(HISTORY.iter().map(|(name, doc)| column(name, Float, false, doc)));
    columns.extend([
        column("known_runs", Int, false, "Labelled runs of the pipeline that were known."),
        column("declared", Map, true, "Declared numeric attributes of the change, as text."),
        RECORDED_AT,
        REV,
    ]);
    let key = vec!["tenant", "source", "pipeline", "run_id", "attempt"];
    Table::new("features", "What was known of each pipeline run when it began.", TableShape::Versions, key, columns)
}

fn dora() -> Table {
    let mut columns = vec![
        TENANT,
        SOURCE,
        column("service", Text, false, "Service that is deployed."),
        column("environment", Text, false, "What the environment is for: `production`, `staging`, `test`, `development`."),
        column("variant", Text, false, "Set of definitions: `kirolinter`, or `devlake`."),
        column("period", Text, false, "How long it is: `day`, `week` (from Monday) or `month`."),
        column("period_start", Time, false, "Its start, at midnight in the service's time zone."),
        column("period_end", Time, false, "First moment after it; in the future while it lasts."),
        column("timezone", Text, false, "Time zone of the service's days."),
    ];
    columns.extend(dora_metrics());
    columns.extend([
        column("bands", Text, false, "Year of the report that the bands are of."),
        column("evidence", Text, false, "What was counted, as JSON: where to look, ids, what failed and why."),
        RECORDED_AT,
        REV,
    ]);
    let key = vec!["tenant", "source", "service", "environment", "variant", "period", "period_start"];
    Table::new("dora", "DORA's five metrics of each service, by day, week and month.", TableShape::Versions, key, columns)
}

fn dora_metrics() -> [TableColumn; 18] {
    [
        column("deployments", Int, false, "Deployments that succeeded."),
        column("deployment_days", Int, false, "Days of the period with one."),
        column("failed_attempts", Int, false, "Deployments that did not get there: neither deployments nor change failures."),
        column("deployments_per_day", Float, true, "Deployments by calendar days of the period; null without any."),
        column("frequency_band", Text, true, "Band of the deployment frequency; null for days."),
        column("changes", Int, false, "Changes that the deployments brought and whose lead time is known."),
        column("lead_time_p50_ms", Float, true, "Median lead time of those changes, from commit to deployed, in milliseconds."),
        column("lead_time_p90_ms", Float, true, "90th percentile of it, in milliseconds."),
        column("deploy_time_p50_ms", Float, true, "Median time from merge to deployed, in milliseconds."),
        column("lead_time_band", Text, true, "Band of the lead time."),
        column("change_failures", Int, false, "Deployments that failed in use: an incident, a rollback or a hotfix followed."),
        column("change_fail_ratio", Float, true, "Change failures among deployments; null without deployments."),
        column("change_fail_band", Text, true, "Band of the change fail ratio."),
        column("recoveries", Int, false, "Change failures that are over."),
        column("recovery_p50_ms", Float, true, "Median time from a failed deployment to its recovery, in milliseconds."),
        column("recovery_band", Text, true, "Band of the recovery time."),
        column("reworks", Int, true, "Deployments that mend or take back an earlier one; null where the variant does not define it."),
        column("rework_ratio", Float, true, "Reworks among deployments; null without deployments."),
    ]
}

fn dead_letters() -> Table {
    let columns = vec![
        TENANT,
        column("reason", Text, false, "Why it could not be decoded, with the place."),
        column("size_bytes", Int, false, "Size of the record."),
        column("sha256", Text, false, "SHA-256 of its bytes, hexadecimal; the name of its quarantine file."),
        column("headers", Map, true, "Headers by which its bytes are read, text to text."),
        KNOWN_AT,
        RECORDED_AT,
        column("_topic", Text, false, "Topic of the log that it came from."),
        column("_partition", Int, false, "Partition of that topic."),
        column("_offset", Int, false, "Offset in that partition."),
    ];
    Table::new(
        "dead_letters",
        "Records that could not be decoded; their bytes lie in quarantine files.",
        TableShape::Events,
        vec![],
        columns,
    )
}

fn ingest_gaps() -> Table {
    let columns = vec![
        TENANT,
        column("reason", Text, false, "Why the partition was stopped."),
        column("expected_offset", Int, false, "Offset that was to come next."),
        column("found_offset", Int, true, "First offset that is there."),
        KNOWN_AT,
        RECORDED_AT,
        column("_topic", Text, false, "Topic that was stopped."),
        column("_partition", Int, false, "Partition that was stopped."),
    ];
    Table::new("ingest_gaps", "Partitions that were stopped because a part of the log is missing.", TableShape::Events, vec![], columns)
}
