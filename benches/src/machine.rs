//! What the machine says of processes: CPU time and memory, by `/proc`.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// The clock of the measurements.
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Ticks of a CPU second: `USER_HZ`, 100 on every Linux that is in use.
const TICKS: f64 = 100.0;

/// CPU seconds of a process so far, in user and kernel.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may hold anything; `utime` and `stime` are the 12th and 13th after it.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("no CPU time in stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// The most memory that a process held, in MiB.
pub(crate) fn peak_mib(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Cores, processor and memory, in a line.
pub(crate) fn describe() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")).map_or("", |name| name.trim_start_matches(['\t', ' ', ':']));
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: f64 = memory.split_whitespace().nth(1).context("no memory")?.parse()?;
    Ok(format!("{cores} cores ({model}), {:.0} GiB", kib / 1024.0 / 1024.0))
}
