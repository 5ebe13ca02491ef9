//! Names from outside that become labels of metrics: bounded, so that nobody can fill a monitoring system with series.

use std::collections::BTreeSet;

/// How many names a label shows.
pub const MOST_NAMES: usize = 50;
/// What stands for all names beyond.
pub const OTHER: &str = "other";
/// What stands for the tenants of the names beyond; no tenant is called so.
pub const ALL_TENANTS: &str = "*";

/// The names that are shown: those of most weight, of equal weight the first in their order.
#[must_use]
pub fn top<K: Ord>(weighted: impl IntoIterator<Item = (K, u64)>, most: usize) -> BTreeSet<K> {
    let mut all: Vec<(K, u64)> = weighted.into_iter().collect();
    all.sort_unstable_by(|(a, heavy), (b, other)| other.cmp(heavy).then_with(|| a.cmp(b)));
    all.into_iter().take(most).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::top;

    #[test]
    fn the_heaviest_are_shown() {
        let names = [("a", 1), ("b", 3), ("d", 2), ("c", 2)];
        assert_eq!(top(names, 2).into_iter().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(top(names, 9).len(), 4);
        assert!(top(Vec::<(&str, u64)>::new(), 9).is_empty());
    }
}
