//! The subjects: what events are about, with every column of theirs documented once.

use std::fmt;

mod specs;

pub use specs::SPECS;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// 64-bit signed integer.
    Int,
    /// 64-bit float, finite.
    Float,
    /// True or false.
    Bool,
    /// UTC microseconds.
    Time,
    /// Text to text.
    Map,
}

/// What a column is to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The subject's id within its source.
    Id,
    /// The attempt, from 1.
    Attempt,
    /// A field that events set.
    Field,
}

/// One documented column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its SQL name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it is to the subject.
    pub role: Role,
    /// Whether it names a person: the lake has the pseudonym.
    pub is_person: bool,
    /// One sentence for users.
    pub doc: &'static str,
}

/// What a transition does to a subject.
#[derive(Debug, Clone, Copy)]
pub struct TransitionSpec {
    /// The transition.
    pub transition: Transition,
    /// The time column that the event's time fills when the event does not say otherwise.
    pub sets: Option<&'static str>,
    /// Whether the subject is final with it.
    pub is_final: bool,
}

/// How a subject is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Several events make one subject: `<table>_events` and, materialised, `<table>`.
    Subject,
    /// Each event is a fact of its own: `<table>` holds them.
    Fact,
}

/// One kind of subject with its table, columns and transitions.
#[derive(Debug)]
pub struct SubjectSpec {
    /// The kind.
    pub subject: Subject,
    /// Its name in events: `pipeline_run`.
    pub name: &'static str,
    /// Its table: `pipeline_runs`.
    pub table: &'static str,
    /// The table of its events: `pipeline_runs_events`; the table itself for facts.
    pub events_table: &'static str,
    /// How it is stored.
    pub shape: Shape,
    /// What it is, in one sentence.
    pub doc: &'static str,
    /// Its columns, in table order.
    pub columns: &'static [Column],
    /// The transitions it knows, in their natural order.
    pub transitions: &'static [TransitionSpec],
}

impl SubjectSpec {
    /// The position of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The position of a column that events may set.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<usize> {
        self.column(name).filter(|at| self.columns[*at].role == Role::Field)
    }

    /// What a transition does here; `None` when the subject does not know it.
    #[must_use]
    pub fn transition(&self, transition: Transition) -> Option<&'static TransitionSpec> {
        self.transitions.iter().find(|t| t.transition == transition)
    }

    /// The name of the id column.
    #[must_use]
    pub fn id_column(&self) -> &'static str {
        self.columns.iter().find(|c| c.role == Role::Id).map_or("id", |c| c.name)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in events and tables.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Reads the word.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The kinds of subjects.
    Subject {
        /// A run of a pipeline.
        PipelineRun = "pipeline_run",
        /// A run of one job, task or build within a pipeline run.
        TaskRun = "task_run",
        /// A pull or merge request, or a pushed commit.
        Change = "change",
        /// A deployment of a service to an environment.
        Deployment = "deployment",
        /// Something that a build made.
        Artifact = "artifact",
        /// A disturbance of a service.
        Incident = "incident",
        /// The result of one test case or suite in one run.
        TestResult = "test_result",
        /// Where services run.
        Environment = "environment",
        /// A repository or project.
        Repository = "repository",
        /// A measured value.
        Metric = "metric",
        /// An event that has no table of its own.
        Other = "other",
        /// An assessment of risk that was answered.
        RiskAssessment = "risk_assessment",
        /// A decision of a gate that was answered.
        GateDecision = "gate_decision",
        /// A use of, or a refusal by, the product.
        AuditEntry = "audit_entry",
        /// A model that was trained, promoted or retired.
        ModelVersion = "model_version",
    }
}

words! {
    /// What happened to a subject.
    Transition {
        /// It waits for its turn.
        Queued = "queued",
        /// It began to exist.
        Created = "created",
        /// It began to run.
        Started = "started",
        /// Somebody noticed it by machine.
        Detected = "detected",
        /// Somebody told it.
        Reported = "reported",
        /// It changed.
        Updated = "updated",
        /// Somebody reviewed it.
        Reviewed = "reviewed",
        /// It was packaged.
        Packaged = "packaged",
        /// It was signed.
        Signed = "signed",
        /// It was published.
        Published = "published",
        /// It was downloaded.
        Downloaded = "downloaded",
        /// It was not run.
        Skipped = "skipped",
        /// It ended.
        Finished = "finished",
        /// It went into its target.
        Merged = "merged",
        /// It was given up.
        Abandoned = "abandoned",
        /// It is over.
        Resolved = "resolved",
        /// It was replaced by an earlier version.
        RolledBack = "rolled_back",
        /// It is gone.
        Deleted = "deleted",
        /// It was written down.
        Recorded = "recorded",
    }
}

impl Subject {
    /// Whether the product alone writes its events: who could send them would forge what was decided and done.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::RiskAssessment | Self::GateDecision | Self::AuditEntry | Self::ModelVersion)
    }
}

/// The specification of a subject.
#[must_use]
pub fn spec(subject: Subject) -> &'static SubjectSpec {
    &SPECS[subject as usize]
}

#[cfg(test)]
mod tests {
    use super::{Role, SPECS, Subject, spec};

    #[test]
    fn specs_stand_in_the_order_of_the_enum_and_are_complete() {
        assert_eq!(SPECS.len(), Subject::ALL.len());
        for subject in Subject::ALL {
            let spec = spec(*subject);
            assert_eq!(spec.subject, *subject);
            assert_eq!(spec.name, subject.as_str());
            assert_eq!(spec.columns.iter().filter(|c| c.role == Role::Id).count(), 1, "{subject}");
            for transition in spec.transitions {
                assert!(transition.sets.is_none_or(|name| spec.field(name).is_some()), "{subject}");
            }
            let mut names: Vec<_> = spec.columns.iter().map(|c| c.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), spec.columns.len(), "{subject} repeats a column");
        }
    }
}
