//! From the tree to gates: collects every problem instead of stopping at the first.

use std::collections::BTreeSet;

use kiro_schemas::Problem;
use kiro_schemas::gate::Status;

use super::condition::{Condition, Thresholds};
use super::file::{Criterion, Gate, GateFile, GateType, HealthMetric, Measure, PipelineHealth, TotalScore, Trigger, When};
use super::node::{Node, Tree};
use super::sql::placeholders;

const MAX_GATES: usize = 100;
const MAX_CRITERIA: usize = 100;
const MAX_NAME: usize = 128;
const MAX_SQL: usize = 16 * 1024;
const MAX_DAYS: u32 = 366;

pub(crate) fn read_file(root: &Node) -> Result<GateFile, Vec<Problem>> {
    let mut reader = Reader::default();
    let file = reader.file(root);
    if reader.problems.is_empty() { Ok(file) } else { Err(reader.problems) }
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

/// The fields of one mapping.
struct Fields<'n> {
    path: String,
    line: u64,
    entries: &'n [(String, Node)],
}

impl<'n> Fields<'n> {
    fn get(&self, name: &str) -> Option<(&'n Node, String)> {
        let node = self.entries.iter().find(|(key, _)| key == name).map(|(_, node)| node)?;
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        (!matches!(node.tree, Tree::Null)).then_some((node, path))
    }
}

impl Reader {
    fn wrong(&mut self, path: &str, line: u64, text: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), line: (line > 0).then_some(line), text: text.into() });
    }

    fn fields<'n>(&mut self, node: &'n Node, path: &str, known: &[&str]) -> Option<Fields<'n>> {
        let Tree::Map(entries) = &node.tree else {
            self.wrong(path, node.line, format!("must be a mapping, is {}", node.tree.kind()));
            return None;
        };
        for (key, value) in entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            self.wrong(path, value.line, format!("unknown field `{key}`; known are {}", known.join(", ")));
        }
        Some(Fields { path: path.to_owned(), line: node.line, entries })
    }

    fn list<'n>(&mut self, fields: &Fields<'n>, name: &str, most: usize) -> Vec<(&'n Node, String)> {
        let Some((node, path)) = fields.get(name) else { return Vec::new() };
        let Tree::List(items) = &node.tree else {
            self.wrong(&path, node.line, format!("must be a list, is {}", node.tree.kind()));
            return Vec::new();
        };
        if items.len() > most {
            self.wrong(&path, node.line, format!("has {} entries, more than {most}", items.len()));
        }
        items.iter().take(most).enumerate().map(|(at, item)| (item, format!("{path}[{at}]"))).collect()
    }

    fn text_of(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.tree {
            Tree::Text(text) if !text.trim().is_empty() => Some(text.clone()),
            other => {
                self.wrong(path, node.line, format!("must be a text, is {}", other.kind()));
                None
            }
        }
    }

    fn text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let (node, path) = fields.get(name)?;
        self.text_of(node, &path)
    }

    fn name(&mut self, fields: &Fields<'_>, taken: &mut BTreeSet<String>) -> String {
        let name = if let Some((node, path)) = fields.get("name") {
            self.text_of(node, &path)
        } else {
            self.wrong(&fields.path, fields.line, "has no `name`");
            None
        }
        .unwrap_or_default();
        if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            self.wrong(&fields.path, fields.line, format!("`name` must have at most {MAX_NAME} printable characters"));
        }
        if !name.is_empty() && !taken.insert(name.clone()) {
            self.wrong(&fields.path, fields.line, format!("the name `{name}` is taken"));
        }
        name
    }

    fn flag(&mut self, fields: &Fields<'_>, name: &str) -> bool {
        match fields.get(name) {
            None => false,
            Some((Node { tree: Tree::Bool(value), .. }, _)) => *value,
            Some((node, path)) => {
                self.wrong(&path, node.line, format!("must be true or false, is {}", node.tree.kind()));
                false
            }
        }
    }

    /// A finite number of at least 0.
    fn number(&mut self, fields: &Fields<'_>, name: &str) -> Option<f64> {
        let (node, path) = fields.get(name)?;
        match node.tree {
            Tree::Number(value) if value.is_finite() && value >= 0.0 => Some(value),
            _ => {
                self.wrong(&path, node.line, "must be a finite number of at least 0");
                None
            }
        }
    }

    fn whole(&mut self, fields: &Fields<'_>, name: &str, most: u32) -> Option<u32> {
        let (node, path) = fields.get(name)?;
        let value = match node.tree {
            Tree::Number(value) if value.fract() == 0.0 => format!("{value}").parse::<u32>().ok(),
            _ => None,
        };
        let value = value.filter(|value| (1..=most).contains(value));
        if value.is_none() {
            self.wrong(&path, node.line, format!("must be a whole number from 1 to {most}"));
        }
        value
    }

    fn word<T>(&mut self, fields: &Fields<'_>, name: &str, read: impl Fn(&str) -> Option<T>, words: &str) -> Option<T> {
        let (node, path) = fields.get(name)?;
        let text = self.text_of(node, &path)?;
        let value = read(&text);
        if value.is_none() {
            self.wrong(&path, node.line, format!("`{text}` is none of {words}"));
        }
        value
    }

    fn file(&mut self, root: &Node) -> GateFile {
        let Some(fields) = self.fields(root, "", &["version", "gates"]) else { return GateFile::default() };
        match fields.get("version").map(|(node, _)| &node.tree) {
            Some(Tree::Number(version)) if (*version - 1.0).abs() < f64::EPSILON => {}
            _ => self.wrong("version", fields.line, "must be 1"),
        }
        let mut taken = BTreeSet::new();
        let items = self.list(&fields, "gates", MAX_GATES);
        if items.is_empty() {
            self.wrong("gates", fields.line, "there is no gate");
        }
        GateFile { gates: items.into_iter().filter_map(|(node, path)| self.gate(node, &path, &mut taken)).collect() }
    }

    fn gate(&mut self, node: &Node, path: &str, taken: &mut BTreeSet<String>) -> Option<Gate> {
        let known = ["name", "type", "on_warning", "on_inconclusive", "total_score", "dry_run", "on_decision", "criteria"];
        let fields = self.fields(node, path, &known)?;
        let name = self.name(&fields, taken);
        if fields.get("type").is_none() {
            self.wrong(path, node.line, "has no `type`");
        }
        let gate_type = self.word(&fields, "type", GateType::parse, "pre_commit, pre_merge, pre_deploy, post_deploy");
        let items = self.list(&fields, "criteria", MAX_CRITERIA);
        if items.is_empty() {
            self.wrong(path, node.line, "has no `criteria`");
        }
        let mut names = BTreeSet::new();
        let criteria: Vec<_> = items.into_iter().filter_map(|(node, path)| self.criterion(node, &path, &mut names)).collect();
        Some(Gate {
            name,
            gate_type: gate_type.unwrap_or(GateType::PreDeploy),
            on_warning: self.word(&fields, "on_warning", status, "passed, failed").unwrap_or(Status::Passed),
            on_inconclusive: self.word(&fields, "on_inconclusive", status, "passed, failed").unwrap_or(Status::Failed),
            total_score: self.total_score(&fields),
            dry_run: self.flag(&fields, "dry_run"),
            on_decision: self.triggers(&fields),
            criteria,
        })
    }

    fn total_score(&mut self, fields: &Fields<'_>) -> TotalScore {
        let mut total = TotalScore::default();
        let Some((node, path)) = fields.get("total_score") else { return total };
        let Some(inner) = self.fields(node, &path, &["pass", "warning"]) else { return total };
        let pass = self.share(&inner, "pass");
        let warning = self.share(&inner, "warning");
        total.pass = pass.unwrap_or(total.pass);
        total.warning = warning.unwrap_or(total.warning.min(total.pass));
        if total.warning > total.pass {
            self.wrong(&path, node.line, "`warning` must not be above `pass`");
        }
        total
    }

    fn share(&mut self, fields: &Fields<'_>, name: &str) -> Option<f64> {
        let (node, path) = fields.get(name)?;
        let percent = match &node.tree {
            Tree::Number(value) => Some(*value),
            Tree::Text(text) => text.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok()),
            _ => None,
        };
        let share = percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0);
        if share.is_none() {
            self.wrong(&path, node.line, "must be a percentage from 0% to 100%");
        }
        share
    }

    fn triggers(&mut self, fields: &Fields<'_>) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        for (node, path) in self.list(fields, "on_decision", 20) {
            if let Tree::Text(target) = &node.tree {
                triggers.push(Trigger { target: target.clone(), when: When::Always });
                continue;
            }
            let Some(inner) = self.fields(node, &path, &["target", "when"]) else { continue };
            let when = self.word(&inner, "when", when, "failed, passed, always").unwrap_or(When::Always);
            match self.text(&inner, "target") {
                Some(target) => triggers.push(Trigger { target, when }),
                None => self.wrong(&path, node.line, "has no `target`"),
            }
        }
        triggers
    }

    fn criterion(&mut self, node: &Node, path: &str, taken: &mut BTreeSet<String>) -> Option<Criterion> {
        let known = ["name", "weight", "key", "dry_run", "sql", "parameters", "risk", "pipeline_health", "pass", "warning", "min_samples"];
        let fields = self.fields(node, path, &known)?;
        let name = self.name(&fields, taken);
        let measure = self.measure(&fields);
        let (pass, warning) = (self.thresholds(&fields, "pass"), self.thresholds(&fields, "warning"));
        if fields.get("pass").is_none() && fields.get("warning").is_some() {
            self.wrong(path, node.line, "has `warning` without `pass`");
        }
        let min_samples = self.whole(&fields, "min_samples", u32::MAX);
        if min_samples.is_some() && matches!(measure, Some(Measure::Risk)) {
            self.wrong(path, node.line, "`min_samples` has no meaning for `risk`");
        }
        let is_key = self.flag(&fields, "key");
        if is_key && fields.get("pass").is_none() {
            self.wrong(path, node.line, "is `key` and has no `pass`");
        }
        Some(Criterion {
            name,
            weight: self.number(&fields, "weight").unwrap_or(1.0),
            is_key,
            dry_run: self.flag(&fields, "dry_run"),
            measure: measure?,
            pass,
            warning,
            min_samples: min_samples.map(u64::from),
        })
    }

    fn measure(&mut self, fields: &Fields<'_>) -> Option<Measure> {
        let given = ["sql", "risk", "pipeline_health"].into_iter().filter(|name| fields.get(name).is_some()).count();
        if given != 1 {
            self.wrong(&fields.path, fields.line, format!("needs exactly one of `sql`, `risk`, `pipeline_health`; has {given}"));
            return None;
        }
        if fields.get("sql").is_none() && fields.get("parameters").is_some() {
            self.wrong(&fields.path, fields.line, "`parameters` belong to `sql`");
        }
        if let Some((node, path)) = fields.get("pipeline_health") {
            return self.health(node, &path).map(Measure::PipelineHealth);
        }
        if let Some((node, path)) = fields.get("risk") {
            if !self.flag(fields, "risk") {
                self.wrong(&path, node.line, "must be `true`");
            }
            return Some(Measure::Risk);
        }
        self.sql(fields)
    }

    fn sql(&mut self, fields: &Fields<'_>) -> Option<Measure> {
        let (node, path) = fields.get("sql")?;
        let sql = self.text_of(node, &path)?;
        let mut parameters = Vec::new();
        for (node, path) in self.list(fields, "parameters", 32) {
            parameters.extend(self.text_of(node, &path));
        }
        if sql.len() > MAX_SQL {
            self.wrong(&path, node.line, format!("has more than {MAX_SQL} bytes"));
        }
        if sql.contains("{{") {
            self.wrong(&path, node.line, "texts are not pasted into SQL: write `$1` and list the name in `parameters`");
        }
        let used = placeholders(&sql);
        for number in used.iter().filter(|number| **number == 0 || **number > parameters.len()) {
            self.wrong(&path, node.line, format!("${number} has no entry in `parameters`"));
        }
        for (at, name) in parameters.iter().enumerate().filter(|(at, _)| !used.contains(&(at + 1))) {
            self.wrong(&path, node.line, format!("parameter `{name}` is not used: there is no ${}", at + 1));
        }
        Some(Measure::Sql { sql, parameters })
    }

    fn health(&mut self, node: &Node, path: &str) -> Option<PipelineHealth> {
        let fields = self.fields(node, path, &["metric", "pipeline", "branch", "days"])?;
        let words = "failure_ratio, duration_p50_ms, duration_p95_ms, queue_p50_ms, runs";
        let metric = self.word(&fields, "metric", HealthMetric::parse, words);
        if fields.get("metric").is_none() {
            self.wrong(path, node.line, "has no `metric`");
        }
        let (pipeline, branch) = (self.text(&fields, "pipeline"), self.text(&fields, "branch"));
        let days = self.whole(&fields, "days", MAX_DAYS).unwrap_or(7);
        Some(PipelineHealth { metric: metric?, pipeline, branch, days })
    }

    /// `[a, b]` is one block; `[[a, b], [c]]` or `[{criteria: [a, b]}, …]` are several.
    fn thresholds(&mut self, fields: &Fields<'_>, name: &str) -> Thresholds {
        let mut blocks: Vec<Vec<Condition>> = Vec::new();
        let mut plain = Vec::new();
        for (node, path) in self.list(fields, name, 20) {
            let items = match &node.tree {
                Tree::Text(_) => {
                    plain.extend(self.condition(node, &path));
                    continue;
                }
                Tree::List(items) => items.iter().enumerate().map(|(at, item)| (item, format!("{path}[{at}]"))).collect(),
                _ => match self.fields(node, &path, &["criteria"]) {
                    Some(inner) => self.list(&inner, "criteria", 20),
                    None => continue,
                },
            };
            let block: Vec<_> = items.into_iter().filter_map(|(item, path)| self.condition(item, &path)).collect();
            if block.is_empty() {
                self.wrong(&path, node.line, "has no condition");
            }
            blocks.push(block);
        }
        if !plain.is_empty() && !blocks.is_empty() {
            self.wrong(&fields.path, fields.line, format!("`{name}` mixes conditions and blocks of conditions"));
        }
        if !plain.is_empty() {
            blocks.push(plain);
        }
        if let (Some((node, path)), true) = (fields.get(name), blocks.is_empty()) {
            self.wrong(&path, node.line, "has no condition");
        }
        Thresholds(blocks)
    }

    fn condition(&mut self, node: &Node, path: &str) -> Option<Condition> {
        let text = self.text_of(node, path)?;
        match Condition::parse(&text) {
            Ok(condition) => Some(condition),
            Err(error) => {
                self.wrong(path, node.line, format!("`{text}`: {error}"));
                None
            }
        }
    }
}

fn status(text: &str) -> Option<Status> {
    match text {
        "passed" => Some(Status::Passed),
        "failed" => Some(Status::Failed),
        _ => None,
    }
}

fn when(text: &str) -> Option<When> {
    match text {
        "failed" => Some(When::Failed),
        "passed" => Some(When::Passed),
        "always" => Some(When::Always),
        _ => None,
    }
}
