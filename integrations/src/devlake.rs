//! DevLake: takes the bodies that are posted to its webhook plugin.

mod normalise;
mod webhook;

pub use webhook::PLATFORM;
