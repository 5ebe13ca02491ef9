//! A folder that one process owns: its lock and its format.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

const FORMAT: u32 = 1;

/// The lock of a folder, held while this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the folder for this process, creating it, and makes sure that its format is known.
pub(crate) fn take(folder: &Path) -> Result<Lock> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = folder.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    if !check_format(folder)? {
        write_format(folder)?;
    }
    sync_folder(folder)?;
    Ok(Lock { _file: file })
}

/// Whether a folder tells a format, and that it is one that this program knows. Nothing is changed.
///
/// # Errors
/// [`Error::Format`] when a newer version wrote it, and what the disk says.
pub fn check_format(folder: &Path) -> Result<bool> {
    let path = folder.join("FORMAT");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<u32>().is_ok_and(|found| (1..=FORMAT).contains(&found)) => Ok(true),
        Ok(text) => Err(Error::Format { path: folder.to_owned(), found: text.trim().chars().take(40).collect(), known: FORMAT }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io { path, source }),
    }
}

fn write_format(folder: &Path) -> Result<()> {
    let (fresh, path) = (folder.join("FORMAT.new"), folder.join("FORMAT"));
    let mut file = File::create(&fresh).map_err(Error::io(&fresh))?;
    file.write_all(format!("{FORMAT}\n").as_bytes()).map_err(Error::io(&fresh))?;
    file.sync_all().map_err(Error::io(&fresh))?;
    std::fs::rename(&fresh, &path).map_err(Error::io(&path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder))
}
