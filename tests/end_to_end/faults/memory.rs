//! A backlog and a store that is slow: memory stays where it is, and with it what else a process holds.

#![expect(clippy::expect_used, reason = "a text takes whatever is written to it")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Ground, figure, finished};
use crate::process::{Process, Usage};
use crate::s3::S3;
use crate::server::wait_for;

const MOST_MIB: f64 = 512.0;
/// How long the store takes for each object.
const SLOW: Duration = Duration::from_secs(2);
/// Events of each second of a long run.
const A_SECOND: usize = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// About a kibibyte, of which little can be compressed.
fn event(number: usize) -> String {
    let mut noise = number as u64;
    let mut attributes = String::new();
    for name in 0..12 {
        noise = noise.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
        let other = noise.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let comma = if name > 0 { "," } else { "" };
        write!(attributes, "{comma}\"attribute_{name}\":\"{noise:016x}{other:016x}{number:08}\"").expect("text");
    }
    finished(number % 97, &format!("memory-{number}"), &format!(",\"attributes\":{{{attributes}}}"))
}

#[derive(Debug)]
struct Sample {
    seconds: f64,
    usage: Usage,
    series: BTreeSet<String>,
}

/// The slope of what is resident over the second half, in MiB an hour.
fn slope(samples: &[Sample]) -> f64 {
    let half = &samples[samples.len() / 2..];
    let mean = |of: fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / half.len() as f64;
    let (seconds, resident) = (mean(|s| s.seconds), mean(|s| s.usage.resident_mib));
    let above: f64 = half.iter().map(|s| (s.seconds - seconds) * (s.usage.resident_mib - resident)).sum();
    let below: f64 = half.iter().map(|s| (s.seconds - seconds).powi(2)).sum();
    above / below.max(1e-9) * 3600.0
}

/// What comes in: a backlog at once, and in a long run more of it each second.
#[derive(Debug, Default)]
struct Inflow {
    fed: AtomicUsize,
    ended: AtomicBool,
}

impl Inflow {
    /// Goes on for so many minutes.
    #[expect(clippy::disallowed_methods, reason = "a long run ends by the clock")]
    fn go_on(&self, ground: &Ground, minutes: u64) -> Result<()> {
        let began = Instant::now();
        let outcome = (|| {
            while began.elapsed() < Duration::from_mins(minutes) {
                let first = self.fed.load(Ordering::Relaxed);
                ground.broker.feed(&ground.topic, first..first + A_SECOND, |number| Some(event(number).into_bytes()))?;
                self.fed.store(first + A_SECOND, Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        })();
        self.ended.store(true, Ordering::Relaxed);
        outcome
    }

    /// Watches a process until it has committed all of it.
    #[expect(clippy::disallowed_methods, reason = "samples are taken by the clock")]
    fn watch(&self, process: &Process, most: Duration) -> Result<Vec<Sample>> {
        let (began, mut samples) = (Instant::now(), Vec::new());
        loop {
            let metrics = process.metrics()?;
            samples.push(Sample { seconds: began.elapsed().as_secs_f64(), usage: process.usage()?, series: metrics.names() });
            let committed = metrics.sum("kiro_ingest_committed_rows_total", &["table=\"pipeline_runs_events\""]);
            let fed = self.fed.load(Ordering::Relaxed);
            if self.ended.load(Ordering::Relaxed) && committed >= fed as f64 {
                return Ok(samples);
            }
            ensure!(began.elapsed() < most, "{committed} of {fed} rows were committed in {most:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// How much of something a part of the samples has: the most of it, or the mean.
type Measure = fn(&mut dyn Iterator<Item = f64>) -> f64;

fn highest(values: &mut dyn Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn mean(values: &mut dyn Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}

/// What may not grow: of the last third no more than of the third before, and a little.
fn is_flat(samples: &[Sample], what: &str, (measure, of): (Measure, fn(&Sample) -> f64), slack: f64) -> Result<()> {
    let third = samples.len() / 3;
    let (before, last) = (measure(&mut samples[third..2 * third].iter().map(of)), measure(&mut samples[2 * third..].iter().map(of)));
    ensure!(last <= before + slack, "{what} grow from {before} to {last}");
    Ok(())
}

/// No series appears in the last third that was not there before.
fn are_known(samples: &[Sample]) -> Result<()> {
    let (before, last) = samples.split_at(2 * (samples.len() / 3));
    let known: BTreeSet<&String> = before.iter().flat_map(|sample| &sample.series).collect();
    let new: BTreeSet<&String> = last.iter().flat_map(|sample| &sample.series).filter(|name| !known.contains(name)).collect();
    ensure!(new.is_empty(), "{} series are new: {new:?}", new.len());
    Ok(())
}

#[test]
fn a_backlog_before_a_slow_store_stays_within_512_mib() -> Result<()> {
    let mib = figure(560, 2_048)?;
    let minutes = super::minutes(0, 120)?;
    let store = S3::start()?;
    let mut ground = Ground::new("memory", "lake: {url: \"s3://lake/memory\"}\n")?;
    ground.environment = store.environment();
    let inflow = Inflow { fed: (mib * (1 << 20) / event(0).len()).into(), ..Inflow::default() };
    ground.broker.feed(&ground.topic, 0..inflow.fed.load(Ordering::Relaxed), |number| Some(event(number).into_bytes()))?;
    store.delay_puts(SLOW);
    let mut process = ground.start("ingest", 0)?;
    wait_for("the probe to answer", 60, || Ok(process.metrics().ok()))?;
    let most = Duration::from_secs(120 + mib as u64) + Duration::from_mins(minutes);
    let samples = std::thread::scope(|scope| {
        let goes_on = scope.spawn(|| inflow.go_on(&ground, minutes));
        let samples = inflow.watch(&process, most);
        let Ok(went_on) = goes_on.join() else { bail!("the inflow broke") };
        went_on?;
        samples
    })?;
    let (last, events) = (process.usage()?, inflow.fed.load(Ordering::Relaxed));
    let (seconds, series) = samples.last().map_or((0.0, 0), |sample| (sample.seconds, sample.series.len()));
    eprintln!(
        "memory: a backlog of {mib} MiB, {events} events in {seconds:.0} s, {} puts of {SLOW:?}: {:.0} MiB at most, {:.0} at the end, \
         {:+.1} MiB an hour over the second half; {} descriptors, {} threads, {series} series",
        store.counts().0,
        last.peak_mib,
        last.resident_mib,
        slope(&samples),
        last.descriptors,
        last.threads,
    );
    ensure!(last.peak_mib <= MOST_MIB, "{:.0} MiB were resident", last.peak_mib);
    // Over a minute an hourly slope is noise: there what counts is that the last third needs no more than the one before.
    ensure!(minutes == 0 || slope(&samples) <= 1.0, "memory grows by {:.1} MiB an hour", slope(&samples));
    // What is resident rises and falls with each batch that waits for the store: means tell a trend, the limit above the height.
    is_flat(&samples, "resident MiB", (mean, |s| s.usage.resident_mib), 48.0)?;
    is_flat(&samples, "descriptors", (highest, |s| s.usage.descriptors as f64), 8.0)?;
    is_flat(&samples, "threads", (highest, |s| s.usage.threads as f64), 4.0)?;
    are_known(&samples)?;
    process.stop()
}
