//! Bytes of XML to text, numbers and times.

use std::borrow::Cow;

use kiro_schemas::Micros;
use memchr::memchr;

/// The longest reference that is known: `&#x10FFFF;`, and a little more for leading zeros.
const LONGEST_REFERENCE: usize = 16;

/// A name without its prefix.
pub(crate) fn local(name: &[u8]) -> &[u8] {
    memchr(b':', name).map_or(name, |at| &name[at + 1..])
}

/// The text that bytes stand for: what is no UTF-8 is `U+FFFD`, references are resolved. There are five names and the numbers;
/// nothing that a document declares, so nothing grows.
pub(crate) fn decode(raw: &[u8]) -> Cow<'_, str> {
    let text = std::str::from_utf8(raw).map_or_else(|_broken| String::from_utf8_lossy(raw), Cow::Borrowed);
    if memchr(b'&', raw).is_none() {
        return text;
    }
    let mut parts = text.split('&');
    let mut out = String::with_capacity(text.len());
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let known = part.split_once(';').filter(|(name, _)| name.len() <= LONGEST_REFERENCE);
        if let Some((character, rest)) = known.and_then(|(name, rest)| Some((character(name)?, rest))) {
            out.push(character);
            out.push_str(rest);
        } else {
            out.push('&');
            out.push_str(part);
        }
    }
    Cow::Owned(out)
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|c| *c != '\0').unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn clip(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// Seconds as tools write them, in milliseconds: `0.25`, `1,234.5` (thousands), `0,25` (a decimal comma), `1.234,5` and
/// `1 234,5` (both), `1.5E-4`, `3s`. What is negative, no number or beyond a hundred years is no duration.
///
/// # Source
/// Surefire writes thousands separators: `1,234` is 1,234 seconds; a group of thousands never begins with 0.
pub(crate) fn seconds_ms(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches('s').trim_end();
    let plain = match text.split_once(',') {
        None => Cow::Borrowed(text),
        Some((whole, rest)) => {
            let is_thousands = is_group(whole) && rest.split('.').next().unwrap_or_default().split(',').all(|group| group.len() == 3);
            Cow::Owned(if is_thousands { text.replace(',', "") } else { format!("{}.{rest}", joined(whole)?) })
        }
    };
    let ms = (plain.parse::<f64>().ok()? * 1e3).round();
    // A hundred years: beyond is no duration.
    #[expect(clippy::cast_possible_truncation, reason = "it lies in the range of integers that floats hold exactly")]
    (0.0..3.2e12).contains(&ms).then_some(ms as i64)
}

/// Whether groups of thousands may follow.
fn is_group(text: &str) -> bool {
    !text.starts_with('0') && (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The digits before a decimal comma, without what parts their groups of thousands.
fn joined(whole: &str) -> Option<String> {
    let groups: Vec<&str> = whole.split(|c: char| matches!(c, '.' | '\'' | '\u{2019}') || c.is_whitespace()).collect();
    let is_number = match groups.as_slice() {
        [first, rest @ ..] => rest.is_empty() || (is_group(first) && rest.iter().all(|group| group.len() == 3)),
        [] => false,
    };
    is_number.then(|| groups.concat())
}

/// Reads a time or duration; one that is there and cannot be read is counted.
pub(crate) fn heard<T>(raw: &[u8], unread: &mut u64, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let text = decode(raw);
    let found = read(&text);
    *unread += u64::from(found.is_none() && !text.trim().is_empty());
    found
}

/// A time; without an offset it is taken as UTC.
pub(crate) fn time(text: &str) -> Option<Micros> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    Micros::parse(text).or_else(|| Micros::parse(&format!("{text}Z"))).filter(|time| time.is_storable())
}

#[cfg(test)]
mod tests {
    use kiro_schemas::Micros;

    use super::{clip, decode, seconds_ms, time};

    #[test]
    fn references_are_resolved_and_others_stay() {
        for (raw, text) in [
            (&b"plain"[..], "plain"),
            (b"a &lt;b&gt; &amp;amp; &quot;c&quot; &apos;", "a <b> &amp; \"c\" '"),
            (b"&#65;&#x42;&#x1F600;", "AB\u{1F600}"),
            (b"&#0;&#xD800;", "\u{FFFD}\u{FFFD}"),
            (b"&lol; & && &; &#; &#xZZ; &#99999999999;", "&lol; & && &; &#; &#xZZ; &#99999999999;"),
            (b"\xff\xc3(", "\u{FFFD}\u{FFFD}("),
        ] {
            assert_eq!(decode(raw), text);
        }
        assert_eq!((clip("äää", 3), clip("abc", 9), clip("", 0)), ("ä", "abc", ""));
    }

    #[test]
    fn seconds_in_all_their_spellings() {
        for (text, ms) in [
            ("0.25", Some(250)),
            ("1,234.567", Some(1_234_567)),
            ("1,234", Some(1_234_000)),
            ("12,345,678.9", Some(12_345_678_900)),
            ("0,25", Some(250)),
            ("0,123", Some(123)),
            ("2,5", Some(2_500)),
            (" 3.5s ", Some(3_500)),
            ("1.5E-4", Some(0)),
            ("7", Some(7_000)),
            ("", None),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("1,2,3", None),
            ("1.234,5", Some(1_234_500)),
            ("12.345.678,9", Some(12_345_678_900)),
            ("1 234,5", Some(1_234_500)),
            ("1\u{202F}234,5", Some(1_234_500)),
            ("1'234,5", Some(1_234_500)),
            ("1.23,5", None),
            ("0.123,5", None),
            ("-0,5", None),
            ("1.234.567", None),
            ("1234,567", Some(1_234_567)),
            ("3200000001", None),
            ("--", None),
        ] {
            assert_eq!(seconds_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn times_without_an_offset_are_utc() {
        assert_eq!(time("2026-11-23T09:40:00"), Some(Micros(1_795_426_800_000_000)));
        assert_eq!(time("2026-11-23 09:40:00.5"), Some(Micros(1_795_426_800_500_000)));
        assert_eq!(time("2026-11-23T10:40:00+01:00"), time("2026-11-23T09:40:00Z"));
        assert_eq!((time("yesterday"), time(""), time("1896-01-01T00:00:00")), (None, None, None));
    }
}
