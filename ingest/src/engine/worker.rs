//! The thread of the folds: records to rows, rows to folds, both to the view.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use kiro_ports::{Clock, EventLog, Folding, Gap, LogBatch, Record, TableSource, TailBatch, header};
use kiro_schemas::{Event, Micros, Tenant, TopicPartition, Value};
use kiro_tables::{EventRows, Rows, Stamp, Table};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::commit::Pauses;
use super::lane::{Lane, Next, Queues};
use super::letters::{self, Letters};
use super::load::OWN;
use super::pace::{Instant, sleep};
use super::persons::{MOST_WAITING, Told};
use super::quarantine::Quarantine;
use super::shared::{Publication, Shared};
use super::table::Side;
use super::window::{Key, Window};
use super::{Decode, EngineConfig, EngineError, EngineResult, batches};
use crate::persons::Pseudonyms;

/// Events further ahead of the clock are held back from the folds.
const AHEAD: i64 = 5 * 60 * 1_000_000;
/// The view is swapped at least this often while events come.
const LONGEST_PAUSE: i64 = 50_000;
/// History that was folded for so long is published: what it changed is taken from the folds at once, which takes about as long
/// again, and what happens now waits for that.
const MOST_WORK: Duration = Duration::from_millis(6);
/// How often events that were held back are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What the consumer tells the folds, in order.
#[derive(Debug)]
pub(super) enum Command {
    Batch(LogBatch),
    /// With the generation of the partition, as a batch has it.
    Gap(Option<u64>, Gap),
    Revoked(Vec<TopicPartition>),
    Assigned,
}

/// Where one partition is read, and below which offset each table has its rows already.
#[derive(Debug)]
struct Reading {
    generation: u64,
    next: i64,
    floors: BTreeMap<&'static str, i64>,
    /// The log was compared with the lake.
    is_checked: bool,
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) config: EngineConfig,
    pub(super) folding: Box<dyn Folding>,
    pub(super) decoder: Arc<dyn Decode>,
    pub(super) source: Arc<dyn TableSource>,
    log: Arc<dyn EventLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: CancellationToken,
    pub(super) window: Window,
    pub(super) pseudonyms: Pseudonyms,
    /// How often a person had been forgotten when the pseudonyms were last forgotten.
    pub(super) forgotten: i64,
    pub(super) letters: Letters,
    pub(super) known_gaps: HashSet<(TopicPartition, i64)>,
    /// The last record of each partition that the lake tells of: offset and when it was recorded.
    pub(super) marks: BTreeMap<TopicPartition, (i64, Micros)>,
    pub(super) staged: Publication,
    /// The bytes of dead letters whose rows are staged, by their digests.
    unkept: Vec<(String, Bytes)>,
    state: State,
}

/// What is between two publications.
#[derive(Debug, Default)]
struct State {
    readings: BTreeMap<TopicPartition, Reading>,
    held: Vec<(&'static Table, Micros, RecordBatch)>,
    horizon: Micros,
    /// Folds have seen something since they were asked.
    is_changed: bool,
    /// When the first record came that is not published.
    oldest: Option<Micros>,
    published_at: Micros,
    /// What happens now is not published before it ends: four times as long as such a publication takes, so that most of the
    /// time is left. What history adds to one is not counted: history rests for it.
    pause: i64,
    /// How long history was folded since it was published.
    worked: Duration,
}

/// Rows of one batch of the log as they are put together.
pub(super) struct Draft<'b> {
    rows: EventRows,
    letters: Option<Rows>,
    batch: &'b LogBatch,
    /// Of what happens now.
    is_live: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, config: EngineConfig, ports: super::EnginePorts, stop: CancellationToken) -> Self {
        let window = Window::new(config.dedupe_window);
        Self {
            shared,
            config,
            folding: ports.folding,
            decoder: ports.decoder,
            source: ports.source,
            log: ports.log,
            clock: ports.clock,
            stop,
            window,
            pseudonyms: Pseudonyms::new(ports.persons),
            forgotten: 0,
            letters: Letters::default(),
            known_gaps: HashSet::new(),
            marks: BTreeMap::new(),
            staged: Publication::default(),
            unkept: Vec::new(),
            state: State { is_changed: true, ..State::default() },
        }
    }

    /// Works until the consumer of what happens now hangs up.
    pub(super) async fn run(mut self, mut queues: Queues) -> EngineResult<()> {
        self.load().await?;
        self.shared.is_loaded.store(true, Ordering::Release);
        let mut released = Instant::now();
        loop {
            match queues.next(self.patience()).await {
                Next::Command(lane, command) => self.work(lane, command, &mut queues).await?,
                Next::Ended => return self.publish().await,
                Next::Nothing => {}
            }
            if released.elapsed() >= TICK {
                self.release()?;
                released = Instant::now();
            }
            while !self.is_due()
                && let Some((lane, command)) = queues.ready()
            {
                self.work(lane, command, &mut queues).await?;
            }
            // What happens now is shown as soon as may be; of history, more is taken first.
            let is_all = queues.is_empty() || (queues.is_live_empty() && self.state.oldest.is_some());
            if self.is_due() || (is_all && self.since() >= self.state.pause) {
                let (began, has_history) = (Instant::now(), self.has_staged_history());
                self.publish().await?;
                if has_history {
                    queues.rested_after(began.elapsed());
                }
            }
        }
    }

    async fn work(&mut self, lane: Lane, command: Command, queues: &mut Queues) -> EngineResult<()> {
        let began = Instant::now();
        self.handle(command).await?;
        if lane == Lane::History {
            let took = began.elapsed();
            queues.slice_after(took);
            queues.rested_after(took);
            self.state.worked += took;
        }
        Ok(())
    }

    fn has_staged_history(&self) -> bool {
        self.staged.moves.iter().any(|(at, ..)| self.config.history.iter().any(|topic| *topic == *at.topic))
    }

    /// Events up to here are due. A clock that is set back does not make what was folded undue.
    pub(super) fn horizon(&mut self) -> Micros {
        self.state.horizon = self.state.horizon.max(self.clock.now().plus(AHEAD));
        self.state.horizon
    }

    /// Microseconds since the last publication; a clock that went backwards makes it due.
    fn since(&self) -> i64 {
        let since = self.clock.now().0 - self.state.published_at.0;
        if since < 0 { LONGEST_PAUSE } else { since }
    }

    fn is_due(&self) -> bool {
        (self.since() >= LONGEST_PAUSE || self.state.worked >= MOST_WORK) && !self.staged.moves.is_empty()
    }

    fn patience(&self) -> Duration {
        if self.staged.moves.is_empty() { TICK } else { Duration::from_millis(5) }
    }

    async fn handle(&mut self, command: Command) -> EngineResult<()> {
        match command {
            // What waited while its partition was taken away and given back is read again.
            Command::Batch(batch) if self.is_of(&batch.at, Some(batch.generation)) => self.take(&batch).await,
            Command::Gap(generation, gap) if self.is_of(&gap.at, generation) => self.gap(&gap).await,
            Command::Batch(..) | Command::Gap(..) | Command::Assigned => Ok(()),
            Command::Revoked(partitions) => {
                let contained = self.shared.lock().contained();
                for at in partitions {
                    self.state.readings.remove(&at);
                    // What was not committed is read by whoever reads the partition next. Who still took its events for known
                    // would drop their repeats, and another could drop the first ones for the same reason.
                    self.window.forget_from(&at, contained.next(&at));
                }
                Ok(())
            }
        }
    }

    fn is_of(&self, at: &TopicPartition, generation: Option<u64>) -> bool {
        self.shared.lock().generation(at) == generation
    }

    /// Whether the log still has the record that the lake saw last: if another one stands there, the topic was recreated.
    /// `None` when it cannot be told before the end.
    async fn is_same_log(&self, at: &TopicPartition) -> Option<bool> {
        let Some((offset, recorded_at)) = self.marks.get(at).copied() else { return Some(true) };
        let mut pauses = Pauses::default();
        loop {
            match self.log.read(at, offset).await {
                Ok(found) => return Some(found.is_none_or(|record| record.recorded_at == recorded_at)),
                Err(error) => warn!(%at, offset, %error, "the last record of the lake was not read from the log; trying again"),
            }
            if self.stop.is_cancelled() {
                return None;
            }
            pauses.pause(&self.stop).await;
        }
    }

    /// Compares log and lake before the first batch of a partition; `false` when the batch must not be taken.
    async fn is_continued(&mut self, batch: &LogBatch, next: i64) -> EngineResult<bool> {
        if self.state.readings.get(&batch.at).is_some_and(|r| r.is_checked) {
            return Ok(true);
        }
        match self.is_same_log(&batch.at).await {
            Some(true) => {}
            Some(false) => {
                let reason = format!("another record stands below {next}, where the tables end: the topic was recreated");
                self.gap(&Gap { at: batch.at.clone(), expected: next, found: None, reason }).await?;
                return Ok(false);
            }
            None => return Ok(false),
        }
        if let Some(reading) = self.state.readings.get_mut(&batch.at) {
            reading.is_checked = true;
        }
        Ok(true)
    }

    fn reading(&mut self, at: &TopicPartition) -> Option<(u64, i64)> {
        let inner = self.shared.lock();
        let generation = inner.generation(at)?;
        if self.state.readings.get(at).is_none_or(|r| r.generation != generation) {
            let events = inner.tables.iter().filter(|s| s.side == Side::Events);
            let floors = events.map(|s| (s.table.name, s.committed.next(at))).collect();
            self.state.readings.insert(at.clone(), Reading { generation, next: inner.vector.next(at), floors, is_checked: false });
        }
        self.state.readings.get(at).map(|r| (r.generation, r.next))
    }

    /// Takes a batch of the log.
    async fn take(&mut self, batch: &LogBatch) -> EngineResult<()> {
        let Some((generation, next)) = self.reading(&batch.at) else { return Ok(()) };
        if batch.next <= next {
            return Ok(());
        }
        if batch.start > next {
            let reason = format!("the log gave offset {} where {next} was to come", batch.start);
            return self.gap(&Gap { at: batch.at.clone(), expected: next, found: Some(batch.start), reason }).await;
        }
        if !self.is_continued(batch, next).await? {
            return Ok(());
        }
        let bytes = batch.records.iter().filter_map(|r| r.value.as_ref()).map(Bytes::len).sum();
        self.shared.telemetry.records(&batch.at, batch.records.len(), bytes);
        self.heed_forgotten();
        let is_live = self.config.topics.iter().any(|topic| *topic == *batch.at.topic);
        let mut draft = Draft { rows: EventRows::default(), letters: Table::find(OWN[0]).map(Rows::new), batch, is_live };
        let mut waiting = Vec::new();
        for record in batch.records.iter().filter(|r| r.offset >= next) {
            kiro_schemas::invariant!(OffsetsRise, record.offset < batch.next);
            let mut told = self.read(&batch.at, record);
            if self.rename(&mut told) && waiting.is_empty() {
                self.record(&mut draft, told)?;
            } else {
                waiting.push(told);
            }
            if waiting.len() >= MOST_WAITING {
                self.meet(&mut draft, &mut waiting).await?;
            }
        }
        self.meet(&mut draft, &mut waiting).await?;
        let mut made = draft.rows.finish().map_err(EngineError::rows("events"))?;
        if let Some(letters) = draft.letters.as_mut().filter(|l| !l.is_empty()) {
            made.push((OWN[0], letters.finish().map_err(EngineError::rows(OWN[0]))?));
        }
        for (name, rows) in made {
            self.shared.telemetry.events(name, rows.num_rows());
            let at = batch.at.clone();
            let start = self.floor(&at, name).map_or(next, |floor| floor.max(next));
            self.staged.rows.push((name, generation, TailBatch { at, start, next: batch.next, rows: rows.clone() }));
            if let Some(table) = Table::find(name).filter(|t| !OWN.contains(&t.name)) {
                self.fold(table, rows)?;
            }
        }
        if let Some(reading) = self.state.readings.get_mut(&batch.at) {
            reading.next = batch.next;
        }
        self.staged.moves.push((batch.at.clone(), generation, batch.next));
        Ok(())
    }

    /// What a record says.
    fn read<'b>(&self, at: &TopicPartition, record: &'b Record) -> Told<'b> {
        let dead = |reason: &str| Told { record, tenant: self.config.tenant.clone(), events: Err(reason.to_owned()) };
        let tenant = match header(&record.headers, "kiro-tenant") {
            None => self.config.tenant.clone(),
            Some(name) if kiro_schemas::id::is_tenant(name) => Tenant::new(name),
            Some(_) => return dead("header kiro-tenant is not the name of a tenant"),
        };
        let Some(bytes) = record.value.as_ref().filter(|v| !v.is_empty()) else {
            return dead(if record.value.is_some() { "the record is empty" } else { "the record is a tombstone" });
        };
        Told { record, tenant, events: self.decoder.decode(&at.topic, &record.headers, bytes) }
    }

    /// Takes what a record says into its tables.
    pub(super) fn record(&mut self, draft: &mut Draft<'_>, told: Told<'_>) -> EngineResult<()> {
        let Told { record, tenant, events } = told;
        let batch = draft.batch;
        if draft.is_live {
            self.state.oldest = Some(self.state.oldest.map_or(record.recorded_at, |oldest| oldest.min(record.recorded_at)));
        }
        let events = match events {
            Ok(events) => events,
            Err(reason) => return self.dead_letter(draft, record, &reason),
        };
        for (index, event) in events.iter().enumerate() {
            if self.is_new(batch, record.offset, index, (&tenant, event)) {
                let stamp = Stamp { tenant: &tenant, recorded_at: record.recorded_at, at: &batch.at, offset: record.offset };
                draft.rows.push(event, stamp).map_err(EngineError::rows("events"))?;
            }
        }
        Ok(())
    }

    /// Whether the event goes to its table: not if it came before, not if the table has this part of the log.
    fn is_new(&mut self, batch: &LogBatch, offset: i64, index: usize, event: (&Tenant, &Event<'_>)) -> bool {
        let (tenant, event) = event;
        let place = self.window.place(&batch.at, offset, Some(index));
        if self.window.is_repeat(Key::of(tenant.as_str(), &event.source, &event.id), place) {
            self.shared.telemetry.repeat();
            return false;
        }
        self.is_above(&batch.at, event.spec().events_table, offset)
    }

    fn is_above(&self, at: &TopicPartition, table: &str, offset: i64) -> bool {
        self.floor(at, table).is_none_or(|floor| offset >= floor)
    }

    /// Below it the table had its rows when the partition was assigned.
    fn floor(&self, at: &TopicPartition, table: &str) -> Option<i64> {
        self.state.readings.get(at).and_then(|r| r.floors.get(table)).copied()
    }

    /// Keeps the bytes of dead letters before anybody sees a row of them, if it is us who commit the rows.
    async fn keep(&mut self) -> EngineResult<()> {
        let letters = std::mem::take(&mut self.unkept);
        let quarantine = Quarantine::new(&self.config.quarantine_dir);
        while self.config.commits_events
            && let Err(error) = quarantine.keep(&letters)
        {
            error!(%error, "quarantine files cannot be written; ingestion waits");
            if self.stop.is_cancelled() {
                return Err(EngineError::Quarantine(error));
            }
            tokio::select! { biased; () = self.stop.cancelled() => {} () = sleep(Duration::from_secs(1)) => {} }
        }
        Ok(())
    }

    fn dead_letter(&mut self, draft: &mut Draft<'_>, record: &Record, reason: &str) -> EngineResult<()> {
        let at = &draft.batch.at;
        if !self.is_above(at, OWN[0], record.offset) {
            return Ok(());
        }
        let bytes = record.value.clone().unwrap_or_default();
        let digest = Quarantine::digest(&bytes);
        if self.is_known_letter(at, record, &digest) {
            self.shared.telemetry.repeat();
            return Ok(());
        }
        self.shared.telemetry.dead_letter();
        let tenant = header(&record.headers, "kiro-tenant").filter(|t| kiro_schemas::id::is_tenant(t));
        let row = [
            Value::text(tenant.unwrap_or(self.config.tenant.as_str())),
            Value::text(reason),
            Value::Int(i64::try_from(bytes.len()).unwrap_or(i64::MAX)),
            Value::text(digest.as_str()),
            letters::headers(&self.decoder.headers_read(&record.headers)),
            Value::Time(letters::id(record).map_or(record.recorded_at, |(_, taken_at)| taken_at)),
            Value::Time(record.recorded_at),
            Value::text(&*at.topic),
            Value::Int(i64::from(at.partition)),
            Value::Int(record.offset),
        ];
        let Some(letters) = draft.letters.as_mut() else { return Ok(()) };
        letters.push(&row).map_err(EngineError::rows(OWN[0]))?;
        self.unkept.push((digest, bytes));
        Ok(())
    }

    /// Folds rows of events that are due; keeps the others until they are.
    pub(super) fn fold(&mut self, table: &'static Table, rows: RecordBatch) -> EngineResult<()> {
        let (due, held) = batches::split_due(rows, self.horizon()).map_err(EngineError::rows(table.name))?;
        if let Some(rows) = due {
            self.folding.apply(table, &rows).map_err(EngineError::port("fold events"))?;
            self.state.is_changed = true;
        }
        if let Some((earliest, rows)) = held {
            self.state.held.push((table, earliest, rows));
        }
        Ok(())
    }

    /// Folds what was held back and is due now.
    fn release(&mut self) -> EngineResult<()> {
        let horizon = self.horizon();
        let (due, held) = std::mem::take(&mut self.state.held).into_iter().partition(|(_, earliest, _)| *earliest <= horizon);
        self.state.held = held;
        let due: Vec<_> = due;
        due.into_iter().try_for_each(|(table, _, rows)| self.fold(table, rows))
    }

    async fn gap(&mut self, gap: &Gap) -> EngineResult<()> {
        let Some((generation, _)) = self.reading(&gap.at) else { return Ok(()) };
        self.shared.telemetry.gap(gap);
        if self.known_gaps.insert((gap.at.clone(), gap.expected))
            && let Some(table) = Table::find(OWN[1])
        {
            let now = self.clock.now();
            let mut rows = Rows::new(table);
            let row = [
                Value::text(self.config.tenant.as_str()),
                Value::text(gap.reason.as_str()),
                Value::Int(gap.expected),
                gap.found.map_or(Value::Null, Value::Int),
                Value::Time(now),
                Value::Time(now),
                Value::text(&*gap.at.topic),
                Value::Int(i64::from(gap.at.partition)),
            ];
            rows.push(&row).map_err(EngineError::rows(table.name))?;
            let rows = rows.finish().map_err(EngineError::rows(table.name))?;
            let batch = TailBatch { at: gap.at.clone(), start: gap.expected, next: gap.expected, rows };
            self.staged.rows.push((table.name, generation, batch));
        }
        self.publish().await?;
        self.shared.stop(&gap.at, &gap.reason);
        Ok(())
    }

    /// Whether the derived tables contain more of the log than the folds have seen: what they would emit is of the past.
    fn is_behind(&self) -> bool {
        let inner = self.shared.lock();
        let next = |at: &TopicPartition| self.state.readings.get(at).map_or(inner.vector.next(at), |r| r.next);
        inner.tables.iter().any(|state| inner.is_ahead(state, next))
    }

    pub(super) async fn publish(&mut self) -> EngineResult<()> {
        let (began, has_history) = (self.clock.now(), self.has_staged_history());
        self.keep().await?;
        if self.state.is_changed && !self.is_behind() {
            self.supply().await?;
            let last = self.staged.moves.last().map(|(at, _, next)| (at.clone(), *next));
            let (at, next) = last.unwrap_or_else(|| (TopicPartition::new(self.config.topics.first().map_or("", String::as_str), 0), 0));
            let emitted = self.folding.emit(began).map_err(EngineError::port("take rows of the folds"))?;
            let tail = |(table, rows): (&'static Table, RecordBatch)| (table.name, TailBatch { at: at.clone(), start: next, next, rows });
            self.staged.derived = Some(emitted.into_iter().filter(|(_, rows)| rows.num_rows() > 0).map(tail).collect());
            let open = self.folding.open().map_err(EngineError::port("take open subjects"))?;
            self.staged.open = Some(open.into_iter().map(|(table, rows)| (table.name, rows)).collect());
            self.state.is_changed = false;
        } else if !self.state.is_changed && !self.staged.moves.is_empty() && !self.is_behind() {
            self.staged.derived = Some(Vec::new());
        }
        let staged = std::mem::take(&mut self.staged);
        if !staged.moves.is_empty() || !staged.rows.is_empty() || staged.derived.is_some() {
            self.shared.publish(staged);
        }
        let now = self.clock.now();
        if let Some(oldest) = self.state.oldest.take() {
            self.shared.telemetry.freshness(now.seconds_since(oldest));
        }
        if !has_history {
            self.state.pause = (4 * (now.0 - began.0)).clamp(0, LONGEST_PAUSE);
        }
        self.state.published_at = now;
        self.state.worked = Duration::ZERO;
        Ok(())
    }
}
