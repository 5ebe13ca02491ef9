//! A real Apache Kafka, and what other people put into its topics.

use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::Path;
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

/// A record: its headers and its value.
pub(crate) type Record = (Vec<(String, String)>, String);

/// A broker; it ends with what holds it.
#[derive(Debug)]
pub(crate) struct Broker {
    script: Child,
    stdin: Option<ChildStdin>,
    pub(crate) address: String,
}

impl Broker {
    /// Starts a broker at a port of its own.
    pub(crate) fn start() -> Result<Self> {
        Self::spawn(&mut Command::new("bash"))
    }

    /// Starts a broker at a port, with what it kept in a directory.
    pub(crate) fn start_at(port: u16, dir: &Path) -> Result<Self> {
        Self::spawn(Command::new("bash").env("KAFKA_PORT", port.to_string()).env("KAFKA_DIR", dir))
    }

    fn spawn(bash: &mut Command) -> Result<Self> {
        let script = kiro_tests::root().join("scripts/kafka.sh");
        let mut script = bash.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(script.stdout.take().context("no output")?).read_line(&mut address)?;
        ensure!(!address.trim().is_empty(), "scripts/kafka.sh could not start a broker; its stderr says why");
        Ok(Self { stdin: script.stdin.take(), script, address: address.trim().to_owned() })
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
