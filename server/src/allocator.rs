//! The allocator of the program.
//!
//! Rows are made by one thread and dropped by another, all the time. With glibc's allocator that was either memory that nobody could use
//! again (an arena a thread) or threads that waited for each other (an arena a core, trimmed): a year of history beside what happens
//! now then took 1.6 times as long. How jemalloc is set (`.cargo/config.toml`) keeps a backlog before a slow store within bounds:
//! few arenas, and pages that go back soon. `_RJEM_MALLOC_CONF` says otherwise.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
