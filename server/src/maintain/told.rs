//! What upkeep wrote down, told to operators.

use std::time::Duration;

use kiro_lake::{KeptTable, UpkeepNote};
use kiro_schemas::Micros;
use serde_json::{Value, json};

/// Whoever keeps the lake writes much more often than this.
const SILENT: Duration = Duration::from_mins(3);

/// How the lake is kept: `kept`, `silent` when nobody has written for long, `never`, `unknown` when it cannot be read.
pub(crate) fn told(note: kiro_lake::Result<Option<UpkeepNote>>, now: Micros) -> Value {
    let note = match note {
        Ok(Some(note)) => note,
        Ok(None) => return json!({"state": "never", "tables": []}),
        Err(error) => return json!({"state": "unknown", "reason": error.to_string(), "tables": []}),
    };
    let silent = now.0.saturating_sub(note.at.0).max(0) / 1_000_000;
    let is_silent = u64::try_from(silent).is_ok_and(|silent| silent >= SILENT.as_secs());
    let tables: Vec<Value> = note.tables.iter().map(|(name, kept)| table(name, kept, now)).collect();
    json!({
        "state": if is_silent { "silent" } else { "kept" },
        "by": note.by,
        "seen_at": note.at,
        "silent_seconds": silent,
        "compaction": note.compaction,
        "tables": tables,
    })
}

fn table(name: &str, kept: &KeptTable, now: Micros) -> Value {
    let ago = |at: Option<Micros>| at.map(|at| now.0.saturating_sub(at.0).max(0) / 1_000_000);
    json!({
        "table": name,
        "version": kept.version,
        "snapshot_age_seconds": ago(kept.committed_at),
        "files": kept.files,
        "bytes": kept.bytes,
        "small_files": kept.small_files,
        "most_files_a_day": kept.most_files_a_day,
        "compacted_seconds_ago": ago(kept.compacted_at),
        "checkpoint": kept.checkpoint,
        "checkpointed_seconds_ago": ago(kept.checkpointed_at),
        "vacuumed_seconds_ago": ago(kept.vacuumed_at),
        "log_cleaned_seconds_ago": ago(kept.log_cleaned_at),
        "error": kept.error,
    })
}

#[cfg(test)]
mod tests {
    use kiro_lake::{Error, KeptTable, UpkeepNote};
    use kiro_schemas::Micros;

    use super::told;

    #[test]
    fn who_kept_it_and_when_is_told_and_so_is_silence() {
        let now = Micros(1_000_000_000);
        assert_eq!(told(Ok(None), now)["state"], "never");
        let error = Error::Corrupt { path: "upkeep.json".into(), reason: "no JSON".into() };
        let unknown = told(Err(error), now);
        assert_eq!((&unknown["state"], &unknown["reason"]), (&"unknown".into(), &"upkeep.json is damaged: no JSON".into()));
        let kept = KeptTable { version: 7, committed_at: Some(Micros(994_000_000)), files: 3, ..KeptTable::default() };
        let mut note = UpkeepNote { by: "maintain/1/x".into(), at: Micros(990_000_000), compaction: true, ..UpkeepNote::default() };
        note.tables.insert("changes".into(), kept);
        let answer = told(Ok(Some(note.clone())), now);
        assert_eq!((&answer["state"], &answer["by"], &answer["silent_seconds"]), (&"kept".into(), &"maintain/1/x".into(), &10.into()));
        let table = &answer["tables"][0];
        assert_eq!((&table["table"], &table["version"], &table["snapshot_age_seconds"]), (&"changes".into(), &7.into(), &6.into()));
        assert!(table["compacted_seconds_ago"].is_null() && table["error"].is_null());
        note.at = Micros(0);
        let silent = told(Ok(Some(note)), now);
        assert_eq!((&silent["state"], &silent["silent_seconds"]), (&"silent".into(), &1_000.into()));
    }
}
