//! Which versions of the folds were followed by a newer one, long enough ago that nobody goes back to them.

use std::collections::BTreeMap;
use std::time::Duration;

use kiro_lake::TableVersion;

/// The older versions of a table that may go: the program's own has been committed to for `after` since it was made and since
/// the older one was committed to last, and it contains as much of the log. Readers of the own version need nothing of an older
/// one, as of any time; processes of the older program commit at least every minute while there are any.
pub(super) fn followed(versions: &[TableVersion], own: u32, after: Duration) -> Vec<u32> {
    let Some((shown, older)) = versions.split_last().filter(|(last, _)| last.version == own) else { return Vec::new() };
    older.iter().filter(|old| is_followed(old, shown, after)).map(|old| old.version).collect()
}

fn is_followed(old: &TableVersion, shown: &TableVersion, after: Duration) -> bool {
    // Its removal was begun.
    let Some(ended) = old.committed_at else { return true };
    let (Some(created), Some(last)) = (shown.created_at, shown.committed_at) else { return false };
    let since = u64::try_from(last.0 - ended.max(created).0).map(Duration::from_micros);
    since.is_ok_and(|since| since >= after) && contains(shown, old)
}

/// Whether a version contains as much of each partition as another one, in whatever shards each has it.
fn contains(shown: &TableVersion, old: &TableVersion) -> bool {
    let has = partitions(shown, i64::min);
    partitions(old, i64::max).iter().all(|(at, next)| has.get(at).is_some_and(|has| has >= next))
}

/// The next offset of each partition among the shards, by `kiro/{cluster}/fold/v{version}/{shard}of{shards}/{topic}/{partition}`.
fn partitions(version: &TableVersion, among: fn(i64, i64) -> i64) -> BTreeMap<&str, i64> {
    let mut all = BTreeMap::new();
    for (app, next) in &version.offsets {
        let place = app.split_once("/fold/v").and_then(|(_, rest)| rest.splitn(3, '/').nth(2)).filter(|place| place.contains('/'));
        if let Some(place) = place {
            all.entry(place).and_modify(|known| *known = among(*known, *next)).or_insert(*next);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiro_lake::TableVersion;
    use kiro_schemas::Micros;

    use super::followed;

    const DAY: i64 = 86_400 * 1_000_000;
    const WEEK: Duration = Duration::from_hours(7 * 24);

    fn version(version: u32, created: i64, committed: i64, offsets: &[(&str, i64)]) -> TableVersion {
        let offsets = offsets.iter().map(|(place, next)| (format!("kiro/main/fold/v{version}/{place}"), *next)).collect();
        TableVersion { version, created_at: Some(Micros(created * DAY)), committed_at: Some(Micros(committed * DAY)), offsets }
    }

    #[test]
    fn a_version_goes_a_week_after_another_took_its_place() {
        let old = version(1, 0, 10, &[("0of1/events/0", 7), ("0of1/epoch", 99), ("0of1/turn", 99)]);
        let new =
            |created: i64, committed: i64, next: i64| version(3, created, committed, &[("0of2/events/0", 9), ("1of2/events/0", next)]);
        let gone = |all: &[TableVersion]| followed(all, 3, WEEK);
        assert_eq!(gone(&[old.clone(), new(9, 17, 7)]), [1]);
        assert_eq!(gone(&[old.clone(), version(2, 5, 9, &[]), new(9, 17, 7)]), [1, 2]);
        assert!(gone(&[old.clone(), new(9, 16, 7)]).is_empty(), "an older program ran six days ago");
        assert!(gone(&[old.clone(), new(12, 18, 7)]).is_empty(), "the newer one is six days old");
        assert!(gone(&[old.clone(), new(9, 17, 6)]).is_empty(), "a shard of the newer one is behind");
        assert!(gone(&[version(2, 0, 10, &[("0of1/other/0", 1)]), new(9, 17, 7)]).is_empty(), "it has read less");
        assert!(gone(std::slice::from_ref(&old)).is_empty(), "there is no newer one");
        assert!(followed(&[old.clone(), new(9, 17, 7)], 4, WEEK).is_empty(), "the program's own is not there yet");
        let begun = TableVersion { version: 1, ..TableVersion::default() };
        assert_eq!(gone(&[begun, new(16, 17, 0)]), [1], "what a killed one left");
    }
}
