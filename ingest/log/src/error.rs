//! What can go wrong with the log.

use std::path::PathBuf;

use kiro_schemas::{Blame, Fault, FaultKind, TopicPartition};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the embedded log could not be read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error(
        "cannot open the log in {path}: it is in use by another process; one process writes a folder, stop the other or choose another folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a newer version.
    #[error(
        "cannot open the log in {path}: its format is {found}, this program knows {known}; use the program that wrote it, or a newer one"
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// What the format file says.
        found: String,
        /// The newest format that is known here.
        known: u32,
    },
    /// No such topic.
    #[error("cannot find the topic {topic}")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// No such partition.
    #[error("cannot find the partition {at}")]
    UnknownPartition {
        /// The partition.
        at: TopicPartition,
    },
    /// The name cannot be a topic's, or its partitions cannot be as many.
    #[error(
        "cannot create the topic {topic:?} with {partitions} partitions: a name has 1 to 249 of a-z A-Z 0-9 . _ -, partitions are 1 to 1024"
    )]
    TopicShape {
        /// The name.
        topic: String,
        /// The partitions.
        partitions: i32,
    },
    /// The record is larger than the limit.
    #[error("cannot append a record of {size} bytes to {topic}: the limit is {limit}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The size of key, value and headers.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The database of a segment failed.
    #[error("cannot {action} the log's segment {path}: {source}")]
    Segment {
        /// What was tried.
        action: &'static str,
        /// The segment.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A stored record is not in the shape that it was written in.
    #[error("cannot decode the record {at}@{offset}: {reason}")]
    Corrupt {
        /// The partition.
        at: TopicPartition,
        /// The offset.
        offset: i64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The log was closed, or its thread ended.
    #[error("cannot use the log: its {part} has ended")]
    Closed {
        /// The part that ended.
        part: &'static str,
    },
    /// The settings of the Kafka client are wrong.
    #[error("cannot set up the Kafka client: {source}")]
    Settings {
        /// What the client said.
        #[source]
        source: KafkaError,
    },
    /// No broker answers.
    #[error("cannot reach the brokers of {topic}: {reason}")]
    Unreachable {
        /// The topic.
        topic: String,
        /// Why, as far as is known.
        reason: String,
    },
    /// A broker refused.
    #[error("cannot {action} {topic}: {code}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: String,
        /// The broker's code.
        code: RDKafkaErrorCode,
    },
    /// The log does not answer, and no more may be spilled.
    #[error("cannot take more: the log does not answer, and {path} may hold {limit} bytes until it does; try again later")]
    SpillFull {
        /// The folder of the spill.
        path: PathBuf,
        /// The bytes that it may hold.
        limit: u64,
    },
    /// The log does not answer, and what was to be spilled could not be.
    #[error("cannot spill to {path} while the log does not answer: {reason}")]
    NotSpilled {
        /// The folder of the spill.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A failure of the Kafka client while it did `action` on `topic`.
    pub(crate) fn kafka(action: &'static str, topic: &str, error: KafkaError) -> Self {
        let topic = topic.to_owned();
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match (code, error) {
            (Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _) => Self::UnknownTopic { topic },
            (Some(code), _) if is_outage(code) => Self::Unreachable { topic, reason: code.to_string() },
            (Some(code), _) => Self::Refused { action, topic, code },
            (None, source) => Self::Settings { source },
        }
    }
}

/// Whether a code means that the broker is away for now.
pub(crate) fn is_outage(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::NotController
            | Code::QueueFull
            | Code::TimedOutQueue
    )
}

fn kind_of_io(error: &std::io::Error) -> FaultKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => FaultKind::NoSpace,
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => FaultKind::Internal,
        // The disk refuses for now: broken, closed, read-only. Whoever asks may try again.
        _ => FaultKind::Unavailable,
    }
}

fn kind_of_segment(error: &redb::Error) -> FaultKind {
    match error {
        redb::Error::Io(source) => kind_of_io(source),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => FaultKind::Unavailable,
        redb::Error::ValueTooLarge(_) => FaultKind::TooLarge,
        _ => FaultKind::Internal,
    }
}

fn kind_of_code(code: RDKafkaErrorCode) -> FaultKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge => FaultKind::TooLarge,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed => FaultKind::Forbidden,
        Code::InvalidTopic | Code::InvalidPartitions | Code::InvalidReplicationFactor | Code::PolicyViolation => FaultKind::Invalid,
        Code::TopicAlreadyExists => FaultKind::Conflict,
        _ => FaultKind::Unavailable,
    }
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Io { source, .. } => kind_of_io(source),
            Self::InUse { .. } => FaultKind::Conflict,
            Self::Format { .. } | Self::TopicShape { .. } | Self::Settings { .. } => FaultKind::Invalid,
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => FaultKind::NotFound,
            Self::TooLarge { .. } => FaultKind::TooLarge,
            Self::Segment { source, .. } => kind_of_segment(source),
            Self::Corrupt { .. } => FaultKind::Internal,
            Self::Closed { .. } | Self::Unreachable { .. } | Self::SpillFull { .. } | Self::NotSpilled { .. } => FaultKind::Unavailable,
            Self::Refused { code, .. } => kind_of_code(*code),
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Io { .. }
            | Self::Segment { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::SpillFull { .. }
            | Self::NotSpilled { .. } => Blame::External,
            Self::Corrupt { .. } | Self::Closed { .. } => Blame::Ours,
            _ => Blame::Caller,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "KIR-0101",
            Self::InUse { .. } => "KIR-0102",
            Self::Format { .. } => "KIR-0103",
            Self::UnknownTopic { .. } => "KIR-0104",
            Self::UnknownPartition { .. } => "KIR-0105",
            Self::TopicShape { .. } => "KIR-0106",
            Self::TooLarge { .. } => "KIR-0107",
            Self::Segment { .. } => "KIR-0108",
            Self::Corrupt { .. } => "KIR-0109",
            Self::Closed { .. } => "KIR-0110",
            Self::Settings { .. } => "KIR-0111",
            Self::Unreachable { .. } => "KIR-0112",
            Self::Refused { .. } => "KIR-0113",
            Self::SpillFull { .. } => "KIR-0114",
            Self::NotSpilled { .. } => "KIR-0115",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use kiro_schemas::{Fault, FaultKind, Retry};

    use super::Error;

    #[test]
    fn a_full_disk_is_no_space_wherever_it_shows() {
        let io = Error::Io { path: "x".into(), source: IoError::from(ErrorKind::StorageFull) };
        assert_eq!((io.kind(), io.retry()), (FaultKind::NoSpace, Retry::Backoff));
        let source = Box::new(redb::Error::Io(IoError::from(ErrorKind::QuotaExceeded)));
        assert_eq!(Error::Segment { action: "write", path: "x".into(), source }.kind(), FaultKind::NoSpace);
    }

    #[test]
    fn a_disk_that_refuses_is_not_available() {
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::Other] {
            let io = Error::Io { path: "x".into(), source: IoError::from(kind) };
            assert_eq!((io.kind(), io.retry()), (FaultKind::Unavailable, Retry::Backoff), "{kind}");
        }
        let broken = redb::Error::Io(IoError::from_raw_os_error(5));
        assert_eq!(Error::Segment { action: "write", path: "x".into(), source: Box::new(broken) }.kind(), FaultKind::Unavailable);
    }
}
