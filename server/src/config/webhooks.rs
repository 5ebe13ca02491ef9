//! Where webhooks go as they came, and where secrets lie that are made for their sources.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;

/// How long webhooks are kept as they came, unless the file says otherwise.
const WEBHOOK_DAYS: u32 = 14;

impl Config {
    /// Where secrets lie that are made for sources.
    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.raw.secrets_dir.clone().unwrap_or_else(|| self.data_dir.join("secrets"))
    }

    /// How long webhooks are kept as they came.
    pub(crate) fn webhook_age(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.raw.log.webhook_days.unwrap_or(WEBHOOK_DAYS)))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Overrides, parse, validate};
    use crate::role::Role;

    #[test]
    fn webhooks_have_a_topic_and_a_time() {
        let read = |text: &str| validate(parse(text).expect("a file"), Role::Up, Overrides::default()).expect("a configuration");
        let config = read("log: {topic: a, webhook_days: 2}");
        assert_eq!((config.webhook_topic.as_str(), config.webhook_age().as_secs()), ("a.webhooks", 2 * 86_400));
        assert_eq!(read("").webhook_age().as_secs(), 14 * 86_400);
        let problems = |text: &str| validate(parse(text).expect("a file"), Role::Up, Overrides::default()).expect_err("refused").len();
        let one = read("log: {topic: a, webhook_topic: a}");
        assert_eq!(crate::base::all_topics(&one), ["a", "a.history"], "one topic for both is read once");
        assert_eq!(problems("log: {webhook_days: 0}"), 1);
        assert_eq!(problems("log: {topic: a, webhook_topic: a.history}"), 1);
    }
}
