//! The log of a Kafka cluster.
//!
//! ```text
//! append ─► idempotent producer, acks=all ─► acknowledged, positions
//! poll ◄── bounded channel ◄── a thread for each consumer: offsets are set while partitions are assigned, never sought
//! monitor thread: asks the brokers while they do not answer
//! ```

mod config;
mod consumer;
mod health;
mod message;
mod owned;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use kiro_ports::{Assignment, Clock, EventLog, LogConsumer, LogState, NewRecord, PortError, Position, Record, Subscription, Watermarks};
use kiro_schemas::TopicPartition;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducerContext};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

pub use self::config::KafkaConfig;
use self::health::{ClientHealth, Health};
use self::owned::Owned;
use crate::codec;
use crate::error::{Error, Result};

/// How often brokers that do not answer are asked, and how long an append waits for room in the producer's queue each time.
const ASK_EVERY: Duration = Duration::from_secs(1);
const QUEUE_WAIT: Duration = Duration::from_millis(10);
const LATE: &str = "an append was not acknowledged in time";

/// The log of a Kafka cluster.
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    producer: FutureProducer<ClientHealth>,
    admin: AdminClient<ClientHealth>,
    _monitor: std::sync::mpsc::SyncSender<()>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("config", &self.config).field("health", &self.health).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Sets up the clients; brokers need not answer yet. Until they do the log is down.
    ///
    /// # Errors
    /// [`Error::Settings`] when a property is wrong.
    pub fn connect(config: KafkaConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let health = Arc::new(Health::default());
        let settings = |source| Error::Settings { source };
        let native: ClientConfig = config.producer();
        let context = ClientHealth(Arc::clone(&health));
        let producer: FutureProducer<ClientHealth> = FutureProducer::from_config_and_context(&native, context.clone()).map_err(settings)?;
        let admin = AdminClient::from_config_and_context(&native, context).map_err(settings)?;
        let monitor = monitor(producer.clone(), Arc::clone(&health))?;
        Ok(Self { config: Arc::new(config), clock, health, producer, admin, _monitor: monitor })
    }

    /// Puts a record into the producer's queue, waiting while that is full; who calls bounds the time.
    async fn enqueue(&self, record: &NewRecord) -> Result<DeliveryFuture> {
        let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, (name, value)| {
            all.insert(Header { key: name, value: Some(value.as_ref()) })
        });
        let mut outgoing = FutureRecord::<[u8], [u8]>::to(&record.topic)
            .payload(record.value.as_ref())
            .headers(headers)
            .timestamp(self.clock.now().0 / 1000);
        outgoing.key = record.key.as_deref();
        loop {
            match self.producer.send_result(outgoing) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    outgoing = back;
                    tokio::time::sleep(QUEUE_WAIT).await;
                }
                Err((error, _)) => return Err(Error::kafka("append to", &record.topic, error)),
            }
        }
    }

    async fn produce(&self, records: &[NewRecord]) -> Result<Vec<Position>> {
        for record in records {
            let (size, limit) = (codec::size(record), self.config.max_record_bytes(&record.topic));
            if size > limit {
                return Err(Error::TooLarge { topic: record.topic.clone(), size, limit });
            }
        }
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let delivery = self.enqueue(record).await?;
            deliveries.push(self.delivered(&record.topic, delivery));
        }
        join_all(deliveries).await.into_iter().collect()
    }

    async fn delivered(&self, topic: &str, delivery: DeliveryFuture) -> Result<Position> {
        match delivery.await {
            Err(_canceled) => Err(Error::Closed { part: "producer" }),
            Ok(Err((error, _))) => {
                let code = error.rdkafka_error_code();
                if code == Some(RDKafkaErrorCode::MessageTimedOut) {
                    self.health.down(LATE);
                }
                Err(Error::kafka("append to", topic, error))
            }
            Ok(Ok(delivery)) => {
                self.health.up();
                Ok(Position { at: TopicPartition::new(topic, delivery.partition), offset: delivery.offset })
            }
        }
    }

    /// Creates a topic unless it is there; why the brokers refuse it, if they do.
    async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, String)]) -> Result<Option<RDKafkaErrorCode>, PortError> {
        let timeout = self.config.request_timeout;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.config.replication));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let answers = self.admin.create_topics([&new], &options).await;
        let answers = answers.map_err(|error| PortError::of(Error::kafka("create", topic, error)))?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => self.health.up(),
                Err((_, code)) => return Ok(Some(code)),
            }
        }
        Ok(None)
    }

    fn context(&self, assignment: Arc<dyn Assignment>) -> Owned {
        Owned::new(assignment, Arc::clone(&self.health), Arc::clone(&self.clock), self.config.request_timeout)
    }

    /// Asks the broker where it does not hold up others.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client<FutureProducerContext<ClientHealth>>, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T, PortError> {
        let (producer, timeout) = (self.producer.clone(), self.config.request_timeout);
        self.off_thread(move || question(producer.client(), timeout)).await
    }

    async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, PortError> {
        let ended = |_join| PortError::of(Error::Closed { part: "reader" });
        tokio::task::spawn_blocking(work).await.map_err(ended)?.map_err(PortError::of)
    }
}

/// Asks the brokers while it is not known that they answer; ends with the sender that it returns.
fn monitor(producer: FutureProducer<ClientHealth>, health: Arc<Health>) -> Result<std::sync::mpsc::SyncSender<()>> {
    let (alive, ended) = std::sync::mpsc::sync_channel(0);
    let watch = move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        loop {
            if !health.is_up() {
                match producer.client().fetch_metadata(None, ASK_EVERY) {
                    Ok(_) => health.up(),
                    Err(error) => health.down(&error.to_string()),
                }
            }
            if ended.recv_timeout(ASK_EVERY) != Err(Timeout) {
                return;
            }
        }
    };
    let named = std::thread::Builder::new().name("kiro-kafka-monitor".to_owned());
    named.spawn(watch).map_err(Error::io("kiro-kafka-monitor"))?;
    Ok(alive)
}

/// The partitions of a topic.
fn partitions<C: rdkafka::ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<Vec<i32>> {
    let metadata = client.fetch_metadata(Some(topic), timeout).map_err(|e| Error::kafka("describe", topic, e))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let missing = || Error::UnknownTopic { topic: topic.to_owned() };
    let found = found.ok_or_else(missing)?;
    if let Some(error) = found.error() {
        return Err(Error::kafka("describe", topic, KafkaError::MetadataFetch(error.into())));
    }
    if found.partitions().is_empty() {
        return Err(missing());
    }
    let mut ids: Vec<i32> = found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError> {
        let settings = self.config.topic_settings(topic);
        let mut refusal = self.create(topic, partitions, &settings).await?;
        if let Some(code @ (RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::PolicyViolation)) = refusal
            && !settings.is_empty()
        {
            tracing::warn!(topic, ?settings, %code, "the brokers refuse the settings of this topic, so it has theirs");
            refusal = self.create(topic, partitions, &[]).await?;
        }
        match refusal {
            None => Ok(()),
            Some(code) => Err(PortError::of(Error::kafka("create", topic, KafkaError::AdminOp(code)))),
        }
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        let Some(topic) = records.first().map(|first| first.topic.clone()) else { return Ok(Vec::new()) };
        if let Some(reason) = self.health.refusal() {
            return Err(PortError::of(Error::Unreachable { topic, reason }));
        }
        match tokio::time::timeout(self.config.append_timeout, self.produce(&records)).await {
            Ok(produced) => produced.map_err(PortError::of),
            Err(_elapsed) => {
                self.health.down(LATE);
                Err(PortError::of(Error::Unreachable { topic, reason: LATE.to_owned() }))
            }
        }
    }

    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        let started = consumer::start(&self.config, self.context(assignment), subscription);
        Ok(Box::new(started.map_err(PortError::of)?))
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        let topic: Arc<str> = topic.into();
        self.ask(move |client, timeout| {
            let ask = |partition| -> Result<_> {
                let (low, high) =
                    client.fetch_watermarks(&topic, partition, timeout).map_err(|e| Error::kafka("read the watermarks of", &topic, e))?;
                Ok((TopicPartition::new(Arc::clone(&topic), partition), Watermarks { low, high }))
            };
            partitions(client, &topic, timeout)?.into_iter().map(ask).collect()
        })
        .await
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        Ok(self.read_each(at, &[offset]).await?.pop().flatten())
    }

    async fn read_each(&self, at: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<Record>>, PortError> {
        let (config, at, offsets) = (Arc::clone(&self.config), at.clone(), offsets.to_vec());
        self.off_thread(move || consumer::read_each(&config, &at, &offsets)).await
    }

    fn state(&self) -> LogState {
        self.health.state()
    }
}
