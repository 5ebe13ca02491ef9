//! What verifies a psql password.
//!
//! # Source
//! RFC 5802 §3: `SaltedPassword := Hi(password, salt, i)`, which is PBKDF2 with HMAC-SHA256 and one block.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The rounds; a token has 256 random bits, so that more would only cost time.
pub(crate) const ITERATIONS: u32 = kiro_ports::ScramVerifier::ITERATIONS;

/// `Hi`; takes some milliseconds.
pub(crate) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
    // A key of any length is accepted.
    let Ok(keyed) = Hmac::<Sha256>::new_from_slice(password) else { return Vec::new() };
    let of = |parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let mut round = of(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = round;
    for _ in 1..iterations {
        round = of(&[&round]);
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum.to_vec()
}

#[cfg(test)]
mod tests {
    /// The vectors of RFC 7914 §11 and of RFC 7677's exchange, first 32 bytes.
    #[test]
    fn agrees_with_the_published_vectors() {
        let found = super::salted_password(b"passwd", b"salt", 1);
        assert_eq!(hex::encode(found), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
        let found = super::salted_password(b"password", b"salt", 4096);
        assert_eq!(hex::encode(found), "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a");
    }
}
