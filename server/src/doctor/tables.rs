//! The lake: each table's log and files, the chain of the audit log, and what dead letters and gaps tell.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use kiro_lake::{Flaw, Inspection, Lake};
use kiro_ports::{AnchorMap, Anchors, PortError, TableSource as _};
use kiro_schemas::{Micros, TopicPartition};
use kiro_tables::{Table, TableShape};
use sha2::{Digest as _, Sha256};

use super::{Patient, Sheet, checks};
use crate::{audit, base};

/// Where the tables of events stand, and which partitions were stopped where.
#[derive(Debug, Default)]
pub(super) struct Stands {
    /// The least and the largest offset that a table has next.
    pub(super) partitions: BTreeMap<TopicPartition, (i64, i64)>,
    /// Expected offset and reason of each gap.
    pub(super) gaps: Vec<(TopicPartition, i64, String)>,
}

/// Looks at all tables.
pub(super) async fn examine(patient: &Patient, is_deep: bool, sheet: &mut Sheet) -> Stands {
    let Some(lake) = &patient.lake else { return Stands::default() };
    let (mut stands, mut tables, mut files) = (Stands::default(), 0, 0);
    let mut broken = BTreeSet::new();
    for table in Table::all() {
        let found = match lake.inspect(table).await {
            Ok(found) => found,
            Err(error) => {
                sheet.find(&checks::LAKE_UNREACHABLE, table.name, error.to_string());
                continue;
            }
        };
        if found.version.is_none() {
            continue;
        }
        (tables, files) = (tables + 1, files + found.live.len());
        let before = sheet.findings.len();
        tell(&found, sheet);
        if is_deep {
            read_files(lake, table, &found, sheet).await;
        }
        if sheet.findings[before..].iter().any(|finding| finding.check != checks::UNNAMED.id) {
            broken.insert(table.name);
        }
        if table.shape == TableShape::Events {
            stands.take(&found);
        }
    }
    sheet.looked_at("tables", tables);
    sheet.looked_at("files", files);
    audited(patient, lake, sheet).await;
    for (name, columns) in
        [("dead_letters", &["sha256", "size_bytes"][..]), ("ingest_gaps", &["_topic", "_partition", "expected_offset", "reason"][..])]
    {
        let Some(table) = Table::find(name).filter(|table| !broken.contains(table.name)) else { continue };
        match lake.scan(table, columns).await {
            Ok(rows) if name == "dead_letters" => letters(patient, &rows, sheet),
            Ok(rows) => stands.gaps(&rows),
            Err(error) => sheet.find(&checks::TABLE_UNREADABLE, name, error.to_string()),
        }
    }
    stands
}

fn tell(found: &Inspection, sheet: &mut Sheet) {
    for flaw in &found.flaws {
        match flaw {
            Flaw::MissingCommit { path } => sheet.find(&checks::COMMIT_MISSING, path, "later commits are there, this one is not"),
            Flaw::DamagedCommit { path, reason } => sheet.find(&checks::COMMIT_DAMAGED, path, reason),
            Flaw::DamagedCheckpoint { path, reason } => sheet.find(&checks::CHECKPOINT_DAMAGED, path, reason),
            Flaw::Misfit { reason } => sheet.find(&checks::LAKE_MISFIT, &found.folder, reason),
            Flaw::MissingFile { path } => sheet.find(&checks::FILE_MISSING, path, "the newest version names it, and it is not there"),
            Flaw::WrongSize { path, written, found } => {
                sheet.find(&checks::FILE_SIZE, path, format!("it has {found} bytes, {written} were written"));
            }
        }
    }
    if found.unnamed > 0 {
        sheet.find(&checks::UNNAMED, &found.folder, format!("{} files are named by no commit that counts", found.unnamed));
    }
}

async fn read_files(lake: &Lake, table: &'static Table, found: &Inspection, sheet: &mut Sheet) {
    let is_told = |path: &str| {
        found.flaws.iter().any(|flaw| matches!(flaw, Flaw::MissingFile { path: p } | Flaw::WrongSize { path: p, .. } if p.ends_with(path)))
    };
    for file in found.live.iter().filter(|file| !is_told(&file.path)) {
        if let Err(error) = lake.check_file(table, file).await {
            sheet.find(&checks::FILE_DIGEST, format!("{}/{}", found.folder, file.path), error.to_string());
        }
    }
}

/// The chain, against what the control store remembers where that can be asked.
async fn audited(patient: &Patient, lake: &Lake, sheet: &mut Sheet) {
    let report = match &patient.store {
        Some(store) => audit::verify(lake, store).await,
        None => audit::verify(lake, &NoAnchors).await,
    };
    match report {
        Ok(report) => {
            sheet.looked_at("audit rows", report.rows());
            for found in &report.breaks {
                let row = found.row.as_ref().map(|(at, offset)| format!("{at}@{offset}"));
                let place: Vec<String> = row.into_iter().chain(found.file.clone()).collect();
                sheet.find(&checks::AUDIT_BROKEN, place.join(" in "), &found.what);
            }
        }
        Err(error) => sheet.find(&checks::TABLE_UNREADABLE, "audit_log", error.to_string()),
    }
}

/// Nothing is remembered.
#[derive(Debug)]
struct NoAnchors;

#[async_trait::async_trait]
impl Anchors for NoAnchors {
    async fn anchor(&self, _at: &TopicPartition, _offset: i64, _chain: &str, _now: Micros) -> Result<(), PortError> {
        Ok(())
    }

    async fn anchors(&self) -> Result<AnchorMap, PortError> {
        Ok(AnchorMap::new())
    }
}

/// The bytes of each dead letter, in quarantine beside the lake.
fn letters(patient: &Patient, rows: &[RecordBatch], sheet: &mut Sheet) {
    let mut digests = BTreeSet::new();
    for batch in rows {
        digests.extend(batch.column(0).as_string_view().iter().flatten().map(str::to_owned));
    }
    sheet.looked_at("dead letters", digests.len());
    let folder = base::quarantine(&patient.config);
    for digest in digests {
        let path = folder.join(&digest);
        match std::fs::read(&path) {
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == digest => {}
            Ok(bytes) => {
                sheet.find(&checks::LETTER_DAMAGED, path.display().to_string(), format!("its {} bytes have another SHA-256", bytes.len()));
            }
            Err(error) => sheet.find(&checks::LETTER_MISSING, path.display().to_string(), error.to_string()),
        }
    }
}

impl Stands {
    fn take(&mut self, found: &Inspection) {
        let prefix = format!("kiro/{}/", base::CLUSTER);
        for (app, next) in &found.offsets {
            let Some((topic, partition)) = app.strip_prefix(&prefix).and_then(|rest| rest.rsplit_once('/')) else { continue };
            let (false, Ok(partition)) = (topic.contains('/'), partition.parse()) else { continue };
            let (least, most) = self.partitions.entry(TopicPartition::new(topic, partition)).or_insert((*next, *next));
            (*least, *most) = ((*least).min(*next), (*most).max(*next));
        }
    }

    fn gaps(&mut self, rows: &[RecordBatch]) {
        for batch in rows {
            let (topics, partitions) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Int64Type>());
            let (expected, reasons) = (batch.column(2).as_primitive::<Int64Type>(), batch.column(3).as_string_view());
            for row in 0..batch.num_rows() {
                let at = TopicPartition::new(topics.value(row), i32::try_from(partitions.value(row)).unwrap_or(-1));
                self.gaps.push((at, expected.value(row), reasons.value(row).to_owned()));
            }
        }
    }
}
