//! Documents that are written from the code: the tables and the errors. `make docs` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiro_schemas::Kind;
use kiro_tables::{Table, TableShape};

use crate::files;

/// Compares a document with what it should be, or writes it when `KIROLINTER_WRITE_DOCS` is set.
fn check(name: &str, expected: &str) {
    let path = kiro_tests::root().join(name);
    if std::env::var_os("KIROLINTER_WRITE_DOCS").is_some() {
        std::fs::write(&path, expected).expect("a writable document");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} is not what the code says: `make docs` writes it anew");
}

const fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Int => "bigint",
        Kind::Float => "double precision",
        Kind::Bool => "boolean",
        Kind::Time => "timestamp with time zone",
        Kind::Map => "map of text to text",
    }
}

fn table_section(table: &Table) -> String {
    let shape = match table.shape {
        TableShape::Events => "One row an event.".to_owned(),
        TableShape::Versions => format!("One row per `{}`; SQL shows the newest version of each.", table.key.join(", ")),
    };
    let mut text = format!("\n## {}\n\n{} {shape}\n\n| column | type | null | meaning |\n|---|---|---|---|\n", table.name, table.doc);
    for column in &table.columns {
        let null = if column.nullable { "yes" } else { "no" };
        writeln!(text, "| `{}` | {} | {null} | {} |", column.name, sql_type(column.kind), column.doc).expect("text");
    }
    text
}

#[test]
fn tables_are_documented() {
    let mut text = "# Tables\n\nThe SQL contract: columns are added, never changed. Times are UTC, in microseconds. Written from \
                    `schemas` by `make docs`.\n"
        .to_owned();
    text.extend(Table::all().iter().map(table_section));
    check("docs/tables.md", &text);
}

/// What a source file tells of its errors: code → meaning.
type Codes = BTreeMap<String, String>;

/// The comments of the variants of all enums, by `Enum::Variant`. Formatting is checked, so lines tell what is what.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut all, mut owner, mut comment) = (BTreeMap::new(), None, Vec::new());
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("enum ").filter(|_| line.ends_with('{') && !line.starts_with(' ')) {
            owner = Some(name.trim_end_matches(" {").to_owned());
        } else if line == "}" {
            owner = None;
        }
        let Some(owner) = owner.as_ref().filter(|_| line.starts_with("    ") && !line.starts_with("     ")) else { continue };
        if let Some(words) = line.trim().strip_prefix("///") {
            comment.push(words.trim().to_owned());
        } else if line.trim().starts_with(|first: char| first.is_ascii_uppercase()) {
            let name: String = line.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
            all.insert(format!("{owner}::{name}"), std::mem::take(&mut comment).join(" "));
        }
    }
    all
}

/// The codes of a file: the arms of `code` in each `impl Fault for`, with what is said of the variants that they name.
fn codes_of(text: &str) -> Codes {
    let (comments, mut codes) = (comments(text), Codes::new());
    for part in text.split("Fault for ").skip(1) {
        let own = part.split(' ').next().unwrap_or_default();
        let Some((_, body)) = part.split_once("fn code(&self) -> &'static str {\n") else { continue };
        let mut pattern = String::new();
        for line in body.split("\n    }\n").next().unwrap_or_default().lines() {
            let Some((before, value)) = line.split_once("=>") else {
                pattern.push_str(line);
                continue;
            };
            let pattern = std::mem::take(&mut pattern) + before;
            let Some(code) = value.trim().strip_prefix('"').and_then(|v| v.split('"').next()) else { continue };
            let is_other = |c: char| !c.is_ascii_alphanumeric() && c != ':';
            let named = pattern.split(is_other).map(|path| path.replace("Self::", &format!("{own}::")));
            let meanings: Vec<String> = named.filter_map(|path| comments.get(&path).cloned()).collect();
            codes.insert(code.to_owned(), meanings.join(" "));
        }
    }
    codes
}

/// Words of product code that look like a code of ours.
fn literals(text: &str) -> Vec<String> {
    let of_length = |w: &str| w.len() == 8 && w.bytes().skip(4).all(|b| b.is_ascii_digit());
    text.split('"').filter(|w| w.starts_with("KIR-") && of_length(w)).map(str::to_owned).collect()
}

#[test]
fn errors_are_documented() {
    let root = kiro_tests::root();
    let mut sections: BTreeMap<String, (String, Codes)> = BTreeMap::new();
    let mut used: Vec<(String, String)> = Vec::new();
    let mut seen = Codes::new();
    for path in files(&root, "rs") {
        let place = path.strip_prefix(&root).expect("below the root").display().to_string();
        if !place.contains("src/") || place.ends_with("tests.rs") || place.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable file");
        used.extend(literals(&text).into_iter().map(|code| (code, place.clone())));
        if !text.contains("Fault for") {
            continue;
        }
        let codes = codes_of(&text);
        for code in codes.keys() {
            let other = seen.insert(code.clone(), place.clone());
            assert!(other.is_none(), "{code} is used in {place} and in {}", other.unwrap_or_default());
        }
        if let Some(first) = codes.keys().next() {
            let name = place.split("/src/").next().unwrap_or(&place);
            sections.insert(first.clone(), (name.to_owned(), codes));
        }
    }
    for (code, place) in used {
        assert!(seen.contains_key(&code), "{place} names {code}, which no error has");
    }
    let mut text =
        "# Errors\n\nEvery error has a stable code; doors show it beside the text. Written from the sources by `make docs`.\n".to_owned();
    for (name, codes) in sections.values() {
        write!(text, "\n## {name}\n\n| code | meaning |\n|---|---|\n").expect("text");
        for (code, meaning) in codes {
            writeln!(text, "| `{code}` | {meaning} |").expect("text");
        }
    }
    check("docs/errors.md", &text);
}
