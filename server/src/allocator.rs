//! What the C library's allocator is told, so that memory that was freed can be used again.
//!
//! Rows are made by one thread and dropped by another. Left alone, glibc gives each thread an arena of its own (eight a core),
//! and what is free in one is of no use to the others: before a slow store a backlog of 400 MiB took 610 MiB, and more with
//! each minute; with an arena a core it takes 330. The allocator reads its settings before `main`, and the safe way to set
//! them is to begin anew: the same process, with the same arguments.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::environment;

/// What is free at the end of the heap goes back to the system beyond this. That it is said also keeps large blocks apart
/// from the heap, however many of them there are.
const TRIM_BYTES: usize = 4 << 20;

/// Begins anew with the settings, unless they are there; goes on without them where that is not possible.
pub(crate) fn settle() {
    if environment::has_arenas() {
        return;
    }
    let arenas = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = Command::new(program);
    again.args(std::env::args_os().skip(1)).env("MALLOC_ARENA_MAX", arenas.to_string());
    let error = again.env("MALLOC_TRIM_THRESHOLD_", TRIM_BYTES.to_string()).exec();
    // Where it returns it has not begun anew. Nothing is set up yet that could be told.
    drop(error);
}
