//! Quarantine files: the bytes of dead letters, by their digest, durable before their row is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Files that are written at once.
const AT_ONCE: usize = 16;

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

    /// Writes bytes under their digests; files and folder are synced when this returns. Several at a time: what takes
    /// long is to wait for the disk.
    pub(super) fn keep(&self, letters: &[(String, Bytes)]) -> io::Result<()> {
        let mut missing: BTreeMap<&str, &Bytes> = letters.iter().map(|(digest, bytes)| (digest.as_str(), bytes)).collect();
        missing.retain(|digest, bytes| !self.is_kept(digest, bytes));
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let missing: Vec<_> = missing.into_iter().collect();
        let write = |part: &[(&str, &Bytes)]| part.iter().try_for_each(|(digest, bytes)| self.write(digest, bytes));
        std::thread::scope(|scope| {
            let parts = missing.chunks(missing.len().div_ceil(AT_ONCE));
            let writers: Vec<_> = parts.map(|part| scope.spawn(move || write(part))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_panic| Err(io::Error::other("a writer broke"))))
        })?;
        File::open(&self.folder)?.sync_all()
    }

    fn is_kept(&self, digest: &str, bytes: &[u8]) -> bool {
        fs::metadata(self.folder.join(digest)).is_ok_and(|m| usize::try_from(m.len()).is_ok_and(|len| len == bytes.len()))
    }

    fn write(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.folder.join(format!("{digest}.part"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.folder.join(digest))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Quarantine;

    #[test]
    fn bytes_lie_under_their_digest_and_a_torn_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let quarantine = Quarantine::new(&folder.path().join("quarantine"));
        let digest = Quarantine::digest(b"poison");
        assert_eq!(digest.len(), 64);
        let letter = |bytes: &'static [u8]| (Quarantine::digest(bytes), Bytes::from_static(bytes));
        let letters = [letter(b"poison"), letter(b""), letter(b"poison"), letter(b"more")];
        quarantine.keep(&letters).expect("written");
        quarantine.keep(&letters).expect("again");
        let file = folder.path().join("quarantine").join(&digest);
        std::fs::write(&file, b"poi").expect("torn");
        quarantine.keep(&letters).expect("replaced");
        assert_eq!(std::fs::read(file).expect("read"), b"poison");
        assert_eq!(std::fs::read_dir(folder.path().join("quarantine")).expect("a folder").count(), 3);
    }
}
