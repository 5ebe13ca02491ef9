//! Where a process may die, and the lives of the processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::time::Instant;

macro_rules! crash_points {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The points, in the order of an event's walk. The ports of the world pass them; product code knows none of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum CrashPoint { $($(#[doc = $doc])+ $name,)+ }

        impl CrashPoint {
            pub(super) const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

crash_points! {
    /// The lake is opened, its format is not written.
    Founding,
    /// A table is about to be created.
    BeforeCreation,
    /// A table was created, nobody was told.
    AfterCreation,
    /// At a start: where a table stands is asked.
    StartOffsets,
    /// At a start: the lake is replayed into the folds.
    StartScan,
    /// Partitions were assigned, and the consumer does not know where they start.
    BeforeAssignment,
    /// The starts were given, nothing was read.
    AfterAssignment,
    /// A batch of the log was read, and not decoded.
    BatchRead,
    /// A record is decoded.
    Decode,
    /// It is asked who is meant by a name.
    Persons,
    /// A dead letter was made, its row is nowhere.
    LetterKept,
    /// Rows go into the folds.
    Fold,
    /// A fold asks the lake for what it forgot.
    Lookup,
    /// The folds are asked for rows.
    Emit,
    /// Another table was committed, this one is not.
    BetweenTables,
    /// Before the file of the rows.
    BeforeRows,
    /// The file of the rows is there, no commit names it.
    AfterRows,
    /// Before the commit.
    BeforeCommit,
    /// The commit is there, nobody was told.
    AfterCommit,
    /// A commit of offsets alone is there, nobody was told.
    AfterOffsets,
    /// The row of a gap is there, nobody was told.
    AfterGap,
    /// The commit was answered, and the engine did not hear it.
    CommitAnswered,
    /// The engine asks for the snapshot with its commit.
    BeforeSnapshot,
    /// The log is told how far we are.
    Report,
    /// Partitions were taken away, and what was read of them is still there.
    Revoked,
    /// It was told to stop, and commits for the last time.
    LastCommit,
}

/// What happened in a world, line by line.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: Mutex<Vec<String>>,
    struck: Mutex<BTreeMap<CrashPoint, u32>>,
}

impl Trace {
    pub(super) fn note(&self, line: impl std::fmt::Display) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{:?} {line}", Instant::now()));
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn struck(&self) -> BTreeMap<CrashPoint, u32> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
struct State {
    is_dead: bool,
    /// It dies when it comes to this point, after passing it so many times.
    plan: Option<(CrashPoint, u32)>,
}

/// One process, from its start to its end. Once dead, nothing of it has an effect.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) member: usize,
    pub(super) trace: Arc<Trace>,
    state: Mutex<State>,
}

impl Life {
    pub(super) fn new(member: usize, trace: Arc<Trace>, plan: Option<(CrashPoint, u32)>) -> Arc<Self> {
        Arc::new(Self { member, trace, state: Mutex::new(State { is_dead: false, plan }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    /// It lives on whatever was planned.
    pub(super) fn spare(&self) {
        self.lock().plan = None;
    }

    /// It ends here, wherever it is.
    pub(super) fn end(&self) {
        self.lock().is_dead = true;
    }

    /// Comes to a point; whether it is dead from then on.
    pub(super) fn strike(&self, point: CrashPoint) -> bool {
        let mut state = self.lock();
        match state.plan {
            Some((planned, 0)) if planned == point && !state.is_dead => {
                state.is_dead = true;
                *self.trace.struck.lock().unwrap_or_else(PoisonError::into_inner).entry(point).or_default() += 1;
                self.trace.note(format_args!("member {} dies at {point:?}", self.member));
            }
            Some((planned, left)) if planned == point && left > 0 => state.plan = Some((planned, left - 1)),
            _ => {}
        }
        state.is_dead
    }

    /// Passes a point; the dead come no further.
    pub(super) async fn pass(&self, point: CrashPoint) {
        if self.strike(point) {
            std::future::pending::<()>().await;
        }
    }
}
