//! `kirolinter persons`: who is behind a pseudonym.

use anyhow::Result;
use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use crate::args::Format;
use crate::http::{Server, part};
use crate::print;

#[derive(Debug, Subcommand)]
pub(crate) enum PersonsCommand {
    /// Tell the pseudonym of a person, by which tables name them.
    Show {
        /// The name as events tell it, to the letter: a login, a name, a mail address.
        name: String,
    },
    /// Forget whose pseudonym it is: from then on nobody can tell, and the same name gets another one. It cannot be undone.
    Forget {
        /// The name as events tell it, to the letter; each name of a person is forgotten by itself.
        name: String,
    },
}

/// Runs a command.
pub(crate) async fn run(server: &Server, format: Format, command: PersonsCommand) -> Result<()> {
    let (method, name) = match &command {
        PersonsCommand::Show { name } => (Method::GET, name),
        PersonsCommand::Forget { name } => (Method::DELETE, name),
    };
    let request = server.request(method, &format!("/api/v1/persons/{}", part(name)));
    let answer: Value = server.send(request).await?.json().await?;
    if format != Format::Text {
        return print::json(&answer);
    }
    let pseudonym = answer["pseudonym"].as_str().unwrap_or_default();
    match command {
        PersonsCommand::Show { .. } => print::line(pseudonym),
        PersonsCommand::Forget { .. } => print::line(&format!("forgotten: nobody can tell any more who {pseudonym} is")),
    }
}
