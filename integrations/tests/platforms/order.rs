//! The order of deliveries, and how often each comes, change nothing.

use std::collections::{BTreeMap, BTreeSet};

use kiro_integrations::platforms;
use kiro_ports::Normaliser;
use kiro_schemas::Subject;
use proptest::prelude::*;

use crate::{Payload, headers, payloads};

/// The events by source and id: what the first delivery of each said of subject, attempt, step and time.
type Known = BTreeMap<(String, String), String>;

fn take(known: &mut Known, payload: &Payload, is_kept_form: bool) {
    let kept = payload.platform.redact(&payload.body);
    let body: &[u8] = if is_kept_form { &kept } else { &payload.body };
    let events = payload.platform.normalise(&headers(payload.platform, &payload.event), body).expect("a payload of its shape");
    for event in events {
        let fact = format!("{} {} {} {} {}", event.subject, event.subject_id, event.attempt, event.transition, event.time);
        let first = known.entry((event.source.into_owned(), event.id.into_owned())).or_insert_with(|| fact.clone());
        assert_eq!(*first, fact, "one id, two facts: {}", payload.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn shuffled_and_repeated_deliveries_give_the_same_events(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
        rotation in any::<prop::sample::Index>(),
    ) {
        let mut all: Vec<Payload> = platforms().iter().flat_map(|platform| payloads(platform)).collect();
        let mut straight = Known::new();
        for payload in &all {
            take(&mut straight, payload, false);
        }
        let mut shuffled = Known::new();
        for (pick, is_kept_form) in &picks {
            take(&mut shuffled, pick.get(&all), *is_kept_form);
        }
        let by = rotation.index(all.len());
        all.rotate_left(by);
        for payload in all.iter().rev() {
            take(&mut shuffled, payload, true);
        }
        prop_assert_eq!(straight, shuffled);
    }
}

/// Two facts of one delivery never have one id.
#[test]
fn facts_of_one_delivery_have_ids_of_their_own() {
    for payload in platforms().iter().flat_map(|platform| payloads(platform)) {
        let events = payload.events();
        let ids: BTreeSet<_> = events.iter().map(|event| (event.source.clone(), event.id.clone())).collect();
        assert_eq!(ids.len(), events.len(), "{}", payload.name);
    }
}

/// What pushes say of a commit has an id of its own on each branch, the default one too: the bare id was given by programs before this
/// one to whichever push came first, and what has that of another is left out as a repeat.
#[test]
fn a_commit_has_an_id_of_its_own_on_each_branch() {
    let (mut on_default, mut on_others) = (0, 0);
    for payload in platforms().iter().flat_map(|platform| payloads(platform)) {
        for mut event in payload.events() {
            if event.subject != Subject::Change || event.get("commit_sha").as_text() != Some(&*event.subject_id) {
                continue;
            }
            let (id, is_default) = (event.id.to_string(), !event.get("base_branch").is_null());
            event.derive_id();
            // By the order of ids what is said on another branch is the last word of where a commit comes from.
            let is_first = id < format!("{}/", event.id);
            assert!(id.len() > event.id.len() && id.starts_with(&*event.id) && is_first == is_default, "{id}");
            (on_default, on_others) = (on_default + i32::from(is_default), on_others + i32::from(!is_default));
        }
    }
    assert!(on_default > 5 && on_others > 5, "{on_default} on default branches, {on_others} on others");
}
