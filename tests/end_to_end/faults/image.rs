//! A disk of a test: an ext4 file system in a file, mounted; a copy of the file is what a power cut would leave.
//!
//! The copy holds what the file system wrote to its device, and nothing of what only lies in memory. It stands for a disk
//! that keeps what it was given; one that loses its own cache is not tried.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::server::Answer;

const BLOCK: usize = 1 << 20;
/// Copies until two are the same, that is, until nothing was written while one was made.
const MOST_COPIES: usize = 50;

/// Runs a program of the system, which must end well.
fn must(program: &str, arguments: &[&str]) -> Result<()> {
    let answer = Answer::of(Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?)?;
    ensure!(answer.code == Some(0), "{program} {arguments:?} needs root and loop devices: {answer:?}");
    Ok(())
}

/// Where files lie in memory.
pub(super) fn in_memory(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    folder.join(format!("kirolinter-{}-{name}", std::process::id()))
}

/// A mounted disk; taken apart with what holds it.
#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    at: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes an empty one of so many MiB, and mounts it at a directory.
    pub(super) fn make(image: PathBuf, mib: u64, at: &Path) -> Result<Self> {
        std::fs::File::create(&image)?.set_len(mib << 20)?;
        let mut disk = Self { image, at: at.to_owned(), is_mounted: false };
        // Nothing is left to be set up later by the kernel, of which a copy might get a half.
        must("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &disk.image.display().to_string()])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts what a copy holds, after the file system was checked and its journal played back.
    pub(super) fn open(image: PathBuf, at: &Path) -> Result<Self> {
        let mut disk = Self { image, at: at.to_owned(), is_mounted: false };
        disk.check()?;
        disk.mount()?;
        Ok(disk)
    }

    /// Checks the file system while it is not mounted; an error that only a broken one has is one.
    pub(super) fn check(&self) -> Result<()> {
        let checked = Answer::of(Command::new("e2fsck").arg("-fy").arg(&self.image).output()?)?;
        ensure!(matches!(checked.code, Some(0 | 1)), "the file system is broken: {checked:?}");
        Ok(())
    }

    pub(super) fn mount(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.at)?;
        must("mount", &["-o", "loop", &self.image.display().to_string(), &self.at.display().to_string()])?;
        self.is_mounted = true;
        Ok(())
    }

    pub(super) fn unmount(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_mounted) {
            must("umount", &[&self.at.display().to_string()])?;
        }
        Ok(())
    }

    /// Copies what is on the device at one instant.
    pub(super) fn copy_to(&self, to: &Path) -> Result<()> {
        let mut last = std::fs::read(&self.image)?;
        for _ in 0..MOST_COPIES {
            let next = std::fs::read(&self.image)?;
            if next == last {
                return write_sparse(to, &next);
            }
            last = next;
        }
        anyhow::bail!("the disk is written without a pause")
    }

    /// Takes all the room that there is; what takes it, to be removed again.
    pub(super) fn fill(&self) -> Result<PathBuf> {
        fill(&self.at)
    }
}

/// Takes all the room of a directory.
pub(super) fn fill(dir: &Path) -> Result<PathBuf> {
    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler)?;
    for size in [BLOCK, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    Ok(filler)
}

fn write_sparse(to: &Path, bytes: &[u8]) -> Result<()> {
    let file = std::fs::File::create(to)?;
    file.set_len(bytes.len() as u64)?;
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (number * BLOCK) as u64)?;
        }
    }
    Ok(())
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted && Command::new("umount").arg("-l").arg(&self.at).status().is_ok_and(|status| !status.success()) {
            eprintln!("{} is still mounted", self.at.display());
        }
        if let Err(error) = std::fs::remove_file(&self.image) {
            eprintln!("{} was not removed: {error}", self.image.display());
        }
    }
}
