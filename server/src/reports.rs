//! Reports as they come: read on a thread of its own, appended in batches, answered when all is durable.
//!
//! ```text
//! body ──► pieces ──► reader (a thread) ──► batches of records ──► log
//! ```
//!
//! Each arrow is a channel with few places, so that a report of any size is held in a bounded memory.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use kiro_analyzers::{Format, Limits, Stopped};
use kiro_ports::{ByteStream, Clock, NewRecord, PortError, Principal, Reports};
use kiro_schemas::Tenant;
use kiro_schemas::report::{ReportCounts, ReportScope};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::intake::Doors;

/// Events that are appended at a time.
const CHUNK: usize = 500;
/// Pieces that wait to be read, and batches that wait to be appended: enough to overlap the three.
const WAITING: usize = 4;
/// Bytes that are taken and thrown away of a report that was refused, so that its sender hears why.
const MOST_WASTE: usize = 256 << 20;

/// Takes reports at the doors for events.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) doors: Arc<Doors>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Reports for Reporter {
    async fn take(&self, who: &Principal, format: &str, mut scope: ReportScope, bytes: ByteStream) -> Result<ReportCounts, PortError> {
        let format = match format {
            "auto" => None,
            name => Some(Format::parse(name).ok_or_else(|| Error::NoReport { format: name.to_owned() })?),
        };
        let now = self.clock.now();
        scope.time = Some(scope.time.unwrap_or(now).min(now));
        let (pieces, received) = mpsc::channel(WAITING);
        let (send, batches) = mpsc::channel(WAITING);
        let reader = Reader { doors: Arc::clone(&self.doors), tenant: who.tenant.clone(), send, records: Vec::new() };
        let reading = tokio::task::spawn_blocking(move || reader.read(&scope, format, received));
        let ((), (appended, refused)) = tokio::join!(receive(bytes, pieces), self.append(batches));
        let read = reading.await;
        if let Some(source) = refused {
            return Err(Error::ReportAppend { appended, source }.into());
        }
        match read {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err(source)) => Err(Error::Report { appended, source }.into()),
            Err(source) => Err(Error::ReportReader(source).into()),
        }
    }
}

impl Reporter {
    /// Appends batches until there are no more, or one is refused: how many events are in the log, and why no more are.
    async fn append(&self, mut batches: mpsc::Receiver<Vec<NewRecord>>) -> (u64, Option<PortError>) {
        let mut appended = 0;
        while let Some(records) = batches.recv().await {
            let count = records.len() as u64;
            if let Err(error) = self.doors.log.append(records).await {
                return (appended, Some(error));
            }
            appended += count;
        }
        (appended, None)
    }
}

/// Hands the pieces of a body on; when nobody reads any more, the rest is thrown away.
async fn receive(mut bytes: ByteStream, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let mut waste = 0;
    while let Some(piece) = bytes.next().await {
        let (length, is_broken) = (piece.as_ref().map_or(0, Bytes::len), piece.is_err());
        if pieces.send(piece).await.is_err() {
            waste += length;
            if is_broken || waste > MOST_WASTE {
                return;
            }
        }
    }
}

/// Reads a report and collects its events.
struct Reader {
    doors: Arc<Doors>,
    tenant: Tenant,
    send: mpsc::Sender<Vec<NewRecord>>,
    records: Vec<NewRecord>,
}

impl Reader {
    /// Reads to the end; what was said before something went wrong is handed over as well.
    fn read(
        mut self,
        scope: &ReportScope,
        format: Option<Format>,
        received: mpsc::Receiver<io::Result<Bytes>>,
    ) -> kiro_analyzers::Result<ReportCounts> {
        let mut pieces = Pieces { received, piece: Bytes::new() };
        let read = kiro_analyzers::read(scope, format, Limits::default(), &mut pieces, &mut |event| {
            self.records.push(self.doors.native(&self.tenant, &event));
            if self.records.len() >= CHUNK { self.hand_over() } else { Ok(()) }
        });
        let handed = self.hand_over();
        let counts = read?;
        handed?;
        Ok(counts)
    }

    fn hand_over(&mut self) -> Result<(), Stopped> {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() { Ok(()) } else { self.send.blocking_send(records).map_err(|_closed| Stopped) }
    }
}

/// The pieces of a body as a file that is read.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
