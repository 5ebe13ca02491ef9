//! Commands that documents name are there, with their flags.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::server::{Answer, program};

/// The documents for people who use the product.
fn documents() -> Result<Vec<PathBuf>> {
    let root = kiro_tests::root();
    let mut found = vec![root.join("README.md")];
    for entry in root.join("docs").read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The words of a command up to where the shell does something else with it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        for word in part.split_whitespace() {
            if matches!(word, "|" | ">" | "&&" | "#" | "\\") || word.contains(['…', '$']) {
                return words;
            }
            words.push(word.to_owned());
        }
    }
    words
}

/// What stands in code, in a line of its own or within a sentence.
fn commands(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text.lines().map(str::trim).collect();
    found.extend(text.split('`').skip(1).step_by(2).filter(|code| !code.contains('\n')));
    found.retain(|code| code.starts_with("kirolinter ") || code.starts_with("kirolinterd "));
    found
}

#[test]
fn named_commands_and_their_flags_exist() -> Result<()> {
    let mut seen = 0;
    for document in documents()? {
        let text = std::fs::read_to_string(&document)?;
        for line in commands(&text) {
            let words = words(line);
            let Some((name, rest)) = words.split_first().filter(|(_, rest)| !rest.is_empty()) else { continue };
            let is_flag = |word: &&String| word.starts_with('-') && word.len() > 1;
            let flags = rest.iter().filter(is_flag);
            // What stands before the flags: subcommands, and what they are about.
            let sub = rest.iter().take_while(|word| !is_flag(word) && !word.contains(['.', '/', '=']));
            let answer = Answer::of(Command::new(program(name)?).args(sub).arg("--help").output()?)?;
            ensure!(answer.code == Some(0), "{}: {line:?}: {}", document.display(), answer.err);
            for flag in flags {
                let flag = flag.split('=').next().unwrap_or(flag);
                ensure!(answer.out.contains(flag), "{}: {line:?}: no flag {flag}", document.display());
            }
            seen += 1;
        }
    }
    ensure!(seen > 30, "only {seen} commands were found");
    Ok(())
}
