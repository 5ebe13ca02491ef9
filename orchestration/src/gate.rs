//! Gates: their file, what they need, what they decide.

pub(crate) mod condition;
pub(crate) mod decide;
pub(crate) mod file;
mod node;
pub(crate) mod plan;
mod read;
mod sql;

#[cfg(test)]
mod keptn;
#[cfg(test)]
mod tests;
