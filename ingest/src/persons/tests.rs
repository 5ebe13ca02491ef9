use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiro_ports::{Persons, PortError};
use kiro_schemas::{Event, FaultKind, Micros, Subject, Tenant, Transition, Value};

use super::{MOST_BYTES, Pseudonyms};

/// Names everybody by tenant and name, and remembers what it was asked.
#[derive(Debug, Default)]
struct Plain {
    asked: Mutex<Vec<(String, Vec<String>)>>,
    fails: Mutex<bool>,
}

#[async_trait]
impl Persons for Plain {
    async fn pseudonyms(&self, tenant: &Tenant, names: &[String], _now: Micros) -> Result<Vec<String>, PortError> {
        if std::mem::take(&mut *self.fails.lock().expect("not poisoned")) {
            return Err(PortError { what: "no store".to_owned(), kind: FaultKind::Unavailable, code: "KIR-0000", source: None });
        }
        self.asked.lock().expect("not poisoned").push((tenant.to_string(), names.to_vec()));
        Ok(names.iter().map(|name| format!("<{tenant}/{}>", name.get(..8).unwrap_or(name))).collect())
    }

    async fn pseudonym(&self, _tenant: &Tenant, _name: &str) -> Result<Option<String>, PortError> {
        Ok(None)
    }

    async fn forget(&self, _tenant: &Tenant, _name: &str, _now: Micros) -> Result<Option<String>, PortError> {
        Ok(None)
    }

    async fn forgotten(&self) -> Result<i64, PortError> {
        Ok(0)
    }
}

fn run(actor: &str) -> Event<'static> {
    let mut event = Event::new(Subject::PipelineRun, Transition::Started, "https://ci/a", "1", Micros(1));
    event.set("actor", Value::text(actor.to_owned()));
    event
}

fn actors(events: &[Event<'_>]) -> Vec<String> {
    events.iter().map(|event| event.get("actor").as_text().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn each_name_is_asked_for_once_and_all_together() {
    let plain = Arc::new(Plain::default());
    let mut persons = Pseudonyms::new(plain.clone());
    let (ours, theirs) = (Tenant::default(), Tenant::new("others"));
    let mut events = vec![run("ada"), run("grace"), run("ada"), run("")];
    let mut others = vec![run("ada")];
    assert!(!persons.rename(&ours, &mut events) && !persons.rename(&theirs, &mut others));
    assert_eq!(actors(&events), ["ada", "grace", "ada", ""], "nobody is known");
    *plain.fails.lock().expect("not poisoned") = true;
    persons.ask(Micros(1)).await.expect_err("the store is away");
    persons.ask(Micros(2)).await.expect("the store is back");
    assert!(persons.rename(&ours, &mut events) && persons.rename(&theirs, &mut others));
    assert_eq!(actors(&events), ["<default/ada>", "<default/grace>", "<default/ada>", ""]);
    assert_eq!(actors(&others), ["<others/ada>"], "a name of another tenant is another person");
    let mut more = vec![run("grace")];
    assert!(persons.rename(&ours, &mut more), "she is known");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let asked = plain.asked.lock().expect("not poisoned").clone();
    assert_eq!(asked, [("default".to_owned(), names(&["ada", "grace"])), ("others".to_owned(), names(&["ada"]))]);
    persons.forget();
    assert!(!persons.rename(&ours, &mut [run("grace")]), "nobody is known any more");
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let mut persons = Pseudonyms::new(Arc::new(Plain::default()));
    let tenant = Tenant::default();
    let name = |at: usize| format!("{at:08}{}", "x".repeat(60_000));
    for at in 0..300 {
        let mut events = [run(&name(at))];
        persons.rename_all(&tenant, &mut events, Micros(1)).await.expect("named");
        assert_eq!(actors(&events), [format!("<default/{at:08}>")]);
        assert!(persons.bytes < MOST_BYTES + 100_000, "{} bytes", persons.bytes);
    }
    assert!(!persons.rename(&tenant, &mut [run(&name(0))]), "the first was forgotten");
    assert!(persons.rename(&tenant, &mut [run(&name(299))]), "the last was not");
}
