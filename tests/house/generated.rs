//! Documents that are written from the code: the tables and the errors. `make docs` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiro_schemas::Kind;
use kiro_tables::{Table, TableShape};
use syn::{Arm, Attribute, Expr, ExprLit, File, ImplItem, Item, ItemEnum, ItemImpl, Lit, Meta, Pat, Stmt};

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

fn text_of(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn doc_of(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        Meta::NameValue(pair) => text_of(&pair.value),
        _ => None,
    });
    lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join(" ")
}

/// The variants that a pattern names: enum and variant.
fn variants(pattern: &Pat) -> Vec<[String; 2]> {
    let last = |path: &syn::Path| match path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>().as_slice() {
        [.., owner, variant] => vec![[owner.clone(), variant.clone()]],
        _ => Vec::new(),
    };
    match pattern {
        Pat::Or(or) => or.cases.iter().flat_map(variants).collect(),
        Pat::Struct(s) => last(&s.path),
        Pat::TupleStruct(s) => last(&s.path),
        Pat::Path(p) => last(&p.path),
        _ => Vec::new(),
    }
}

fn arms_of_code(item: &ItemImpl) -> Vec<&Arm> {
    let functions = item.items.iter().filter_map(|i| if let ImplItem::Fn(f) = i { Some(f) } else { None });
    let code = functions.filter(|f| f.sig.ident == "code");
    let last = code.filter_map(|f| f.block.stmts.last());
    last.flat_map(|s| if let Stmt::Expr(Expr::Match(m), _) = s { m.arms.iter().collect() } else { Vec::new() }).collect()
}

fn codes_of(file: &File) -> Codes {
    let enums: BTreeMap<String, &ItemEnum> =
        file.items.iter().filter_map(|i| if let Item::Enum(e) = i { Some((e.ident.to_string(), e)) } else { None }).collect();
    let mut codes = Codes::new();
    for item in file.items.iter().filter_map(|i| if let Item::Impl(i) = i { Some(i) } else { None }) {
        let is_fault = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last()).is_some_and(|s| s.ident == "Fault");
        let syn::Type::Path(own) = &*item.self_ty else { continue };
        let Some(own) = own.path.segments.last().map(|s| s.ident.to_string()).filter(|_| is_fault) else { continue };
        for arm in arms_of_code(item) {
            let Some(code) = text_of(&arm.body) else { continue };
            let doc = |[owner, variant]: [String; 2]| {
                let declared = enums.get(if owner == "Self" { &own } else { &owner })?;
                declared.variants.iter().find(|v| v.ident == variant).map(|v| doc_of(&v.attrs))
            };
            codes.insert(code, variants(&arm.pat).into_iter().filter_map(doc).collect::<Vec<_>>().join(" "));
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
        let codes = codes_of(&syn::parse_file(&text).expect("Rust"));
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
