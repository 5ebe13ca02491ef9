//! What is told of GitLab alone.

use kiro_integrations::platform;
use kiro_schemas::{Event, Micros, Transition};

use crate::payload;

fn all<'p>(event: &str, payload: &'p str) -> Vec<Event<'p>> {
    crate::events(platform("gitlab").expect("a platform"), event, payload.as_bytes())
}

fn one<'p>(event: &str, payload: &'p str) -> Event<'p> {
    all(event, payload).remove(0)
}

fn attribute<'e>(event: &'e Event<'_>, name: &str) -> Option<&'e str> {
    event.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
}

#[test]
fn a_job_says_how_long_it_waited_and_why_it_failed() {
    let text = payload("gitlab", "Job-Hook.failed.own");
    let job = one("Job Hook", &text);
    let at = |text: &str| Micros::parse(text);
    assert_eq!(job.get("queued_at").as_time(), at("2026-02-03T02:59:47.5Z"));
    assert_eq!(job.get("started_at").as_time(), at("2026-02-03T03:00:00Z"));
    assert_eq!((job.get("outcome").as_text(), job.get("status").as_text()), (Some("error"), Some("failed")));
    assert_eq!(attribute(&job, "failure_reason"), Some("job_execution_timeout"));
    assert_eq!((job.get("run_id").as_text(), job.get("runner").as_text()), (Some("2366"), Some("runner-7")));
    assert_eq!(attribute(&job, "environment_tier"), Some("production"));
    let text = payload("gitlab", "Job-Hook.running.own");
    assert_eq!(attribute(&one("Job Hook", &text), "failure_reason"), None, "it has not failed");
}

#[test]
fn a_retried_job_is_another_attempt() {
    let (first, again) = (payload("gitlab", "Job-Hook.failed.own"), payload("gitlab", "Job-Hook.retried.own"));
    let (first, again) = (one("Job Hook", &first), one("Job Hook", &again));
    assert_eq!((first.attempt, again.attempt), (1, 2));
    assert_eq!(first.get("task"), again.get("task"));
    assert_eq!(first.get("run_id"), again.get("run_id"));
}

#[test]
fn what_waits_for_a_person_has_not_ended() {
    for (event, name) in [("Job Hook", "Job-Hook.manual.own"), ("Pipeline Hook", "Pipeline-Hook.manual.own")] {
        let text = payload("gitlab", name);
        let told = one(event, &text);
        assert_eq!((told.transition, told.get("status").as_text()), (Transition::Updated, Some("manual")));
        assert!(told.get("outcome").is_null() && told.get("finished_at").is_null());
    }
}

#[test]
fn a_child_names_its_parent() {
    let text = payload("gitlab", "Pipeline-Hook.canceled.own");
    let run = one("Pipeline Hook", &text);
    assert_eq!(attribute(&run, "parent_run_id"), Some("30"));
    assert_eq!(attribute(&run, "parent_source"), Some("https://gitlab.example/acme/parent"));
    assert_eq!(run.get("outcome").as_text(), Some("cancel"));
}

/// Commit, change, run and deployment are found from each other.
#[test]
fn commit_change_run_and_deployment_are_joined() {
    let texts = ["Merge-Request-Hook.merged.own", "Pipeline-Hook.running.own", "Deployment-Hook.failed.own", "Job-Hook.failed.own"];
    let [merge, run, deployment, job] = texts.map(|name| payload("gitlab", name));
    let (merge, run) = (one("Merge Request Hook", &merge), one("Pipeline Hook", &run));
    let (deployment, job) = (one("Deployment Hook", &deployment), one("Job Hook", &job));
    assert_eq!(merge.get("merge_commit_sha"), deployment.get("commit_sha"), "the address has the whole commit");
    assert_eq!(merge.get("merge_commit_sha"), run.get("commit_sha"));
    assert_eq!(attribute(&deployment, "task_run_id"), Some(&*job.subject_id));
    assert_eq!(job.get("run_id").as_text(), Some(&*run.subject_id));
    let text = payload("gitlab", "Pipeline-Hook.pipeline-event");
    assert_eq!(one("Pipeline Hook", &text).get("change_id").as_text(), Some("1"));
}

/// Two people approve at the same second of the request, and one takes it back.
#[test]
fn approvals_are_told_apart() {
    let text = payload("gitlab", "Merge-Request-Hook.approved.own");
    let other = text.replace("\"username\": \"ada\"", "\"username\": \"bob\"");
    let taken_back = text.replace("\"action\": \"approved\"", "\"action\": \"unapproved\"");
    let ids = [&text, &other, &taken_back].map(|text| one("Merge Request Hook", text).id.to_string());
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn a_confidential_incident_is_told_without_its_title() {
    let (open, closed) =
        (payload("gitlab", "Issue-Hook.incident-opened.own"), payload("gitlab", "Confidential-Issue-Hook.incident-opened.own"));
    assert_eq!(one("Issue Hook", &open).get("title").as_text(), Some("Shop is down"));
    let told = one("Confidential Issue Hook", &closed);
    assert!(closed.contains("Shop is down") && !format!("{told:?}").contains("Shop is down"), "{told:?}");
    assert_eq!(told.get("severity").as_text(), Some("critical"));
}

#[test]
fn the_words_are_those_of_github() {
    for (source, expected) in [
        ("push", "push"),
        ("web", "manual"),
        ("schedule", "schedule"),
        ("merge_request_event", "pull_request"),
        ("parent_pipeline", "parent_pipeline"),
    ] {
        let text = payload("gitlab", "Pipeline-Hook.running.own").replace("\"source\": \"web\"", &format!("\"source\": \"{source}\""));
        assert_eq!(one("Pipeline Hook", &text).get("trigger").as_text(), Some(expected));
    }
}

/// Commit, branch, request and merge are found from each other, whichever push is told first.
#[test]
fn a_pushed_commit_says_of_which_branch_and_merge_it_is() {
    let texts = ["Push-Hook.branch.own", "Push-Hook.merge.own", "Merge-Request-Hook.merged.own"].map(|name| payload("gitlab", name));
    let [branch, trunk, merge] = texts.each_ref().map(String::as_str);
    let (branch, trunk, merge) = (all("Push Hook", branch), all("Push Hook", trunk), one("Merge Request Hook", merge));
    assert_eq!((branch.len(), trunk.len()), (2, 3));
    assert_eq!(merge.get("commit_sha").as_text(), Some(&*branch[1].subject_id));
    for commit in &trunk {
        assert_eq!(attribute(commit, "pushed_with"), merge.get("merge_commit_sha").as_text());
        assert_eq!(commit.get("base_branch"), merge.get("base_branch"));
    }
    for (commit, same) in branch.iter().zip(&trunk) {
        assert_eq!((commit.get("branch"), commit.get("base_branch").is_null()), (merge.get("branch"), true));
        assert!(commit.subject_id == same.subject_id && commit.time == same.time && commit.id != same.id);
    }
    assert_eq!(attribute(&merge, "newest_commit_at"), Some("2026-02-02T09:00:00Z"));
}

#[test]
fn an_updated_request_of_a_fork_is_told_whole() {
    let text = payload("gitlab", "Merge-Request-Hook.updated-fork.own");
    let merge = one("Merge Request Hook", &text);
    assert_eq!((merge.transition, merge.get("author").as_text()), (Transition::Updated, Some("ada")));
    let told =
        ["head_source", "merge_status", "draft", "labels", "newest_commit_at", "previous_commit_sha"].map(|name| attribute(&merge, name));
    let expected = [
        "https://gitlab.example/ada/shop",
        "ci_must_pass",
        "true",
        "hotfix",
        "2026-02-02T09:00:00Z",
        "bbbbda6b400935a1378653304eaf6221e0fdb8f0",
    ];
    assert_eq!(told, expected.map(Some));
    let real = payload("gitlab", "Merge-Request-Hook.merge-request-event");
    let opened = one("Merge Request Hook", &real);
    assert_eq!(["labels", "merge_status", "head_source"].map(|name| attribute(&opened, name)), [Some("API"), Some("mergeable"), None]);
    assert_eq!(opened.get("author").as_text(), Some("root"));
}
