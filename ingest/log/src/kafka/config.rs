//! The settings of the Kafka client.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

/// What a consumer is told unless the configuration says something else: little is fetched ahead, because the tail holds
/// what cannot be committed, and a full queue is looked at again soon.
const CONSUMER: &[(&str, &str)] =
    &[("queued.max.messages.kbytes", "16384"), ("fetch.max.bytes", "8388608"), ("fetch.queue.backoff.ms", "50")];
/// The same for members of a group of the classic protocol. A member that was killed is missed after the shortest time that
/// brokers permit, so that its next life, or another member, has its partitions within ten seconds.
const CLASSIC_GROUP: &[(&str, &str)] =
    &[("partition.assignment.strategy", "cooperative-sticky"), ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1500")];

/// The most that a record of a raw topic may have: deliveries of webhooks are as large as 25 MB.
const RAW_RECORD_BYTES: usize = 32 << 20;

/// Which cluster, and how to talk to it.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Further properties of librdkafka, such as `security.protocol`; they may hold secrets, so they are never printed.
    pub properties: Vec<(String, String)>,
    /// Topics of raw deliveries, whose records may be large, and how long records are kept there when the topic is created.
    pub raw: BTreeMap<String, Duration>,
    /// Replicas of a topic that is created; -1 for what the brokers prefer.
    pub replication: i32,
    /// An append that is not acknowledged by then has failed.
    pub append_timeout: Duration,
    /// A question to a broker that is not answered by then has failed.
    pub request_timeout: Duration,
}

impl KafkaConfig {
    /// A cluster with default settings.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        let seconds = Duration::from_secs;
        // Who posts hears of an outage before it gives up: GitHub does after 10 s.
        let (append_timeout, request_timeout) = (seconds(5), seconds(10));
        Self { brokers: brokers.into(), properties: Vec::new(), raw: BTreeMap::new(), replication: -1, append_timeout, request_timeout }
    }

    /// The bytes of key, value and headers that are taken of a record of a topic at most.
    ///
    /// # Source
    /// librdkafka's CONFIGURATION.md: `message.max.bytes`, 1,000,000 unless it is given.
    #[must_use]
    pub fn max_record_bytes(&self, topic: &str) -> usize {
        let usual = self.usual_record_bytes();
        if self.raw.contains_key(topic) { usual.max(RAW_RECORD_BYTES) } else { usual }
    }

    fn usual_record_bytes(&self) -> usize {
        let given = self.properties.iter().find(|(name, _)| name == "message.max.bytes");
        given.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(1_000_000)
    }

    /// How a topic is made, where it is not as the brokers prefer.
    pub(super) fn topic_settings(&self, topic: &str) -> Vec<(&'static str, String)> {
        let Some(age) = self.raw.get(topic) else { return Vec::new() };
        // The broker measures a batch with its head.
        let most = RAW_RECORD_BYTES + (1 << 20);
        vec![("retention.ms", age.as_millis().to_string()), ("max.message.bytes", most.to_string())]
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "kirolinter").set("reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// What the promises of the log need is set last, so that no property overrides it.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // Told before the append is given up: a topic that is not there is no outage.
            .set("topic.metadata.propagation.max.ms", (self.append_timeout.as_millis() * 3 / 5).to_string())
            .set("message.timeout.ms", self.append_timeout.as_millis().to_string());
        if let Some((topic, _)) = self.raw.first_key_value() {
            // Records of other topics are measured before they come to the client. Head and frame of a request are beside it.
            config.set("message.max.bytes", (self.max_record_bytes(topic) + (64 << 10)).to_string());
            // Batches of the other topics stay as large as their brokers took them before; a record alone may be larger.
            let given = self.properties.iter().find(|(name, _)| name == "batch.size").and_then(|(_, value)| value.trim().parse().ok());
            config.set("batch.size", given.unwrap_or(1_000_000).min(self.usual_record_bytes()).to_string());
        }
        let given = |name: &str| self.properties.iter().any(|(given, _)| given == name);
        if !given("linger.ms") && !given("queue.buffering.max.ms") {
            config.set("linger.ms", "2");
        }
        config
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.refresh.interval.ms", "10000");
        let given = |name: &str| self.properties.iter().any(|(given, _)| given == name);
        for (name, value) in CONSUMER.iter().filter(|(name, _)| !given(name)) {
            config.set(*name, *value);
        }
        if !given("group.protocol") {
            for (name, value) in CLASSIC_GROUP.iter().filter(|(name, _)| !given(name)) {
                config.set(*name, *value);
            }
        }
        config
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .field("replication", &self.replication)
            .field("append_timeout", &self.append_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("raw", &self.raw)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::KafkaConfig;

    #[test]
    fn properties_are_not_printed_and_override_no_promise() {
        let mut config = KafkaConfig::new("a:1");
        let given = [("sasl.password", "hunter2"), ("enable.auto.commit", "true"), ("acks", "0"), ("client.id", "mine")];
        config.properties = given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.consumer("g").get("enable.auto.commit"), Some("false"));
        assert_eq!(config.consumer("g").get("session.timeout.ms"), Some("6000"));
        config.properties.push(("session.timeout.ms".to_owned(), "9000".to_owned()));
        assert_eq!(config.consumer("g").get("session.timeout.ms"), Some("9000"));
        assert_eq!(config.producer().get("acks"), Some("all"));
        assert_eq!(config.producer().get("client.id"), Some("mine"));
        assert_eq!(config.producer().get("message.max.bytes"), None);
    }

    #[test]
    fn records_of_raw_topics_alone_may_be_large() {
        let mut config = KafkaConfig::new("a:1");
        config.raw.insert("hooks".to_owned(), std::time::Duration::from_mins(1));
        assert_eq!((config.max_record_bytes("events"), config.max_record_bytes("hooks")), (1_000_000, super::RAW_RECORD_BYTES));
        let set: usize = config.producer().get("message.max.bytes").and_then(|text| text.parse().ok()).expect("a number");
        assert!(set > super::RAW_RECORD_BYTES);
        assert!(config.topic_settings("events").is_empty());
        let settings = config.topic_settings("hooks");
        assert_eq!(settings.first(), Some(&("retention.ms", "60000".to_owned())));
        config.properties.push(("message.max.bytes".to_owned(), "50000000".to_owned()));
        assert_eq!((config.max_record_bytes("events"), config.max_record_bytes("hooks")), (50_000_000, 50_000_000));
    }
}
