//! How a delivery proves who sent it.

use kiro_ports::Headers;
use kiro_schemas::{Micros, Secret};

use crate::communication::webhook::{self, SigningKey};
use crate::hmac256;

/// Most signatures that are looked at in one header.
const MOST_SIGNATURES: usize = 10;

/// One way to prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The hexadecimal HMAC-SHA256 of the body after a prefix; several may be separated by commas.
    Hmac {
        /// In which header.
        header: &'static str,
        /// What stands before the digits.
        prefix: &'static str,
    },
    /// The secret itself after a prefix.
    Token {
        /// In which header.
        header: &'static str,
        /// What stands before the secret.
        prefix: &'static str,
    },
    /// A signature of Standard Webhooks over id, time and body, not older than 5 minutes.
    Signed,
}

/// Why a webhook is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No secret is configured: nothing can be proven.
    #[error("no secret is configured")]
    NoSecret,
    /// There is no signature or token.
    #[error("there is no {header} header")]
    NoProof {
        /// The header that it was looked for in.
        header: &'static str,
    },
    /// There are several, or it is of another algorithm or length.
    #[error("the {header} header is not of the form that the platform sends, or came twice")]
    BadForm {
        /// The header.
        header: &'static str,
    },
    /// None of the secrets gives this signature.
    #[error("the signature does not fit the body")]
    Mismatch,
    /// None of the secrets is this token.
    #[error("the token is not the configured secret")]
    WrongToken,
}

impl Proof {
    /// The header that it stands in.
    #[must_use]
    pub const fn header(&self) -> &'static str {
        match self {
            Self::Hmac { header, .. } | Self::Token { header, .. } => header,
            Self::Signed => "webhook-signature",
        }
    }

    /// Whether a delivery tries to prove it so.
    pub(super) fn is_given(&self, headers: &Headers) -> bool {
        self.values(headers).next().is_some()
    }

    fn values<'h>(&self, headers: &'h Headers) -> impl Iterator<Item = &'h [u8]> {
        let ours = self.header();
        headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(ours)).map(|(_, value)| value.as_ref())
    }

    /// The headers of a delivery that proves itself so, as the platform sends them; none when the secret cannot sign.
    pub(super) fn prove(&self, secret: &Secret, id: &str, body: &[u8], now: Micros) -> Vec<(&'static str, String)> {
        match self {
            Self::Hmac { header, prefix } => {
                vec![(*header, format!("{prefix}{}", hex::encode(hmac256::code(secret.expose().as_bytes(), &[body]))))]
            }
            Self::Token { header, prefix } => vec![(*header, format!("{prefix}{}", secret.expose()))],
            Self::Signed => SigningKey::of(secret).map(|key| webhook::headers(&key, id, now, body).into()).unwrap_or_default(),
        }
    }

    /// Verifies it with each of the secrets.
    pub(super) fn verify(&self, secrets: &[Secret], headers: &Headers, body: &[u8], now: Micros) -> Result<(), Refusal> {
        let bad = Refusal::BadForm { header: self.header() };
        let mut values = self.values(headers);
        let (Some(value), None) = (values.next(), values.next()) else { return Err(bad) };
        let live = || secrets.iter().map(|secret| secret.expose().as_bytes()).filter(|secret| !secret.is_empty());
        match self {
            Self::Hmac { prefix, .. } => {
                let codes = codes(value, prefix.as_bytes()).ok_or(bad)?;
                let fits = codes.iter().fold(false, |fits, code| hmac256::matches_any(live(), &[body], code) | fits);
                if fits { Ok(()) } else { Err(Refusal::Mismatch) }
            }
            Self::Token { prefix, .. } => {
                let token = value.strip_prefix(prefix.as_bytes()).ok_or(bad)?;
                if hmac256::is_any(live(), token) { Ok(()) } else { Err(Refusal::WrongToken) }
            }
            Self::Signed => {
                let keys: Vec<SigningKey> = secrets.iter().filter_map(|secret| SigningKey::of(secret).ok()).collect();
                if webhook::verify(&keys, headers, body, now) { Ok(()) } else { Err(Refusal::Mismatch) }
            }
        }
    }
}

/// The codes of a header, those of other prefixes passed over; `None` when there is none or one is not 64 digits.
fn codes(value: &[u8], prefix: &[u8]) -> Option<Vec<[u8; 32]>> {
    let given = value.split(|byte| *byte == b',').take(MOST_SIGNATURES).filter_map(|part| part.trim_ascii().strip_prefix(prefix));
    let read = |digits: &[u8]| {
        let mut code = [0; 32];
        hex::decode_to_slice(digits, &mut code).ok().map(|()| code)
    };
    given.map(read).collect::<Option<Vec<_>>>().filter(|codes| !codes.is_empty())
}
