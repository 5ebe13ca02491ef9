//! Who sent a webhook.
//!
//! # Source
//! GitHub Docs, "Validating webhook deliveries": `X-Hub-Signature-256: sha256=<hex HMAC-SHA256(secret, raw body)>`.

use kiro_ports::Headers;
use kiro_schemas::Secret;

use crate::hmac256;

/// Why a webhook is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No secret is configured: nothing can be proven.
    #[error("no secret is configured")]
    NoSecret,
    /// There is no signature.
    #[error("there is no X-Hub-Signature-256 header")]
    NoSignature,
    /// There are several, or it is of another algorithm or length.
    #[error("the signature is not one `sha256=` with 64 hexadecimal digits")]
    BadForm,
    /// None of the secrets gives this signature.
    #[error("the signature does not fit the body")]
    Mismatch,
}

/// Verifies the raw bytes of a body, with each of the secrets that are live. Empty secrets prove nothing and are passed over.
///
/// # Errors
/// Why it is not accepted.
pub fn verify(secrets: &[Secret], headers: &Headers, body: &[u8]) -> Result<(), Refusal> {
    let mut live = secrets.iter().map(|secret| secret.expose().as_bytes()).filter(|secret| !secret.is_empty()).peekable();
    if live.peek().is_none() {
        return Err(Refusal::NoSecret);
    }
    let mut given = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256"));
    let (Some((_, value)), None) = (given.next(), given.next()) else {
        let any = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256"));
        return Err(if any { Refusal::BadForm } else { Refusal::NoSignature });
    };
    let digits = value.strip_prefix(b"sha256=").ok_or(Refusal::BadForm)?;
    let mut code = [0; 32];
    hex::decode_to_slice(digits, &mut code).map_err(|_source| Refusal::BadForm)?;
    if hmac256::matches_any(live, &[body], &code) { Ok(()) } else { Err(Refusal::Mismatch) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_ports::Headers;
    use kiro_schemas::Secret;

    use super::{Refusal, verify};

    const SECRET: &str = "It's a Secret to Everybody";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    /// The signature without its algorithm.
    fn bare() -> &'static str {
        SIGNATURE.trim_start_matches("sha256=")
    }

    fn signed(value: &str) -> Headers {
        vec![("x-github-event".to_owned(), Bytes::from("push")), ("x-hub-signature-256".to_owned(), Bytes::from(value.to_owned()))]
    }

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    #[test]
    fn accepts_the_documented_example_with_each_live_secret() {
        for live in [&[SECRET][..], &[SECRET, "new"], &["new", SECRET], &["", SECRET]] {
            assert_eq!(verify(&secrets(live), &signed(SIGNATURE), b"Hello, World!"), Ok(()), "{live:?}");
        }
        let upper = format!("sha256={}", bare().to_uppercase());
        assert_eq!(verify(&secrets(&[SECRET]), &signed(&upper), b"Hello, World!"), Ok(()));
    }

    #[test]
    fn refuses_the_rest() {
        let ours = secrets(&[SECRET]);
        for body in [&b"Hello, World"[..], b"Hello, World!\n", b"", b"hello, World!"] {
            assert_eq!(verify(&ours, &signed(SIGNATURE), body), Err(Refusal::Mismatch));
        }
        for digit in 0..64 {
            let mut other = SIGNATURE.to_owned().into_bytes();
            other[7 + digit] = if other[7 + digit] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(other).expect("ascii");
            assert_eq!(verify(&ours, &signed(&other), b"Hello, World!"), Err(Refusal::Mismatch), "digit {digit}");
        }
        let bare = bare();
        for form in [
            "",
            "sha256=",
            bare,
            &format!("sha1={bare}"),
            &format!("sha256={}", bare.trim_end_matches('7')),
            &format!("{SIGNATURE}0"),
            "sha256=zz",
            "SHA256=00",
        ] {
            assert_eq!(verify(&ours, &signed(form), b"Hello, World!"), Err(Refusal::BadForm), "{form}");
        }
        assert_eq!(verify(&ours, &Headers::new(), b"Hello, World!"), Err(Refusal::NoSignature));
        let legacy = vec![("x-hub-signature".to_owned(), Bytes::from_static(b"sha1=00"))];
        assert_eq!(verify(&ours, &legacy, b"Hello, World!"), Err(Refusal::NoSignature));
        let twice: Headers = signed(SIGNATURE).into_iter().chain(signed(SIGNATURE)).collect();
        assert_eq!(verify(&ours, &twice, b"Hello, World!"), Err(Refusal::BadForm));
        for none in [&[][..], &[""], &["", ""]] {
            assert_eq!(verify(&secrets(none), &signed(SIGNATURE), b"Hello, World!"), Err(Refusal::NoSecret));
        }
        assert_eq!(verify(&secrets(&["other"]), &signed(SIGNATURE), b"Hello, World!"), Err(Refusal::Mismatch));
    }
}
