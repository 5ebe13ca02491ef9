//! The product end to end: the real `kirolinterd` and `kirolinter` as processes, on directories and ports of their own.

mod bad_input;
mod doors;
mod gates;
mod history;
mod kill_nine;
mod restart;
mod server;
