//! What counts as a deployment, a hotfix, a rollback, an incident: rules as data, and which of them decided.
//!
//! A rule is a set of conditions, all of which must hold; the first rule of a question that holds decides it. Where none
//! does, what the source said decides. [`Settings::explain`] tells each answer with its reason.

use std::fmt;

use crate::{Event, Subject, Value, Zone};

mod defaults;
mod definitions;
mod pattern;
mod read;
#[cfg(test)]
mod tests;

pub use definitions::{Band, Bands, Definitions, Frequency, Lead, Lineage, Median, Variant};
pub use pattern::Pattern;

/// What an environment is for.
///
/// # Source
/// OpenTelemetry `deployment.environment.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Environment {
    /// Users are there.
    Production,
    /// The last step before them.
    Staging,
    /// Tests run there.
    Test,
    /// People work there.
    Development,
}

impl Environment {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Production, Self::Staging, Self::Test, Self::Development];

    /// The word in tables and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Staging => "staging",
            Self::Test => "test",
            Self::Development => "development",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == text)
    }

    /// Reads what a platform calls the tier of an environment.
    ///
    /// # Source
    /// GitLab's `deployment_tier` and DevLake's environments say `testing`.
    fn of_tier(text: &str) -> Option<Self> {
        if text == "testing" { Some(Self::Test) } else { Self::parse(text) }
    }
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Canonical URL of repository, project or service.
    Source,
    /// Pipeline or workflow.
    Pipeline,
    /// Service.
    Service,
    /// Environment, as the source names it.
    Environment,
    /// Branch or ref.
    Branch,
    /// Any of the labels.
    Label,
    /// Title.
    Title,
    /// Version: the attribute `version`, else the artifact.
    Version,
    /// Severity.
    Severity,
    /// The platform's own word.
    Status,
    /// What kind of issue it is.
    Type,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Source,
        Self::Pipeline,
        Self::Service,
        Self::Environment,
        Self::Branch,
        Self::Label,
        Self::Title,
        Self::Version,
        Self::Severity,
        Self::Status,
        Self::Type,
    ];

    /// The word in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Pipeline => "pipeline",
            Self::Service => "service",
            Self::Environment => "environment",
            Self::Branch => "branch",
            Self::Label => "label",
            Self::Title => "title",
            Self::Version => "version",
            Self::Severity => "severity",
            Self::Status => "status",
            Self::Type => "type",
        }
    }
}

/// What rules can see of an event or a row.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What it is about.
    pub subject: Subject,
    values: [Option<&'a str>; Field::ALL.len()],
    /// What the source says that the environment is for.
    tier: Option<&'a str>,
    /// Whether the source says that an earlier version was put back.
    is_rollback: bool,
}

impl<'a> Facts<'a> {
    /// From named columns and attributes; labels are one attribute, `labels`, with commas between them, and what the source says
    /// that the environment is for is the attribute `environment_tier`. An incident with the attribute `issue_type` is told as an
    /// issue of that type: the rules alone make it an incident.
    pub fn new(
        subject: Subject,
        source: &'a str,
        column: impl Fn(&str) -> Option<&'a str>,
        attribute: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        let values = Field::ALL.map(|field| match field {
            Field::Source => Some(source),
            Field::Label => attribute("labels"),
            Field::Type => attribute("issue_type"),
            Field::Version => attribute("version").or_else(|| column("artifact_id")),
            Field::Pipeline | Field::Service | Field::Environment | Field::Title => {
                column(field.as_str()).or_else(|| attribute(field.as_str()))
            }
            Field::Branch | Field::Severity | Field::Status => column(field.as_str()),
        });
        Self { subject, values, tier: attribute("environment_tier"), is_rollback: false }
    }

    /// Of an event.
    #[must_use]
    pub fn of(event: &'a Event<'_>) -> Self {
        let attribute = |name: &str| event.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let is_rollback = matches!(event.get("is_rollback"), Value::Bool(true));
        Self::new(event.subject, &event.source, |name| event.get(name).as_text(), attribute).with_rollback(is_rollback)
    }

    /// The same, of which the source says whether an earlier version was put back.
    #[must_use]
    pub const fn with_rollback(mut self, is_rollback: bool) -> Self {
        self.is_rollback = is_rollback;
        self
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&'a str> {
        self.values.get(field as usize).copied().flatten()
    }

    /// The values that a pattern is held against.
    fn all(&self, field: Field) -> impl Iterator<Item = &'a str> {
        let separator = move |c| field == Field::Label && c == ',';
        self.get(field).into_iter().flat_map(move |text| text.split(separator)).map(str::trim)
    }
}

/// One field and the patterns of which one must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    /// What it must look like.
    pub patterns: Vec<Pattern>,
}

impl Condition {
    /// The value that fits, and the pattern that it fits.
    fn holds<'a>(&'a self, facts: &Facts<'a>) -> Option<(Field, &'a Pattern, &'a str)> {
        facts.all(self.field).find_map(|value| Some((self.field, self.patterns.iter().find(|p| p.fits(value))?, value)))
    }
}

/// Conditions, all of which must hold, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it is written: `delivery.hotfixes[1]`.
    pub path: String,
    /// When it decides.
    pub when: Vec<Condition>,
    /// What it decides.
    pub counts: bool,
    /// The environment that follows.
    pub environment: Option<Environment>,
    /// The service that follows.
    pub service: Option<String>,
}

impl Rule {
    /// Only a rule that names pipelines makes their runs deployments.
    fn names_pipelines(&self) -> bool {
        self.when.iter().any(|condition| condition.field == Field::Pipeline)
    }
}

/// The rule that decided, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Match<'a> {
    /// The rule.
    pub rule: &'a Rule,
    facts: Facts<'a>,
}

impl fmt::Display for Match<'_> {
    /// `delivery.hotfixes[0]: branch "hotfix/42" is like "hotfix/*"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule.path)?;
        let seen = self.rule.when.iter().filter_map(|condition| condition.holds(&self.facts));
        for (separator, (field, pattern, value)) in [": "].into_iter().chain(std::iter::repeat(", ")).zip(seen) {
            write!(f, "{separator}{} {value:?} is like {:?}", field.as_str(), pattern.as_str())?;
        }
        Ok(())
    }
}

/// Why an answer is as it is.
#[derive(Debug, Clone, Copy)]
pub enum Because<'a> {
    /// A rule.
    Rule(Match<'a>),
    /// What the source said.
    Told(&'static str),
    /// Nothing said anything else.
    Default(&'static str),
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(found) => found.fmt(f),
            Self::Told(text) | Self::Default(text) => f.write_str(text),
        }
    }
}

/// A decision and its reason.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a, T> {
    /// What was decided.
    pub value: T,
    /// Why.
    pub because: Because<'a>,
}

impl<'a, T> Answer<'a, T> {
    const fn of(value: T, because: Because<'a>) -> Self {
        Self { value, because }
    }
}

/// An answer for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What was asked.
    pub question: &'static str,
    /// What was decided.
    pub answer: String,
    /// Why.
    pub because: String,
}

/// The section `delivery` of `kirolinter.yaml`, after validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Names of environments, class by class.
    environments: Vec<(Environment, Rule)>,
    deployments: Vec<Rule>,
    hotfixes: Vec<Rule>,
    rollbacks: Vec<Rule>,
    incidents: Vec<Rule>,
    /// Branches into which a change must go to count.
    base_branches: Vec<Pattern>,
    /// Branches on which a pushed commit is a change of its own.
    pushes: Vec<Pattern>,
    zone: Zone,
    zones: Vec<(Pattern, Zone)>,
    /// The sets of definitions that are told side by side.
    pub variants: Vec<Variant>,
    /// The bands of which report year.
    pub bands: Bands,
    /// For how many days windows are told and corrected.
    pub keep_days: u32,
}

impl Settings {
    /// Whether any run can count as a deployment.
    #[must_use]
    pub fn counts_runs(&self) -> bool {
        self.deployments.iter().any(|rule| rule.counts && rule.names_pipelines())
    }

    /// The time zone of a service's days.
    #[must_use]
    pub fn zone(&self, service: &str) -> Zone {
        self.zones.iter().find(|(pattern, _)| pattern.fits(service)).map_or(self.zone, |(_, zone)| *zone)
    }

    /// What an environment is for.
    #[must_use]
    pub fn environment<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, Option<Environment>> {
        if let Some(found) = first(&self.deployments, facts).filter(|found| found.rule.environment.is_some()) {
            return Answer::of(found.rule.environment, Because::Rule(found));
        }
        for (environment, rule) in &self.environments {
            if let Some(found) = fits(rule, facts) {
                return Answer::of(Some(*environment), Because::Rule(found));
            }
        }
        match facts.tier.and_then(Environment::of_tier) {
            Some(told) => Answer::of(Some(told), Because::Told("the source tells its tier")),
            None => Answer::of(None, Because::Default("no name of an environment fits")),
        }
    }

    /// Whether it is a deployment.
    #[must_use]
    pub fn is_deployment<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, bool> {
        let is_told = facts.subject == Subject::Deployment;
        match first(&self.deployments, facts) {
            Some(found) if is_told || (facts.subject == Subject::PipelineRun && found.rule.names_pipelines()) => {
                Answer::of(found.rule.counts, Because::Rule(found))
            }
            _ if is_told => Answer::of(true, Because::Told("the source tells it as a deployment")),
            _ => Answer::of(false, Because::Default("only deployments count, and runs that a rule names by their pipeline")),
        }
    }

    /// The service that is deployed or disturbed: what a rule says, what the source says, else the last part of the
    /// source for what is deployed.
    #[must_use]
    pub fn service<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, Option<&'a str>> {
        let rules = if facts.subject == Subject::Incident { &self.incidents } else { &self.deployments };
        if let Some(found) = first(rules, facts)
            && let Some(service) = &found.rule.service
        {
            return Answer::of(Some(service.as_str()), Because::Rule(found));
        }
        if let Some(service) = facts.get(Field::Service).filter(|text| !text.is_empty()) {
            return Answer::of(Some(service), Because::Told("the source names it"));
        }
        let last = facts.get(Field::Source).and_then(|source| source.trim_end_matches('/').rsplit('/').next());
        Answer::of(last.filter(|_| facts.subject != Subject::Incident), Because::Default("the last part of the source"))
    }

    /// Whether it mends something that failed.
    #[must_use]
    pub fn is_hotfix<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, bool> {
        match first(&self.hotfixes, facts) {
            Some(found) => Answer::of(found.rule.counts, Because::Rule(found)),
            None => Answer::of(false, Because::Default("no rule says so")),
        }
    }

    /// Whether an earlier version is put back, as far as this alone tells.
    #[must_use]
    pub fn is_rollback<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, bool> {
        match first(&self.rollbacks, facts) {
            Some(found) => Answer::of(found.rule.counts, Because::Rule(found)),
            None if facts.is_rollback => Answer::of(true, Because::Told("the source tells it as a rollback")),
            None => Answer::of(false, Because::Default("no rule says so")),
        }
    }

    /// Whether it is an incident: what the source tells as one is unless a rule says otherwise, an issue and anything else only where
    /// a rule says so.
    #[must_use]
    pub fn is_incident<'a>(&'a self, facts: &Facts<'a>) -> Answer<'a, bool> {
        match first(&self.incidents, facts) {
            Some(found) => Answer::of(found.rule.counts, Because::Rule(found)),
            None if facts.subject == Subject::Incident && facts.get(Field::Type).is_none() => {
                Answer::of(true, Because::Told("the source tells it as an incident"))
            }
            None => Answer::of(false, Because::Default("only incidents count, and what a rule names")),
        }
    }

    /// Whether an event says anything: connectors tell every issue as an incident, and it is one only where a rule says so.
    #[must_use]
    pub fn takes(&self, event: &Event<'_>) -> bool {
        let is_issue = event.subject == Subject::Incident && event.attributes.iter().any(|(name, _)| name == "issue_type");
        !is_issue || self.is_incident(&Facts::of(event)).value
    }

    /// Whether a change that was merged into this branch goes to users.
    #[must_use]
    pub fn is_base(&self, branch: Option<&str>) -> bool {
        branch.is_none_or(|branch| self.base_branches.iter().any(|p| p.fits(branch)))
    }

    /// Whether a commit that was pushed to this branch is a change of its own.
    #[must_use]
    pub fn is_trunk(&self, branch: &str) -> bool {
        self.pushes.iter().any(|p| p.fits(branch))
    }

    /// Every question that this can be asked, with its answer and the reason.
    #[must_use]
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<Reason> {
        let yes = |answer: Answer<'_, bool>, question| Reason {
            question,
            answer: if answer.value { "yes" } else { "no" }.to_owned(),
            because: answer.because.to_string(),
        };
        let is_deployed = matches!(facts.subject, Subject::Deployment | Subject::PipelineRun);
        let mut reasons = Vec::new();
        if is_deployed {
            reasons.push(yes(self.is_deployment(facts), "deployment"));
        }
        if is_deployed || facts.subject == Subject::Incident {
            let (environment, service) = (self.environment(facts), self.service(facts));
            for (question, answer, because) in [
                ("environment", environment.value.map(Environment::as_str), environment.because),
                ("service", service.value, service.because),
            ] {
                reasons.push(Reason { question, answer: answer.unwrap_or("none").to_owned(), because: because.to_string() });
            }
        }
        if is_deployed || facts.subject == Subject::Change {
            reasons.extend([yes(self.is_hotfix(facts), "hotfix"), yes(self.is_rollback(facts), "rollback")]);
        }
        if !is_deployed {
            reasons.push(yes(self.is_incident(facts), "incident"));
        }
        reasons
    }
}

/// The first rule that holds.
fn first<'a>(rules: &'a [Rule], facts: &Facts<'a>) -> Option<Match<'a>> {
    rules.iter().find_map(|rule| fits(rule, facts))
}

fn fits<'a>(rule: &'a Rule, facts: &Facts<'a>) -> Option<Match<'a>> {
    rule.when.iter().all(|condition| condition.holds(facts).is_some()).then_some(Match { rule, facts: *facts })
}
