//! The one registry of environment variables of the client; those that are flags as well are read with the flags (`args`).

use serde_json::Value;

/// Each variable with what it does.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("KIROLINTER_SERVER", "Address of the server."),
    ("KIROLINTER_TOKEN", "Token."),
    ("KIROLINTER_CA_FILE", "Certificates of the authorities that the server's is checked against."),
    ("GITHUB_ACTIONS", "`true` within GitHub Actions."),
    ("GITHUB_SERVER_URL", "There, the first part of a report's source."),
    ("GITHUB_REPOSITORY", "There, the second part."),
    ("GITHUB_RUN_ID", "There, a report's run."),
    ("GITHUB_RUN_ATTEMPT", "There, the attempt of the run."),
    ("GITHUB_SHA", "There, a report's commit; of a pull request it is the head of that, from the event."),
    ("GITHUB_EVENT_PATH", "There, the file of the event that started the run."),
    ("GITHUB_HEAD_REF", "There, the branch of a pull request."),
    ("GITHUB_REF_NAME", "There, the branch of anything else."),
    ("GITHUB_JOB", "There, what tells reports of one run apart."),
    ("GITLAB_CI", "`true` within GitLab CI."),
    ("CI_PROJECT_URL", "There, a report's source."),
    ("CI_PIPELINE_ID", "There, a report's run."),
    ("CI_COMMIT_SHA", "There, a report's commit."),
    ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "There, the branch of a merge request."),
    ("CI_COMMIT_REF_NAME", "There, the branch of anything else."),
    ("CI_JOB_NAME", "There, what tells reports of one run apart."),
];

#[expect(clippy::disallowed_methods, reason = "this is the registry")]
fn read(name: &str) -> Option<String> {
    debug_assert!(VARIABLES.iter().any(|(known, _)| *known == name), "{name} is not registered");
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// What a CI says of the run that it is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ci {
    pub(crate) source: Option<String>,
    pub(crate) run_id: Option<String>,
    pub(crate) attempt: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) job: Option<String>,
}

/// The run that this is called in.
pub(crate) fn ci() -> Ci {
    let event = read("GITHUB_EVENT_PATH").and_then(|path| std::fs::read(path).ok());
    of(&read, event.and_then(|bytes| serde_json::from_slice(&bytes).ok()).as_ref())
}

fn of(read: &dyn Fn(&str) -> Option<String>, event: Option<&Value>) -> Ci {
    let is = |name: &str| read(name).as_deref() == Some("true");
    if is("GITHUB_ACTIONS") {
        // GITHUB_SHA of a pull request is a merge that nobody else knows of.
        let head = event.and_then(|event| event["pull_request"]["head"]["sha"].as_str()).map(str::to_owned);
        return Ci {
            source: read("GITHUB_SERVER_URL").zip(read("GITHUB_REPOSITORY")).map(|(server, repository)| format!("{server}/{repository}")),
            run_id: read("GITHUB_RUN_ID"),
            attempt: read("GITHUB_RUN_ATTEMPT"),
            commit: head.or_else(|| read("GITHUB_SHA")),
            branch: read("GITHUB_HEAD_REF").or_else(|| read("GITHUB_REF_NAME")),
            job: read("GITHUB_JOB"),
        };
    }
    if is("GITLAB_CI") {
        return Ci {
            source: read("CI_PROJECT_URL"),
            run_id: read("CI_PIPELINE_ID"),
            attempt: None,
            commit: read("CI_COMMIT_SHA"),
            branch: read("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME").or_else(|| read("CI_COMMIT_REF_NAME")),
            job: read("CI_JOB_NAME"),
        };
    }
    Ci::default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{Ci, VARIABLES, of};

    fn told(variables: &[(&'static str, &str)], event: Option<&serde_json::Value>) -> Ci {
        let known: BTreeMap<_, _> = variables.iter().copied().collect();
        assert!(known.keys().all(|name| VARIABLES.iter().any(|(registered, _)| registered == name)), "{known:?}");
        of(&|name| known.get(name).map(|text| (*text).to_owned()), event)
    }

    #[test]
    fn each_ci_says_where_it_is() {
        let some = |text: &str| Some(text.to_owned());
        let github = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "acme/shop"),
            ("GITHUB_RUN_ID", "7"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("GITHUB_SHA", "aaa"),
            ("GITHUB_REF_NAME", "12/merge"),
            ("GITHUB_JOB", "test"),
        ];
        let push = told(&github, None);
        let expected = Ci {
            source: some("https://github.com/acme/shop"),
            run_id: some("7"),
            attempt: some("2"),
            commit: some("aaa"),
            branch: some("12/merge"),
            job: some("test"),
        };
        assert_eq!(push, expected);
        let pull = [&github[..], &[("GITHUB_HEAD_REF", "topic")]].concat();
        let event = json!({"pull_request": {"head": {"sha": "bbb"}}});
        assert_eq!(told(&pull, Some(&event)), Ci { commit: some("bbb"), branch: some("topic"), ..expected });
        let gitlab = told(
            &[
                ("GITLAB_CI", "true"),
                ("CI_PROJECT_URL", "https://gitlab.com/acme/shop"),
                ("CI_PIPELINE_ID", "8"),
                ("CI_COMMIT_SHA", "ccc"),
                ("CI_COMMIT_REF_NAME", "main"),
                ("CI_JOB_NAME", "test 1/3"),
            ],
            None,
        );
        assert_eq!((gitlab.source, gitlab.run_id), (some("https://gitlab.com/acme/shop"), some("8")));
        assert_eq!((gitlab.commit, gitlab.branch, gitlab.job), (some("ccc"), some("main"), some("test 1/3")));
        assert_eq!(told(&[("CI_PIPELINE_ID", "8")], None), Ci::default());
    }
}
