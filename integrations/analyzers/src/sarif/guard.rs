//! Counts what goes by: JSON whose texts are too long, that is too deep or too large goes no further.

use std::io::{self, BufRead, Read};

use crate::Limits;
use crate::error::{Error, Place};

/// Hands bytes on.
pub(crate) struct Guard<'i> {
    input: &'i mut dyn BufRead,
    limits: Limits,
    /// Bytes that were handed on.
    pub(crate) read: u64,
    line: u64,
    depth: usize,
    /// Bytes of the text that is open.
    text: Option<usize>,
    is_escaped: bool,
    /// Why nothing more is handed on.
    pub(crate) failed: Option<Error>,
}

impl<'i> Guard<'i> {
    pub(crate) fn new(input: &'i mut dyn BufRead, limits: Limits) -> Self {
        Self { input, limits, read: 0, line: 1, depth: 0, text: None, is_escaped: false, failed: None }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let too_large = |place, what, limit: usize| Err(Error::TooLarge { place, what, limit: limit as u64 });
        for byte in bytes {
            let place = Place { line: self.line, offset: self.read };
            self.read += 1;
            match (self.text, byte) {
                (Some(_), b'"') if !self.is_escaped => self.text = None,
                (Some(length), _) => {
                    self.is_escaped = *byte == b'\\' && !self.is_escaped;
                    self.text = Some(length + 1);
                    if length >= self.limits.piece_bytes {
                        return too_large(place, "a text is too long", self.limits.piece_bytes);
                    }
                }
                (None, b'"') => self.text = Some(0),
                (None, b'{' | b'[') => {
                    self.depth += 1;
                    if self.depth > self.limits.depth {
                        return too_large(place, "objects and lists lie too deep within each other", self.limits.depth);
                    }
                }
                (None, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                (None, b'\n') => self.line += 1,
                (None, _) => {}
            }
        }
        if self.read > self.limits.total_bytes {
            let place = Place { line: self.line, offset: self.read };
            return Err(Error::TooLarge { place, what: "it is too large", limit: self.limits.total_bytes });
        }
        Ok(())
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = || io::Error::from(io::ErrorKind::InvalidData);
        if self.failed.is_some() {
            return Err(failed());
        }
        let read = match self.input.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.failed = Some(error.into());
                return Err(failed());
            }
        };
        if let Err(error) = self.look(&buffer[..read]) {
            self.failed = Some(error);
            return Err(failed());
        }
        Ok(read)
    }
}
