//! The placeholders of a statement.

use std::collections::BTreeSet;

/// The numbers of the placeholders `$1`, `$2`, … outside of literals, quoted names and comments.
pub(crate) fn placeholders(sql: &str) -> BTreeSet<usize> {
    let bytes = sql.as_bytes();
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < bytes.len() {
        at = match bytes[at] {
            quote @ (b'\'' | b'"') => after(bytes, at + 1, |rest| rest[0] == quote) + 1,
            b'-' if bytes.get(at + 1) == Some(&b'-') => after(bytes, at, |rest| rest[0] == b'\n'),
            b'/' if bytes.get(at + 1) == Some(&b'*') => after(bytes, at + 2, |rest| rest.starts_with(b"*/")) + 2,
            b'$' => {
                let end = after(bytes, at + 1, |rest| !rest[0].is_ascii_digit());
                if let Some(number) = sql.get(at + 1..end).and_then(|digits| digits.parse().ok()) {
                    found.insert(number);
                }
                end
            }
            _ => at + 1,
        };
    }
    found
}

fn after(bytes: &[u8], from: usize, is_end: impl Fn(&[u8]) -> bool) -> usize {
    (from..bytes.len()).find(|at| is_end(&bytes[*at..])).unwrap_or(bytes.len())
}
