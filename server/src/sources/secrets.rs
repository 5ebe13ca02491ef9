//! Files of secrets: the only place where a secret of a source lies. What is made here can be read by the server's user alone.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use kiro_schemas::Secret;
use uuid::Uuid;

/// No secret or token is longer.
const MOST_BYTES: u64 = 64 << 10;

/// Reads a secret; the reason names the file and never what is in it.
pub(crate) fn read(file: &Path) -> Result<Secret, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let mut text = String::new();
    if !std::fs::metadata(file).map_err(cannot)?.is_file() {
        return Err(format!("{} is no file", file.display()));
    }
    let open = File::open(file).map_err(cannot)?;
    open.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(format!("{} has more than {MOST_BYTES} bytes: it is no secret", file.display()));
    }
    match text.trim() {
        "" => Err(format!("{} is empty: a secret is needed", file.display())),
        secret => Ok(Secret::new(secret)),
    }
}

/// A new secret.
fn generate() -> Secret {
    // Each has 122 random bits of the operating system.
    Secret::new(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
}

/// Makes a secret for a source and keeps it in a file of its own; the file's name within the folder, and the secret.
pub(crate) fn make(dir: &Path, source: &str) -> std::io::Result<(String, Secret)> {
    if !dir.is_dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let (name, secret) = (format!("{source}.{}.secret", Uuid::new_v4().simple()), generate());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(&name))?;
    file.write_all(secret.expose().as_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok((name, secret))
}

/// Deletes a file that was made here; those of others are left alone.
pub(crate) fn forget(dir: &Path, file: &str) {
    if !Path::new(file).is_absolute() {
        // A file that is left over holds a secret that nobody takes any more.
        drop(std::fs::remove_file(dir.join(file)));
    }
}
