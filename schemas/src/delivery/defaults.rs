//! What holds where the file says nothing.
//!
//! # Source
//! Environments: OpenTelemetry `deployment.environment.name`, DevLake's `productionPattern`, GitLab's `deployment_tier`. Hotfixes and
//! rollbacks: Datadog's DORA change-failure rules (label `.*hotfix.*`, branch `recovery/.*`, version `.*_hotfix`, revert pull requests).
//! Incidents: the four keys' default label "Incident", and `type: incident`, `kind/incident`, `type::incident` that others write;
//! GitLab's type `incident`, DevLake's `INCIDENT`.

use super::{Bands, Condition, Environment, Field, Pattern, Rule, Settings, Variant};
use crate::Zone;

/// In the order in which they are tried: `pre-production` is not production.
const ENVIRONMENTS: [(Environment, &[&str]); 4] = [
    (Environment::Staging, &["stag*", "*-stag*", "preprod*", "pre-prod*", "uat", "*-uat"]),
    (Environment::Test, &["test*", "*-test*", "qa*", "*-qa", "integration*"]),
    (Environment::Development, &["dev*", "*-dev*", "preview*", "review/*", "local"]),
    (Environment::Production, &["prod*", "*-prod", "*-production", "*/prod", "*/production", "live", "*-live"]),
];
const HOTFIXES: [(Field, &[&str]); 4] = [
    (Field::Branch, &["hotfix/*", "hotfix-*", "recovery/*", "*/hotfix/*"]),
    (Field::Label, &["*hotfix*", "incident"]),
    (Field::Title, &["revert \"*", "hotfix*", "[hotfix]*"]),
    (Field::Version, &["*_hotfix", "*-hotfix*"]),
];
const ROLLBACKS: [(Field, &[&str]); 4] = [
    (Field::Branch, &["rollback/*", "rollback-*"]),
    (Field::Pipeline, &["*rollback*", "*roll-back*"]),
    (Field::Label, &["rollback"]),
    (Field::Title, &["rollback*", "roll back*"]),
];
const INCIDENTS: [(Field, &[&str]); 2] =
    [(Field::Label, &["incident", "*:incident", "*/incident", "* incident", "outage"]), (Field::Type, &["incident"])];
/// Two years, and what a comparison with the year before needs.
pub(super) const KEEP_DAYS: u32 = 800;

impl Default for Settings {
    fn default() -> Self {
        let rules = |question: &str, conditions: &[(Field, &[&str])]| {
            let one = |(at, (field, patterns)): (usize, &(Field, &[&str]))| rule(&format!("default {question}[{at}]"), *field, patterns);
            conditions.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        let environments = ENVIRONMENTS.iter().map(|(environment, names)| {
            (*environment, rule(&format!("default environments.{}", environment.as_str()), Field::Environment, names))
        });
        Self {
            environments: environments.collect(),
            deployments: Vec::new(),
            hotfixes: rules("hotfixes", &HOTFIXES),
            rollbacks: rules("rollbacks", &ROLLBACKS),
            incidents: rules("incidents", &INCIDENTS),
            base_branches: patterns(&["*"]),
            pushes: patterns(&["main", "master", "trunk"]),
            zone: Zone::default(),
            zones: Vec::new(),
            variants: vec![Variant::Kirolinter],
            bands: Bands::Report2023,
            keep_days: KEEP_DAYS,
        }
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

fn rule(path: &str, field: Field, texts: &[&str]) -> Rule {
    let when = vec![Condition { field, patterns: patterns(texts) }];
    Rule { path: path.to_owned(), when, counts: true, environment: None, service: None }
}
