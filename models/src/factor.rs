//! Readable reasons: correlated features are shown as one factor, with a sentence and what can be done.

use kiro_schemas::figure;

use crate::baseline::is_size;
use crate::transform::Column;

/// A group of features that say the same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    LastOutcome,
    RecentFailures,
    LongTermFailures,
    Streak,
    Pending,
    Calendar,
    ChangeSize,
    Declared(String),
}

impl Group {
    pub(crate) fn of(column: &Column) -> Self {
        if column.declared {
            let spread = column.name.contains("files") || is_size(&column.name);
            return if spread { Self::ChangeSize } else { Self::Declared(column.name.clone()) };
        }
        match column.name.as_str() {
            "last" | "last2" | "last_kind" => Self::LastOutcome,
            "fr3" | "fr5" | "fr10" | "fr20" | "fr50" | "ew2" | "ew8" | "ew_kind" => Self::RecentFailures,
            "fr100" | "fr300" | "ew40" => Self::LongTermFailures,
            "streak" | "since_failure" => Self::Streak,
            "pending" | "gap" | "since_known" => Self::Pending,
            "hour" | "weekday" => Self::Calendar,
            other => Self::Declared(other.to_owned()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::LastOutcome => "last_outcome",
            Self::RecentFailures => "recent_failure_rate",
            Self::LongTermFailures => "long_term_failure_rate",
            Self::Streak => "streak",
            Self::Pending => "pending_runs",
            Self::Calendar => "hour",
            Self::ChangeSize => "change_size",
            Self::Declared(name) => name,
        }
    }

    /// The history feature whose value is shown, and whether it is a logarithm with a sign.
    pub(crate) const fn shown(&self) -> Option<(&'static str, bool)> {
        Some(match self {
            Self::LastOutcome => ("last", false),
            Self::RecentFailures => ("fr10", false),
            Self::LongTermFailures => ("fr100", false),
            Self::Streak => ("streak", true),
            Self::Pending => ("pending", true),
            Self::Calendar => ("hour", false),
            Self::ChangeSize | Self::Declared(_) => return None,
        })
    }

    pub(crate) fn explain(&self, value: Option<f64>, contribution: f64) -> String {
        let turn = if contribution >= 0.0 { "raises" } else { "lowers" };
        let what = value.map_or_else(|| format!("{} is not given", self.plain()), |value| self.tell(value));
        format!("{what}: {turn} the risk by {:.1} points", contribution.abs() * 100.0)
    }

    /// The name in a sentence.
    pub(crate) fn plain(&self) -> &str {
        if *self == Self::ChangeSize { "the size of the change" } else { self.name() }
    }

    fn tell(&self, value: f64) -> String {
        match self {
            Self::LastOutcome if value > 0.5 => "the last known run failed".to_owned(),
            Self::LastOutcome => "the last known run succeeded".to_owned(),
            Self::RecentFailures => format!("{:.0} % of the last 10 known runs failed", value * 100.0),
            Self::LongTermFailures => format!("{:.0} % of the last 100 known runs failed", value * 100.0),
            Self::Streak if value > 0.0 => format!("{value:.0} known runs in a row failed"),
            Self::Streak => format!("{:.0} known runs in a row succeeded", value.abs()),
            Self::Pending => format!("{value:.0} runs began that are not known yet"),
            Self::Calendar => format!("it begins at {value:.0} h UTC"),
            Self::ChangeSize => format!("the change has {value:.0} lines"),
            Self::Declared(name) => format!("{name} is {}", figure(value)),
        }
    }

    /// What can be done when this raises the risk; nothing where the value itself is good news.
    pub(crate) fn mitigation(&self, value: Option<f64>) -> Option<&'static str> {
        Some(match self {
            Self::LastOutcome | Self::Streak if value.is_none_or(|value| value <= 0.0) => return None,
            Self::LastOutcome => "Find out why the last run failed before starting another.",
            Self::RecentFailures => "Repair or quarantine what failed in the last runs, then go on.",
            Self::LongTermFailures => "Look for flaky tests: the pipeline has failed often for a long time.",
            Self::Streak => "Stop the line: mend the failing branch, or revert the change that broke it.",
            Self::Pending => "Wait for the runs that are under way; their outcome changes this score.",
            Self::Calendar => "Move it to an hour in which failures are rarer and people can react.",
            Self::ChangeSize => "Split the change into smaller ones, or roll it out in steps.",
            Self::Declared(_) => return None,
        })
    }
}
