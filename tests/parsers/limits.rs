//! Input without measure: too large, too deep, too wide. Each is answered fast, whatever the answer.

use std::time::{Duration, Instant};

use crate::parsers::PARSERS;

/// Far more than a slow machine needs, far less than what a missing limit takes.
const MOST: Duration = Duration::from_secs(10);

fn post(kind: &str, body: &[u8]) -> Vec<u8> {
    [b"content-type: ", kind.as_bytes(), b"\n\n", body].concat()
}

fn native(attributes: &str) -> Vec<u8> {
    let head = r#"{"subject":"change","transition":"merged","source":"s","subject_id":"1","time":"2026-11-23T09:40:00Z""#;
    format!(r#"{head},"attributes":{attributes}}}"#).into_bytes()
}

/// A `CloudEvent` whose data is named once and has very many values below the name: flattened, the name would stand before each.
fn repeated_name() -> Vec<u8> {
    let head = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2026-11-23T09:40:00Z","data":{""#;
    [head.as_bytes(), &vec![b'k'; 400_000], b"\":[", &b"1,".repeat(250_000), b"1]}}"].concat()
}

fn rows(format: &str, rule: &str, rows: &[u8]) -> Vec<u8> {
    let rules = format!("  - {{subject: other, transition: recorded, fields: {{subject_id: id, time: at}}}}\n{rule}");
    let head = format!("{format}\nversion: 1\nsource: {{const: s}}\nkeep: true\nevents:\n{rules}\n%%\n");
    [head.as_bytes(), rows].concat()
}

/// What each parser is given besides what all are given.
fn for_parser(name: &str) -> Vec<Vec<u8>> {
    let wide: String = (0..60_000).flat_map(|at| ["\"k".to_owned(), at.to_string(), "\":\"v\",".to_owned()]).collect();
    match name {
        "native_event" => vec![native(&format!("{{{wide}\"z\":\"v\"}}")), native(&format!("{{\"k\":\"{}\"}}", "v".repeat(2 << 20)))],
        "log_record" => vec![[&b"content-type: application/cloudevents+json\n\n"[..], &repeated_name()].concat()],
        "http_post" => vec![
            post("application/x-ndjson", &b"1\n".repeat(4 << 20)),
            post("application/cloudevents-batch+json", &[&b"["[..], &b"{},".repeat(2 << 20), b"{}]"].concat()),
            post("application/cloudevents+json", &repeated_name()),
        ],
        "mapping_rows" => {
            let many = "  - {subject: other, transition: recorded, fields: {subject_id: id, time: at}}\n".repeat(2_000);
            let document = format!("{{\"id\":\"1\",\"at\":\"2026-11-23T09:40:00Z\",{wide}\"z\":1}}").into_bytes();
            let repeated =
                [&b"{\"id\":\"1\",\"at\":\"2026-11-23T09:40:00Z\",\""[..], &vec![b'k'; 400_000], b"\":[", &b"1,".repeat(250_000), b"1]}"];
            vec![
                rows("json", &many, &document),
                rows("json", "", &document),
                rows("ndjson", "", &repeated.concat()),
                rows("csv", "", &[&b"id,at"[..], &b",x".repeat(400_000), b"\n", &b"1,".repeat(400_000), b"\n"].concat()),
                rows("csv", "", &[&b"id,at\n\""[..], &vec![b'x'; 4 << 20]].concat()),
            ]
        }
        "mapping_file" | "gate_file" => {
            let bomb = (1..20).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
            vec![
                bomb.into_bytes(),
                "- ".repeat(100_000).into_bytes(),
                "a: ".repeat(100_000).into_bytes(),
                "? ".repeat(100_000).into_bytes(),
            ]
        }
        "junit_report" => vec![
            b"<testsuite>".repeat(1 << 17),
            [&b"<testsuite>"[..], &b"<testcase/>".repeat(1 << 16), b"</testsuite>"].concat(),
            [&b"<testsuite name=\""[..], &b"&amp;".repeat(1 << 18), b"\"/>"].concat(),
            [&b"<testsuite><testcase><failure>"[..], &b"&<![CDATA[]]>".repeat(1 << 17)].concat(),
            [&b"<testsuite "[..], &b"a='b' ".repeat(1 << 18), b"/>"].concat(),
        ],
        "coverage_report" => vec![
            [&b"SF:"[..], &b"x/".repeat(1 << 20), b"\nend_of_record\n"].concat(),
            [&b"<coverage><package>"[..], &b"<line hits='1'/>".repeat(1 << 17), b"</package></coverage>"].concat(),
        ],
        "sarif_report" => vec![
            [&b"{\"version\":\"2.1.0\",\"runs\":["[..], &b"{\"tool\":{\"driver\":{\"name\":\"t\"}}},".repeat(1 << 15), b"{}]}"].concat(),
            [
                &b"{\"version\":\"2.1.0\",\"runs\":[{\"results\":["[..],
                &b"{},".repeat(1 << 18),
                b"{}],\"tool\":{\"driver\":{\"name\":\"t\"}}}]}",
            ]
            .concat(),
        ],
        "github_webhook" => vec![[&b"push\n{\"commits\":["[..], &b"{},".repeat(1 << 20), b"{}]}"].concat()],
        "gitlab_webhook" => vec![[&b"Push Hook\n{\"commits\":["[..], &b"{},".repeat(1 << 20), b"{}]}"].concat()],
        "alertmanager_webhook" => vec![[&b"\n{\"alerts\":["[..], &b"{},".repeat(1 << 20), b"{}]}"].concat()],
        "webhook_signature" => {
            vec![[&b"webhook-id: 1\nwebhook-timestamp: 1700000000\nwebhook-signature: "[..], &b"v1,AAAA ".repeat(500_000)].concat()]
        }
        _ => Vec::new(),
    }
}

/// What every parser is given.
fn for_all() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"[".repeat(1 << 20),
        b"{\"a\":".repeat(1 << 18),
        b"{\"fields\":".repeat(1 << 17),
        b"9".repeat(2 << 20),
        [&b"\""[..], &b"\\u0041".repeat(1 << 18)].concat(),
        b"\0".repeat(2 << 20),
        b"\n".repeat(2 << 20),
        b"\xff".repeat(2 << 20),
        b"&a [*a, ".repeat(1 << 17),
    ]
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a parser takes is what is tested")]
fn input_without_measure_is_answered_fast() {
    for (name, parse) in PARSERS {
        for (at, bytes) in for_all().into_iter().chain(for_parser(name)).enumerate() {
            let begin = Instant::now();
            parse(&bytes);
            let took = begin.elapsed();
            assert!(took < MOST, "{name}: input {at} of {} bytes took {took:?}", bytes.len());
        }
    }
}
