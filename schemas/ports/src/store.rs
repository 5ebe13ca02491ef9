//! The control store: who may do what, what still has to be sent, and who is meant by a pseudonym.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kiro_schemas::{Micros, Secret, Tenant, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::PortError;

/// What a token permits. `Ingest` stands beside the ladder: it may only write events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May only write events.
    Ingest,
    /// May ask.
    Viewer,
    /// May ask for decisions.
    Developer,
    /// May run the product: imports, dead letters, models.
    Operator,
    /// May manage tokens.
    Admin,
}

impl Role {
    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ingest" => Self::Ingest,
            "viewer" => Self::Viewer,
            "developer" => Self::Developer,
            "operator" => Self::Operator,
            "admin" => Self::Admin,
            _ => return None,
        })
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether this role includes what `needed` may do.
    #[must_use]
    pub fn permits(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Ingest, _) => needed == Self::Ingest,
            (Self::Operator | Self::Admin, Self::Ingest) => true,
            (_, Self::Ingest) => false,
            _ => self >= needed,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name of the token.
    pub name: String,
    /// Whose rows it sees and writes.
    pub tenant: Tenant,
    /// What it permits.
    pub role: Role,
}

/// A token to create.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name, unique; also the user name of the psql door.
    pub name: String,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its role.
    pub role: Role,
    /// When it ends to be valid.
    pub expires_at: Option<Micros>,
}

/// A token as it may be shown.
#[derive(Debug, Clone, Serialize)]
pub struct TokenInfo {
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its role.
    pub role: Role,
    /// When it was created.
    pub created_at: Micros,
    /// When it ends to be valid.
    pub expires_at: Option<Micros>,
}

/// What SCRAM-SHA-256 needs to verify a password without knowing it (RFC 5803).
#[derive(Clone)]
pub struct ScramVerifier {
    /// Salt.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// `SaltedPassword` (32 bytes), from which both keys follow.
    pub salted_password: Vec<u8>,
}

impl ScramVerifier {
    /// Rounds for new tokens, and for names that are not there: what is asked of a client does not tell who is known.
    pub const ITERATIONS: u32 = 4096;
    /// Length of a salt, for both.
    pub const SALT_BYTES: usize = 16;
}

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramVerifier(…)")
    }
}

/// Tokens: 256 random bits, stored as SHA-256, compared in constant time.
#[async_trait]
pub trait Tokens: Send + Sync + std::fmt::Debug {
    /// Creates a token and returns its text, which is not kept.
    async fn create(&self, token: NewToken, now: Micros) -> Result<Secret, PortError>;
    /// Who has this token, if it is valid.
    async fn verify(&self, token: &Secret, now: Micros) -> Result<Option<Principal>, PortError>;
    /// Who has this name and what verifies its token as a psql password.
    async fn scram(&self, name: &str, now: Micros) -> Result<Option<(Principal, ScramVerifier)>, PortError>;
    /// All tokens of a tenant.
    async fn list(&self, tenant: &Tenant) -> Result<Vec<TokenInfo>, PortError>;
    /// Revokes a token; whether it was there.
    async fn revoke(&self, tenant: &Tenant, name: &str) -> Result<bool, PortError>;
}

/// Something to send outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewDelivery {
    /// Idempotency key: sent once, however often it is put in.
    pub key: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// The name of the target in the configuration.
    pub target: String,
    /// The JSON to send.
    pub payload: String,
}

/// Something that is to be sent now.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What.
    pub delivery: NewDelivery,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was put in.
    pub created_at: Micros,
}

/// What still has to be sent. It is put in before what asks for it is recorded, and held until that is, so that neither comes
/// without the other whenever the process dies.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Puts in and holds; what was released under this key before stays as it is.
    async fn hold(&self, delivery: NewDelivery, now: Micros) -> Result<(), PortError>;
    /// What asked for it is recorded: it is due now.
    async fn release(&self, key: &str, now: Micros) -> Result<(), PortError>;
    /// What is held since before a time, oldest first.
    async fn held(&self, before: Micros, limit: u32) -> Result<Vec<NewDelivery>, PortError>;
    /// What is due, oldest first; none of it comes again before `retry_at`.
    async fn due(&self, now: Micros, retry_at: Micros, limit: u32) -> Result<Vec<Delivery>, PortError>;
    /// It arrived.
    async fn done(&self, key: &str, now: Micros) -> Result<(), PortError>;
    /// It did not, or is not to be sent; try again then, or never (`None`).
    async fn failed(&self, key: &str, reason: &str, next: Option<Micros>) -> Result<(), PortError>;
    /// How many wait or are held.
    async fn waiting(&self) -> Result<u64, PortError>;
}

/// Where the chain of the audit log stood last in each partition: offset and chain of a row.
pub type AnchorMap = BTreeMap<TopicPartition, (i64, String)>;

/// What is remembered of the audit log apart from the lake, so that rows which are gone from its end are missed.
#[async_trait]
pub trait Anchors: Send + Sync + std::fmt::Debug {
    /// Remembers the last row of a partition; an earlier one than is remembered changes nothing.
    async fn anchor(&self, at: &TopicPartition, offset: i64, chain: &str, now: Micros) -> Result<(), PortError>;
    /// What is remembered.
    async fn anchors(&self) -> Result<AnchorMap, PortError>;
}

/// Ties the names of persons to pseudonyms, by which alone the lake knows them. Without the tie nobody can tell whose pseudonym it is.
#[async_trait]
pub trait Persons: Send + Sync + std::fmt::Debug {
    /// The pseudonyms of names, in their order; who has none is given one. They are durable when this returns, and the same whoever
    /// asks.
    async fn pseudonyms(&self, tenant: &Tenant, names: &[String], now: Micros) -> Result<Vec<String>, PortError>;
    /// The pseudonym of a name, if it has one.
    async fn pseudonym(&self, tenant: &Tenant, name: &str) -> Result<Option<String>, PortError>;
    /// Drops the tie; the pseudonym that the name had. The same name gets another one from then on.
    async fn forget(&self, tenant: &Tenant, name: &str, now: Micros) -> Result<Option<String>, PortError>;
    /// Changes whenever a tie is dropped: who remembers pseudonyms forgets them then.
    async fn forgotten(&self) -> Result<i64, PortError>;
}
