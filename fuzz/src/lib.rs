//! What every parser of outside bytes keeps, whatever the bytes.
//!
//! Must not know: how a parser works inside. A function panics when its parser breaks its word; `fuzz_targets` hands it
//! to libFuzzer, the tests of the product hand it the files below `corpus`, and mutations of them.
//!
//! Entry points: [`parsers`] (parsers that are public), [`own`] (parsers of a file that no other crate sees).

pub mod own;
pub mod parsers;
