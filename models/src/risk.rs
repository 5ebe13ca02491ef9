//! The judged model as it is stored and served.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::baseline::Rules;
use crate::evaluate::{EvaluationConfig, evaluate};
use crate::judge::{Judgement, Served, judge};
use crate::model::Model;
use crate::{Error, Example, Result, TrainConfig, train};

/// The version of the file format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What is stored of a model; its hash is its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) model: Option<Model>,
    pub(crate) rules: Rules,
    pub(crate) judgement: Judgement,
}

/// A model that was judged: knows what it may serve, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct RiskModel {
    pub(crate) body: Body,
    version: String,
    text: String,
}

impl Body {
    /// A hash proves who wrote it, not that this program can use it.
    fn check(&self) -> Result<()> {
        self.rules.check()?;
        if self.judgement.evaluation.bins.iter().any(|(runs, failures)| failures > runs) {
            return Err(Error::Odd("more failures than runs"));
        }
        match (&self.model, self.judgement.served) {
            (Some(model), _) => model.check(),
            (None, Served::Logistic) => Err(Error::Odd("it serves a model that it does not hold")),
            (None, _) => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct File<'a> {
    format_version: u32,
    version: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    format_version: u32,
}

impl RiskModel {
    /// Trains, evaluates and judges, on examples in time order. Works from no example on: then it serves the base rate.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Write`].
    pub fn fit(examples: &[Example], config: &EvaluationConfig) -> Result<Self> {
        let evaluation = evaluate(examples, config)?;
        let rules = Rules::learn(&examples.iter().collect::<Vec<_>>(), &config.train);
        let model = trained(examples, &config.train)?;
        let judgement = judge(evaluation, rules.change_size.is_some());
        Self::from_body(Body { model, rules, judgement })
    }

    fn from_body(body: Body) -> Result<Self> {
        let text = serde_json::to_string(&body).map_err(Error::Write)?;
        Ok(Self { version: hash(&text), text, body })
    }

    /// Its version: the SHA-256 of its content, hexadecimal.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What is served, and why.
    #[must_use]
    pub const fn judgement(&self) -> &Judgement {
        &self.body.judgement
    }

    /// What is served.
    #[must_use]
    pub const fn served(&self) -> Served {
        self.body.judgement.served
    }

    /// The file to store.
    ///
    /// # Errors
    /// [`Error::Write`], in practice never.
    pub fn to_json(&self) -> Result<String> {
        let body = RawValue::from_string(self.text.clone()).map_err(Error::Write)?;
        serde_json::to_string(&File { format_version: FORMAT_VERSION, version: &self.version, body: &body }).map_err(Error::Write)
    }

    /// Reads a stored file.
    ///
    /// # Errors
    /// [`Error::Newer`] when a later program wrote it, [`Error::Hash`] when it was changed, [`Error::Odd`] when what it says
    /// cannot answer a question, [`Error::Json`] otherwise.
    pub fn from_json(text: &str) -> Result<Self> {
        let head: Head = serde_json::from_str(text).map_err(Error::Json)?;
        if head.format_version > FORMAT_VERSION {
            return Err(Error::Newer { found: head.format_version, known: FORMAT_VERSION });
        }
        let file: File<'_> = serde_json::from_str(text).map_err(Error::Json)?;
        let found = hash(file.body.get());
        if found != file.version {
            return Err(Error::Hash { version: file.version.to_owned(), found });
        }
        let body: Body = serde_json::from_str(file.body.get()).map_err(Error::Json)?;
        body.check()?;
        Ok(Self { body, version: found, text: file.body.get().to_owned() })
    }
}

fn trained(examples: &[Example], config: &TrainConfig) -> Result<Option<Model>> {
    match train(examples, config) {
        Ok(model) => Ok(Some(model)),
        Err(Error::OneClass { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}
