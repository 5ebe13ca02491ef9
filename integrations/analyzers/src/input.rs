//! Bytes as they come: the beginning is looked at, the rest is handed on in pieces.

use std::io::{self, BufRead, BufReader, Chain, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;
use memchr::memmem;

use crate::error::{Error, Place, Result};
use crate::xml::{Handler, Tokenizer};
use crate::{Limits, text};

/// Bytes that tell format and encoding.
const HEAD: usize = 8 << 10;

/// How the bytes of a document stand for characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    /// Each byte is the character of its number.
    Latin1,
}

/// The first bytes, without a mark of UTF-8.
pub(crate) fn head(input: &mut dyn BufRead) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(HEAD as u64).read_to_end(&mut head)?;
    if head.starts_with(b"\xEF\xBB\xBF") {
        head.drain(..3);
    }
    Ok(head)
}

/// All bytes again.
pub(crate) fn restored<'i>(head: &'i [u8], input: &'i mut dyn BufRead) -> Chain<Cursor<&'i [u8]>, &'i mut dyn BufRead> {
    Read::chain(Cursor::new(head), input)
}

/// Whether bytes are packed by gzip. None of the formats begins like that.
///
/// # Source
/// RFC 1952, 2.3.1: `ID1` and `ID2`, then the only method, `deflate`.
pub(crate) fn is_packed(head: &[u8]) -> bool {
    head.starts_with(b"\x1F\x8B\x08")
}

/// The bytes that were packed. Limits are of these, so that little that becomes much is refused as much is; and of the packed
/// ones, so that much that becomes nothing is, too.
pub(crate) fn unpacked(packed: impl BufRead, limits: Limits) -> impl BufRead {
    let limit = limits.total_bytes;
    BufReader::with_capacity(HEAD, MultiGzDecoder::new(Bounded { input: packed, left: limit, limit }))
}

/// Hands on no more bytes than a limit: one more is an error.
struct Bounded<R> {
    input: R,
    left: u64,
    limit: u64,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let piece = self.input.fill_buf()?;
        if self.left == 0 && !piece.is_empty() {
            let place = Place { offset: self.limit, ..Place::START };
            return Err(io::Error::other(Error::TooLarge { place, what: "it is too large, packed as it is", limit: self.limit }));
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(piece.get(..room).unwrap_or(piece))
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount as u64);
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The encoding that the declaration of an XML document names.
pub(crate) fn encoding(head: &[u8]) -> Result<Encoding> {
    let refused = |what: String| Err(Error::Broken { place: Place::START, what });
    if head.starts_with(b"\xFF\xFE") || head.starts_with(b"\xFE\xFF") {
        return refused("it is UTF-16; only UTF-8 and ISO-8859-1 are read".to_owned());
    }
    let declaration = head.strip_prefix(b"<?xml").and_then(|rest| rest.get(..memmem::find(rest, b"?>")?)).unwrap_or_default();
    let Some(at) = memmem::find(declaration, b"encoding") else { return Ok(Encoding::Utf8) };
    let mut quoted = declaration[at..].split(|b| matches!(b, b'"' | b'\''));
    let name = text::decode(quoted.nth(1).unwrap_or_default()).to_ascii_lowercase();
    match name.as_str() {
        "utf-8" | "utf8" | "us-ascii" | "ascii" => Ok(Encoding::Utf8),
        "iso-8859-1" | "latin1" | "windows-1252" | "cp1252" => Ok(Encoding::Latin1),
        _ => refused(format!("its encoding is {:?}; only UTF-8 and ISO-8859-1 are read", text::clip(&name, 40))),
    }
}

/// Hands on pieces until they end, or something is wrong.
pub(crate) fn pieces(input: &mut dyn BufRead, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    loop {
        let piece = match input.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let length = piece.len();
        if length == 0 {
            return Ok(());
        }
        take(piece)?;
        input.consume(length);
    }
}

/// Reads an XML document.
pub(crate) fn elements(input: &mut dyn BufRead, encoding: Encoding, limits: Limits, handler: &mut impl Handler) -> Result<()> {
    let (mut tokenizer, mut wide) = (Tokenizer::new(limits), String::new());
    pieces(input, |piece| {
        if encoding == Encoding::Utf8 {
            return tokenizer.feed(piece, handler);
        }
        wide.clear();
        wide.extend(piece.iter().map(|byte| char::from(*byte)));
        tokenizer.feed(wide.as_bytes(), handler)
    })?;
    tokenizer.finish()
}

#[cfg(test)]
mod tests {
    use super::{Encoding, encoding, head};

    #[test]
    fn encodings_are_those_of_the_declaration() {
        for (head, told) in [
            (&b"<a/>"[..], Ok(Encoding::Utf8)),
            (b"<?xml version=\"1.0\"?><a encoding='x'/>", Ok(Encoding::Utf8)),
            (b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>", Ok(Encoding::Utf8)),
            (b"<?xml version='1.0' encoding = 'iso-8859-1' ?>", Ok(Encoding::Latin1)),
            (
                b"<?xml version='1.0' encoding='EBCDIC'?>",
                Err("cannot read the report at line 1, byte 0: its encoding is \"ebcdic\"; only UTF-8 and ISO-8859-1 are read"),
            ),
            (b"\xFF\xFE<\0a\0", Err("cannot read the report at line 1, byte 0: it is UTF-16; only UTF-8 and ISO-8859-1 are read")),
        ] {
            let found = encoding(head).map_err(|error| error.to_string());
            assert_eq!(found.as_ref().map_err(String::as_str), told.as_ref().map_err(|text| *text));
        }
        let mut marked = &b"\xEF\xBB\xBF{}"[..];
        assert_eq!(head(&mut marked).expect("a head"), b"{}");
    }
}
