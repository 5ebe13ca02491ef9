//! Signed webhooks: what we send, and what others send in the same form.
//!
//! # Source
//! Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64>` over `id.timestamp.body`;
//! receivers refuse more than 5 minutes of difference.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiro_ports::{Headers, header};
use kiro_schemas::{Micros, Secret};

use crate::{Error, Result, hmac256};

const SECOND: i64 = 1_000_000;
/// Most difference between the clocks, in seconds.
const TOLERANCE: i64 = 300;
/// Shorter keys can be guessed.
const MIN_KEY: usize = 16;

/// A key to sign with.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Reads `whsec_<base64>`, or a plain text of at least 16 bytes.
    ///
    /// # Errors
    /// [`Error::Secret`]: it is too short or not base64.
    pub fn of(secret: &Secret) -> Result<Self> {
        let key = match secret.expose().trim().strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_source| Error::Secret { reason: "`whsec_` is not followed by base64" })?,
            None => secret.expose().trim().as_bytes().to_vec(),
        };
        if key.len() < MIN_KEY {
            return Err(Error::Secret { reason: "a signing secret has at least 16 bytes" });
        }
        Ok(Self(key))
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, at: Micros, body: &[u8]) -> String {
        let seconds = seconds_of(at).to_string();
        let code = hmac256::code(&self.0, &[id.as_bytes(), b".", seconds.as_bytes(), b".", body]);
        format!("v1,{}", STANDARD.encode(code))
    }
}

/// The three headers of a delivery.
#[must_use]
pub fn headers(key: &SigningKey, id: &str, at: Micros, body: &[u8]) -> [(&'static str, String); 3] {
    [("webhook-id", id.to_owned()), ("webhook-timestamp", seconds_of(at).to_string()), ("webhook-signature", key.sign(id, at, body))]
}

/// Whether a delivery was signed with one of the keys, not more than 5 minutes ago or ahead. Ids must not hold a dot.
#[must_use]
pub fn verify(keys: &[SigningKey], received: &Headers, body: &[u8], now: Micros) -> bool {
    let (Some(id), Some(timestamp), Some(signatures)) =
        (header(received, "webhook-id"), header(received, "webhook-timestamp"), header(received, "webhook-signature"))
    else {
        return false;
    };
    let Ok(seconds) = timestamp.parse::<i64>() else { return false };
    if id.is_empty() || seconds_of(now).abs_diff(seconds) > TOLERANCE.unsigned_abs() {
        return false;
    }
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    signatures
        .split(' ')
        .take(10)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .fold(false, |found, given| hmac256::matches_any(keys.iter().map(|key| key.0.as_slice()), &parts, &given) | found)
}

const fn seconds_of(at: Micros) -> i64 {
    at.0.div_euclid(SECOND)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_ports::Headers;
    use kiro_schemas::{Micros, Secret};

    use super::{SigningKey, headers, verify};

    fn key(text: &str) -> SigningKey {
        SigningKey::of(&Secret::new(text)).expect("a key")
    }

    fn received(sent: [(&'static str, String); 3]) -> Headers {
        sent.into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value))).collect()
    }

    /// The example of the specification's reference libraries.
    #[test]
    fn signs_as_the_reference_does() {
        let at = Micros(1_614_265_330 * 1_000_000);
        let signed = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn verifies_and_refuses() {
        let (old, new, now) = (key("an old secret of ours"), key("a newer secret of ours"), Micros(1_700_000_000_000_000));
        let sent = received(headers(&old, "d1", now, b"body"));
        let both = [new.clone(), old.clone()];
        assert!(verify(&both, &sent, b"body", now));
        assert!(verify(&both, &sent, b"body", now.plus(299_000_000)));
        assert!(!verify(&both, &sent, b"body", now.plus(301_000_000)), "old");
        assert!(!verify(&both, &sent, b"body", now.plus(-301_000_000)), "from the future");
        assert!(!verify(&both, &sent, b"bodY", now), "another body");
        assert!(!verify(&[new], &sent, b"body", now), "another key");
        assert!(!verify(&[], &sent, b"body", now), "no key");
        for missing in 0..3 {
            let mut sent = sent.clone();
            sent.remove(missing);
            assert!(!verify(&both, &sent, b"body", now));
        }
        for (at, value) in [(0, "d2"), (1, "1700000001"), (2, "v1a,AAAA"), (2, "v1,"), (2, "")] {
            let mut sent = sent.clone();
            sent[at].1 = Bytes::from(value);
            assert!(!verify(&both, &sent, b"body", now), "{value}");
        }
    }

    #[test]
    fn refuses_weak_secrets() {
        for text in ["", "short", "whsec_", "whsec_!!", "whsec_AAAA"] {
            assert!(SigningKey::of(&Secret::new(text)).is_err(), "{text}");
        }
    }
}
