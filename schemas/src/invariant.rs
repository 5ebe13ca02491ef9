//! Conditions that must hold: a panic where debug assertions are on, a counter where they are off.

use std::sync::atomic::{AtomicU64, Ordering};

/// The invariants, by name. Each says who guarantees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// Offsets of one partition rise from batch to batch (guaranteed by the log adapter).
    OffsetsRise,
    /// A table's transaction never moves backwards (guaranteed by the committer).
    TransactionsRise,
    /// A view holds each row once: what the snapshot has is not in the tail (guaranteed by the publisher).
    ViewIsDisjoint,
    /// Contributions of risk factors add up to the score (guaranteed by the model).
    ContributionsAddUp,
}

static BROKEN: AtomicU64 = AtomicU64::new(0);

/// How many invariants were found broken since the process began.
pub fn broken() -> u64 {
    BROKEN.load(Ordering::Relaxed)
}

/// Records a broken invariant. Called by [`invariant!`](crate::invariant!), not by hand.
#[doc(hidden)]
pub fn report(id: Invariant) {
    BROKEN.fetch_add(1, Ordering::Relaxed);
    debug_assert!(false, "invariant broken: {id:?}");
}

/// Checks an invariant: `invariant!(OffsetsRise, next > start)`.
#[macro_export]
macro_rules! invariant {
    ($id:ident, $condition:expr) => {
        if !$condition {
            $crate::invariant::report($crate::invariant::Invariant::$id);
        }
    };
}
