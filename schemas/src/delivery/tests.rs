//! Rules: which decides, what is said of it, and what a file may not say.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Band, Bands, Environment, Facts, Field, Frequency, Settings};
use crate::{Event, Micros, Subject, Transition};

/// Columns and attributes by name; `labels` and `version` are attributes.
fn facts<'a>(subject: Subject, values: &'a [(&'static str, &'static str)]) -> Facts<'a> {
    let get = move |name: &str| values.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
    Facts::new(subject, get("source").unwrap_or("https://ci/acme/shop"), get, get)
}

fn told(settings: &Settings, subject: Subject, values: &[(&'static str, &'static str)]) -> Vec<String> {
    settings.explain(&facts(subject, values)).into_iter().map(|r| format!("{} {}: {}", r.question, r.answer, r.because)).collect()
}

#[test]
fn the_defaults_name_themselves() {
    let settings = Settings::default();
    assert_eq!(
        told(&settings, Subject::Deployment, &[("environment", "prod-eu"), ("branch", "Hotfix/42")]),
        [
            "deployment yes: the source tells it as a deployment",
            "environment production: default environments.production: environment \"prod-eu\" is like \"prod*\"",
            "service shop: the last part of the source",
            "hotfix yes: default hotfixes[0]: branch \"Hotfix/42\" is like \"hotfix/*\"",
            "rollback no: no rule says so",
        ]
    );
    assert_eq!(
        told(&settings, Subject::Change, &[("title", "Revert \"Add a cart\""), ("labels", "ui, urgent")]),
        [
            "hotfix yes: default hotfixes[2]: title \"Revert \\\"Add a cart\\\"\" is like \"revert \\\"*\"",
            "rollback no: no rule says so",
            "incident no: only incidents count, and what a rule names",
        ]
    );
    assert_eq!(
        told(&settings, Subject::Other, &[("labels", "ui, Outage")]),
        ["incident yes: default incidents[0]: label \"Outage\" is like \"outage\""]
    );
    assert_eq!(told(&settings, Subject::Incident, &[])[2], "incident yes: the source tells it as an incident");
    let run = told(&settings, Subject::PipelineRun, &[("pipeline", "deploy"), ("environment", "somewhere")]);
    assert_eq!(run[0], "deployment no: only deployments count, and runs that a rule names by their pipeline");
    assert_eq!(run[1], "environment none: no name of an environment fits");
}

#[test]
fn names_of_environments_are_told_apart() {
    let settings = Settings::default();
    for (name, environment) in [
        ("PRODUCTION", Some(Environment::Production)),
        ("prod", Some(Environment::Production)),
        ("eu-prod", Some(Environment::Production)),
        ("preprod", Some(Environment::Staging)),
        ("pre-production", Some(Environment::Staging)),
        ("staging", Some(Environment::Staging)),
        ("TESTING", Some(Environment::Test)),
        ("qa-2", Some(Environment::Test)),
        ("development", Some(Environment::Development)),
        ("review/feature", Some(Environment::Development)),
        ("github-pages", None),
        ("", None),
    ] {
        let values = [("environment", name)];
        let found = settings.environment(&facts(Subject::Deployment, &values)).value;
        assert_eq!(found, environment, "{name}");
    }
}

/// A rule's name of an environment goes before what the source calls its tier, and that before nothing.
#[test]
fn a_tier_decides_where_no_name_fits() {
    let settings = Settings::default();
    for (name, tier, environment) in [
        ("customer-7", "production", Some(Environment::Production)),
        ("customer-7", "testing", Some(Environment::Test)),
        ("customer-7", "other", None),
        ("staging", "production", Some(Environment::Staging)),
    ] {
        let values = [("environment", name), ("environment_tier", tier)];
        assert_eq!(settings.environment(&facts(Subject::Deployment, &values)).value, environment, "{name} {tier}");
    }
    let told = told(&settings, Subject::Deployment, &[("environment", "customer-7"), ("environment_tier", "production")]);
    assert_eq!(told[1], "environment production: the source tells its tier");
}

#[test]
fn the_first_rule_that_holds_decides() {
    let settings = Settings::read(&json!({
        "deployments": [
            {"service": "sandbox-*", "counts": false},
            {"pipeline": ["deploy*", "release"], "branch": "main", "set_environment": "production", "set_service": "shop"},
            {"source": "https://ci/acme/*", "set_service": "acme"},
        ],
        "incidents": [{"severity": ["info", "low"], "counts": false}, {"source": "https://pager/*", "set_service": "shop"}],
        "timezone": "Europe/Berlin",
        "timezones": {"*-1": "UTC", "tokyo-*": "Asia/Tokyo"},
        "variants": ["devlake", "kirolinter", "devlake"],
        "bands": 2021,
        "keep_days": 400,
    }))
    .expect("a section");
    let run = |values: &'static [(&'static str, &'static str)]| told(&settings, Subject::PipelineRun, values);
    let found = run(&[("pipeline", "deploy-all"), ("branch", "main")]);
    assert_eq!(
        found[0],
        "deployment yes: delivery.deployments[1]: pipeline \"deploy-all\" is like \"deploy*\", branch \"main\" is like \"main\""
    );
    assert!(found[1].starts_with("environment production") && found[2].starts_with("service shop"), "{found:?}");
    // A rule that names no pipeline gives a service, and makes no run a deployment.
    assert!(run(&[("pipeline", "deploy-all"), ("branch", "dev")])[0].starts_with("deployment no"));
    assert!(run(&[("pipeline", "deploy-all"), ("branch", "dev")])[2].starts_with("service acme"));
    assert!(told(&settings, Subject::Deployment, &[("service", "sandbox-7")])[0].starts_with("deployment no"));
    assert!(told(&settings, Subject::Incident, &[("severity", "Low")])[2].starts_with("incident no: delivery.incidents[0]"));
    assert!(told(&settings, Subject::Incident, &[("source", "https://pager/1")])[1].starts_with("service shop"));
    assert!(settings.counts_runs() && !Settings::default().counts_runs());
    assert_eq!((settings.zone("shop").name(), settings.zone("Tokyo-1").name()), ("Europe/Berlin", "Asia/Tokyo"));
    assert_eq!(settings.zone("shop-1").name(), "UTC");
    assert_eq!((settings.variants.len(), settings.bands, settings.keep_days), (2, Bands::Report2021, 400));
}

/// What a source tells as an incident is one; an issue is one by a rule alone, the defaults or others.
#[test]
fn an_issue_is_an_incident_by_a_rule_alone() {
    let issue = |attributes: &[(&'static str, &'static str)]| {
        let mut event = Event::new(Subject::Incident, Transition::Reported, "https://ci/acme/shop", "7", Micros(1));
        event.set_text("title", Some("Checkout is down"));
        event.set_text("severity", Some("sev1"));
        event.attributes.extend(attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        event
    };
    let defaults = Settings::default();
    for label in ["incident", "bug,Incident", "type: incident", "kind/incident", "type::Incident", "outage"] {
        assert!(defaults.takes(&issue(&[("issue_type", "issue"), ("labels", label)])), "{label}");
    }
    for label in ["bug", "incidental", "incident-review", "no incidents", "sev1"] {
        assert!(!defaults.takes(&issue(&[("issue_type", "issue"), ("labels", label)])), "{label}");
    }
    assert!(defaults.takes(&issue(&[])), "the source tells it as an incident");
    assert!(defaults.takes(&issue(&[("issue_type", "Incident")])) && !defaults.takes(&issue(&[("issue_type", "issue")])));
    for rule in [json!({"label": "sev1"}), json!({"title": "*is down*"}), json!({"type": "bug", "severity": "sev1"})] {
        let settings = Settings::read(&json!({ "incidents": [rule] })).expect("a section");
        let told = issue(&[("issue_type", "bug"), ("labels", "ui,sev1")]);
        assert!(settings.takes(&told), "{rule}");
        let reasons = settings.explain(&Facts::of(&told));
        assert!(reasons.iter().any(|reason| reason.question == "incident" && reason.because.starts_with("delivery.incidents[0]")));
        assert!(
            !settings.takes(&issue(&[("issue_type", "issue"), ("labels", "incident")])) || rule == json!({"title": "*is down*"}),
            "{rule}"
        );
    }
    let none = Settings::read(&json!({"incidents": [{"label": "question", "counts": false}, {"title": "*"}]})).expect("a section");
    assert!(!none.takes(&issue(&[("issue_type", "issue"), ("labels", "question")])));
    let mut other = issue(&[("issue_type", "issue")]);
    other.subject = Subject::Change;
    assert!(defaults.takes(&other), "of other events nothing is asked");
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = Settings::read(&json!({
        "environments": {"production": [], "moon": "x"},
        "deployments": [{"pipelin": "x"}, {"branch": 7, "set_environment": "prod"}, {"counts": "yes", "branch": "main"}],
        "hotfixes": [{"branch": "x", "set_environment": "production", "set_service": "a"}],
        "rollbacks": {"branch": "x"},
        "changes": {"base": "main"},
        "timezone": "Mars/Olympus",
        "timezones": {"a": 3},
        "variants": ["ours"],
        "bands": 2024,
        "keep_days": 0,
        "colour": "red",
    }))
    .expect_err("many problems");
    let mut lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.sort_unstable();
    let begin = [
        "delivery.bands: 2024 has no bands; known: 2021, 2023",
        "delivery.changes.base: is not known; known: base_branch, pushes",
        "delivery.colour: is not known; known: environments,",
        "delivery.deployments[0].pipelin: is not known; known: source,",
        "delivery.deployments[0]: needs a condition",
        "delivery.deployments[1].branch: a pattern is a text of 1 to 200 characters, not a number",
        "delivery.deployments[1].set_environment: \"prod\" is not known; known: production,",
        "delivery.deployments[2].counts: must be true or false, is \"yes\"",
        "delivery.environments.moon: is no kind of environment",
        "delivery.environments.production: needs 1 to 50 patterns, has 0",
        "delivery.hotfixes[0].set_environment: is for deployments alone",
        "delivery.hotfixes[0].set_service: is for deployments and incidents alone",
        "delivery.keep_days: must be a whole number from 1 to 3660, is 0",
        "delivery.rollbacks: must be a list of rules, is a mapping",
        "delivery.timezone: \"Mars/Olympus\" is no time zone",
        "delivery.timezones.a: 3 is no time zone",
        "delivery.variants: \"ours\" is not known; known: kirolinter, devlake",
    ];
    assert_eq!(lines.len(), begin.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(begin) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert_eq!(Settings::read(&json!({})), Ok(Settings::default()));
    assert!(Settings::read(&Value::Null).is_err());
}

#[test]
fn bands_are_those_of_the_reports() {
    let (old, new) = (Bands::Report2021, Bands::Report2023);
    let day = 86_400_000.0;
    assert_eq!([0.5, 3.0, 20.0, 40.0].map(|days| new.lead_time(days * day)), [Band::Elite, Band::High, Band::Medium, Band::Low]);
    assert_eq!([0.5, 3.0, 20.0, 200.0].map(|days| old.lead_time(days * day)), [Band::High, Band::High, Band::Medium, Band::Low]);
    assert_eq!([0.05, 0.1, 0.15, 0.16].map(|r| new.change_fail(r)), [Band::Elite, Band::High, Band::Medium, Band::Low]);
    assert_eq!([0.15, 0.2, 0.3, 0.31].map(|r| old.change_fail(r)), [Band::Elite, Band::High, Band::Medium, Band::Low]);
    assert_eq!([0.01, 0.5, 6.0, 8.0].map(|d| new.recovery(d * day)), [Band::Elite, Band::High, Band::Medium, Band::Low]);
    let per_day = [8.0 / 7.0, 1.0, 1.0 / 7.0, 1.0 / 31.0, 0.03].map(|f| new.frequency(Frequency::PerDay, f));
    assert_eq!(per_day, [Band::Elite, Band::High, Band::High, Band::Medium, Band::Low]);
    let per_week = [5.0, 1.0, 7.0 / 31.0, 0.1].map(|f| new.frequency(Frequency::DaysPerWeek, f));
    assert_eq!(per_week, [Band::Elite, Band::High, Band::Medium, Band::Low]);
}

proptest! {
    /// Whatever stands in a section, reading it ends with settings or with problems that say where.
    #[test]
    fn no_section_breaks_the_reader(key in "(environments|deployments|hotfixes|changes|timezones|bands|keep_days|[a-z]{1,4})", text in "\\PC{0,12}", number in any::<i64>()) {
        let values = [json!(text), json!(number), json!([text]), json!([{ "branch": text, "x": number }]), json!({ "production": text, "x": [number] }), json!([[[]]])];
        for value in values {
            let section = Value::Object([(key.clone(), value)].into_iter().collect());
            if let Err(problems) = Settings::read(&section) {
                prop_assert!(problems.iter().all(|p| p.path.starts_with("delivery.")));
            }
        }
    }

    #[test]
    fn fields_stand_in_their_order(at in 0_usize..11) {
        prop_assert_eq!(Field::ALL[at] as usize, at);
    }
}
