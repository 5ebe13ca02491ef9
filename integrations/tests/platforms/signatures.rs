//! Who sent it: what each platform's proof accepts, and what it refuses.

use bytes::Bytes;
use hmac::{Hmac, Mac};
use kiro_integrations::communication::webhook::{self, SigningKey};
use kiro_integrations::{Platform, Proof, Refusal, platforms};
use kiro_ports::Headers;
use kiro_schemas::{Micros, Secret};
use sha2::Sha256;

const SECRET: &str = "It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
const NOW: Micros = Micros(1_700_000_000_000_000);

/// A delivery that is right, to be spoilt.
#[derive(Clone)]
struct Delivery {
    secrets: Vec<String>,
    headers: Headers,
    body: Vec<u8>,
    now: Micros,
}

impl Delivery {
    fn right(proof: &Proof) -> Self {
        let headers = match proof {
            Proof::Hmac { header, prefix } => vec![(*header, format!("{prefix}{}", hex_hmac(SECRET, BODY)))],
            Proof::Token { header, prefix } => vec![(*header, format!("{prefix}{SECRET}"))],
            Proof::Signed => webhook::headers(&key(SECRET), "d1", NOW, BODY).to_vec(),
        };
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value))).collect();
        Self { secrets: vec![SECRET.to_owned()], headers, body: BODY.to_vec(), now: NOW }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }

    /// The same with another text in the header of the proof, the last one.
    fn saying(&self, change: impl FnOnce(&str) -> String) -> Self {
        self.with(|delivery| {
            let (_, value) = delivery.headers.last_mut().expect("a header");
            *value = Bytes::from(change(std::str::from_utf8(value).expect("text")));
        })
    }

    fn secrets(&self, secrets: &[&str]) -> Self {
        self.with(|delivery| delivery.secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect())
    }

    fn verify(&self, platform: &Platform) -> Result<(), Refusal> {
        let secrets: Vec<Secret> = self.secrets.iter().map(|secret| Secret::new(secret.as_str())).collect();
        platform.verify(&secrets, &self.headers, &self.body, self.now)
    }
}

fn key(secret: &str) -> SigningKey {
    SigningKey::of(&Secret::new(secret)).expect("a key")
}

fn hex_hmac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// What every way of proving accepts.
fn accepted(right: &Delivery) -> Vec<(&'static str, Delivery)> {
    vec![
        ("as it is", right.clone()),
        ("the secret before is live too", right.secrets(&["a newer secret of ours", SECRET])),
        ("the next secret is live too", right.secrets(&[SECRET, "a newer secret of ours"])),
        ("an empty secret beside", right.secrets(&["", SECRET])),
        (
            "the header in capitals",
            right.with(|d| {
                for (name, _) in d.headers.iter_mut().filter(|(name, _)| !name.starts_with("webhook")) {
                    *name = name.to_ascii_uppercase();
                }
            }),
        ),
        ("other headers beside", right.with(|d| d.headers.insert(0, ("x-other".to_owned(), Bytes::from_static(b"1"))))),
    ]
}

/// What every way of proving refuses, and why.
fn refused(right: &Delivery, proof: &Proof, told: &'static str) -> Vec<(&'static str, Delivery, Refusal)> {
    let (header, no_proof) = (proof.header(), Refusal::NoProof { header: told });
    let wrong = if matches!(proof, Proof::Token { .. }) { Refusal::WrongToken } else { Refusal::Mismatch };
    vec![
        ("no secret", right.secrets(&[]), Refusal::NoSecret),
        ("an empty secret", right.secrets(&["", ""]), Refusal::NoSecret),
        ("another secret", right.secrets(&["a newer secret of ours"]), wrong),
        ("no header", right.with(|d| d.headers.clear()), no_proof),
        ("twice", right.with(|d| d.headers.extend(d.headers.clone())), Refusal::BadForm { header }),
        ("a secret with one more byte", right.secrets(&[&format!("{SECRET}.")]), wrong),
        ("a part of the secret", right.secrets(&[SECRET.trim_end_matches('y')]), wrong),
    ]
}

fn refused_hmac(right: &Delivery, prefix: &str, header: &'static str) -> Vec<(&'static str, Delivery, Refusal)> {
    let (bad, wrong) = (Refusal::BadForm { header }, Refusal::Mismatch);
    let digits = hex_hmac(SECRET, BODY);
    vec![
        ("another body", right.with(|d| d.body.push(b'\n')), wrong),
        ("an empty body", right.with(|d| d.body.clear()), wrong),
        ("a letter's case", right.with(|d| d.body.make_ascii_lowercase()), wrong),
        ("nothing", right.saying(|_| String::new()), bad),
        ("the prefix alone", right.saying(|_| format!("{prefix} ")), bad),
        ("a digit less", right.saying(|text| text.trim_end_matches('7').to_owned()), bad),
        ("a digit more", right.saying(|text| format!("{text}0")), bad),
        ("no digits", right.saying(|_| format!("{prefix}zz")), bad),
        ("sha1", right.saying(|_| format!("sha1={digits}")), bad),
        ("the first digit", right.saying(|text| text.replacen("757107", "857107", 1)), wrong),
        ("the last digit", right.saying(|text| text.replace("8b043e17", "8b043e18")), wrong),
        ("one of two is no code", right.saying(|text| format!("{text},{prefix}00")), bad),
        ("two that do not fit", right.saying(|_| format!("{prefix}{},{prefix}{}", "0".repeat(64), "1".repeat(64))), wrong),
        ("of another body", right.saying(|_| format!("{prefix}{}", hex_hmac(SECRET, b"Hello"))), wrong),
    ]
}

fn refused_token(right: &Delivery, prefix: &str) -> Vec<(&'static str, Delivery, Refusal)> {
    let token = |token: &str| right.saying(|_| format!("{prefix}{token}"));
    let wrong = [
        ("nothing", token("")),
        ("a byte less", token(SECRET.trim_end_matches('y'))),
        ("a byte more", token(&format!("{SECRET}y"))),
        ("another case", token(&SECRET.to_lowercase())),
        ("spaces", token(&format!(" {SECRET}"))),
        ("its digest", token(&hex_hmac(SECRET, b""))),
    ];
    wrong.into_iter().map(|(what, delivery)| (what, delivery, Refusal::WrongToken)).collect()
}

fn refused_signed(right: &Delivery) -> Vec<(&'static str, Delivery, Refusal)> {
    let header = |at: usize, value: &'static str| right.with(|d| d.headers[at].1 = Bytes::from_static(value.as_bytes()));
    let refused = [
        ("another body", right.with(|d| d.body.push(b'\n'))),
        ("old", right.with(|d| d.now = NOW.plus(301_000_000))),
        ("from the future", right.with(|d| d.now = NOW.plus(-301_000_000))),
        ("another id", header(0, "d2")),
        ("no id", header(0, "")),
        ("another time", header(1, "1700000001")),
        ("no time", header(1, "now")),
        ("another version", header(2, "v1a,AAAA")),
        ("no signature", header(2, "v1,")),
        ("not base64", header(2, "v1,!!!!")),
        ("without an id", right.with(|d| drop(d.headers.remove(0)))),
        ("without a time", right.with(|d| drop(d.headers.remove(1)))),
        ("a weak secret", right.secrets(&["short"])),
        // Who has the token alone cannot go round a signature that does not fit.
        ("the token beside", header(2, "v1,AAAA").with(|d| d.headers.push(("x-gitlab-token".to_owned(), Bytes::from(SECRET))))),
    ];
    refused.into_iter().map(|(what, delivery)| (what, delivery, Refusal::Mismatch)).collect()
}

#[test]
fn proofs_accept_what_fits_and_nothing_else() {
    assert_eq!(hex_hmac(SECRET, BODY), "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", "GitHub's documented example");
    let mut cases = 0;
    for platform in platforms() {
        let told = platform.proofs.last().map_or("", Proof::header);
        for proof in platform.proofs {
            let right = Delivery::right(proof);
            let mut right_ones = accepted(&right);
            let mut wrong_ones = refused(&right, proof, told);
            match proof {
                Proof::Hmac { header, prefix } => {
                    right_ones.push((
                        "capital digits",
                        right.saying(|text| format!("{prefix}{}", text.trim_start_matches(prefix).to_uppercase())),
                    ));
                    right_ones.push(("the second of two", right.saying(|text| format!("{prefix}{}, {text}", "0".repeat(64)))));
                    wrong_ones.extend(refused_hmac(&right, prefix, header));
                }
                Proof::Token { header, prefix } => {
                    wrong_ones.extend(refused_token(&right, prefix));
                    if !prefix.is_empty() {
                        let bare = right.saying(|text| text.trim_start_matches(prefix).to_owned());
                        wrong_ones.push(("without its prefix", bare, Refusal::BadForm { header }));
                    }
                }
                Proof::Signed => {
                    right_ones.push(("in time", right.with(|d| d.now = NOW.plus(299_000_000))));
                    right_ones.push(("the second of two", right.saying(|text| format!("v1,AAAA {text}"))));
                    wrong_ones.extend(refused_signed(&right));
                }
            }
            cases += right_ones.len() + wrong_ones.len();
            for (what, delivery) in right_ones {
                assert_eq!(delivery.verify(platform), Ok(()), "{} {proof:?}: {what}", platform.name);
            }
            for (what, delivery, why) in wrong_ones {
                assert_eq!(delivery.verify(platform), Err(why), "{} {proof:?}: {what}", platform.name);
            }
        }
    }
    assert!(cases >= 80, "{cases} cases");
}

/// What is signed here as the platform signs is accepted with the same secret and no other.
#[test]
fn a_signed_sample_is_accepted() {
    for platform in platforms() {
        let (secret, other) = (Secret::new(SECRET), Secret::new("a newer secret of ours"));
        let headers = platform.sign(&secret, ("ping", "d1"), BODY, NOW);
        assert_eq!(platform.verify(std::slice::from_ref(&secret), &headers, BODY, NOW), Ok(()), "{}", platform.name);
        assert!(platform.verify(&[other], &headers, BODY, NOW).is_err(), "{}", platform.name);
        assert_eq!(platform.delivery_id(&headers), platform.delivery_headers.first().map(|_| "d1"), "{}", platform.name);
    }
}

/// No reason tells anything of a secret.
#[test]
fn reasons_keep_secrets() {
    for platform in platforms() {
        for proof in platform.proofs {
            let right = Delivery::right(proof);
            for wrong in [right.secrets(&["a newer secret of ours"]), right.saying(|_| "nonsense".to_owned())] {
                let reason = wrong.verify(platform).expect_err("refused").to_string();
                assert!(!reason.contains("secret of ours") && !reason.contains(SECRET) && !reason.contains("nonsense"), "{reason}");
            }
        }
    }
}
