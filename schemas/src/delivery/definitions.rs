//! Named sets of definitions, and the bands of DORA's reports.

/// How a median is taken of an even number of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Median {
    /// Halfway between the two in the middle.
    Interpolated,
    /// The lower of the two.
    Lower,
}

/// Which changes a deployment brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// Those whose commits it lists; where it lists none, those merged since the deployment before.
    ListedOrMerged,
    /// Those whose commits it lists.
    Listed,
}

/// How long a change took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// From its earliest moment (first commit, creation, merge) to the end of the deployment.
    Whole,
    /// The sum of the stages first commit to creation, creation to merge, merge to deployment: each in minutes, rounded up,
    /// left out when it is negative.
    Stages,
}

/// What the band of a deployment frequency is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frequency {
    /// Deployments a day.
    PerDay,
    /// Days with a deployment in a week.
    DaysPerWeek,
}

/// What the words of the five metrics mean, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definitions {
    /// Of durations.
    pub median: Median,
    /// Of changes to deployments.
    pub lineage: Lineage,
    /// Of a change.
    pub lead: Lead,
    /// A change that waited longer for its deployment was not brought by it.
    pub longest_wait_days: Option<i64>,
    /// An incident that came later is not blamed on the deployment.
    pub longest_blame_days: Option<i64>,
    /// Whether rollbacks and hotfixes tell that the deployment before them failed, and count as rework.
    pub infers_failures: bool,
    /// Whether each incident is a recovery of its own; else each failed deployment is one.
    pub recovers_by_incident: bool,
    /// Of the band.
    pub frequency: Frequency,
}

/// A named set of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// Ours.
    Kirolinter,
    /// Those of Apache DevLake 1.0.
    Devlake,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kirolinter, Self::Devlake];

    /// The word in tables and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kirolinter => "kirolinter",
            Self::Devlake => "devlake",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// What its words mean.
    ///
    /// # Source
    /// dora.dev (guide of 2026-01-05), Datadog DORA (rollbacks, gaps); Apache DevLake 1.0.3, plugin `dora` and its dashboards.
    #[must_use]
    pub const fn definitions(self) -> Definitions {
        match self {
            Self::Kirolinter => Definitions {
                median: Median::Interpolated,
                lineage: Lineage::ListedOrMerged,
                lead: Lead::Whole,
                longest_wait_days: Some(180),
                longest_blame_days: Some(7),
                infers_failures: true,
                recovers_by_incident: false,
                frequency: Frequency::PerDay,
            },
            Self::Devlake => Definitions {
                median: Median::Lower,
                lineage: Lineage::Listed,
                lead: Lead::Stages,
                longest_wait_days: None,
                longest_blame_days: None,
                infers_failures: false,
                recovers_by_incident: true,
                frequency: Frequency::DaysPerWeek,
            },
        }
    }
}

/// How a value compares with the teams of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// The best.
    Elite,
    /// The second.
    High,
    /// The third.
    Medium,
    /// The last.
    Low,
}

impl Band {
    /// The word in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elite => "elite",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// The bands of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bands {
    /// Accelerate State of DevOps 2021.
    Report2021,
    /// Accelerate State of DevOps 2023.
    Report2023,
}

const HOUR: f64 = 3_600_000.0;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;
const MONTH: f64 = 30.0 * DAY;

impl Bands {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Report2021, Self::Report2023];

    /// The year of the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report2021 => "2021",
            Self::Report2023 => "2023",
        }
    }

    /// Reads the year. That of 2024 has clusters, not bands: its second best fails more often than its third.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.as_str() == text)
    }

    /// The band of a deployment frequency: at least so many a day, or days a week; more than one a day is elite.
    #[must_use]
    pub fn frequency(self, per: Frequency, value: f64) -> Band {
        let (is_elite, high, medium) = match (self, per) {
            (Self::Report2023, Frequency::PerDay) => (value > 1.0, 1.0 / 7.0, 1.0 / 31.0),
            (Self::Report2021, Frequency::PerDay) => (value > 1.0, 1.0 / 31.0, 1.0 / 184.0),
            (Self::Report2023, Frequency::DaysPerWeek) => (value >= 5.0, 1.0, 7.0 / 31.0),
            (Self::Report2021, Frequency::DaysPerWeek) => (value >= 5.0, 7.0 / 31.0, 7.0 / 184.0),
        };
        match value + 1e-9 {
            _ if is_elite => Band::Elite,
            value if value >= high => Band::High,
            value if value >= medium => Band::Medium,
            _ => Band::Low,
        }
    }

    /// The band of a lead time, in milliseconds.
    #[must_use]
    pub fn lead_time(self, ms: f64) -> Band {
        match self {
            Self::Report2023 => below(ms, [DAY, WEEK, MONTH]),
            Self::Report2021 => below(ms, [HOUR, WEEK, 6.0 * MONTH]),
        }
    }

    /// The band of a change fail ratio, 0 to 1.
    #[must_use]
    pub fn change_fail(self, ratio: f64) -> Band {
        let limits = match self {
            Self::Report2023 => [0.05, 0.10, 0.15],
            Self::Report2021 => [0.15, 0.20, 0.30],
        };
        below(ratio, limits.map(|limit| limit + 1e-9))
    }

    /// The band of a recovery time, in milliseconds.
    #[must_use]
    pub fn recovery(self, ms: f64) -> Band {
        below(ms, [HOUR, DAY, WEEK])
    }
}

fn below(value: f64, limits: [f64; 3]) -> Band {
    match limits {
        [elite, ..] if value < elite => Band::Elite,
        [_, high, _] if value < high => Band::High,
        [_, _, medium] if value < medium => Band::Medium,
        _ => Band::Low,
    }
}
