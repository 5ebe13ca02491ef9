//! The settings of a session. One of them does something: `kirolinter.as_of`. Others are known because tools set and ask them; they
//! keep their value, which `SHOW` tells.

use kiro_schemas::Micros;
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::startup::Startup;

use super::fault;
use crate::tools::{self, AS_OF};

/// Settings that tools set and that have no value here.
const TAKEN: &[&str] = &[
    "client_min_messages",
    "jit",
    "geqo",
    "enable_seqscan",
    "bytea_output",
    "row_security",
    "synchronize_seqscans",
    "idle_session_timeout",
    "transaction_timeout",
    "xmloption",
    "default_transaction_deferrable",
    "session characteristics",
    "transaction",
    "names",
    "search_path",
];

/// The settings of one session.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// As of when it asks.
    as_of: Option<Micros>,
    /// What `RESET` goes back to: as the client said when it connected.
    first: Option<Micros>,
}

/// Where a setting is wrong: the character of the statement, from 1.
pub(super) type Place = Option<usize>;

impl Settings {
    /// The settings that a client connects with: its `options`, or the setting itself as a parameter of the start-up.
    pub(super) fn of(startup: &Startup) -> PgWireResult<Self> {
        let mut settings = Self::default();
        let options = startup.parameters.get("options").map(String::as_str).unwrap_or_default();
        let direct = startup.parameters.iter().filter(|(name, _)| name.to_lowercase().starts_with("kirolinter."));
        let direct = direct.map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in parse_options(options)?.into_iter().chain(direct) {
            settings.set(&name, Some(&value), None).map_err(fatal)?;
        }
        settings.first = settings.as_of;
        Ok(settings)
    }

    /// As of when the session asks; `None`: as it stands.
    pub(super) const fn as_of(&self) -> Option<Micros> {
        self.as_of
    }

    /// Sets a setting; without a value, back to what the client connected with.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>, place: Place) -> PgWireResult<()> {
        let name = name.to_lowercase();
        if name == AS_OF {
            self.as_of = match value {
                None => self.first,
                Some("") => None,
                Some(text) => Some(Micros::parse(text).ok_or_else(|| no_time(text, place))?),
            };
            return Ok(());
        }
        let is_known = TAKEN.contains(&name.as_str()) || tools::setting(&name, None).is_some();
        if is_known { Ok(()) } else { Err(placed(unknown(&name), place)) }
    }

    /// All settings as the client connected with.
    pub(super) fn reset(&mut self) {
        self.as_of = self.first;
    }

    /// The value of a setting.
    pub(super) fn show(&self, name: &str) -> PgWireResult<String> {
        tools::setting(name, self.as_of).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> PgWireError {
    fault::error("42704", format!("there is no setting {name:?}"))
}

fn no_time(text: &str, place: Place) -> PgWireError {
    let told = format!("{AS_OF}: {text:?} is no time with its zone, as 2026-01-31T09:40:00Z is");
    placed(fault::error("22023", told), place)
}

/// The error with the place that psql points at.
pub(super) fn placed(error: PgWireError, place: Place) -> PgWireError {
    match (error, place) {
        (PgWireError::UserError(mut info), Some(place)) => {
            info.position = Some(place.to_string());
            PgWireError::UserError(info)
        }
        (error, _) => error,
    }
}

/// A client that asks for what cannot be is not let in: it would take the answers for something else.
fn fatal(error: PgWireError) -> PgWireError {
    let mut info = ErrorInfo::from(error);
    "FATAL".clone_into(&mut info.severity);
    PgWireError::UserError(Box::new(info))
}

/// The settings in the start-up parameter `options`.
///
/// # Source
/// PostgreSQL 16, `pg_split_opts` and `process_postgres_switches`: `-c name=value`, `-cname=value` and `--name=value`, parted by
/// white space; a backslash takes the next character as it is; in `--name` a dash stands for an underscore.
pub(super) fn parse_options(text: &str) -> PgWireResult<Vec<(String, String)>> {
    let mut words = split(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let (pair, is_long) = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(pair), _) => (Some(pair.to_owned()), true),
            (None, Some("")) => (words.next(), false),
            (None, Some(pair)) => (Some(pair.to_owned()), false),
            (None, None) => (None, false),
        };
        let pair = pair.as_deref().and_then(|pair| pair.split_once('='));
        let (name, value) = pair.ok_or_else(|| fault::fatal("42601", format!("options: {word:?} is not -c name=value")))?;
        let name = if is_long { name.replace('-', "_") } else { name.to_owned() };
        settings.push((name, value.to_owned()));
    }
    Ok(settings)
}

fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut is_open) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => {
                if std::mem::take(&mut is_open) {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            '\\' => word.extend(chars.next()),
            other => word.push(other),
        }
        is_open = true;
    }
    if is_open {
        words.push(word);
    }
    words
}
