//! Two lanes to the folds: what happens now goes first; history takes what is left, and a little in any case.

use std::time::Duration;

use kiro_ports::LogBatch;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::EngineConfig;
use super::pace::{Instant, sleep};
use super::worker::Command;

/// Commands between a consumer and the folds: enough that neither waits for the other, few enough to stay small beside the tail.
const QUEUE: usize = 4;
/// Of history, a poll brings at most this many bytes.
const HISTORY_BATCH: usize = 256 << 10;
/// Of history so much is folded at once: as long as it takes, what happens now may have to wait.
const SLICE: Duration = Duration::from_millis(4);
/// So many records are taken for such a part at first, and at least and at most whatever they take.
const FIRST_SLICE: usize = 64;
const LEAST_SLICE: usize = 16;
const LARGEST_SLICE: usize = 4_096;
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
    /// What is left of a batch of history.
    left: Option<LogBatch>,
    /// Records that are taken of it at once.
    slice: usize,
    /// Until then history rests.
    rest: Instant,
}

/// The sending ends, live and history, and the receiving end of both.
pub(super) fn lanes() -> (Sender<Command>, Sender<Command>, Queues) {
    let (to_live, live) = mpsc::channel(QUEUE);
    let (to_history, history) = mpsc::channel(QUEUE);
    (to_live, to_history, Queues { live, history, left: None, slice: FIRST_SLICE, rest: Instant::now() })
}

impl Queues {
    /// The next command, if one comes in this time.
    pub(super) async fn next(&mut self, patience: Duration) -> Next {
        if let Some((lane, command)) = self.ready() {
            return Next::Command(lane, command);
        }
        let rest = self.rest.saturating_duration_since(Instant::now());
        let (live, history, left) = (&mut self.live, &mut self.history, &mut self.left);
        let past = async {
            sleep(rest).await;
            if let Some(batch) = left.take() {
                return Command::Batch(batch);
            }
            // When its consumer has ended, there is nothing to wait for.
            match history.recv().await {
                Some(command) => command,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            now = live.recv() => now.map_or(Next::Ended, |command| Next::Command(Lane::Live, command)),
            command = past => Next::Command(Lane::History, self.part(command)),
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
        let command = self.left.take().map(Command::Batch).or_else(|| self.history.try_recv().ok())?;
        Some(self.part(command))
    }

    /// What is to be taken at once of a batch of history; the rest of it comes next.
    fn part(&mut self, command: Command) -> Command {
        let Command::Batch(mut batch) = command else { return command };
        if let Some(start) = batch.records.get(self.slice).map(|record| record.offset) {
            let records = batch.records.split_off(self.slice);
            self.left = Some(LogBatch { at: batch.at.clone(), start, next: batch.next, generation: batch.generation, records });
            batch.next = start;
        }
        Command::Batch(batch)
    }

    /// A part of history took this long: the next one is made larger or smaller.
    pub(super) fn slice_after(&mut self, took: Duration) {
        if took > 2 * SLICE {
            self.slice = (self.slice / 2).max(LEAST_SLICE);
        } else if took < SLICE / 2 {
            self.slice = (self.slice * 2).min(LARGEST_SLICE);
        }
    }

    /// Work was done for history for this long: most of the time is free for what happens now.
    pub(super) fn rested_after(&mut self, worked: Duration) {
        self.rest = self.rest.max(Instant::now()) + worked.saturating_mul(REST);
    }

    /// Whether nothing of what happens now waits.
    pub(super) fn is_live_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.history.is_empty() && self.left.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiro_ports::{LogBatch, Record};
    use kiro_schemas::{Micros, TopicPartition};

    use super::super::tests::time::Instant;
    use super::{Command, FIRST_SLICE, LEAST_SLICE, Lane, lanes};

    fn batch(topic: &str, start: i64, records: i64) -> LogBatch {
        // Every second offset: the log skips some.
        let record = |number| Record { offset: start + 2 * number, recorded_at: Micros(0), key: None, value: None, headers: Vec::new() };
        let (next, records) = (start + 2 * records, (0..records).map(record).collect());
        LogBatch { at: TopicPartition::new(topic, 0), start, next, generation: 3, records }
    }

    #[test]
    fn history_comes_in_parts_that_leave_nothing_out_and_let_others_pass() {
        let (to_live, to_history, mut queues) = lanes();
        to_history.try_send(Command::Batch(batch("past", 7, 1_000))).expect("room");
        to_history.try_send(Command::Revoked(Vec::new())).expect("room");
        to_live.try_send(Command::Batch(batch("now", 0, 500))).expect("room");
        let (mut next, mut parts, mut largest, mut records) = (7, 0, 0, 0);
        while let Some((lane, command)) = queues.ready() {
            match (lane, command) {
                (Lane::History, Command::Batch(part)) => {
                    assert_eq!((part.start, part.generation), (next, 3), "a part begins where the one before ended");
                    assert!(part.records.iter().all(|r| r.offset >= part.start && r.offset < part.next));
                    (next, parts, records) = (part.next, parts + 1, records + part.records.len());
                    largest = largest.max(part.records.len());
                    // Slow at first, then fast.
                    queues.slice_after(Duration::from_millis(if parts < 4 { 50 } else { 0 }));
                    if parts == 4 {
                        assert_eq!(queues.slice, LEAST_SLICE * 2, "it has shrunk to the least and grown once");
                        to_live.try_send(Command::Batch(batch("now", 1_000, 1))).expect("room");
                    }
                }
                (Lane::Live, Command::Batch(whole)) => {
                    assert!(parts == 0 || parts == 4, "what happens now goes first, after {parts} parts");
                    assert!(whole.records.len() == 500 || whole.records.len() == 1, "it is not cut");
                }
                (lane, command) => {
                    assert!(matches!((lane, command), (Lane::History, Command::Revoked(_))));
                    assert_eq!((next, records), (2_007, 1_000), "what was read before comes before");
                }
            }
        }
        assert!(queues.is_empty() && parts > 8 && largest > FIRST_SLICE, "{parts} parts of at most {largest}");
    }

    #[test]
    fn who_works_for_history_rests_thereafter() {
        let (_to_live, _to_history, mut queues) = lanes();
        queues.rested_after(Duration::from_millis(5));
        queues.rested_after(Duration::from_millis(1));
        assert_eq!(queues.rest.saturating_duration_since(Instant::now()), Duration::from_millis(12), "as long for each piece of work");
    }
}
