//! Quarantine files: the bytes of dead letters, by their digest, durable before their row is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A folder of quarantine files.
#[derive(Debug, Clone)]
pub(super) struct Quarantine {
    folder: PathBuf,
}

impl Quarantine {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The name of the bytes.
    pub(super) fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    /// Writes bytes under their digest; file and folder are synced when this returns.
    pub(super) fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let target = self.folder.join(digest);
        if fs::metadata(&target).is_ok_and(|m| usize::try_from(m.len()).is_ok_and(|len| len == bytes.len())) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let draft = self.folder.join(format!("{digest}.part"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &target)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::Quarantine;

    #[test]
    fn bytes_lie_under_their_digest_and_a_torn_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let quarantine = Quarantine::new(&folder.path().join("quarantine"));
        let digest = Quarantine::digest(b"poison");
        assert_eq!(digest.len(), 64);
        quarantine.keep(&digest, b"poison").expect("written");
        quarantine.keep(&digest, b"poison").expect("again");
        let file = folder.path().join("quarantine").join(&digest);
        std::fs::write(&file, b"poi").expect("torn");
        quarantine.keep(&digest, b"poison").expect("replaced");
        assert_eq!(std::fs::read(file).expect("read"), b"poison");
    }
}
