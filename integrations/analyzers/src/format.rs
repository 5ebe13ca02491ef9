//! Which report it is.

use std::fmt;

use crate::text::local;

/// A format of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Test results, as nearly all test tools can write them.
    Junit,
    /// Coverage, of coverage.py, gcovr, Coverlet, Istanbul and others.
    Cobertura,
    /// Coverage of programs for the JVM.
    Jacoco,
    /// Coverage, of gcov, Istanbul, cargo-llvm-cov and others.
    Lcov,
    /// Results of scanners, version 2.1.0.
    Sarif,
}

impl Format {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Junit, Self::Cobertura, Self::Jacoco, Self::Lcov, Self::Sarif];

    /// Its name in addresses and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Junit => "junit",
            Self::Cobertura => "cobertura",
            Self::Jacoco => "jacoco",
            Self::Lcov => "lcov",
            Self::Sarif => "sarif",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.as_str() == text)
    }

    /// The format of a report by how it begins: its root element, its first object or its first line.
    #[must_use]
    pub fn guess(head: &[u8]) -> Option<Self> {
        let head = head.trim_ascii_start();
        match head.first()? {
            b'<' => match local(root(head)?) {
                b"testsuites" | b"testsuite" => Some(Self::Junit),
                b"coverage" => Some(Self::Cobertura),
                b"report" => Some(Self::Jacoco),
                _ => None,
            },
            b'{' => Some(Self::Sarif),
            _ if head.starts_with(b"TN:") || head.starts_with(b"SF:") => Some(Self::Lcov),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of the first element, behind declarations and comments.
fn root(mut head: &[u8]) -> Option<&[u8]> {
    loop {
        head = head.get(memchr::memchr(b'<', head)? + 1..)?;
        let end: &[u8] = match head {
            [b'!', b'-', b'-', ..] => b"-->",
            [b'?', ..] => b"?>",
            [b'!', ..] => b">",
            _ => return head.split(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/')).next(),
        };
        head = head.get(memchr::memmem::find(head, end)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_report_is_known_by_how_it_begins() {
        for (head, format) in [
            ("<testsuites>", Some(Format::Junit)),
            ("<?xml version=\"1.0\"?>\n<!-- <coverage> -->\n<testsuite name=\"x\"/>", Some(Format::Junit)),
            ("<?xml version='1.0'?><!DOCTYPE coverage SYSTEM \"http://x/coverage-04.dtd\"><coverage line-rate", Some(Format::Cobertura)),
            ("<!DOCTYPE report PUBLIC \"-//JACOCO//DTD Report 1.1//EN\" \"report.dtd\"><report name=\"x\">", Some(Format::Jacoco)),
            (" \n{\"version\"", Some(Format::Sarif)),
            ("TN:\nSF:a.c", Some(Format::Lcov)),
            ("SF:a.c", Some(Format::Lcov)),
            ("<html>", None),
            ("mode: set", None),
            ("<!-- never ends", None),
            ("", None),
        ] {
            assert_eq!(Format::guess(head.as_bytes()), format, "{head}");
        }
        assert!(Format::ALL.iter().all(|format| Format::parse(format.as_str()) == Some(*format)));
    }
}
