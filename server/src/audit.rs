//! Whether the audit log is what was written: each file by its digest, each row by its chain, its end by what was anchored.

use kiro_lake::{Flaw, Lake, LiveFile};
use kiro_ports::{AnchorMap, Anchors, PortError};
use kiro_schemas::{Fault as _, FaultKind, TopicPartition};
use kiro_tables::{ChainBreak, ChainReport, Table, Trail};
use serde_json::{Value, json};

/// Files may be replaced by larger ones while they are read: then it is looked again.
const LOOKS: u32 = 3;

/// A place where the audit log is not what was written.
#[derive(Debug)]
pub(crate) struct Break {
    /// What is wrong, in a sentence.
    pub(crate) what: String,
    /// The file, where it is known.
    pub(crate) file: Option<String>,
    /// The row, where it is known.
    pub(crate) row: Option<(TopicPartition, i64)>,
}

/// How the audit log was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) files: usize,
    /// Files of before there were digests.
    pub(crate) files_without_digest: usize,
    pub(crate) partitions: Vec<ChainReport>,
    pub(crate) breaks: Vec<Break>,
}

impl Report {
    pub(crate) fn rows(&self) -> usize {
        self.partitions.iter().map(|report| report.rows).sum()
    }

    pub(crate) fn to_json(&self) -> Value {
        let partition = |report: &ChainReport| {
            let head = report.head.map(|head| json!({"offset": head.offset, "chain": head.chain()}));
            let (topic, number) = (&*report.at.topic, report.at.partition);
            json!({"topic": topic, "partition": number, "rows": report.rows, "rows_before_the_chain": report.unchained, "head": head})
        };
        let place = |found: &Break| {
            let row = found.row.as_ref();
            let (topic, number) = (row.map(|(at, _)| &*at.topic), row.map(|(at, _)| at.partition));
            json!({"what": found.what, "file": found.file, "topic": topic, "partition": number, "offset": row.map(|(_, offset)| offset)})
        };
        json!({
            "is_whole": self.breaks.is_empty(),
            "rows": self.rows(),
            "files": self.files,
            "files_without_digest": self.files_without_digest,
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "breaks": self.breaks.iter().map(place).collect::<Vec<_>>(),
        })
    }
}

/// Reads all of it.
pub(crate) async fn verify(lake: &Lake, anchors: &dyn Anchors) -> Result<Report, PortError> {
    let Some(table) = Table::find("audit_log") else { return Ok(Report::default()) };
    // First what was anchored: rows are in the table before they are.
    let anchors = anchors.anchors().await?;
    let mut look = 0;
    loop {
        look += 1;
        let (version, report) = verify_version(lake, table, &anchors).await?;
        if report.breaks.is_empty() || look >= LOOKS || lake.inspect(table).await.map_err(PortError::of)?.version == version {
            return Ok(report);
        }
    }
}

async fn verify_version(lake: &Lake, table: &'static Table, anchors: &AnchorMap) -> Result<(Option<i64>, Report), PortError> {
    let found = lake.inspect(table).await.map_err(PortError::of)?;
    let (mut report, mut trail) = (Report { files: found.live.len(), ..Report::default() }, Trail::default());
    report.breaks.extend(found.flaws.into_iter().map(of_flaw));
    let mut files: Vec<&LiveFile> = Vec::new();
    for file in &found.live {
        report.files_without_digest += usize::from(file.digest.is_none());
        match lake.file_rows(table, file).await {
            Ok(batches) => {
                for batch in batches {
                    match trail.add(&batch) {
                        Ok(()) => files.push(file),
                        Err(error) => report.breaks.push(of_file(file, error.to_string())),
                    }
                }
            }
            Err(error) if error.kind() == FaultKind::Internal => report.breaks.push(of_file(file, error.to_string())),
            Err(error) => return Err(PortError::of(error)),
        }
    }
    report.partitions = trail.verify(anchors);
    for partition in &report.partitions {
        for (offset, batch, what) in &partition.breaks {
            let file = batch.and_then(|batch| files.get(batch)).map(|file| file.path.clone());
            report.breaks.push(Break { what: words(what).to_owned(), file, row: Some((partition.at.clone(), *offset)) });
        }
    }
    Ok((found.version, report))
}

fn of_file(file: &LiveFile, what: String) -> Break {
    Break { what, file: Some(file.path.clone()), row: None }
}

fn of_flaw(flaw: Flaw) -> Break {
    let (path, what) = match flaw {
        Flaw::MissingCommit { path } => (Some(path), "a commit is missing".to_owned()),
        Flaw::DamagedCommit { path, reason } | Flaw::DamagedCheckpoint { path, reason } => (Some(path), reason),
        Flaw::Misfit { reason } => (None, reason),
        Flaw::MissingFile { path } => (Some(path), "a file is missing".to_owned()),
        Flaw::WrongSize { path, written, found } => (Some(path), format!("a file has {found} bytes, {written} were written")),
    };
    Break { what, file: path, row: None }
}

const fn words(what: &ChainBreak) -> &'static str {
    match what {
        ChainBreak::DoesNotFollow => "this row does not follow the one before it: one of them was changed, or one was removed or added",
        ChainBreak::Unchained => "this row has no chain and one before it has: an older program wrote it, or it was changed",
        ChainBreak::NotAsAnchored => "the row that was last is not there any more, or is not what it was: the end of the log is gone",
    }
}

#[cfg(test)]
mod tests;
