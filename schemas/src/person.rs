//! Persons: which texts of an event name them, and what stands in their place.
//!
//! The lake knows persons by pseudonyms alone. Columns that name one are marked in the specifications; of what is not modelled,
//! the name of the attribute tells.

use std::borrow::Cow;

use crate::{Event, Value};

/// What pseudonyms begin with.
const PREFIX: &str = "p-";
/// What follows.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const LENGTH: usize = 20;

/// Names of attributes that name persons, in lower case and without `_` and `-`, in order. Of a dotted name each part is looked
/// at, so that what is said below a person (`assignees.0`, `creator.email`) is about one, too.
const ATTRIBUTES: &[&str] = &[
    "acknowledgedby",
    "actor",
    "approvedby",
    "approver",
    "approvers",
    "assignee",
    "assignees",
    "author",
    "authoremail",
    "authorname",
    "authors",
    "closedby",
    "committer",
    "committeremail",
    "committername",
    "createdby",
    "creator",
    "deployedby",
    "email",
    "login",
    "mergedby",
    "openedby",
    "pushedby",
    "pusher",
    "reportedby",
    "reporter",
    "requestedby",
    "requester",
    "resolvedby",
    "reviewedby",
    "reviewer",
    "reviewers",
    "sender",
    "startedby",
    "triggeredby",
    "triggeringactor",
    "updatedby",
    "user",
    "useremail",
    "userid",
    "userlogin",
    "username",
];

/// Whether an attribute of this name names a person.
#[must_use]
pub fn is_person(attribute: &str) -> bool {
    attribute.split('.').any(|part| {
        let folded = part.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase());
        ATTRIBUTES.binary_search_by(|word| word.bytes().cmp(folded.clone())).is_ok()
    })
}

/// The pseudonym of 20 random bytes, of each of which five bits count.
#[must_use]
pub fn pseudonym(random: [u8; LENGTH]) -> String {
    let letters = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    PREFIX.chars().chain(letters).collect()
}

/// Whether a text has the form of a pseudonym: then it stays as it is, so that what comes back from a lake is not renamed again.
#[must_use]
pub fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == LENGTH && rest.bytes().all(|byte| ALPHABET.contains(&byte)))
}

/// Puts the pseudonym in the place of a name, if one is told.
fn rename<'a>(text: &mut Cow<'a, str>, id: &mut Cow<'a, str>, named: &mut impl FnMut(&str) -> Option<String>) {
    if text.is_empty() || is_pseudonym(text) {
        return;
    }
    let Some(pseudonym) = named(text) else { return };
    // Reviews have no ids of their own at some platforms: who reviewed tells them apart.
    if let Some(rest) = id.strip_suffix(&**text).filter(|rest| rest.ends_with('/')) {
        *id = Cow::Owned(format!("{rest}{pseudonym}"));
    }
    *text = Cow::Owned(pseudonym);
}

impl Event<'_> {
    /// Puts pseudonyms in the place of the names of persons, also at the end of the event's id; a name for which `named` tells none
    /// stays. What the product itself tells names no persons: its actors are its own tokens.
    pub fn rename_persons(&mut self, mut named: impl FnMut(&str) -> Option<String>) {
        if self.subject.is_ours() {
            return;
        }
        for (column, value) in self.spec().columns.iter().zip(&mut self.fields).filter(|(column, _)| column.is_person) {
            debug_assert!(!matches!(value, Value::Map(_)), "{} is no text", column.name);
            if let Value::Text(text) = value {
                rename(text, &mut self.id, &mut named);
            }
        }
        for (_, text) in self.attributes.iter_mut().filter(|(name, _)| is_person(name)) {
            rename(text, &mut self.id, &mut named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTRIBUTES, is_person, is_pseudonym, pseudonym};
    use crate::subject::SPECS;
    use crate::{Event, Kind, Micros, Subject, Transition, Value};

    #[test]
    fn the_words_are_found() {
        assert!(ATTRIBUTES.is_sorted(), "they are searched by halving");
        for name in ATTRIBUTES {
            assert!(is_person(name), "{name}");
        }
        for name in ["Acknowledged_By", "assignees.0", "ticket.assignees.12.url", "creator.email", "createdBy", "triggering-actor"] {
            assert!(is_person(name), "{name}");
        }
        for name in ["", ".", "team", "author_experience", "authority", "users", "owner", "title", "pushed_with", "head_source", "äctor"] {
            assert!(!is_person(name), "{name}");
        }
    }

    #[test]
    fn a_pseudonym_is_known_by_its_form() {
        let made = pseudonym(std::array::from_fn(|at| u8::try_from(at * 13).expect("small")));
        assert_eq!(made, "p-an2hubo3ivcp4jwdq5kx");
        assert!(is_pseudonym(&made));
        for text in
            ["", "p-", "ada", "p-an2hubo3ivcp4jwdq5k", "p-an2hubo3ivcp4jwdq5kx4", "p-AN2HUBO3IVCP4JWDQ5KX", "q-an2hubo3ivcp4jwdq5kx"]
        {
            assert!(!is_pseudonym(text), "{text}");
        }
    }

    #[test]
    fn columns_of_persons_are_texts_that_events_set_and_none_of_our_own() {
        let marked: Vec<String> = SPECS
            .iter()
            .flat_map(|spec| spec.columns.iter().filter(|c| c.is_person).map(move |c| (spec, c)))
            .map(|(spec, column)| {
                assert!(column.kind == Kind::Text && spec.field(column.name).is_some() && !spec.subject.is_ours(), "{}", column.name);
                format!("{}.{}", spec.table, column.name)
            })
            .collect();
        assert_eq!(marked, ["pipeline_runs.actor", "changes.author", "deployments.actor", "artifacts.actor"]);
        // Who adds a column that names somebody says here why that is no person: a token of ours, or a group.
        let names = |name: &str| is_person(name) || name == "owner";
        let others = SPECS.iter().flat_map(|spec| spec.columns.iter().filter(|c| !c.is_person && names(c.name)).map(move |c| (spec, c)));
        let others: Vec<String> = others.map(|(spec, column)| format!("{}.{}", spec.table, column.name)).collect();
        assert_eq!(others, ["sources.owner", "risk_assessments.actor", "gate_decisions.actor", "audit_log.actor"]);
    }

    #[test]
    fn names_are_replaced_wherever_they_stand() {
        let mut event = Event::new(Subject::Change, Transition::Reviewed, "https://git/acme", "7", Micros(1));
        event.id = "change/7/1/reviewed/approved/grace".into();
        event.set("author", Value::text("ada"));
        event.set("title", Value::text("by ada"));
        for (name, value) in [("reviewer", "grace"), ("assignees.0", ""), ("team", "ada"), ("creator", "p-an2hubo3ivcp4jwdq5kx")] {
            event.attributes.push((name.into(), value.into()));
        }
        let mut asked = Vec::new();
        event.rename_persons(|name| {
            asked.push(name.to_owned());
            (name == "grace").then(|| "p-grace".to_owned())
        });
        assert_eq!(asked, ["ada", "grace"], "what is empty or has the form of a pseudonym is nobody's name");
        assert_eq!((event.get("author").as_text(), &*event.id), (Some("ada"), "change/7/1/reviewed/approved/p-grace"));
        event.rename_persons(|name| Some(format!("p-{name}")));
        assert_eq!((event.get("author").as_text(), event.get("title").as_text()), (Some("p-ada"), Some("by ada")));
        let values: Vec<&str> = event.attributes.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, ["p-p-grace", "", "ada", "p-an2hubo3ivcp4jwdq5kx"]);

        let mut ours = Event::new(Subject::AuditEntry, Transition::Recorded, "urn:kirolinter", "1", Micros(1));
        ours.set("actor", Value::text("ada"));
        ours.attributes.push(("actor".into(), "ada".into()));
        ours.rename_persons(|_| panic!("an actor of ours is a token"));
    }
}
