//! The process as the kernel sees it, under the names that every Prometheus client uses, and what was built.

use anyhow::Result;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntCounter, IntGauge, IntGaugeVec, Opts};

/// Ticks a second in `/proc`.
///
/// # Source
/// proc(5), time(7): `USER_HZ` is 100 on every architecture that we build for.
const TICKS: f64 = 100.0;

/// Metrics that are read from `/proc` when they are asked for; absent where there is no `/proc`.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
    start: Gauge,
    broken: IntCounter,
    build: IntGaugeVec,
}

impl ProcessMetrics {
    pub(super) fn new() -> Result<Self> {
        let build = IntGaugeVec::new(Opts::new("kiro_build_info", "What runs. Always 1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            cpu: Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            threads: IntGauge::new("process_threads", "Number of OS threads in the process.")?,
            open_files: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            most_files: IntGauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            start: Gauge::new("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?,
            broken: IntCounter::new("kiro_invariants_broken_total", "Invariants that were found broken: each is a bug.")?,
            build,
        };
        if let Some(start) = start_seconds() {
            metrics.start.set(start);
        }
        Ok(metrics)
    }

    fn all(&self) -> [&dyn Collector; 9] {
        [
            &self.cpu,
            &self.resident,
            &self.virtual_memory,
            &self.threads,
            &self.open_files,
            &self.most_files,
            &self.start,
            &self.broken,
            &self.build,
        ]
    }

    fn read(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, name, unit) in
            [(&self.resident, "VmRSS:", 1_024), (&self.virtual_memory, "VmSize:", 1_024), (&self.threads, "Threads:", 1)]
        {
            if let Some(value) = field(&status, name) {
                gauge.set(value * unit);
            }
        }
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = field(&limits, "Max open files") {
            self.most_files.set(most);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let ticks: f64 = stat().map_or(0.0, |fields| [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum());
        self.cpu.inc_by((ticks / TICKS - self.cpu.get()).max(0.0));
        self.broken.inc_by(kiro_schemas::invariant::broken().saturating_sub(self.broken.get()));
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/self/stat` after the name of the program, which may hold spaces: 0 is the state.
fn stat() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

fn start_seconds() -> Option<f64> {
    let boot = field(&std::fs::read_to_string("/proc/stat").ok()?, "btime")?;
    let ticks: f64 = stat()?.get(19)?.parse().ok()?;
    Some(boot as f64 + ticks / TICKS)
}
