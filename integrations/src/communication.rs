//! Other people's ears.

pub mod webhook;
