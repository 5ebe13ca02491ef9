//! The folder of the embedded log: its lock, its format and its topics.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::topic::Topic;
use crate::error::{Error, Result};

const FORMAT: u32 = 1;

/// The lock of a folder, held while this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the folder for this process and makes sure that its format is known.
pub(super) fn take(folder: &Path) -> Result<Lock> {
    std::fs::create_dir_all(folder.join("topics")).map_err(Error::io(folder))?;
    let path = folder.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    check_format(folder)?;
    sync_folder(folder)?;
    Ok(Lock { _file: file })
}

fn check_format(folder: &Path) -> Result<()> {
    let path = folder.join("FORMAT");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<u32>().is_ok_and(|found| (1..=FORMAT).contains(&found)) => Ok(()),
        Ok(text) => Err(Error::Format { path: folder.to_owned(), found: text.trim().chars().take(40).collect(), known: FORMAT }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = folder.join("FORMAT.new");
            let mut file = File::create(&fresh).map_err(Error::io(&fresh))?;
            file.write_all(format!("{FORMAT}\n").as_bytes()).map_err(Error::io(&fresh))?;
            file.sync_all().map_err(Error::io(&fresh))?;
            std::fs::rename(&fresh, &path).map_err(Error::io(&path))
        }
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// Opens all topics of the folder, to be written to or only to be looked at.
pub(super) fn topics(folder: &Path, is_written: bool) -> Result<BTreeMap<Arc<str>, Arc<Topic>>> {
    let folder = folder.join("topics");
    let mut topics = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
        let name = entry.map_err(Error::io(&folder))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(topic) = Topic::open(&folder, name, is_written)? {
            topics.insert(Arc::clone(&topic.name), Arc::new(topic));
        }
    }
    Ok(topics)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder))
}
