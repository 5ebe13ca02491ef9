//! HMAC-SHA256, and its comparison in constant time.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The code of several parts, as if they were one.
pub(crate) fn code(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is accepted; the other branch cannot be reached and proves nothing to anybody.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether a code is one of those that the keys give. All keys are tried, whatever the first says.
pub(crate) fn matches_any<'k>(keys: impl Iterator<Item = &'k [u8]>, parts: &[&[u8]], given: &[u8]) -> bool {
    use subtle::{Choice, ConstantTimeEq};
    let found = keys.fold(Choice::from(0), |found, key| found | code(key, parts).as_slice().ct_eq(given));
    found.into()
}

/// Whether a token is one of the secrets. Their codes are compared, so that time tells neither bytes nor length.
pub(crate) fn is_any<'k>(secrets: impl Iterator<Item = &'k [u8]>, token: &[u8]) -> bool {
    use subtle::{Choice, ConstantTimeEq};
    let given = code(b"token", &[token]);
    let found = secrets.fold(Choice::from(0), |found, secret| found | code(b"token", &[secret]).ct_eq(&given));
    found.into()
}
