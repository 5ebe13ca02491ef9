//! Known secret fields are dropped before a payload is kept, and are in no event.

use bytes::Bytes;
use kiro_integrations::{Proof, platforms};
use kiro_ports::Headers;
use serde_json::{Value, json};

use crate::payloads;

const CANARY: &str = "canary-of-a-secret";

/// Puts a secret into each object, under each name.
fn plant(value: &mut Value, names: &[&str], planted: &mut usize) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|value| plant(value, names, planted)),
        Value::Object(map) => {
            map.values_mut().for_each(|value| plant(value, names, planted));
            for (at, name) in names.iter().enumerate() {
                let secret = format!("{CANARY}-{planted}");
                let secret = if at % 2 == 0 { json!(secret) } else { json!([{"key": "K", "value": secret}]) };
                map.insert((*name).to_owned(), secret);
                *planted += 1;
            }
        }
        _ => {}
    }
}

#[test]
fn secrets_are_in_no_event_and_in_no_kept_payload() {
    for platform in platforms() {
        let mut planted = 0;
        for payload in payloads(platform) {
            let mut tree: Value = serde_json::from_slice(&payload.body).expect("JSON");
            plant(&mut tree, platform.secret_fields, &mut planted);
            let body = serde_json::to_vec_pretty(&tree).expect("JSON");
            let raw = crate::events(platform, &payload.event, &body);
            assert_eq!(raw, payload.events(), "{}: secrets change nothing", payload.name);
            assert!(!format!("{raw:?}").contains(CANARY), "{}", payload.name);
            let kept = platform.redact(&body);
            assert!(!String::from_utf8_lossy(&kept).contains(CANARY), "{}", payload.name);
            assert_eq!(crate::events(platform, &payload.event, &kept), raw, "{}: what is kept says the same", payload.name);
        }
        assert!(planted >= 30 || platform.secret_fields.is_empty(), "{}: {planted} secrets", platform.name);
    }
}

#[test]
fn a_payload_without_secrets_is_kept_as_it_came() {
    for payload in platforms().iter().flat_map(|platform| payloads(platform)) {
        let tree: Value = serde_json::from_slice(&payload.body).expect("JSON");
        let text = tree.to_string();
        let has_any = payload.platform.secret_fields.iter().any(|name| text.contains(&format!("\"{name}\":")));
        assert_eq!(*payload.platform.redact(&payload.body) == *payload.body, !has_any, "{}", payload.name);
    }
}

#[test]
fn no_proof_is_kept() {
    for platform in platforms() {
        let named = platform.event_header.iter().chain(platform.delivery_headers).copied();
        let proofs = platform.proofs.iter().map(Proof::header);
        let all = named.clone().chain(proofs).chain(["authorization", "cookie", "x-other"]);
        let headers: Headers = all.map(|name| (name.to_owned(), Bytes::from_static(b"value"))).collect();
        let kept = platform.kept_headers(&headers);
        let kept: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, named.collect::<Vec<_>>(), "{}", platform.name);
        assert!(platform.proofs.iter().all(|proof| !kept.contains(&proof.header())), "{}", platform.name);
        assert_eq!(platform.delivery_id(&headers), platform.delivery_headers.first().map(|_| "value"));
    }
}
