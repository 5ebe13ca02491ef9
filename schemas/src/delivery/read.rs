//! The section `delivery` of `kirolinter.yaml`: all its problems at once.

use serde_json::{Map, Value};

use super::{Bands, Condition, Environment, Field, Pattern, Rule, Settings, Variant};
use crate::{Problem, Zone};

/// Most rules of a question, patterns of a condition, characters of a pattern.
const MOST_RULES: usize = 200;
const MOST_PATTERNS: usize = 50;
const MOST_CHARACTERS: usize = 200;
/// A decade.
const MOST_DAYS: u64 = 3_660;

impl Settings {
    /// Reads the section; what it does not say is as [`Settings::default`] has it.
    ///
    /// # Errors
    /// Every problem of it, with its path.
    pub fn read(section: &Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { problems: Vec::new() };
        let mut settings = Self::default();
        for (key, value) in reader.map(section, "delivery") {
            reader.section(&mut settings, key, value);
        }
        if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
    }
}

#[derive(Debug)]
struct Reader {
    problems: Vec<Problem>,
}

const KEYS: &str = "environments, deployments, hotfixes, rollbacks, incidents, changes, timezone, timezones, variants, bands, keep_days";

impl Reader {
    fn section(&mut self, settings: &mut Settings, key: &str, value: &Value) {
        let path = format!("delivery.{key}");
        match key {
            "environments" => self.environments(settings, value, &path),
            "deployments" => settings.deployments = self.rules(value, &path),
            "hotfixes" => settings.hotfixes = self.rules(value, &path),
            "rollbacks" => settings.rollbacks = self.rules(value, &path),
            "incidents" => settings.incidents = self.rules(value, &path),
            "changes" => self.changes(settings, value, &path),
            "timezone" => settings.zone = self.zone(value, &path),
            "timezones" => {
                let zones = self.map(value, &path);
                settings.zones = zones.map(|(service, zone)| (Pattern::new(service), self.zone(zone, &at(&path, service)))).collect();
                // The longest that fits, whatever the order in which they are written or read.
                settings.zones.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_str().len()));
            }
            "variants" => {
                let mut variants = self.words(value, &path, Variant::parse, &Variant::ALL.map(Variant::as_str));
                variants.sort_unstable();
                variants.dedup();
                settings.variants = variants;
            }
            "bands" => {
                let years = Bands::ALL.map(Bands::as_str);
                let given = value.as_u64().map_or_else(|| value.as_str().unwrap_or_default().to_owned(), |year| year.to_string());
                match Bands::parse(&given) {
                    Some(bands) => settings.bands = bands,
                    None => self.tell(&path, format!("{value} has no bands; known: {}", years.join(", "))),
                }
            }
            "keep_days" => match value.as_u64().filter(|days| (1..=MOST_DAYS).contains(days)).and_then(|days| u32::try_from(days).ok()) {
                Some(days) => settings.keep_days = days,
                None => self.tell(&path, format!("must be a whole number from 1 to {MOST_DAYS}, is {value}")),
            },
            _ => self.tell(&path, format!("is not known; known: {KEYS}")),
        }
    }

    fn environments(&mut self, settings: &mut Settings, value: &Value, path: &str) {
        for (name, patterns) in self.map(value, path) {
            let path = at(path, name);
            let Some(environment) = Environment::parse(name) else {
                let known = Environment::ALL.map(Environment::as_str).join(", ");
                self.tell(&path, format!("is no kind of environment; known: {known}"));
                continue;
            };
            let condition = Condition { field: Field::Environment, patterns: self.patterns(patterns, &path) };
            if let Some((_, rule)) = settings.environments.iter_mut().find(|(known, _)| *known == environment) {
                *rule = Rule { path, when: vec![condition], counts: true, environment: None, service: None };
            }
        }
    }

    fn changes(&mut self, settings: &mut Settings, value: &Value, path: &str) {
        for (key, value) in self.map(value, path) {
            let path = at(path, key);
            match key {
                "base_branch" => settings.base_branches = self.patterns(value, &path),
                "pushes" => settings.pushes = self.patterns(value, &path),
                _ => self.tell(&path, "is not known; known: base_branch, pushes".to_owned()),
            }
        }
    }

    fn rules(&mut self, value: &Value, path: &str) -> Vec<Rule> {
        let Some(list) = value.as_array() else {
            self.tell(path, format!("must be a list of rules, is {}", kind(value)));
            return Vec::new();
        };
        if list.len() > MOST_RULES {
            self.tell(path, format!("has {} rules, more than {MOST_RULES}", list.len()));
        }
        list.iter().take(MOST_RULES).enumerate().map(|(index, rule)| self.rule(rule, &format!("{path}[{index}]"))).collect()
    }

    fn rule(&mut self, value: &Value, path: &str) -> Rule {
        let mut rule = Rule { path: path.to_owned(), when: Vec::new(), counts: true, environment: None, service: None };
        let about_environments = !path.starts_with("delivery.deployments");
        let names_services = path.starts_with("delivery.deployments") || path.starts_with("delivery.incidents");
        for (key, value) in self.map(value, path) {
            let path = at(path, key);
            match (key, value) {
                ("counts", Value::Bool(counts)) => rule.counts = *counts,
                ("counts", _) => self.tell(&path, format!("must be true or false, is {value}")),
                ("set_environment", _) if about_environments => self.tell(&path, "is for deployments alone".to_owned()),
                ("set_environment", _) => {
                    let known = Environment::ALL.map(Environment::as_str);
                    rule.environment = self.words(&Value::Array(vec![value.clone()]), &path, Environment::parse, &known).pop();
                }
                ("set_service", _) if !names_services => self.tell(&path, "is for deployments and incidents alone".to_owned()),
                ("set_service", Value::String(name)) if !name.is_empty() => rule.service = Some(name.clone()),
                ("set_service", _) => self.tell(&path, format!("must be a name, is {value}")),
                _ => {
                    if let Some(field) = Field::ALL.into_iter().find(|field| field.as_str() == key) {
                        rule.when.push(Condition { field, patterns: self.patterns(value, &path) });
                    } else {
                        let fields = Field::ALL.map(Field::as_str).join(", ");
                        self.tell(&path, format!("is not known; known: {fields}, counts, set_environment, set_service"));
                    }
                }
            }
        }
        rule.when.sort_by_key(|condition| condition.field as usize);
        if rule.when.is_empty() {
            self.tell(path, "needs a condition: without any it would hold always".to_owned());
        }
        rule
    }

    /// A pattern or a list of them.
    fn patterns(&mut self, value: &Value, path: &str) -> Vec<Pattern> {
        let one = std::slice::from_ref(value);
        let list = value.as_array().map_or(one, Vec::as_slice);
        if list.is_empty() || list.len() > MOST_PATTERNS {
            self.tell(path, format!("needs 1 to {MOST_PATTERNS} patterns, has {}", list.len()));
        }
        let mut patterns = Vec::new();
        for pattern in list.iter().take(MOST_PATTERNS) {
            match pattern.as_str().filter(|text| !text.is_empty() && text.chars().count() <= MOST_CHARACTERS) {
                Some(text) => patterns.push(Pattern::new(text)),
                None => self.tell(path, format!("a pattern is a text of 1 to {MOST_CHARACTERS} characters, not {}", kind(pattern))),
            }
        }
        patterns
    }

    fn words<T>(&mut self, value: &Value, path: &str, parse: impl Fn(&str) -> Option<T>, known: &[&str]) -> Vec<T> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if list.is_empty() {
            self.tell(path, format!("must be a list of {}", known.join(", ")));
        }
        let mut words = Vec::new();
        for word in list {
            match word.as_str().and_then(&parse) {
                Some(word) => words.push(word),
                None => self.tell(path, format!("{word} is not known; known: {}", known.join(", "))),
            }
        }
        words
    }

    fn zone(&mut self, value: &Value, path: &str) -> Zone {
        value.as_str().and_then(Zone::parse).unwrap_or_else(|| {
            self.tell(path, format!("{value} is no time zone; expected such as \"Europe/Berlin\""));
            Zone::default()
        })
    }

    fn map<'v>(&mut self, value: &'v Value, path: &str) -> impl Iterator<Item = (&'v str, &'v Value)> + use<'v> {
        if value.as_object().is_none() {
            self.tell(path, format!("must be a mapping, is {}", kind(value)));
        }
        value.as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
    }

    fn tell(&mut self, path: &str, text: String) {
        self.problems.push(Problem::at(path, text));
    }
}

fn at(path: &str, key: &str) -> String {
    format!("{path}.{key}")
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "an empty text",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
