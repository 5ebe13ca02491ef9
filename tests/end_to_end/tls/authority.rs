//! An authority of the test, and the certificates that it gives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// An authority in a folder: `NAME.pem` is its own certificate.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: PathBuf,
    name: &'static str,
}

impl Authority {
    pub(crate) fn new(dir: &Path, name: &'static str) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let authority = Self { dir: dir.to_owned(), name };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ])?;
        Ok(authority)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(self.name).with_extension("pem")
    }

    /// A certificate for this machine, for so many days, with its key.
    pub(crate) fn certify(&self, name: &str, days: i32) -> Result<Pair> {
        let pair = Pair { certificate: self.dir.join(name).with_extension("pem"), key: self.dir.join(name).with_extension("key") };
        let (request, extensions) = (format!("{name}.csr"), format!("{name}.ext"));
        std::fs::write(self.dir.join(&extensions), "subjectAltName=DNS:localhost,IP:127.0.0.1")?;
        self.openssl(&["req", "-subj", "/CN=localhost", "-keyout", &format!("{name}.key"), "-out", &request])?;
        let (certificate, key, days) = (format!("{}.pem", self.name), format!("{}.key", self.name), days.to_string());
        let signing = ["x509", "-req", "-in", &request, "-CA", &certificate, "-CAkey", &key, "-CAcreateserial", "-days", &days];
        self.openssl(&[&signing[..], &["-extfile", &extensions, "-out", &format!("{name}.pem")]].concat())?;
        Ok(pair)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("openssl");
        command.current_dir(&self.dir).args(arguments);
        if arguments.first() == Some(&"req") {
            command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        }
        ensure!(command.stderr(Stdio::null()).status().context("openssl is not installed")?.success(), "openssl {arguments:?} failed");
        Ok(())
    }
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// The number by which its authority knows the certificate.
    pub(crate) fn serial(&self) -> Result<String> {
        let output = Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(&self.certificate).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Puts copies in the place of other files, each at once.
    pub(crate) fn install(&self, place: &Self) -> Result<()> {
        for (from, to) in [(&self.certificate, &place.certificate), (&self.key, &place.key)] {
            let fresh = to.with_extension("new");
            std::fs::copy(from, &fresh)?;
            std::fs::rename(fresh, to)?;
        }
        Ok(())
    }

    /// `tls:` of a door in `kirolinter.yaml`.
    pub(crate) fn yaml(&self) -> String {
        format!("tls: {{certificate_file: {}, key_file: {}}}", self.certificate.display(), self.key.display())
    }
}
