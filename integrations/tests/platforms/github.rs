//! What is told of GitHub alone.

use kiro_integrations::platform;
use kiro_schemas::delivery::Settings;
use kiro_schemas::{Event, Subject, Transition};

use crate::payload;

fn normalise<'p>(event: &str, payload: &'p str) -> Vec<Event<'p>> {
    crate::events(platform("github").expect("a platform"), event, payload.as_bytes())
}

fn attribute<'e>(event: &'e Event<'_>, name: &str) -> Option<&'e str> {
    event.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
}

#[test]
fn a_run_again_is_another_attempt() {
    let text = payload("github", "workflow_run.completed");
    assert_eq!(normalise("workflow_run", &text), normalise("workflow_run", &text));
    let again = text.replace("\"run_attempt\": 1", "\"run_attempt\": 2");
    assert_ne!(text, again);
    let (first, second) = (normalise("workflow_run", &text).remove(0), normalise("workflow_run", &again).remove(0));
    assert_eq!((first.subject_id, first.attempt, second.attempt), (second.subject_id, 1, 2));
    assert_ne!(first.id, second.id);
}

#[test]
fn conclusions_become_outcomes_and_stay_as_they_are() {
    let text = payload("github", "workflow_run.completed");
    let words = [
        ("success", Some("success")),
        ("failure", Some("failure")),
        ("cancelled", Some("cancel")),
        ("timed_out", Some("error")),
        ("stale", Some("error")),
        ("startup_failure", Some("error")),
        ("skipped", Some("skip")),
        ("neutral", Some("skip")),
        ("action_required", None),
        ("a word of tomorrow", None),
    ];
    for (word, outcome) in words {
        let payload = text.replace("\"conclusion\": \"success\"", &format!("\"conclusion\": \"{word}\""));
        let event = normalise("workflow_run", &payload).remove(0);
        assert_eq!((event.get("outcome").as_text(), event.get("status").as_text()), (outcome, Some(word)));
    }
}

/// The checks of GitHub's own workflows are told by their runs and jobs; those of others by themselves.
#[test]
fn no_check_is_counted_twice() {
    assert!(normalise("check_run", &payload("github", "check_run.completed.1")).is_empty());
    let text = payload("github", "check_run.completed");
    let check = normalise("check_run", &text).remove(0);
    let suite_text = payload("github", "check_suite.completed");
    let suite = normalise("check_suite", &suite_text).remove(0);
    assert_eq!((check.subject, check.transition), (Subject::TaskRun, Transition::Finished));
    assert_eq!((suite.subject, suite.transition), (Subject::PipelineRun, Transition::Finished));
    assert_eq!(check.get("run_id").as_text(), Some(&*suite.subject_id));
    let again = text.replace("\"action\": \"completed\"", "\"action\": \"rerequested\"");
    assert!(normalise("check_run", &again).is_empty(), "asking again is no run yet");
}

#[test]
fn the_merge_queue_names_its_pull_request() {
    let text = payload("github", "workflow_run.merge-queue.own");
    let run = normalise("workflow_run", &text).remove(0);
    assert_eq!((run.get("change_id").as_text(), run.get("trigger").as_text()), (Some("104"), Some("merge_group")));
    assert_eq!((run.get("outcome").as_text(), run.attempt), (Some("cancel"), 2));
    assert_eq!(attribute(&run, "reusable_workflows"), Some("acme/shared/.github/workflows/deploy.yml@refs/heads/main"));
    let text = payload("github", "merge_group.checks_requested");
    let asked = normalise("merge_group", &text).remove(0);
    assert_eq!((asked.subject, &*asked.subject_id), (Subject::Change, "104"));
    let gone = text.replace("\"checks_requested\"", "\"destroyed\"");
    assert_ne!(asked.id, normalise("merge_group", &gone).remove(0).id);
}

#[test]
fn a_status_of_a_commit_has_its_words() {
    let text = payload("github", "status.any");
    for (state, outcome) in [("success", Some("success")), ("failure", Some("failure")), ("error", Some("error")), ("pending", None)] {
        let payload = text.replace("\"state\": \"success\"", &format!("\"state\": \"{state}\""));
        let event = normalise("status", &payload).remove(0);
        assert_eq!((event.get("outcome").as_text(), event.get("status").as_text()), (outcome, Some(state)));
        assert_eq!(event.transition == Transition::Started, state == "pending");
    }
}

#[test]
fn an_issue_is_told_with_what_makes_it_an_incident() {
    let rules = Settings::default();
    let text = payload("github", "issues.opened");
    assert!(normalise("issues", &text).iter().all(|event| attribute(event, "issue_type") == Some("issue") && !rules.takes(event)));
    let text = payload("github", "issues.incident-opened.own");
    let told = normalise("issues", &text).remove(0);
    assert_eq!((told.subject, told.transition), (Subject::Incident, Transition::Reported));
    assert!(rules.takes(&told), "by its label");
    let text = payload("github", "issues.incident-closed.own");
    let closed = normalise("issues", &text).remove(0);
    assert_eq!((closed.transition, closed.get("resolved_at").as_time()), (Transition::Resolved, Some(closed.time)));
    let text = payload("github", "issues.incident-reopened.own");
    let again = normalise("issues", &text).remove(0);
    assert_eq!((again.transition, again.get("resolved_at").as_time()), (Transition::Updated, None));
}

/// Commit, branch, request and merge are found from each other, whichever push is told first.
#[test]
fn a_pushed_commit_says_of_which_branch_and_merge_it_is() {
    let texts = ["push.branch.own", "push.merge.own", "pull_request.merged.own"].map(|name| payload("github", name));
    let [branch, trunk, pull] = texts.each_ref();
    let (branch, trunk, pull) = (normalise("push", branch), normalise("push", trunk), normalise("pull_request", pull).remove(0));
    let ids = |events: &[Event<'_>]| events.iter().map(|event| event.subject_id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&branch), ids(&trunk)[..2], "the trunk has the commits of the branch, and the merge");
    assert_eq!(pull.get("commit_sha").as_text(), Some(&*branch[1].subject_id));
    for commit in &trunk {
        assert_eq!(attribute(commit, "pushed_with"), pull.get("merge_commit_sha").as_text());
        assert_eq!(attribute(commit, "pushed_onto"), Some("6113728f27ae82c7b1a177c8d03f9e96e0adf246"));
        assert_eq!(commit.get("base_branch"), pull.get("base_branch"));
    }
    for (commit, same) in branch.iter().zip(&trunk) {
        assert_eq!((commit.get("branch"), commit.get("base_branch").is_null()), (pull.get("branch"), true));
        assert!(commit.time == same.time && commit.id != same.id, "two facts of one moment");
    }
    let text = payload("github", "push.other-branch.own");
    let other = normalise("push", &text);
    assert_eq!(ids(&other), ["0f0e7f0d2a1b2c3d4e5f60718293a4b5c6d7e8f0"], "what was pushed before is not of this branch");
}

#[test]
fn what_comes_from_a_fork_says_so() {
    for (event, name, source) in [
        ("pull_request", "pull_request.fork.own", Some("https://github.com/octocat/Hello-World")),
        ("pull_request", "pull_request.opened", None),
        ("workflow_run", "workflow_run.fork.own", Some("https://github.com/octocat/octo-repo")),
        ("workflow_run", "workflow_run.requested", None),
    ] {
        let text = payload("github", name);
        assert_eq!(attribute(&normalise(event, &text).remove(0), "head_source"), source, "{name}");
    }
    let mut tree: serde_json::Value = serde_json::from_str(&payload("github", "pull_request.fork.own")).expect("JSON");
    tree["pull_request"]["head"]["repo"] = serde_json::Value::Null;
    let text = tree.to_string();
    assert_eq!(attribute(&normalise("pull_request", &text).remove(0), "head_source"), Some("unknown"), "a fork that is gone");
}

/// What must hold before a merge, and whether it does; the names are those of tasks.
#[test]
fn required_checks_are_told() {
    let text = payload("github", "branch_protection_rule.edited");
    let rule = normalise("branch_protection_rule", &text).remove(0);
    assert_eq!((rule.subject, rule.get("type").as_text()), (Subject::Other, Some("branch_protection_rule")));
    let told =
        ["branch", "required_checks", "required_checks_for", "required_approvals", "merge_queue_for"].map(|name| attribute(&rule, name));
    assert_eq!(told, ["production", "basic-CI", "non_admins", "1", "off"].map(Some));
    let text = payload("github", "pull_request.fork.own");
    assert_eq!(attribute(&normalise("pull_request", &text).remove(0), "merge_status"), Some("blocked"));
}

#[test]
fn a_failed_job_names_the_step_that_failed() {
    let text = payload("github", "workflow_job.completed.failure.with-organization");
    let tree: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let steps = tree["workflow_job"]["steps"].as_array().expect("steps");
    let failed = steps.iter().find(|step| step["conclusion"] == "failure").and_then(|step| step["name"].as_str());
    assert!(failed.is_some());
    assert_eq!(attribute(&normalise("workflow_job", &text).remove(0), "failed_step"), failed);
    let text = payload("github", "workflow_job.completed.success.with-organization");
    assert_eq!(attribute(&normalise("workflow_job", &text).remove(0), "failed_step"), None);
}

/// The fields of a request that real payloads hold.
#[test]
fn a_request_is_told_whole() {
    let text = payload("github", "pull_request.merged.own");
    let pull = normalise("pull_request", &text).remove(0);
    let tree: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (column, field) in
        [("lines_added", "additions"), ("lines_deleted", "deletions"), ("files_changed", "changed_files"), ("commits", "commits")]
    {
        assert_eq!(pull.get(column), &kiro_schemas::Value::Int(tree["pull_request"][field].as_i64().expect("a number")), "{column}");
    }
    let text = payload("github", "pull_request.labeled");
    assert_eq!(attribute(&normalise("pull_request", &text).remove(0), "labels"), Some("bug"));
    let text = payload("github", "pull_request.synchronize");
    let pushed = normalise("pull_request", &text).remove(0);
    assert_eq!(attribute(&pushed, "previous_commit_sha"), Some("f95f852bd8fca8fcc58a9a2d6c842781e32a215e"));
}
