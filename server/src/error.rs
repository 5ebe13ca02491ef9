//! What the adapters of this program itself refuse or cannot do.

use std::time::Duration;

use kiro_ports::PortError;
use kiro_schemas::{Blame, Fault, FaultKind};

/// A failure of a door or a job of this program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An answer of the SQL engine could not be read.
    #[error("cannot read an answer: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// A gate was asked without a name or a type.
    #[error("a gate or a type is needed")]
    NoGate,
    /// A posted event cannot be understood; its place is told.
    #[error("{0}")]
    Event(String),
    /// A post holds more events than are taken at once.
    #[error("{count} events in one post; at most {most} are taken")]
    ManyEvents {
        /// How many there were.
        count: usize,
        /// How many are taken.
        most: usize,
    },
    /// A webhook comes to an address that is no source's.
    #[error("there is no source {name:?}: `kirolinter sources add`, or sources.<platform>.secret_file in kirolinter.yaml")]
    NoSource {
        /// The name in the address.
        name: String,
    },
    /// A webhook comes from a source of which no secret can be read.
    #[error("no secret of the source {source_name:?} can be read for now")]
    NoSecret {
        /// The source.
        source_name: String,
    },
    /// The thread that verified a webhook broke.
    #[error("verifying a webhook broke: {0}")]
    Checker(tokio::task::JoinError),
    /// A change of a source, or a question about one, is refused.
    #[error("{what}")]
    Source {
        /// The kind of refusal.
        kind: FaultKind,
        /// Why.
        what: String,
    },
    /// The file of a secret that was made could not be kept.
    #[error("cannot keep the source's secret: {0}")]
    SecretFile(std::io::Error),
    /// The signature of a webhook does not hold.
    #[error("{0}")]
    Signature(String),
    /// A model could not be trained or read.
    #[error("{0}")]
    Model(String),
    /// The file of a model could not be kept.
    #[error("cannot keep the model's file: {0}")]
    ModelFile(object_store::Error),
    /// The log does not take what is to be recorded of a decision or a change, so that it is not made.
    #[error("it cannot be recorded, so it is not done: {0}")]
    Unrecorded(PortError),
    /// What was appended is not visible in SQL in time.
    #[error("what was appended cannot be queried after {} s", .0.as_secs())]
    Settle(Duration),
    /// An import is refused: its mapping, size, tenant or name.
    #[error("{what}")]
    Import {
        /// The kind of refusal.
        kind: FaultKind,
        /// Why.
        what: String,
    },
    /// There is no such format of reports.
    #[error("format {format:?} is not known; auto, junit, cobertura, jacoco, lcov or sarif")]
    NoReport {
        /// The format of the address.
        format: String,
    },
    /// A report cannot be read to its end; what it said before is in the log.
    #[error("{source}; {appended} events before it are in the log, and the mended report may be sent again: nothing counts twice")]
    Report {
        /// Events that are in the log.
        appended: u64,
        /// Why, and where.
        #[source]
        source: kiro_analyzers::Error,
    },
    /// The log did not take all that a report says.
    #[error("{source}; {appended} events of the report are in the log, and it may be sent again: nothing counts twice")]
    ReportAppend {
        /// Events that are in the log.
        appended: u64,
        /// Why it took no more.
        #[source]
        source: PortError,
    },
    /// The thread that read a report broke.
    #[error("reading a report broke: {0}")]
    ReportReader(tokio::task::JoinError),
    /// A replay of dead letters is to go on from a place that no answer named.
    #[error("after: {0:?} is no place of a replay; it is `next` of the answer before")]
    Cursor(String),
    /// The row of a dead letter is not one that this program writes.
    #[error("a row of dead_letters cannot be understood: {0}")]
    Letter(String),
    /// The thread that made records of dead letters broke.
    #[error("replay of dead letters broke: {0}")]
    Replay(tokio::task::JoinError),
    /// The bytes of an import could not be kept.
    #[error("cannot keep the import's bytes: {0}")]
    ImportBytes(std::io::Error),
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::ImportBytes(error) | Self::SecretFile(error) if error.kind() == std::io::ErrorKind::StorageFull => FaultKind::NoSpace,
            Self::Answer(_)
            | Self::Model(_)
            | Self::ImportBytes(_)
            | Self::ReportReader(_)
            | Self::SecretFile(_)
            | Self::Checker(_)
            | Self::Replay(_)
            | Self::Letter(_) => FaultKind::Internal,
            Self::NoGate | Self::Event(_) | Self::Cursor(_) => FaultKind::Invalid,
            Self::ManyEvents { .. } => FaultKind::TooLarge,
            Self::NoSource { .. } | Self::NoReport { .. } => FaultKind::NotFound,
            Self::Report { source, .. } => source.kind(),
            Self::ReportAppend { source, .. } => source.kind,
            Self::Signature(_) => FaultKind::Unauthenticated,
            Self::ModelFile(_) | Self::NoSecret { .. } => FaultKind::Unavailable,
            Self::Unrecorded(error) => match error.kind {
                FaultKind::TimedOut | FaultKind::NoSpace => FaultKind::Unavailable,
                kind => kind,
            },
            Self::Settle(_) => FaultKind::TimedOut,
            Self::Import { kind, .. } | Self::Source { kind, .. } => *kind,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Answer(_) | Self::Model(_) | Self::ReportReader(_) | Self::Checker(_) | Self::Replay(_) | Self::Letter(_) => Blame::Ours,
            Self::Report { source, .. } => source.blame(),
            Self::ReportAppend { source, .. } => source.blame(),
            Self::ModelFile(_) | Self::Settle(_) | Self::ImportBytes(_) | Self::SecretFile(_) | Self::NoSecret { .. } => Blame::External,
            Self::Unrecorded(error) => error.blame(),
            _ => Blame::Caller,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Answer(_) => "KIR-1101",
            Self::NoGate => "KIR-1102",
            Self::Event(_) => "KIR-1103",
            Self::ManyEvents { .. } => "KIR-1104",
            Self::NoSource { .. } => "KIR-1105",
            Self::Signature(_) => "KIR-1106",
            Self::Model(_) => "KIR-1107",
            Self::ModelFile(_) => "KIR-1108",
            Self::Settle(_) => "KIR-1109",
            Self::Import { .. } => "KIR-1110",
            Self::ImportBytes(_) => "KIR-1111",
            Self::Unrecorded(_) => "KIR-1112",
            Self::NoReport { .. } => "KIR-1113",
            Self::Report { .. } => "KIR-1114",
            Self::ReportAppend { .. } => "KIR-1115",
            Self::ReportReader(_) => "KIR-1116",
            Self::Cursor(_) => "KIR-1117",
            Self::Replay(_) => "KIR-1118",
            Self::Letter(_) => "KIR-1119",
            Self::NoSecret { .. } => "KIR-1121",
            Self::Source { .. } => "KIR-1122",
            Self::SecretFile(_) => "KIR-1123",
            Self::Checker(_) => "KIR-1124",
        }
    }
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        Self::of(error)
    }
}
