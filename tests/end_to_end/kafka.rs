//! A real Apache Kafka, and what other people put into its topics.

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::server::wait_for;

/// A record: its headers and its value.
pub(crate) type Record = (Vec<(String, String)>, String);

/// A broker, or three; they end with what holds them.
#[derive(Debug)]
pub(crate) struct Broker {
    script: Child,
    stdin: Option<ChildStdin>,
    /// What they keep, if it is to outlive them.
    dir: Option<PathBuf>,
    /// `host:port`, separated by commas.
    pub(crate) address: String,
}

impl Broker {
    /// Starts a broker at a port of its own.
    pub(crate) fn start() -> Result<Self> {
        Self::spawn(&mut Command::new("bash"), None)
    }

    /// Starts a broker at a port, with what it kept in a directory.
    pub(crate) fn start_at(port: u16, dir: &Path) -> Result<Self> {
        Self::spawn(Command::new("bash").env("KAFKA_PORT", port.to_string()).env("KAFKA_DIR", dir), Some(dir))
    }

    /// Starts three brokers that keep each record twice at least.
    pub(crate) fn start_three(dir: &Path) -> Result<Self> {
        Self::spawn(Command::new("bash").env("KAFKA_NODES", "3").env("KAFKA_DIR", dir), Some(dir))
    }

    fn spawn(bash: &mut Command, dir: Option<&Path>) -> Result<Self> {
        let script = kiro_tests::root().join("scripts/kafka.sh");
        let mut script = bash.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(script.stdout.take().context("no output")?).read_line(&mut address)?;
        ensure!(!address.trim().is_empty(), "scripts/kafka.sh could not start a broker; its stderr says why");
        let dir = dir.map(Path::to_owned);
        Ok(Self { stdin: script.stdin.take(), script, dir, address: address.trim().to_owned() })
    }

    /// The id of a broker's process; they are numbered from 1.
    fn id(&self, node: i32) -> Result<String> {
        let dir = self.dir.as_ref().context("the broker keeps nothing")?;
        Ok(std::fs::read_to_string(dir.join(node.to_string()).join("pid"))?.trim().to_owned())
    }

    /// Sends a broker a signal.
    fn send_signal(&self, node: i32, name: &str) -> Result<bool> {
        let command = format!("kill -{name} {} 2>/dev/null", self.id(node)?);
        Ok(Command::new("sh").args(["-c", &command]).status()?.success())
    }

    /// Sends the only broker a signal, such as `STOP`: it does nothing until `CONT`, and does not know.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        ensure!(self.send_signal(1, name)?, "the broker was not sent {name}");
        Ok(())
    }

    /// Kills one of three as a power cut would, as far as the others can see.
    pub(crate) fn kill_one(&self, node: i32) -> Result<()> {
        ensure!(self.send_signal(node, "KILL")?, "broker {node} was not killed");
        wait_for("the broker to end", 10, || Ok((!self.send_signal(node, "0")?).then_some(())))
    }

    /// How many of three run.
    pub(crate) fn alive(&self) -> Result<usize> {
        (1..=3).map(|node| self.send_signal(node, "0")).try_fold(0, |sum, lives| Ok(sum + usize::from(lives?)))
    }

    /// The leader and the number of replicas of each partition of a topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<(i32, usize)>> {
        let client: BaseProducer = self.client().create()?;
        let metadata = client.client().fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let found = metadata.topics().first().context("no such topic")?;
        Ok(found.partitions().iter().map(|partition| (partition.leader(), partition.replicas().len())).collect())
    }

    /// One broker for all tests that run at the same time; it ends with the last of them.
    pub(crate) fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<Mutex<Weak<Broker>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = shared.upgrade() {
            return Ok(broker);
        }
        let broker = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&broker);
        Ok(broker)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Makes a topic as its owner would.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "8000000");
        for answer in futures::executor::block_on(admin.create_topics([&new], &options))? {
            answer.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes what lies below an offset, as retention does.
    pub(crate) fn delete_below(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let answer = futures::executor::block_on(admin.delete_records(&list, &options))?;
        answer
            .elements()
            .iter()
            .try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)
            .context("the records were not deleted")
    }

    /// Appends the records of these numbers, each made when its turn comes; a record without a value is a tombstone.
    pub(crate) fn feed(&self, topic: &str, numbers: Range<usize>, make: impl Fn(usize) -> Option<Vec<u8>>) -> Result<()> {
        let feeder = self.feeder()?;
        for number in numbers {
            feeder.send(topic, &number.to_string(), make(number).as_deref())?;
        }
        feeder.flush()
    }

    pub(crate) fn feeder(&self) -> Result<Feeder> {
        let mut settings = self.client();
        settings.set("linger.ms", "5").set("acks", "all").set("enable.idempotence", "true");
        // What a test sends may be as long as it likes.
        Ok(Feeder(settings.set("message.max.bytes", "8000000").create()?))
    }

    /// Appends records without keys: they are spread over the partitions.
    pub(crate) fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        let producer: BaseProducer = self.client().set("linger.ms", "5").set("acks", "all").create()?;
        for (at, (headers, value)) in records.iter().enumerate() {
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (name, value)| all.insert(Header { key: name.as_str(), value: Some(value.as_str()) }));
            let key = at.to_string();
            let sent = producer.send(BaseRecord::to(topic).key(&key).payload(value.as_str()).headers(headers));
            sent.map_err(|(error, _)| error).with_context(|| format!("record {at}"))?;
            producer.poll(Duration::ZERO);
        }
        Ok(producer.flush(Duration::from_secs(20))?)
    }
}

/// Appends records, each once.
pub(crate) struct Feeder(BaseProducer);

impl Feeder {
    pub(crate) fn send(&self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<()> {
        let mut record = BaseRecord::to(topic).key(key);
        record.payload = value;
        while let Err((error, back)) = self.0.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            ensure!(is_full, "record {key}: {error}");
            record = back;
            self.0.poll(Duration::from_millis(50));
        }
        self.0.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until all of them are acknowledged.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.0.flush(Duration::from_mins(2))?)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.script.wait() {
            eprintln!("the broker did not end: {error}");
        }
    }
}
