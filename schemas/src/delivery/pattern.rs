//! Patterns of names: `*` stands for any text, capital letters for small ones.

/// A pattern that a whole value must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Takes the text of a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a value fits; in at most the product of the two lengths.
    #[must_use]
    pub fn fits(&self, value: &str) -> bool {
        let (pattern, value) = (self.0.as_bytes(), value.as_bytes());
        let (mut p, mut v) = (0, 0);
        // Where the last star stands, and what it has swallowed up to.
        let mut star: Option<(usize, usize)> = None;
        while let Some(byte) = value.get(v) {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, v));
                    p += 1;
                }
                Some(wanted) if wanted.eq_ignore_ascii_case(byte) => (p, v) = (p + 1, v + 1),
                _ => {
                    let Some((at, swallowed)) = star else { return false };
                    star = Some((at, swallowed + 1));
                    (p, v) = (at + 1, swallowed + 1);
                }
            }
        }
        pattern.iter().skip(p).all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pattern;

    /// What a pattern means, written plainly.
    fn means(pattern: &[char], value: &[char]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => means(rest, value) || value.split_first().is_some_and(|(_, value)| means(pattern, value)),
            (Some((p, rest)), Some((v, value))) => p.eq_ignore_ascii_case(v) && means(rest, value),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn fits_what_it_means(pattern in "[aAb*]{0,6}", value in "[aAbB]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&pattern).fits(&value), means(&chars(&pattern), &chars(&value)));
        }

        #[test]
        fn never_panics(pattern in "\\PC{0,9}", value in "\\PC{0,9}") {
            let itself = Pattern::new(&value);
            prop_assert!(itself.fits(&value) && Pattern::new("*").fits(&value));
            let (ending, longer) = (Pattern::new(&["*", &value].concat()), [pattern.as_str(), &value].concat());
            prop_assert!(ending.fits(&longer));
            std::hint::black_box(Pattern::new(&pattern).fits(&value));
        }
    }
}
