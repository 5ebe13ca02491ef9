//! What is told of GitHub alone.

use kiro_integrations::platform;
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
fn an_issue_is_an_incident_by_its_label() {
    assert!(normalise("issues", &payload("github", "issues.opened")).is_empty());
    let text = payload("github", "issues.incident-opened.own");
    let told = normalise("issues", &text).remove(0);
    assert_eq!((told.subject, told.transition), (Subject::Incident, Transition::Reported));
    let text = payload("github", "issues.incident-closed.own");
    let closed = normalise("issues", &text).remove(0);
    assert_eq!((closed.transition, closed.get("resolved_at").as_time()), (Transition::Resolved, Some(closed.time)));
    let text = payload("github", "issues.incident-reopened.own");
    let again = normalise("issues", &text).remove(0);
    assert_eq!((again.transition, again.get("resolved_at").as_time()), (Transition::Updated, None));
}
