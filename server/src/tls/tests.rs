use std::path::Path;
use std::process::{Command, Stdio};

use kiro_ports::{Clock as _, SystemClock};
use kiro_schemas::Micros;
use prometheus::{Registry, TextEncoder};

use super::{Certificates, TlsFiles};
use crate::telemetry::Telemetry;

const DAY: i64 = 86_400_000_000;

/// A certificate for two days, by itself.
fn certify(dir: &Path, name: &str) -> TlsFiles {
    let files = TlsFiles { certificate_file: dir.join(name).with_extension("pem"), key_file: dir.join(name).with_extension("key") };
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(&files.key_file).arg("-out").arg(&files.certificate_file);
    assert!(openssl.stderr(Stdio::null()).status().expect("openssl is installed").success());
    files
}

fn refusal(files: &TlsFiles, now: Micros) -> String {
    format!("{:#}", Certificates::load("http", files, now).expect_err("it is refused"))
}

#[test]
fn a_certificate_is_taken_from_its_first_moment_to_its_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certify(dir.path(), "own");
    let now = SystemClock.now();
    assert!(Certificates::load("http", &files, now).is_ok());
    let early = refusal(&files, now.plus(-DAY));
    assert!(early.contains("own.pem is not valid before ") && early.contains(now.to_string().get(..7).expect("a month")), "{early}");
    let late = refusal(&files, now.plus(3 * DAY));
    assert!(late.contains("own.pem has expired at "), "{late}");
}

#[test]
fn what_is_refused_is_refused_once_and_what_is_good_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (own, other) = (certify(dir.path(), "own"), certify(dir.path(), "other"));
    let now = SystemClock.now();
    let registry = Registry::new();
    let telemetry = Telemetry::register(&registry, None).expect("metrics");
    let refused = || {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix("kiro_tls_certificate_refused{door=\"http\"} "));
        value.map(|value| value == "1")
    };
    let certificates = Certificates::load("http", &own, now).expect("a certificate");
    let shown = || certificates.served.read().expect("no panic").key.cert[0].clone();
    let first = shown();
    certificates.renew(now, &telemetry);
    assert_eq!(refused(), None, "nothing has changed");
    std::fs::copy(&other.key_file, &own.key_file).expect("a copy");
    certificates.renew(now, &telemetry);
    assert_eq!((refused(), shown() == first), (Some(true), true));
    // The other half of a pair that came in two steps.
    std::fs::copy(&other.certificate_file, &own.certificate_file).expect("a copy");
    certificates.renew(now.plus(3 * DAY), &telemetry);
    assert_eq!((refused(), shown() == first), (Some(true), true), "it has expired by then");
    certificates.renew(now, &telemetry);
    assert_eq!((refused(), shown() == first), (Some(false), false), "a clock that was wrong was set");
    certificates.renew(now.plus(3 * DAY), &telemetry);
    assert_eq!(refused(), Some(false), "what is served is no new certificate");
    std::fs::remove_file(&own.key_file).expect("removed");
    certificates.renew(now, &telemetry);
    assert_eq!((refused(), shown() == first), (Some(true), false));
    std::fs::copy(&other.key_file, &own.key_file).expect("a copy");
    certificates.renew(now, &telemetry);
    assert_eq!((refused(), shown() == first), (Some(false), false));
}
