//! Seeded events, as a CI system would send them.

/// A seeded generator: `SplitMix64`.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }
}

/// The end of one run as a line of native JSON: 50 repositories, 5 pipelines, one failure in six.
pub(crate) fn event(dice: &mut Dice, number: usize) -> String {
    let (repository, pipeline) =
        (dice.below(50), ["build", "test", "lint", "deploy", "nightly"][usize::try_from(dice.below(5)).unwrap_or(0)]);
    let outcome = if dice.below(6) == 0 { "failure" } else { "success" };
    let (second, duration, sha) = (number % 86_400, 10_000 + dice.below(600_000), dice.below(u64::MAX));
    format!(
        "{{\"subject\":\"pipeline_run\",\"transition\":\"finished\",\"source\":\"https://ci.example/acme/repository-{repository}\",\
         \"subject_id\":\"{number}\",\"time\":\"2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}Z\",\
         \"fields\":{{\"pipeline\":\"{pipeline}\",\"outcome\":\"{outcome}\",\"branch\":\"main\",\"commit_sha\":\"{sha:016x}{sha:016x}\",\
         \"duration_ms\":{duration},\"trigger\":\"push\"}},\"attributes\":{{\"team\":\"team-{team}\"}}}}",
        day = 1 + number / 86_400 % 20,
        hour = second / 3_600,
        minute = second / 60 % 60,
        second = second % 60,
        team = repository % 7,
    )
}
