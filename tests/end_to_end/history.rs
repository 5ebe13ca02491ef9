//! A history of pipeline runs, and its forms.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// How many runs a history has; each is queued, started and finished.
pub(crate) const RUNS: usize = 60;

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) source: String,
    pub(crate) pipeline: &'static str,
    pub(crate) id: i64,
    pub(crate) attempt: i64,
    pub(crate) outcome: &'static str,
    pub(crate) branch: &'static str,
    pub(crate) commit: String,
    pub(crate) actor: &'static str,
    pub(crate) change: i64,
    /// Queued, started, finished, known.
    pub(crate) times: [String; 4],
    pub(crate) team: String,
    pub(crate) url: String,
}

/// Two repositories with two pipelines each; every 7th run fails, every 10th is a second attempt of the one before.
pub(crate) fn runs() -> Vec<Run> {
    let run = |at: usize| {
        let is_again = at % 10 == 9;
        let subject = if is_again { at - 1 } else { at };
        // A second attempt is asked for when it starts, as platforms tell it.
        let queued = usize::from(is_again);
        let minute = |plus: usize| {
            let all = at * 37 + plus;
            format!("2026-03-{:02}T{:02}:{:02}:30Z", 1 + all / 1_440, all / 60 % 24, all % 60)
        };
        Run {
            source: format!("https://ci.example/acme/{}", if subject % 3 == 0 { "shop" } else { "api" }),
            pipeline: if subject % 4 < 2 { "build" } else { "deploy" },
            id: 9_000_000 + i64::try_from(subject).unwrap_or(0),
            attempt: if is_again { 2 } else { 1 },
            outcome: if at % 7 == 3 { "failure" } else { "success" },
            branch: if subject % 5 == 0 { "release" } else { "main" },
            commit: format!("{:040x}", subject * 7_919),
            actor: if subject % 2 == 0 { "ada" } else { "grace" },
            change: 100 + i64::try_from(subject).unwrap_or(0),
            times: [minute(queued), minute(1), minute(1 + at % 13), minute(2 + at % 13)],
            team: format!("team \"{}\", é", at % 4),
            url: format!("https://ci.example/runs/{at}"),
        }
    };
    (0..RUNS).map(run).collect()
}

const TRANSITIONS: [&str; 3] = ["queued", "started", "finished"];

impl Run {
    /// The platform's own word after each transition.
    pub(crate) fn status(&self, at: usize) -> &'static str {
        ["queued", "in_progress", self.outcome][at]
    }
}

/// The events of a run as native JSON.
pub(crate) fn native(run: &Run) -> Vec<String> {
    let event = |(at, transition): (usize, &&str)| {
        let mut fields = json!({
            "pipeline": run.pipeline, "branch": run.branch, "commit_sha": run.commit, "url": run.url, "status": run.status(at),
            "actor": run.actor, "trigger": "push", "change_id": run.change.to_string(),
        });
        if at == 2 {
            fields["outcome"] = run.outcome.into();
        }
        let event = json!({
            "subject": "pipeline_run", "transition": transition, "source": run.source, "subject_id": run.id.to_string(),
            "attempt": run.attempt, "time": run.times[at], "known_at": run.times[3], "fields": fields, "attributes": {"team": run.team},
        });
        event.to_string()
    };
    TRANSITIONS.iter().enumerate().map(event).collect()
}

/// The events of a run as CDEvents in CloudEvents; their ids are the producer's own.
pub(crate) fn cdevents(run: &Run) -> Vec<Value> {
    let event = |(at, transition): (usize, &&str)| {
        let id = format!("{}/{}/{}/{transition}", run.source, run.id, run.attempt);
        let kind = format!("dev.cdevents.pipelinerun.{transition}.0.3.0");
        let mut content = json!({"pipelineName": run.pipeline, "uri": run.url});
        if at == 2 {
            content["outcome"] = run.outcome.into();
        }
        json!({
            "specversion": "1.0", "id": id, "source": run.source, "type": kind, "time": run.times[at],
            "datacontenttype": "application/json",
            "data": {
                "context": {"specversion": "0.6.0-draft", "id": id, "source": run.source, "type": kind, "timestamp": run.times[at]},
                "subject": {"id": run.id.to_string(), "source": run.source, "content": content},
                "customData": {
                    "runAttempt": run.attempt, "refName": run.branch, "commitSha": run.commit, "knownAt": run.times[3], "team": run.team,
                    "rawStatus": run.status(at), "actor": run.actor, "trigger": "push", "changeId": run.change.to_string(),
                },
            },
        })
    };
    TRANSITIONS.iter().enumerate().map(event).collect()
}

/// The history as CSV, with columns named in another tongue.
pub(crate) fn csv(runs: &[Run]) -> String {
    let mut text = "Repo,Job,Build,Try,Result,Ref,Hash,Enqueued,Began,Ended,Reported,Link,Who,Change,team\n".to_owned();
    for run in runs {
        let result = if run.outcome == "failure" { "KO" } else { "OK" };
        let Run { source, pipeline, id, attempt, branch, commit, times: [queued, began, ended, known], team, url, actor, change, .. } = run;
        let team = team.replace('"', "\"\"");
        let written = writeln!(
            text,
            "{source},{pipeline},{id},{attempt},{result},{branch},{commit},{queued},{began},{ended},{known},{url},{actor},{change},\"{team}\""
        );
        written.unwrap_or_default();
    }
    text
}

/// The mapping of [`csv`]; it keeps no attributes, as the columns that only one of the events names would be some.
pub(crate) fn mapping() -> String {
    let mut text = "version: 1\nkeep: false\nevents:\n".to_owned();
    for (transition, time) in TRANSITIONS.iter().zip(["Enqueued", "Began", "Ended"]) {
        let outcome = match *transition {
            "queued" => "      status: {const: queued}\n",
            "started" => "      status: {const: in_progress}\n",
            _ => concat!(
                "      outcome: {column: Result, map: {OK: success, KO: failure}}\n",
                "      status: {column: Result, map: {OK: success, KO: failure}}\n"
            ),
        };
        let written = write!(
            text,
            "  - subject: pipeline_run\n    transition: {transition}\n    fields:\n      source: Repo\n      subject_id: Build\n      \
             attempt: Try\n      pipeline: Job\n      branch: Ref\n      commit_sha: Hash\n      url: Link\n      actor: Who\n      \
             change_id: Change\n      trigger: {{const: push}}\n      time: {time}\n      known_at: Reported\n{outcome}"
        );
        written.unwrap_or_default();
    }
    text
}
