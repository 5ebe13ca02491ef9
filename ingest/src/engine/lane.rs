//! Two lanes to the folds: what happens now goes first; history takes what is left, and a little in any case.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::EngineConfig;
use super::pace::{Instant, sleep};
use super::worker::Command;

/// Commands between a consumer and the folds: enough that neither waits for the other, few enough to stay small beside the tail.
const QUEUE: usize = 4;
/// Of history, a poll brings at most this many bytes: as long as one is folded, what happens now may have to wait.
const HISTORY_BATCH: usize = 256 << 10;
/// However much happens now, history has a turn after this time.
const STARVED: Duration = Duration::from_millis(250);

/// History rests so many times as long as it was worked on.
const REST: u32 = 2;

/// Which topics a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What happens now.
    Live,
    /// What happened before and is told now.
    History,
}

impl Lane {
    pub(super) fn topics(self, config: &EngineConfig) -> Vec<String> {
        if self == Self::Live { config.topics.clone() } else { config.history.clone() }
    }

    /// The consumer group: members of a group must all want the same topics.
    pub(super) fn group(self, config: &EngineConfig) -> Option<String> {
        let suffix = if self == Self::Live { "" } else { "-history" };
        config.group.as_ref().map(|group| format!("{group}{suffix}"))
    }

    pub(super) fn batch_bytes(self, config: &EngineConfig) -> usize {
        if self == Self::Live { config.batch_bytes } else { config.batch_bytes.min(HISTORY_BATCH) }
    }

    /// The log is not read while the tail holds more: history leaves room for what happens now.
    pub(super) fn tail_bytes(self, config: &EngineConfig) -> usize {
        if self == Self::Live { config.tail_bytes } else { config.tail_bytes / 4 }
    }
}

/// What comes next.
pub(super) enum Next {
    Command(Lane, Command),
    /// Nothing in that time.
    Nothing,
    /// Nobody tells what happens now any more.
    Ended,
}

/// The receiving end of both lanes.
pub(super) struct Queues {
    live: Receiver<Command>,
    history: Receiver<Command>,
    /// Until then history rests.
    rest: Instant,
}

/// The sending ends, live and history, and the receiving end of both.
pub(super) fn lanes() -> (Sender<Command>, Sender<Command>, Queues) {
    let (to_live, live) = mpsc::channel(QUEUE);
    let (to_history, history) = mpsc::channel(QUEUE);
    (to_live, to_history, Queues { live, history, rest: Instant::now() })
}

impl Queues {
    /// The next command, if one comes in this time.
    pub(super) async fn next(&mut self, patience: Duration) -> Next {
        if let Some((lane, command)) = self.ready() {
            return Next::Command(lane, command);
        }
        let rest = self.rest.saturating_duration_since(Instant::now());
        let (live, history) = (&mut self.live, &mut self.history);
        let past = async {
            sleep(rest).await;
            // When its consumer has ended, there is nothing to wait for.
            match history.recv().await {
                Some(command) => command,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            now = live.recv() => now.map_or(Next::Ended, |command| Next::Command(Lane::Live, command)),
            command = past => Next::Command(Lane::History, command),
            () = sleep(patience) => Next::Nothing,
        }
    }

    /// A command that is there already.
    pub(super) fn ready(&mut self) -> Option<(Lane, Command)> {
        let now = Instant::now();
        if now.saturating_duration_since(self.rest) >= STARVED
            && let Some(command) = self.past()
        {
            return Some((Lane::History, command));
        }
        if let Ok(command) = self.live.try_recv() {
            return Some((Lane::Live, command));
        }
        if now < self.rest { None } else { self.past().map(|command| (Lane::History, command)) }
    }

    fn past(&mut self) -> Option<Command> {
        self.history.try_recv().ok()
    }

    /// History was worked on for this long and rests: most of the time is free for what happens now.
    pub(super) fn rested_after(&mut self, worked: Duration) {
        self.rest = Instant::now() + worked.saturating_mul(REST);
    }

    /// Whether nothing of what happens now waits.
    pub(super) fn is_live_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.history.is_empty()
    }
}
