//! Drops the values of secret fields from a JSON text, without reading it into a tree.

use std::borrow::Cow;

/// The text with `null` in place of each value of a field of one of the names, at any depth; `None` when there is none. What
/// is not whole JSON is cut where a secret could go on: it cannot be read afterwards either.
pub(super) fn redact(text: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    if names.is_empty() {
        return None;
    }
    let mut kept: Option<Vec<u8>> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(quote) = position(text, at, |byte| byte == b'"') {
        let end = end_of_string(text, quote);
        let next = past_space(text, end);
        at = end;
        if text.get(next) != Some(&b':') || !is_named(text.get(quote..end).unwrap_or_default(), names) {
            continue;
        }
        let value = past_space(text, next + 1);
        at = end_of_value(text, value);
        let kept = kept.get_or_insert_with(|| Vec::with_capacity(text.len()));
        kept.extend_from_slice(text.get(copied..value).unwrap_or_default());
        kept.extend_from_slice(b"null");
        copied = at;
    }
    let mut kept = kept?;
    kept.extend_from_slice(text.get(copied..).unwrap_or_default());
    Some(kept)
}

/// A key with escapes is read before it is compared.
fn is_named(key: &[u8], names: &[&str]) -> bool {
    let key: Cow<'_, [u8]> = if key.contains(&b'\\') {
        serde_json::from_slice::<String>(key).map_or(Cow::Borrowed(key), |key| Cow::Owned(format!("\"{key}\"").into_bytes()))
    } else {
        Cow::Borrowed(key)
    };
    let bare = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    names.iter().any(|name| name.as_bytes() == bare)
}

fn position(text: &[u8], from: usize, is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    text.get(from..)?.iter().position(|byte| is_wanted(*byte)).map(|at| from + at)
}

fn past_space(text: &[u8], from: usize) -> usize {
    position(text, from, |byte| !byte.is_ascii_whitespace()).unwrap_or(text.len())
}

/// Where a string that begins at `quote` has ended.
fn end_of_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(found) = position(text, at, |byte| byte == b'"' || byte == b'\\') {
        match text.get(found) {
            Some(b'"') => return found + 1,
            _ => at = found + 2,
        }
    }
    text.len()
}

/// Where a value that begins at `from` has ended.
fn end_of_value(text: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    loop {
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => at = end_of_string(text, at),
            Some(b'{' | b'[') => (at, depth) = (at + 1, depth + 1),
            Some(b'}' | b']' | b',') if depth == 0 => return at,
            Some(b'}' | b']') => (at, depth) = (at + 1, depth - 1),
            Some(_) => at += 1,
        }
        if depth == 0 && matches!(text.get(at.saturating_sub(1)), Some(b'"' | b'}' | b']')) {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::redact;

    const NAMES: &[&str] = &["secret", "variables"];

    fn text(from: &str) -> Option<String> {
        redact(from.as_bytes(), NAMES).map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn values_of_the_named_fields_go_and_nothing_else() {
        for (from, to) in [
            (r#"{"secret":"a","b":1}"#, r#"{"secret":null,"b":1}"#),
            (r#"{"a":{"secret" : "x\"}y" }}"#, r#"{"a":{"secret" : null }}"#),
            (r#"{"variables":[{"key":"K","value":"]"}],"z":2}"#, r#"{"variables":null,"z":2}"#),
            (r#"{"secret":{"a":{"b":"}"}}}"#, r#"{"secret":null}"#),
            (r#"{"secret":12}"#, r#"{"secret":null}"#),
            (r#"{"secret":true,"secret":"b"}"#, r#"{"secret":null,"secret":null}"#),
            (r#"{"s\u0065cret":"a"}"#, r#"{"s\u0065cret":null}"#),
            (r#"{"secret":"never ends, \"#, r#"{"secret":null"#),
            (r#"{"secret":["never ends""#, r#"{"secret":null"#),
            (r#"{"secret":""}"#, r#"{"secret":null}"#),
        ] {
            assert_eq!(text(from).as_deref(), Some(to), "{from}");
        }
        for same in [r#"{"a":"secret"}"#, r#"["secret","b"]"#, r#"{"secrets":"a"}"#, r#"{"a":"\"secret\":1"}"#, "", "secret", "\"secret"] {
            assert_eq!(text(same), None, "{same}");
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i32>().prop_map(|n| json!(n)),
            "\\PC{0,8}|[\"\\\\{}\\[\\],:]{0,6}".prop_map(Value::String)
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let key = prop_oneof![Just("secret".to_owned()), Just("variables".to_owned()), "[a-c\"\\\\]{0,3}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec((key, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    /// What a tree would be without its secrets.
    fn without(value: Value) -> Value {
        match value {
            Value::Array(all) => Value::Array(all.into_iter().map(without).collect()),
            Value::Object(map) => {
                let keep = |(name, value): (String, Value)| {
                    let value = if NAMES.contains(&name.as_str()) { Value::Null } else { without(value) };
                    (name, value)
                };
                Value::Object(map.into_iter().map(keep).collect())
            }
            leaf => leaf,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_tree_would_give(tree in tree(), is_pretty in any::<bool>()) {
            let bytes = if is_pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) }.expect("JSON");
            let kept = redact(&bytes, NAMES).unwrap_or_else(|| bytes.clone());
            prop_assert_eq!(serde_json::from_slice::<Value>(&kept).expect("still JSON"), without(tree));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kept = redact(&bytes, NAMES).unwrap_or_default();
            prop_assert!(kept.len() <= bytes.len() + 4 * bytes.len());
        }
    }
}
