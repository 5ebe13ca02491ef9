//! Typed identifiers: a `String` never carries one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Whose rows they are. A token fixes it; the default is `default`.
    Tenant
}
text_id! {
    /// The canonical URL of a repository, project or service.
    SourceUrl
}
text_id! {
    /// The id of an event; unique together with its source.
    EventId
}
text_id! {
    /// The id of a subject within its source.
    SubjectId
}

impl Default for Tenant {
    fn default() -> Self {
        Self::new("default")
    }
}

/// Whether a text may name a tenant: 1 to 64 of `a-z 0-9 - _`.
#[must_use]
pub fn is_tenant(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
