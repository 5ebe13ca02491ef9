//! Opsgenie's alerts.

use kiro_schemas::{Event, Micros, Subject, Transition};
use serde::Deserialize;

use crate::reading::{Text, list, note, note_all, set, set_time, tell_apart};

/// Where alerts are looked at; their ids are unique in all the world.
const SOURCE: &str = "https://app.opsgenie.com";

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Delivery<'a> {
    action: Text<'a>,
    alert: Told<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), rename_all = "camelCase")]
struct Told<'a> {
    alert_id: Text<'a>,
    message: Option<Text<'a>>,
    priority: Option<Text<'a>>,
    entity: Option<Text<'a>>,
    team: Option<Text<'a>>,
    #[serde(default, deserialize_with = "list")]
    tags: Vec<Text<'a>>,
    created_at: i64,
    updated_at: Option<i64>,
}

/// Opsgenie counts in milliseconds, and in nanoseconds at some places: the size tells.
fn time(count: i64) -> Micros {
    match count {
        100_000_000_000_000_000.. => Micros(count / 1_000),
        100_000_000_000_000.. => Micros(count),
        _ => Micros(count.saturating_mul(1_000)),
    }
}

pub(super) fn alert(payload: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    let Delivery { action, alert } = serde_json::from_slice(payload)?;
    let (created, updated) = (time(alert.created_at), time(alert.updated_at.unwrap_or(alert.created_at)));
    let (transition, at) = match &*action.0 {
        "Create" => (Transition::Detected, created),
        "Close" | "Delete" => (Transition::Resolved, updated),
        _ => (Transition::Updated, updated),
    };
    let mut said = Event::new(Subject::Incident, transition, SOURCE, alert.alert_id.0.clone(), at);
    if transition == Transition::Updated {
        tell_apart(&mut said, &action.0);
    }
    set_time(&mut said, "detected_at", Some(created));
    set_time(&mut said, "resolved_at", Some(at).filter(|_| transition == Transition::Resolved));
    set(&mut said, "title", alert.message);
    set(&mut said, "severity", alert.priority);
    set(&mut said, "service", alert.entity);
    set(&mut said, "url", Some(Text(format!("{SOURCE}/alert/detail/{}", alert.alert_id.0).into())));
    // A note or a tag does not change where the alert stands.
    let is_state = matches!(&*action.0, "Create" | "Acknowledge" | "UnAcknowledge" | "Close" | "Delete");
    set(&mut said, "status", Some(action).filter(|_| is_state));
    note(&mut said, "team", alert.team.map(|team| team.0));
    note_all(&mut said, "labels", alert.tags.iter());
    Ok(vec![said])
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_come_in_two_units() {
        assert_eq!(time(1_426_757_421_875).to_string(), "2015-03-19T09:30:21.875Z");
        assert_eq!(time(1_426_757_421_875).0, time(1_426_757_421_875_000_000).0);
        assert_eq!(time(1_426_757_421_875).0, time(1_426_757_421_875_000).0);
    }
}
