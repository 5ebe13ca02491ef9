//! What the doctor looks for: of each finding how bad it is, what it means and what to do. `docs/operations.md` tells more.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Nothing is wrong; it explains what was not looked at, or what will be done by itself.
    Note,
    /// Something will go wrong, or does not go on.
    Warning,
    /// Something is lost or stands still.
    Error,
}

/// One thing that is looked for.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) means: &'static str,
    pub(crate) action: &'static str,
}

const fn error(id: &'static str, means: &'static str, action: &'static str) -> Check {
    Check { id, severity: Severity::Error, means, action }
}

const fn warning(id: &'static str, means: &'static str, action: &'static str) -> Check {
    Check { id, severity: Severity::Warning, means, action }
}

const fn note(id: &'static str, means: &'static str, action: &'static str) -> Check {
    Check { id, severity: Severity::Note, means, action }
}

pub(crate) static CONFIG_FILE: Check = error(
    "config.file",
    "the server does not start, or serves without what the file holds",
    "put the file there, or correct its path; then run kirolinterd check",
);

pub(crate) static DISK_FULL: Check =
    error("data.disk_full", "events and decisions are refused", "make room: nothing is lost, and it goes on by itself");

pub(crate) static DISK_LOW: Check =
    warning("data.disk_low", "the disk will be full", "make room, or move the data directory to a larger disk");

pub(crate) static LEFTOVERS: Check = note(
    "data.leftovers",
    "a process died while it wrote; nothing names these files",
    "when no server runs on this directory, remove them",
);

pub(crate) static LOG_IN_USE: Check = note(
    "log.in_use",
    "a server runs on this directory: the tables were not compared with the log",
    "stop the server and run the doctor again to compare them",
);

pub(crate) static LOG_LOST: Check = error(
    "log.lost",
    "tables tell of a log that is not there: what was not committed is lost, and partitions will stop",
    "put the log back from the back-up that was made with this lake; without one, set log.topic to a new name and start",
);

pub(crate) static LOG_DAMAGED: Check =
    error("log.damaged", "the server cannot start", "put the log back from a back-up; the tables read on from where they stand");

pub(crate) static LOG_NEWER: Check = error("log.newer", "the server cannot start", "run the program that wrote it, or a newer one");

pub(crate) static LOG_UNREACHABLE: Check = error(
    "log.unreachable",
    "events and decisions are refused with 503; questions are answered",
    "look after the brokers, or correct log.kafka; it goes on by itself",
);

pub(crate) static LOG_TOPIC: Check = error(
    "log.topic_missing",
    "the topic was deleted: what was not committed is lost, and its partitions will stop when it is made again",
    "set log.topic to a new name and start",
);

pub(crate) static LOG_SHORT: Check = error(
    "log.short",
    "the log ends before the tables do: it was lost or recreated, and the partition stops at the next start",
    "set log.topic to a new name and start; what is in the tables stays",
);

pub(crate) static LOG_GAP: Check = error(
    "log.gap",
    "retention deleted records that no table has: they are lost, and the partition stops at the next start",
    "set log.topic to a new name and start; keep more in the log (log.retention_days)",
);

pub(crate) static LOG_STOPPED: Check = error(
    "log.stopped",
    "the partition is stopped because a part of the log is missing: nothing of it comes into the tables",
    "see the table ingest_gaps; set log.topic to a new name and start",
);

pub(crate) static LAKE_LOST: Check = error(
    "lake.lost",
    "there is a log and no lake: the next start reads what the log still has, and nothing older",
    "put the lake back from a back-up before you start",
);

pub(crate) static LAKE_NEWER: Check = error("lake.newer", "the server cannot start", "run the program that wrote it, or a newer one");

pub(crate) static LAKE_DAMAGED: Check =
    error("lake.damaged", "the server cannot start", "put the file back from a back-up; lake.json of a lake of today is {\"format\":1}");

pub(crate) static LAKE_UNREACHABLE: Check = error(
    "lake.unreachable",
    "nothing is committed and nothing older can be asked; events are taken until the log is full",
    "look after the object store, or correct lake.url and its keys; it goes on by itself",
);

pub(crate) static COMMIT_MISSING: Check = error(
    "lake.commit_missing",
    "the table cannot be read beyond the hole",
    "put the file back from a back-up; else put the whole lake back, and the log fills in the rest",
);

pub(crate) static COMMIT_DAMAGED: Check = error(
    "lake.commit_damaged",
    "the table cannot be read beyond this commit",
    "put the file back from a back-up; if it is the last commit and empty, remove it: the log still has its rows",
);

pub(crate) static CHECKPOINT_DAMAGED: Check = warning(
    "lake.checkpoint_damaged",
    "the table is read from an older checkpoint, or not at all where older commits are gone",
    "when all older commits are there, remove the file and _last_checkpoint: the next checkpoint replaces them; else put it back",
);

pub(crate) static LAKE_MISFIT: Check =
    error("lake.misfit", "this program cannot use the table", "run the program that wrote it, or a newer one");

pub(crate) static FILE_MISSING: Check =
    error("lake.file_missing", "questions about the table fail", "put the file back from a back-up: its name is unique");

pub(crate) static FILE_SIZE: Check =
    error("lake.file_size", "questions about the table fail or answer wrongly", "put the file back from a back-up");

pub(crate) static FILE_DIGEST: Check =
    error("lake.file_digest", "questions about the table fail or answer wrongly", "put the file back from a back-up");

pub(crate) static TABLE_UNREADABLE: Check =
    error("lake.unreadable", "questions about the table fail", "see the other findings of the table; put it back from a back-up");

pub(crate) static UNNAMED: Check = note(
    "lake.unnamed_files",
    "files of commits that failed, or of older versions: they cost room and are read by nobody who asks for the newest version",
    "nothing, unless room is short",
);

pub(crate) static AUDIT_BROKEN: Check = error(
    "audit.broken",
    "the audit log is not what was written: somebody or something changed it",
    "keep the directory as it is for who has to look into it, and compare with a back-up; then put the file back",
);

pub(crate) static LETTER_MISSING: Check = warning(
    "letters.bytes_missing",
    "the bytes of a dead letter are gone from quarantine; it is replayed from the log as long as that has it",
    "put the file back from a back-up, or replay now: kirolinter dead-letters replay",
);

pub(crate) static LETTER_DAMAGED: Check = warning(
    "letters.bytes_damaged",
    "the bytes of a dead letter are not those that came",
    "put the file back from a back-up, or replay now: kirolinter dead-letters replay",
);

pub(crate) static CONTROL_ABSENT: Check = warning(
    "control.absent",
    "there is a lake and no control store: tokens, deliveries, anchors of the audit log and who is behind the pseudonyms are gone",
    "put it back from a back-up; without one, start, make new tokens, and train the model",
);

pub(crate) static CONTROL_NEWER: Check = error("control.newer", "the server cannot start", "run the program that wrote it, or a newer one");

pub(crate) static CONTROL_OLDER: Check = note(
    "control.older",
    "an older program wrote the control store, and it was not looked at",
    "nothing: the next start brings it up to date",
);

pub(crate) static CONTROL_UNREADABLE: Check =
    error("control.unreadable", "the server cannot start, or knows nobody", "look after PostgreSQL, or put the file back from a back-up");

pub(crate) static LEASE_DEAD: Check = warning(
    "control.lease_dead",
    "its holder gave no sign of life and nobody took over: this work stands still",
    "start the role that does it: kirolinterd process, kirolinterd orchestrate or kirolinterd maintain",
);

pub(crate) static LEASE_LEFT: Check =
    note("control.lease_left", "a process was killed while it had the lease", "nothing: the next start takes it at once");

pub(crate) static DELIVERIES_DEAD: Check = warning(
    "control.deliveries_dead",
    "what a decision was to start was given up",
    "see the reason, correct the target, and start it by hand",
);

pub(crate) static DELIVERIES_STUCK: Check = warning(
    "control.deliveries_stuck",
    "deliveries are due and nobody sends them",
    "start the role that sends: kirolinterd orchestrate, or kirolinterd up",
);

pub(crate) static MODEL_MISSING: Check = warning(
    "control.model_missing",
    "the file of the served model is gone: risk is answered by a base rate",
    "put the file back from a back-up, or train: kirolinter models evaluate",
);
